"""Run directories as a real run leaves them, made up in milliseconds."""

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from daas_dist.documents.metrics import TrainingRow
from daas_dist.documents.results import Evaluation
from daas_dist.report.samples import Samples
from daas_dist.rng import stream
from daas_dist.spaces.cells import DARTS_V2, EDGES, KINDS, OPERATIONS, derive, edges_into
from daas_dist.training.evaluation import best, numbers, sums

AUGMENTATIONS = (
    "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "auto_contrast", "invert",
    "equalize", "solarize", "posterize", "contrast", "color", "brightness", "sharpness", "cutout",
)  # fmt: skip
CLASSES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag")
START = 1_790_000_000.0


def _beta(logits_KE: torch.Tensor) -> torch.Tensor:
    """Softmax over the edges into each node."""
    probabilities = torch.empty_like(logits_KE)
    for target in range(2, 6):
        edges = edges_into(target)
        probabilities[:, edges] = logits_KE[:, edges].softmax(-1)
    return probabilities


def _entropy(probabilities: torch.Tensor) -> float:
    return float(-(probabilities * probabilities.log()).sum(-1).mean())


def _policy(
    pi_KO: torch.Tensor, application_KO: torch.Tensor, seed: int, parameters: str
) -> dict[str, Any]:
    probability_KO = pi_KO.softmax(-1)
    slots, count = probability_KO.shape
    generator = stream(seed, "fake", "magnitude")
    if parameters == "per_slot":
        application, shape = application_KO, (slots, count)
        weight_O = (probability_KO * application_KO).sum(0)
    else:
        grids = torch.meshgrid(*[torch.arange(count)] * slots, indexing="ij")
        chosen_PK = torch.stack([grid.flatten() for grid in grids], -1)
        application = torch.stack([application_KO[k, chosen_PK[:, k]] for k in range(slots)], -1)
        shape = (count**slots, slots)
        weight_O = (probability_KO * application_KO).sum(0)
    order = weight_O.argsort(descending=True).tolist()
    return {
        "slots": slots, "parameters": parameters, "ranges": "autoaugment",
        "operations": list(AUGMENTATIONS), "probabilities": probability_KO.tolist(),
        "application": application.tolist(),
        "magnitudes": torch.randint(10, shape, generator=generator).tolist(),
        "ranking": [{"operation": AUGMENTATIONS[o], "weight": float(weight_O[o])} for o in order],
    }  # fmt: skip


def _evidence(slots: int, seed: int) -> dict[str, Any]:
    def table(*shape: int) -> dict[str, Any]:
        generator = stream(seed, "fake", "evidence", len(shape))
        mean = torch.randn(shape, generator=generator) * 0.06
        error = 0.03 + 0.03 * torch.rand(shape, generator=generator)
        return {"mean": mean.tolist(), "standard_error": error.tolist()}

    return {
        "operation": table(slots, 15),
        "applied": table(slots, 15),
        "magnitude": table(slots, 15, 10),
    }


def _write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _settle(path: Path, state: str, events: list[dict[str, Any]], last: float) -> None:
    if state == "finished":
        (path / "DONE").touch()
        events.append({"time": last, "event": "finished"})
    if state == "failed":
        message = "non-finite loss at step 612: sample 48 <of the batch>"
        (path / "FAILED").write_text(message)
        events.append({"time": last, "event": "failed", "error": message})
    _write_lines(path / "events.jsonl", events)


def provenance(data: str) -> dict[str, Any]:
    return {
        "commit": "3f9c2ab41d", "dirty": True, "diff_sha256": "9d" * 32,
        "versions": {"python": "3.11.9", "torch": "2.14.1", "torchvision": "0.29.1"},
        "host": "node-07", "command": ["python", "-m", "daas_dist", f"stage=search_{data}"],
        "device": "cuda", "started": "2026-09-21T10:00:00+00:00", "data_sha256": "ab" * 32,
    }  # fmt: skip


