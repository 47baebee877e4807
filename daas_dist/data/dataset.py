"""The images of a stage: what data.* names, limited and measured as it says, and their batches."""

import sys
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TypeVar

import torch

from daas_dist.config import ConfigError
from daas_dist.config.schema import Data
from daas_dist.data import (
    Change,
    Crop,
    Feed,
    Images,
    ImageSet,
    Plan,
    Source,
    Stream,
    cifar,
    fashion_mnist,
    folder,
    measure,
    open_stream,
    sharded,
    workers_for,
)
from daas_dist.data.enough import Use, check_batch, check_classes
from daas_dist.data.images import too_dark
from daas_dist.data.source import AnySource
from daas_dist.data.words import name_some, pictures
from daas_dist.distributed.mesh import Mesh
from daas_dist.documents import escaping
from daas_dist.documents.escaping import printable
from daas_dist.rng import Part
from daas_dist.runs.log import RunLog
from daas_dist.runs.progress import Report, shown, silent

AnySet = TypeVar("AnySet", bound=ImageSet)

INEXACT = (
    "data=stream has no index: a run that is stopped goes on with other images than it would have "
    "had, so it does not end with the same bits; `daas shards index` makes local shards exact"
)


@dataclass(frozen=True)
class DataSet:
    """The training images (before any split), the test images, and how to normalise them."""

    train: Source
    test: Source
    mean: list[float]
    std: list[float]
    warnings: tuple[str, ...] = ()
    place: str = ""
    """Where they are from, as the user named it."""


def load_data_in_turn(data: Data, seed: int, use: Use, mesh: Mesh) -> DataSet:
    """load_data on every rank; what has to be downloaded is there before the others look. Rank 0
    shows how far it is."""
    if data.download and not mesh.leads:
        mesh.barrier()
    with shown() if mesh.leads else nullcontext(silent) as report:
        loaded = load_data(data, seed, use.splits, report)
    check_batch(data, use, len(loaded.train), len(loaded.test))
    if data.download and mesh.leads:
        mesh.barrier()
    return loaded


def load_data(data: Data, seed: int, splits: int = 1, report: Report = silent) -> DataSet:
    """The images that data.* names, limited as it says. ValueError where they are too few.

    splits: into how many the stage splits the training images (enough.Use).
    """
    if data.name == "stream":
        return _of_streams(data)
    load = _of_shards if data.name == "shards" else _in_memory
    return load(data, seed, splits, report)


def _in_memory(data: Data, seed: int, splits: int, report: Report) -> DataSet:
    train, test = _limited(data, seed, splits, _read(data, seed, report))
    mean, std = (data.mean, data.std)
    if mean is None or std is None:
        mean, std = map(list, measure(train))
    return DataSet(train, test, mean, std, train.account.remarks, data.root or "")


def _of_shards(data: Data, seed: int, splits: int, report: Report) -> DataSet:
    train, test = _limited(data, seed, splits, sharded.open_both(data, seed))
    warnings = (
        *sharded.check_cache(data, splits, train, test),
        *train.account.remarks,
        *sharded.tell_twice(train, test),
    )
    mean, std = (data.mean, data.std)
    if mean is None or std is None:
        some = sharded.sample(train, seed, report)
        warnings = (*warnings, *too_dark(some.images))
        mean, std = map(list, measure(some))
    return DataSet(train, test, mean, std, warnings, data.root or "")


def _of_streams(data: Data) -> DataSet:
    def opened(place: str | None, count: int | None) -> Stream:
        assert place is not None and count is not None and data.size is not None
        return open_stream(
            place,
            count=count,
            classes=int(data.classes),
            size=data.size,
            channels=data.channels,
            shorter=data.test_resize,
        )

    assert data.mean is not None and data.std is not None
    train, test = opened(data.root, data.limit), opened(data.val_root, data.test_limit)
    return DataSet(train, test, data.mean, data.std, (INEXACT,))


def _limited(
    data: Data, seed: int, splits: int, found: tuple[AnySet, AnySet]
) -> tuple[AnySet, AnySet]:
    """(train, test) as data.limit and data.test_limit leave them."""
    train, test = (
        part if count is None else part.limit(min(count, len(part)), seed, key)
        for part, count, key in zip(
            found, (data.limit, data.test_limit), ("data.limit", "data.test_limit"), strict=True
        )
    )
    check_classes(data, splits, found, train)
    return train, test


def _read(data: Data, seed: int, report: Report) -> tuple[Images, Images]:
    if data.name == "fashion_mnist":
        train, test = (fashion_mnist(data.root, part, data.download) for part in (True, False))
    elif data.name in ("cifar10", "cifar100"):
        classes = int(data.name.removeprefix("cifar"))
        root = data.root or "datasets"
        train, test = (cifar(root, classes, part, data.download) for part in (True, False))
    else:
        if data.root is None or data.size is None:
            raise ConfigError("data=folder needs data.root and data.size")
        train, test = folder(
            data.root,
            data.val_root,
            size=data.size,
            channels=data.channels,
            max_bad_files=data.max_bad_files,
            seed=seed,
            report=report,
        )
    return train, test


def crop(data: Data) -> Crop:
    """Return how data.* has training images cut."""
    scale = None if data.crop_scale is None else (data.crop_scale[0], data.crop_scale[1])
    return Crop(data.crop_padding, data.flip, scale)


def open_feed(
    data: Data,
    sets: Mapping[str, AnySource],
    *,
    batch_size: int,
    seed: int,
    epochs: int,
    part: Part,
    device: torch.device,
    change: Change | None = None,
) -> Feed:
    """The batches of a run as data.* has them read, by purpose; an epoch is one of the first of
    the sets. change: what else is done to images where they are read, not of a stream."""
    plan = Plan(
        batch_size=batch_size,
        part=part,
        epochs=epochs,
        seed=seed,
        crop=crop(data),
        window=data.shuffle_window,
        change=change,
        workers=workers_for(next(iter(sets.values())), data.workers),
        pin=device.type == "cuda",
    )
    return Feed(sets, plan)


def tell_read(data: DataSet, log: RunLog) -> None:
    """Say what was read in one line and an event, then each thing that is odd about it."""
    train, test, bad = data.train, data.test, (*data.train.bad_files, *data.test.bad_files)
    left_out = {"unreadable": bad, **train.account.left_out}
    place = f"{printable(data.place)}: " if data.place else ""
    said = f"read {place}{len(train.classes)} classes, {pictures(len(train) + len(test))}, "
    said += f"{len(train)} to learn from and {len(test)} to test on"
    counts = {why: len(names) for why, names in left_out.items() if names}
    # Each bad file is named below.
    some = {why: f" ({name_some(left_out[why], 2)})" for why in counts if why != "unreadable"}
    if counts:
        parts = (f"{count} {why}{some.get(why, '')}" for why, count in counts.items())
        said += f"; left out: {', '.join(parts)}"
    numbers = {"classes": len(train.classes), "train": len(train), "test": len(test)}
    log.event("read", message=said, **numbers, left_out=counts)
    print(escaping.told(said), file=sys.stderr)
    for message in (*data.warnings, *(f"left out, unreadable: {name}" for name in bad)):
        log.event("warning", message=message)
        print(escaping.told(message), file=sys.stderr)
