"""`--to safetensors`: the weights, and in the file's header what a program needs to use them."""

import json
from collections.abc import Mapping
from typing import Any

import safetensors.torch

from daas_dist.export.subject import Subject
from daas_dist.trained import Trained


def file(subject: Subject, trained: Trained) -> bytes:
    """The whole state dict, the auxiliary tower's too, as the file weights.safetensors."""
    return safetensors.torch.save(trained.weights(), metadata=_texts(metadata(subject, trained)))


def metadata(subject: Subject, trained: Trained) -> dict[str, Any]:
    """What the network is and what it takes, in plain values."""
    return {
        "network": trained.document["network"],
        "input": "float32 [N, *shape], (pixel / 255 - mean) / std a channel",
        "output": "logits [N, classes], before softmax",
        "shape": trained.expected.shape,
        "mean": trained.expected.mean,
        "std": trained.expected.std,
        "shorter_side_before_central_crop": trained.expected.shorter,
        "classes": trained.classes,
        "origin": subject.origin,
    }


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    """A header holds texts alone, so each value is JSON."""
    return {"format": "pt", **as_json(values)}


def as_json(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: json.dumps(value) for name, value in values.items()}