def search(
    path: Path,
    *,
    state: str = "finished",
    seed: int = 0,
    lines: int = 120,
    done: float = 1.0,
    classes: tuple[str, ...] = CLASSES,
    parameters: str = "per_slot",
    samples: bool = True,
) -> Path:
    """A joint search of 50 epochs, 20 of them warm-up; `done` is the share that has been run."""
    path.mkdir(parents=True)
    epochs, steps, slots = 50, 10_000, 2
    generator = stream(seed, "fake", "search")
    toward = {
        "alpha": torch.randn(2, 14, 7, generator=generator)
        + torch.tensor([0, 0, 0.6, 1.2, 0.8, 0.4, 0]),
        "beta": torch.randn(2, 14, generator=generator),
        "pi": torch.randn(slots, 15, generator=generator),
        "application": torch.randn(slots, 15, generator=generator),
    }
    rows: list[dict[str, Any]] = []
    genotype: dict[str, Any] = {}
    for line in range(1, round(lines * done) + 1):
        progress = line / lines
        joint = progress > 0.4
        learned = max(0.0, progress - 0.4) / 0.6
        noise = torch.randn(6, generator=generator).tolist()
        alpha = (2.2 * progress * toward["alpha"]).softmax(-1)
        beta = _beta(2.0 * progress * toward["beta"])
        pi, application = 1.6 * learned * toward["pi"], (learned * toward["application"]).sigmoid()
        share = (beta[..., None] * alpha).sum(1) / 4
        weight = (pi.softmax(-1) * application).sum(0)
        genotype = asdict(derive(alpha, beta))
        shares = [dict(zip(OPERATIONS, share[k].tolist(), strict=True)) for k in (0, 1)]
        rows.append({
            "step": round(progress * steps), "epoch": math.ceil(progress * epochs), "steps": steps,
            "epochs": epochs, "phase": "joint" if joint else "warmup",
            "time": START + 4000 * min(progress, 0.4) + 9000 * max(0.0, progress - 0.4),
            "images_per_second": (190.0 if joint else 411.0) + 4 * noise[0],
            "tau": 10 - 9.9 * progress,
            "learning_rate": 0.025 * (0.5 + 0.5 * math.cos(3.14 * progress)),
            "train_loss": 0.25 + 1.9 * math.exp(-5 * progress) + 0.02 * noise[1],
            "train_accuracy": 0.94 - 0.75 * math.exp(-5 * progress) + 0.008 * noise[2],
            "val_loss": 0.32 + 1.8 * math.exp(-4.6 * progress) + 0.03 * noise[3],
            "val_accuracy": 0.915 - 0.73 * math.exp(-4.6 * progress) + 0.01 * noise[4],
            "reward_mean": 0.02 * math.exp(-2 * learned) + 0.002 * noise[5] if joint else None,
            "reward_std": 0.012 * math.exp(-learned) if joint else None,
            "entropy": {
                "alpha": _entropy(alpha),
                "beta": sum(_entropy(beta[:, edges_into(t)]) for t in range(2, 6)) / 4,
                "pi": _entropy(pi.softmax(-1)),
                "application": _entropy(torch.stack([application, 1 - application], -1)),
                "magnitude": math.log(10) * (1 - 0.35 * learned**2),
            },
            "operation_share": dict(zip(KINDS, shares, strict=True)),
            "skip_share": {kind: shares[k]["skip_connect"] for k, kind in enumerate(KINDS)},
            "policy_weight": dict(zip(AUGMENTATIONS, weight.tolist(), strict=True)),
            "genotype": genotype,
        })  # fmt: skip
    _write_lines(path / "metrics.jsonl", rows)
    (path / "config.yaml").write_text("stage: search_fashion\nseed: 0\nsearch:\n  epochs: 50\n")
    made_by = provenance("fashion")
    (path / "provenance.json").write_text(json.dumps(made_by))
    if state == "finished":
        result = {
            "schema": 1, "kind": "search", "genotype": genotype,
            "policy": _policy(
                1.6 * toward["pi"], toward["application"].sigmoid(), seed, parameters
            ),
            "evidence": _evidence(slots, seed),
            "alpha": (2.2 * toward["alpha"]).softmax(-1).tolist(),
            "beta": _beta(2 * toward["beta"]).tolist(),
            "derived": derived((3, 28, 28), 2_403_528),
            "telemetry": {"steps": steps, "passes": 210_000.0, "seconds": 7000.0 + 311 * seed,
                          "val_accuracy": rows[-1]["val_accuracy"]},
            "data": {"name": "fashion_mnist", "classes": list(classes), "mean": [0.286],
                     "std": [0.353], "shape": [3, 28, 28]},
            "config": {"stage": "search_fashion"}, "provenance": made_by,
        }  # fmt: skip
        assert len(result["alpha"][0]) == len(EDGES)
        (path / "result.json").write_text(json.dumps(result))
        if samples:
            pictures(8).save(path)
    events = [
        {"time": START, "event": "started"},
        {"time": START + 900, "event": "checkpointed", "step": 2000},
        {"time": START + 1800, "event": "warning", "message": "skip share above one half"},
        {"time": START + 2100, "event": "stopped", "signal": "SIGTERM"},
        {"time": START + 2160, "event": "resumed", "step": 2000},
    ]
    _settle(path, state, events, rows[-1]["time"] if rows else START + 2200)
    return path


