"""The shards of a stage: which data.* names, from where, and whether a cache holds them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from daas_dist.config import ConfigError
from daas_dist.config.rules import is_url, refuse
from daas_dist.config.schema import Data
from daas_dist.data.cache import Cache
from daas_dist.data.images import Images
from daas_dist.data.manifest import MANIFEST
from daas_dist.data.remote import Absent, NotFetched
from daas_dist.data.shards import Shards, open_shards
from daas_dist.data.strata import put_aside
from daas_dist.data.words import pictures
from daas_dist.rng import stream
from daas_dist.runs.progress import Report

MEASURED = 1024
"""How many pictures are decoded for their mean and deviation where data.* gives none."""
MEASURED_AT_ONCE = 32


def open_both(data: Data, seed: int) -> tuple[Shards, Shards]:
    """(train, test). Without shards of test images, a fifth of each class is put aside for it.
    Both read pictures of more than 8 bits alike."""
    if data.root is None or data.size is None:
        raise ConfigError("data=shards needs data.root and data.size")

    def opened(place: Path | str) -> Shards:
        assert data.size is not None
        cache = _cache(data, str(place)) if is_url(str(place)) else None
        return open_shards(
            place if cache is None else cache.root,
            classes=data.classes,
            size=data.size,
            channels=data.channels,
            shorter=data.test_resize,
            max_bad=data.max_bad_files,
            locate=None if cache is None else cache.fetch,
        )

    parts = _remote_parts if is_url(data.root) else _local_parts
    train, test = parts(data.root, data.val_root, opened)
    if test is None:
        stays = put_aside(train.labels, train.classes, seed, "split", "data.val_root")
        train, test = train.take(stays), train.take(~stays)
    elif test.classes != train.classes:
        raise ConfigError(
            f"{train.folder.root} and {test.folder.root} do not hold the same classes; set "
            "data.val_root"
        )
    bits = max((part.bits for part in (train, test) if part.bits is not None), default=None)
    train, test = replace(train, bits=bits), replace(test, bits=bits)
    if data.images_per_class is not None:
        train = train.limit_classes(data.images_per_class, seed)
    return train, test


Parts = tuple[Shards, Shards | None]
"""(train, test if there is one)."""


def _local_parts(root: str, val_root: str | None, opened: Callable[[Path | str], Shards]) -> Parts:
    train = Path(root)
    if not (train / MANIFEST).exists() and (train / "train").is_dir():
        if val_root is None and (train / "val").is_dir():
            val_root = str(train / "val")
        train = train / "train"
    return opened(train), None if val_root is None else opened(val_root)


def _remote_parts(root: str, val_root: str | None, opened: Callable[[Path | str], Shards]) -> Parts:
    root = root.rstrip("/")
    try:
        train = opened(f"{root}/train")
    except NotFetched as error:
        try:
            return opened(root), None if val_root is None else opened(val_root)
        except NotFetched as other:
            raise NotFetched(f"no shards at data.root: {error}; {other}") from None
    try:
        return train, opened(val_root or f"{root}/val")
    except Absent:
        if val_root is not None:
            raise
        return train, None


def _cache(data: Data, url: str) -> Cache:
    if data.cache is None:
        raise ConfigError(f"{url} needs data.cache")
    return Cache(url, data.cache, int(data.cache_gb * 1e9))


def check_cache(data: Data, splits: int, *sets: Shards) -> tuple[str, ...]:
    """Return a warning if every epoch downloads shards again. ConfigError if every batch would.

    splits: the parts of the training images, each read in an order of its own.
    """
    if data.cache is None:
        return ()
    within = Path(data.cache).absolute()
    gb = {
        (images.folder.root, number): images.folder.manifest.shards[number].bytes / 1e9
        for images in sets
        if within in images.folder.root.parents
        for number in images.file_N().unique().tolist()
    }
    if sum(gb.values()) <= data.cache_gb:
        return ()
    few = f"data.cache_gb={data.cache_gb:g} holds less than the {sum(gb.values()):.3g} GB in use"
    if data.shuffle_window is None:
        return (
            f"{few}, and the whole set is shuffled, so most images are downloaded for themselves; "
            "set data.shuffle_window to read few shards at a time, or raise data.cache_gb",
        )
    count = data.shuffle_window * splits
    needed = sum(sorted(gb.values())[-count:])
    if needed > data.cache_gb:
        refuse(
            "data.cache_gb",
            data.cache_gb,
            f"{needed:.3g} or more, which the {count} shards that are read at a time hold; or "
            "lower data.shuffle_window",
        )
    return (f"{few}, so every epoch downloads shards again",)


def tell_twice(train: Shards, test: Shards) -> tuple[str, ...]:
    """Return a remark if test pictures are training pictures too, by their bytes."""
    rows = (part.folder.rows[part.rows][["size", "crc"]] for part in (train, test))
    count = len(set.intersection(*(set(each.tolist()) for each in rows)))
    return (f"{pictures(count)} of testing are in training too, with the same bytes",) * (count > 0)


def sample(images: Shards, seed: int, report: Report) -> Images:
    """Read MEASURED of them, as they are tested."""
    index = torch.randperm(len(images), generator=stream(seed, "measure"))[:MEASURED]
    index = index.sort().values  # each shard is opened once
    read = []
    for done, some in enumerate(index.split(MEASURED_AT_ONCE), 1):
        read.append(images.central(some))
        report("measuring pictures", min(done * MEASURED_AT_ONCE, len(index)), len(index))
    return Images(torch.cat(read), images.labels[index], images.classes)
