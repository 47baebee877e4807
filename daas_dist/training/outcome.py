"""What a training leaves: the weights of its network, and result.json, which says what they are."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor, nn

from daas_dist.config import Config
from daas_dist.data.dataset import DataSet
from daas_dist.documents.results import Evaluation
from daas_dist.results.searched import read
from daas_dist.runs.log import write_bytes
from daas_dist.training import rows
from daas_dist.training.evaluation import summary
from daas_dist.training.loop import Training
from daas_dist.training.rows import Row

LAST, BEST, EMA = "weights.safetensors", "weights-best.safetensors", "weights-ema.safetensors"

COMPARED = (
    "architecture", "policy", "seed", "last", "best", "best_epoch", "last_top5", "best_top5",
    "calibration_error", "class_accuracy", "parameters", "multiply_adds", "seconds", "epochs",
    "data", "test", "throughput",
)  # fmt: skip
"""What comparison.json has of a row's result.json."""

RECIPE = ("crop_padding", "crop_scale", "flip", "color_jitter", "lighting", "cutout", "size")


def write_weights(path: Path, network: nn.Module) -> dict[str, str]:
    """A network's state_dict in float32, whole or not at all; what result.json says of it."""
    data = save({name: _plain(value) for name, value in network.state_dict().items()})
    write_bytes(path, data)
    return {"file": path.name, "sha256": hashlib.sha256(data).hexdigest()}


def _plain(value: Tensor) -> Tensor:
    value = value.detach().cpu().contiguous()
    return value.float() if value.is_floating_point() else value


def described(path: Path) -> dict[str, str]:
    """Return what result.json says of weights that are there already."""
    return {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def document(
    config: Config,
    training: Training,
    epochs: Sequence[Mapping[str, Any]],
    last: Evaluation,
    weights: Mapping[str, Mapping[str, str] | None],
) -> dict[str, Any]:
    """result.json of a row. epochs: its metrics. last: the last one's evaluation. weights: what
    write_weights said, by the key they get."""
    data, row, images, measured = training.data, training.row, training.images, training.measured
    tests = summary(epochs, last)
    parameters, multiply_adds = training.cost
    policy = read(rows.policy_path(config))["policy"] if row.policy == "found" else None
    return {
        "schema": 1,
        "kind": "trained",
        "architecture": row.architecture,
        "policy": row.policy,
        "seed": row.seed,
        **tests,
        "parameters": parameters,
        "multiply_adds": multiply_adds,
        "seconds": measured.seconds,
        "epochs": config.train.epochs,
        "network": _network(config, data, row),
        "data": {
            "classes": list(data.train.classes),
            "shape": list(data.train.shape),
            "mean": data.mean,
            "std": data.std,
            "test_resize": images.test_resize,
            "bits": data.train.bits,
        },
        "policy_result": policy,
        "recipe": {
            "train": asdict(config.train),
            "data": {key: getattr(images, key) for key in RECIPE},
            "engine": asdict(config.engine),
        },
        **weights,
        "test": {
            "last": tests["last"],
            "best": tests["best"],
            "ema": epochs[-1].get("ema_accuracy"),
            "images": sum(last.class_images),
        },
        "throughput": {
            "images_per_second": measured.images / max(measured.training_seconds, 1e-9),
            "peak_memory_mb": measured.peak_memory_mb,
            "ranks": training.mesh.world,
            "engine": config.engine.name,
        },
    }


def _network(config: Config, data: DataSet, row: Row) -> dict[str, Any]:
    """Return what models.build or Network is to be called with. A fixed network has its own
    sizes."""
    genotype = rows.genotype(config, row)
    return {
        "name": "genotype" if genotype is not None else row.architecture,
        "genotype": None if genotype is None else genotype.to_json(),
        "channels": config.train.channels,
        "cells": config.train.cells,
        "stem": config.model.stem,
        "classes": len(data.train.classes),
        "in_channels": data.train.shape[0],
        "auxiliary": genotype is not None and config.train.auxiliary_weight > 0,
    }