def derived(
    image: tuple[int, int, int],
    multiply_adds: int,
    most: float | None = None,
    freely: int | None = None,
    most_parameters: float | None = None,
) -> dict[str, Any]:
    """What result.json says of the network that was found; freely: had there been no limit."""
    return {
        "channels": 48, "cells": 14, "classes": 1000, "image": list(image), "stem": "imagenet",
        "parameters": 4_718_752, "multiply_adds": multiply_adds, "expected_multiply_adds": 5.5e8,
        "price": 0.25 if most or most_parameters else None, "max_flops": most,
        "max_parameters": most_parameters,
        "without_limit": None if freely is None else {
            "genotype": asdict(DARTS_V2), "parameters": 5_100_000, "multiply_adds": freely
        },
    }  # fmt: skip


WITHOUT = {
    "policy": ("genotype", "operation_share", "skip_share", "tau", "alpha", "beta", "derived"),
    "architecture": ("policy", "policy_weight", "reward_mean", "evidence"),
}
"""What a search for one thing alone leaves null."""


def narrow(path: Path, target: str) -> Path:
    """Make a search one of search.target=policy or =architecture."""
    entropies = {"policy": ("alpha", "beta"), "architecture": ("pi", "application", "magnitude")}
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    result = json.loads((path / "result.json").read_text())
    for document in (*rows, result):
        document.update({key: None for key in WITHOUT[target] if key in document})
        document.get("entropy", {}).update(dict.fromkeys(entropies[target]))
    _write_lines(path / "metrics.jsonl", rows)
    (path / "result.json").write_text(json.dumps(result))
    return path


