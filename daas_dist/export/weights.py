"""`--to safetensors`: the weights, and in the file's header what a program needs to use them."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import safetensors.torch

from daas_dist.export.subject import Subject
from daas_dist.results.trained import Trained


def file(subject: Subject, trained: Trained) -> bytes:
    """The whole state dict, the auxiliary tower's too, as the file weights.safetensors."""
    described = {"format": "pt", **as_json(metadata(subject, trained))}
    return _in_order(safetensors.torch.save(trained.weights(), metadata=described))


def _in_order(file: bytes) -> bytes:
    """The same file, its header's entries sorted: safetensors writes them in an order that changes
    from run to run, and what is exported twice should be the same."""
    start = 8 + int.from_bytes(file[:8], "little")
    header = json.dumps(json.loads(file[8:start]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # the numbers start at a multiple of 8
    return len(header).to_bytes(8, "little") + header + file[start:]


def metadata(subject: Subject, trained: Trained) -> dict[str, Any]:
    """Return what the network is and what it takes, in plain values."""
    return {
        "network": asdict(trained.document.network),
        "input": "float32 [N, *shape], (pixel / 255 - mean) / std a channel",
        "output": "logits [N, classes], before softmax",
        "shape": trained.expected.shape,
        "mean": trained.expected.mean,
        "std": trained.expected.std,
        "shorter_side_before_central_crop": trained.expected.shorter,
        "bits_of_pictures_of_more_than_8": trained.expected.bits,
        "classes": trained.classes,
        "origin": subject.origin,
    }


def as_json(values: Mapping[str, Any]) -> dict[str, str]:
    """Each value as JSON, for headers that hold texts alone."""
    return {name: json.dumps(value) for name, value in values.items()}
