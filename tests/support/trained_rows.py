"""A trained row's result.json and weights without a training: a small network of every operation,
random weights and statistics, and Fashion-MNIST's classes."""

import hashlib
import json
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from found_results import plain
from small_networks import EVERY_OPERATION
from torch import nn

from daas_dist import models
from daas_dist.models.network import Network

CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker",
           "Bag", "Ankle boot")  # fmt: skip
MEAN, STD = 0.28604063, 0.35302424


def network(name: str = "genotype", auxiliary: bool = True, channels: int = 1) -> nn.Module:
    """Weights as torch draws them; running statistics away from 0 and 1, or norms would hide."""
    torch.manual_seed(3)
    made: nn.Module
    if name == "genotype":
        made = Network(EVERY_OPERATION, 4, 3, 10, channels, "cifar", auxiliary)
    else:
        made = models.build(name, classes=10, in_channels=channels)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.3, 0.3)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2.0)  # type: ignore[arg-type]
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return made.eval()


def document(
    name: str = "genotype", policy: dict[str, Any] | None = None, auxiliary: bool = True
) -> dict[str, Any]:
    """As train.py writes it, without the sha256."""
    found = name == "genotype"
    return {
        "schema": 1,
        "kind": "trained",
        "architecture": "found" if found else name,
        "policy": "found" if policy else "default",
        "seed": 4,
        "last": 0.9137,
        "best": 0.9151,
        "best_epoch": 7,
        "parameters": 123456,
        "multiply_adds": 7654321,
        "seconds": 61.5,
        "epochs": 8,
        "network": {
            "name": name,
            "genotype": plain(EVERY_OPERATION) if found else None,
            "channels": 4,
            "cells": 3,
            "stem": "cifar",
            "classes": 10,
            "in_channels": 1,
            "auxiliary": auxiliary,
        },
        "data": {
            "classes": list(CLASSES),
            "shape": [1, 28, 28],
            "mean": [MEAN],
            "std": [STD],
            "test_resize": None,
        },
        "policy_result": policy,
        "recipe": {"train": {"learning_rate": 0.025, "epochs": 8}, "data": {}, "engine": {}},
        "weights": {"file": "weights.safetensors"},
        "test": {"last": 0.9137, "best": 0.9151, "ema": None, "images": 10000},
        "throughput": {
            "images_per_second": 1234.5, "peak_memory_mb": 512.25, "ranks": 1, "engine": "alone",
        },
    }  # fmt: skip


def save(folder: Path, made: dict[str, Any] | None = None) -> Path:
    """The path of the result.json, its weights beside it."""
    made = document() if made is None else made
    given = made["network"]
    weights = network(given["name"], given["auxiliary"], given["in_channels"]).state_dict()
    data = safetensors.torch.save(weights)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "weights.safetensors").write_bytes(data)
    made["weights"]["sha256"] = hashlib.sha256(data).hexdigest()
    path = folder / "result.json"
    path.write_text(json.dumps(made))
    return path
