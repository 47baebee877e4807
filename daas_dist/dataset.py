"""The images of a stage: what data.* names, limited and measured as it says, and their batches."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from daas_dist.config import Config, ConfigError
from daas_dist.data import (
    Batches,
    Crop,
    Feed,
    Images,
    ImageSet,
    Order,
    Shards,
    cifar,
    fashion_mnist,
    folder,
    limit,
    limit_classes,
    measure,
    open_shards,
    split,
    workers_for,
)
from daas_dist.data.folders import TEST_SHARE
from daas_dist.data.manifest import MANIFEST
from daas_dist.mesh import Mesh
from daas_dist.rng import Part, stream
from daas_dist.runlog import RunLog
from daas_dist.schema import Data

MEASURED = 1024
"""How many pictures of shards are decoded for their mean and deviation where data.* gives none."""


@dataclass(frozen=True)
class DataSet:
    """The training images (before any split), the test images, and how to normalise them."""

    train: ImageSet
    test: ImageSet
    mean: list[float]
    std: list[float]


def load_data_in_turn(config: Config, mesh: Mesh) -> DataSet:
    """load_data on every rank; what has to be downloaded is there before the others look."""
    if config.data.download and not mesh.leads:
        mesh.barrier()
    data = load_data(config)
    if config.data.download and mesh.leads:
        mesh.barrier()
    return data


def load_data(config: Config) -> DataSet:
    """The images that data.* names, limited as it says."""
    data = config.data
    train, test = _shards(config) if data.name == "shards" else _in_memory(config)
    train, test = (
        part if count is None else limit(part, min(count, len(part)), config.seed)
        for part, count in ((train, data.limit), (test, data.test_limit))
    )
    mean, std = (data.mean, data.std)
    if mean is None or std is None:
        mean, std = map(list, measure(_some(train, config.seed)))
    return DataSet(train, test, mean, std)


def _in_memory(config: Config) -> tuple[Images, Images]:
    data = config.data
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
            seed=config.seed,
        )
    return train, test


def _shards(config: Config) -> tuple[Shards, Shards]:
    """(train, test). Without shards of test images, a fifth of each class is put aside for it."""
    data = config.data
    if data.root is None or data.size is None:
        raise ConfigError("data=shards needs data.root and data.size")

    def opened(root: Path | str) -> Shards:
        assert data.size is not None
        return open_shards(
            root,
            classes=data.classes,
            size=data.size,
            channels=data.channels,
            shorter=data.test_resize,
            max_bad=data.max_bad_files,
        )

    root, val_root = Path(data.root), data.val_root
    if not (root / MANIFEST).exists() and (root / "train").is_dir():
        if val_root is None and (root / "val").is_dir():
            val_root = str(root / "val")
        root = root / "train"
    train = opened(root)
    if val_root is None:
        train, test = split(train, 1 - TEST_SHARE, config.seed)
    else:
        test = opened(val_root)
        if test.classes != train.classes:
            raise ConfigError(
                f"{root} and {val_root} do not hold the same classes; set data.val_root"
            )
    if data.images_per_class is not None:
        train = train.take(limit_classes(train, data.images_per_class, config.seed))
    return train, test


def _some(images: ImageSet, seed: int) -> Images:
    """The images to measure: all of those in memory, MEASURED of those in shards."""
    if isinstance(images, Images):
        return images
    index = torch.randperm(len(images), generator=stream(seed, "measure"))[:MEASURED]
    return Images(images.central(index), images.labels[index], images.classes)


def open_feed(
    data: Data,
    images: Mapping[str, ImageSet],
    *,
    batch_size: int,
    seed: int,
    epochs: int,
    part: Part,
    device: torch.device,
) -> Feed:
    """The batches of a run, by purpose; an epoch is one of the first of them."""

    def order(purpose: str, each: ImageSet) -> Order:
        window = None
        if isinstance(each, Shards) and data.shuffle_window is not None:
            window = each.file_N(), data.shuffle_window
        return Order(each, Batches(len(each), batch_size, seed, purpose, window))

    orders = {purpose: order(purpose, each) for purpose, each in images.items()}
    first = next(iter(orders.values()))
    scale = None if data.crop_scale is None else (data.crop_scale[0], data.crop_scale[1])
    return Feed(
        orders,
        Crop(data.crop_padding, data.flip, scale),
        seed,
        part=part,
        steps=epochs * first.batches.steps_per_epoch,
        workers=workers_for(first.images, data.workers),
        pin=device.type == "cuda",
    )


def warn_of_bad_files(data: DataSet, log: RunLog) -> None:
    for name in (*data.train.bad_files, *data.test.bad_files):
        log.event("warning", message=f"left out, unreadable: {name}")
        print(f"left out, unreadable: {name}", file=sys.stderr)
