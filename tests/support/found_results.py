"""A search's result.json without a search: DARTS_V2, and a policy of which no number is special."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from daas_dist.spaces import operations as augment
from daas_dist.spaces.cells import DARTS_V2, Genotype
from daas_dist.spaces.policy import Policy


def mixed_policy() -> Policy:
    """Two slots, every operation: probabilities away from uniform, applications from 0 and 1."""
    shape = 2, len(augment.NAMES)
    weight_KO = torch.arange(1.0, 2 * len(augment.NAMES) + 1).view(shape)
    return Policy(
        probability_KO=weight_KO / weight_KO.sum(-1, keepdim=True),
        application=torch.linspace(0.3, 0.9, weight_KO.numel()).view(shape),
        magnitude=torch.arange(weight_KO.numel()).view(shape) % 10,
        parameters="per_slot",
        ranges="autoaugment",
    )


def plain(found: Genotype | Policy) -> dict[str, Any]:
    """As it stands in a result.json, read back."""
    value: dict[str, Any] = json.loads(json.dumps(asdict(found.to_document())))
    return value


def document(**changes: Any) -> dict[str, Any]:
    """As run.py writes it, the parts that are read back."""
    return {
        "schema": 1,
        "kind": "search",
        "genotype": plain(DARTS_V2),
        "policy": plain(mixed_policy()),
        "data": {"classes": [f"class {i}" for i in range(10)], "shape": [3, 32, 32]},
        **changes,
    }


def save(folder: Path, **changes: Any) -> Path:
    """The path of the result.json."""
    path = folder / "result.json"
    path.write_text(json.dumps(document(**changes)))
    return path