def pictures(count: int, size: int = 28, channels: int = 3) -> Samples:
    """Drawn shapes, and what a shift, an inversion and a darkening make of them."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, size), torch.linspace(-1, 1, size), indexing="ij")
    images = torch.zeros(count, channels, size, size)
    for n in range(count):
        shape = (x.abs() ** (1 + n / 3) + y.abs() ** (2 + n / 4)) < 0.5
        for c in range(channels):
            images[n, c] = shape * (90 + 60 * ((n + c) % 3)) + 25 * (x + 1) * ((c + n) % 2)

    def augment(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        shift = torch.randint(-6, 7, (2,), generator=generator).tolist()
        moved = images.roll(shift, (-2, -1))
        return 255 - moved if torch.rand((), generator=generator) < 0.4 else moved // 2 + 20

    return Samples.draw(images.to(torch.uint8), augment, stream(0, "fake", "samples"), draws=5)


def evaluation(seed: int, level: float, classes: int) -> Evaluation:
    """Of 2,000 images: classes of different difficulty, a network that is too sure of itself."""
    generator = stream(seed, "fake", "evaluation", f"{level:.4f}")
    labels = torch.randint(classes, (2000,), generator=generator)
    logits = torch.randn(2000, classes, generator=generator)
    hardness = torch.linspace(0, 2.5, classes)[labels]
    logits[torch.arange(2000), labels] += 4.5 - hardness
    logits[torch.arange(2000), (labels + 1) % classes] += 1.5
    return numbers(sums(3.0 * logits, labels), classes)


GROUPS = (
    ("found", "found", 0.9402), ("found", "default", 0.9361), ("found", "trivial_augment", 0.9388),
    ("random", "found", 0.9345), ("random", "default", 0.9309),
)  # fmt: skip


def training(
    path: Path,
    *,
    result: Path | None = None,
    state: str = "finished",
    seeds: int = 3,
    gain: float = 0.0,
    epochs: int = 30,
    classes: Sequence[str] = CLASSES,
    shape: Sequence[int] = (1, 28, 28),
    throughput: bool = False,
) -> Path:
    """A comparison of 5 groups; unfinished or failed: the last group stands at half its epochs."""
    path.mkdir(parents=True, exist_ok=True)
    generator = stream(7, "fake", str(gain), "training")
    comparison = []
    for position, (architecture, policy, level) in enumerate(GROUPS):
        complete = state == "finished" or position < len(GROUPS) - 1
        for seed in range(seeds):
            reached = level + gain + 0.0016 * float(torch.randn((), generator=generator))
            metrics = []
            for epoch in range(1, (epochs if complete else epochs // 2) + 1):
                part = epoch / epochs
                jitter = 0.003 * (1.3 - part) * float(torch.randn((), generator=generator))
                metrics.append({
                    "epoch": epoch, "epochs": epochs, "time": START + 60 * epoch + 9000,
                    "learning_rate": 0.025 * (1 - part),
                    "train_loss": 0.1 + 1.5 * math.exp(-5 * part),
                    "train_accuracy": 0.98 - 0.6 * math.exp(-5 * part),
                    "test_loss": 0.2 + math.exp(-5 * part),
                    "test_accuracy": reached - 0.35 * math.exp(-6 * part) + jitter,
                    "test_top5": 0.99 - 0.1 * math.exp(-6 * part) if len(classes) > 5 else None,
                    "test_calibration_error": 0.03 + 0.01 * seed,
                    "images_per_second": 930.0 + epoch,
                })  # fmt: skip
            folder = path / "trainings" / f"{architecture}-{policy}-seed{seed}"
            folder.mkdir(parents=True)
            _write_lines(folder / "metrics.jsonl", metrics)
            document = evaluation(seed, level, len(classes))
            (folder / "evaluation.json").write_text(json.dumps(asdict(document)))
            if complete:
                *_, last = rows = [TrainingRow.parse(row) for row in metrics]
                comparison.append({
                    "architecture": architecture, "policy": policy, "seed": seed,
                    "last": last.test_accuracy, "best": best(rows).test_accuracy,
                    "best_epoch": best(rows).epoch, "last_top5": last.test_top5,
                    "best_top5": best(rows).test_top5,
                    "calibration_error": document.calibration_error,
                    "class_accuracy": document.class_accuracy,
                    "parameters": 3_349_342,
                    "multiply_adds": 698_000_000 if shape[-1] >= 224 else 528_411_000,
                    "seconds": 1800.0 + seed, "epochs": epochs,
                    "data": {"classes": list(classes), "shape": list(shape)},
                })  # fmt: skip
                if throughput:
                    comparison[-1]["throughput"] = {
                        "images_per_second": 5120.0 + 100 * seed, "peak_memory_mb": 10_240.0,
                        "ranks": 8, "engine": "ddp",
                    }  # fmt: skip
    document = {
        "schema": 1, "kind": "training", "rows": comparison,
        "search": None if result is None else str(result),
    }  # fmt: skip
    (path / "comparison.json").write_text(json.dumps(document))
    if result is not None and result.exists():
        shutil.copy(result, path / "search.json")
    if not (path / "config.yaml").exists():
        (path / "config.yaml").write_text("stage: train_fashion\nseed: 0\n")
        (path / "provenance.json").write_text(json.dumps(provenance("fashion")))
        _settle(path, state, [{"time": START + 9000, "event": "started"}], START + 11_000)
    return path
