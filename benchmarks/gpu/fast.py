"""Measure what the machine reaches, and what steps take of it."""

import argparse
import json
import statistics
from collections.abc import Callable

import measure
import step
import torch
from on_noise import search_on_noise

from daas_dist import config as configuration
from daas_dist.distributed.mesh import Mesh
from daas_dist.methods.daas import Daas
from daas_dist.search.steps import Search
from gpu.right import GRAPHS, WAYS
from gpu.rows import Rows, Settings, Values, attempt, precision

ROUNDS = 5
IMAGENET_IMAGES = 75_000
"""Counts the images of D_train: half of 120 classes of some 1,250."""


def machine(settings: Settings) -> Rows:
    """Measure what there is to be had, in billions a second; a small call in microseconds."""
    device, size = settings.device, 512 if settings.quick else 8192
    yield "copy", {"G bytes/s": measure.copy(device) / 1e9}
    for name in ("ieee", "tf32"):
        if name == "tf32" and not settings.on_gpu:
            continue
        with precision(name):
            product = measure.matrix_product(size, torch.float32, device)
            dense = measure.dense_convolution(settings.batch(64), device)
        yield f"float32, {name}", {"product, G/s": product / 1e9, "convolution, G/s": dense / 1e9}
    for dtype in (torch.bfloat16, torch.float64):
        product = measure.matrix_product(size, dtype, device)
        yield str(dtype), {"product, G/s": product / 1e9, "convolution, G/s": None}
    yield "small call", {"µs": measure.small_call(device) * 1e6}


# --- Steps ---------------------------------------------------------------------------------------


def step_at_64(settings: Settings) -> Rows:
    yield from _step(64, settings)


def step_at_96(settings: Settings) -> Rows:
    yield from _step(96, settings)


def step_at_256(settings: Settings) -> Rows:
    yield from _step(256, settings)


def _step(batch: int, settings: Settings) -> Rows:
    """benchmarks/step.py's, whose JSON stays in the folder for benchmarks/scaling.py."""
    small = ["search.architectures=2", *settings.network] if settings.quick else []
    arguments = argparse.Namespace(
        device=settings.device.type,
        threads=torch.get_num_threads(),
        rounds=1 if settings.quick else ROUNDS,
        overrides=small,
    )
    found = step.measure_batch(settings.batch(batch), arguments)
    step.show(found)
    written = {"machine": measure.machine(settings.device), "batches": [found]}
    (settings.folder / f"step_{batch}.json").write_text(json.dumps(written, indent=1))
    limits = found["limits"]
    for name, of in found["variants"].items():
        seconds = statistics.median(of["seconds"])
        plain = found["variants"]["plain"]["seconds"]
        ratios = [a / b for a, b in zip(of["seconds"], plain, strict=True)]
        kernels, calls = of["launches"] or (None, None)
        yield (
            name,
            {
                "seconds": seconds,
                "÷ plain": statistics.median(ratios),
                "hours": of["hours"],
                "of convolution": of["multiply_adds"]
                / seconds
                / limits["multiply_adds_per_second"],
                "of copy": of["bytes"] / seconds / limits["bytes_per_second"],
                "kernels": kernels,
                "launches": calls,
                "peak MB": of["peak_bytes"] / 1e6,
            },
        )


def methods(settings: Settings) -> Rows:
    """A step of each method, of the batch that its own search has, in turn; hours of that search
    where it has no warm-up, whose steps are others."""
    searches = dict[str, Search]()
    for way, words in WAYS.items():
        for name, given in ((way, words), (f"{way}, graphs", (*words, GRAPHS))):
            if name.endswith("graphs") and not settings.on_gpu:
                continue
            own = [*given, *settings.network]
            own += [f"search.batch_size={settings.batch(0)}"] if settings.quick else []
            searches[name] = search_on_noise(own, Mesh(), settings.side, 16, str(settings.device))
    for search in searches.values():
        for _ in range(step.RECORDING_STEPS if search.config.search.cuda_graphs else 1):
            search.step()
    seconds = _in_turn({name: search.step for name, search in searches.items()}, settings)
    for name, search in searches.items():
        each, batch = seconds[name], search.config.search.batch_size
        own = configuration.load(
            ["stage=search_cifar10", "data.root=none", *WAYS[name.removesuffix(", graphs")]]
        ).search
        steps = own.joint_epochs * (step.IMAGES // batch)
        hours = None if own.warmup_epochs else steps * statistics.median(each) / 3600
        yield (
            name,
            {
                "seconds": statistics.median(each),
                "least": min(each),
                "most": max(each),
                "batch": batch,
                "passes": search.method.passes(0),
                "hours": hours,
            },
        )
    if settings.on_gpu:
        for name, search in searches.items():
            yield f"{name}: launches", measure.launches(search.step)._asdict()


def _in_turn(steps: dict[str, Callable[[], object]], settings: Settings) -> dict[str, list[float]]:
    """Seconds of each, taken in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(1 if settings.quick else ROUNDS):
        for name, function in steps.items():
            with measure.clock(settings.device) as took:
                function()
            seconds[name].append(took.seconds)
    return seconds


def augmentation(settings: Settings) -> Rows:
    """A batch under a policy of the batch, and of each image, from pixels to normalised images."""
    for batch in (64, 96, 256):
        for way, words in (("one policy", WAYS["daas"]), ("one an image", WAYS["ours"])):
            given = [*words, *settings.network, f"search.batch_size={settings.batch(batch)}"]
            yield attempt(f"{way}, batch {batch}", _augmented, given, settings)


def _augmented(words: list[str], settings: Settings) -> Values:
    search = search_on_noise(words, Mesh(), settings.side, 16, str(settings.device))
    method, logits, context = search.method, search.state.logits, search.context()
    assert isinstance(method, Daas)

    def run() -> None:
        draws = method.draw(logits, context, "policy", 0, method.drawn)
        context.augmented(draws, method.drawn_space, "policy-0", 0)

    for _ in range(3):
        run()
    seconds = statistics.median(_in_turn({"": run}, settings)[""])
    sent = measure.launches(run).kernels if settings.on_gpu else None
    images = search.config.search.batch_size
    return {"ms": 1000 * seconds, "images/s": images / seconds, "kernels": sent}


def imagenet(settings: Settings) -> Rows:
    """Steps of search_imagenet's network at 224 pixels, batch 64; hours of its 30 + 20 epochs,
    without what reading costs."""
    stem = [*settings.network, "model.stem=imagenet", f"search.batch_size={settings.batch(64)}"]
    side = 64 if settings.quick else 224
    phases = {"warm-up": (step.WARM_UP, 30), "joint": ([], 20)}
    per_epoch = IMAGENET_IMAGES // 64
    for way in ("daas", "ours"):
        for graphs in ([], [GRAPHS]) if settings.on_gpu else ([],):
            name = f"{way}, graphs" if graphs else way

            seconds = dict[str, float]()
            for phase, (words, _) in phases.items():
                given = [*stem, *words, *graphs, *WAYS[way]]
                seconds[phase] = _median_step(given, side, settings)
            hours = sum(seconds[p] * epochs * per_epoch for p, (_, epochs) in phases.items()) / 3600
            yield name, {**seconds, "hours": hours}


def _median_step(words: list[str], side: int, settings: Settings) -> float:
    search = search_on_noise(words, Mesh(), side, 4, str(settings.device))
    for _ in range(step.RECORDING_STEPS if search.config.search.cuda_graphs else 1):
        search.step()
    return statistics.median(_in_turn({"": search.step}, settings)[""])
