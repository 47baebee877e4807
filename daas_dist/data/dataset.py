"""The images of a stage: what data.* names, limited and measured as it says, and their batches."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from daas_dist.config import ConfigError
from daas_dist.config.rules import is_url, refuse
from daas_dist.config.schema import Data
from daas_dist.data import (
    Batches,
    Cache,
    Change,
    Crop,
    Feed,
    Images,
    ImageSet,
    Order,
    Read,
    Shards,
    Stream,
    StreamFeed,
    StreamOrder,
    cifar,
    fashion_mnist,
    folder,
    limit,
    limit_classes,
    measure,
    open_shards,
    open_stream,
    put_aside,
    split,
    workers_for,
)
from daas_dist.data.enough import Use, check_batch, check_classes
from daas_dist.data.images import too_dark
from daas_dist.data.manifest import MANIFEST
from daas_dist.data.remote import Absent, NotFetched
from daas_dist.data.words import name_some, pictures
from daas_dist.distributed.mesh import Mesh
from daas_dist.documents import escaping
from daas_dist.documents.escaping import printable
from daas_dist.rng import Part, stream
from daas_dist.runs.log import RunLog
from daas_dist.runs.progress import Report, shown, silent

MEASURED = 1024
"""How many pictures of shards are decoded for their mean and deviation where data.* gives none."""
MEASURED_AT_ONCE = 32

Source = ImageSet | Stream
"""Images of which any can be read at any time, or that come in turn."""


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
        return _streams(data)
    found = _shards(data, seed) if data.name == "shards" else _in_memory(data, seed, report)
    train, test = (
        part if count is None else limit(part, min(count, len(part)), seed, key)
        for part, count, key in zip(
            found, (data.limit, data.test_limit), ("data.limit", "data.test_limit"), strict=True
        )
    )
    check_classes(data, splits, found, train)
    warnings = (
        *_check_cache(data, splits, train, test),
        *train.account.remarks,
        *_twice(train, test),
    )
    mean, std = (data.mean, data.std)
    if mean is None or std is None:
        some = _some(train, seed, report)
        warnings = (*warnings, *(too_dark(some.images) if isinstance(train, Shards) else ()))
        mean, std = map(list, measure(some))
    return DataSet(train, test, mean, std, warnings, data.root or "")


def _twice(train: ImageSet, test: ImageSet) -> tuple[str, ...]:
    """A remark on shards whose test pictures are training pictures too, by their bytes. A folder's
    account has that already."""
    if not isinstance(train, Shards) or not isinstance(test, Shards):
        return ()
    rows = (part.folder.rows[part.rows][["size", "crc"]] for part in (train, test))
    count = len(set.intersection(*(set(each.tolist()) for each in rows)))
    return (f"{pictures(count)} of testing are in training too, with the same bytes",) * (count > 0)


def _in_memory(data: Data, seed: int, report: Report) -> tuple[Images, Images]:
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


def _streams(data: Data) -> DataSet:
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


def split_search(images: Source, share: float, seed: int) -> tuple[Source, Source]:
    """(train, val) of a search: `share` of the images to train."""
    return images.split(share) if isinstance(images, Stream) else split(images, share, seed)


def _shards(data: Data, seed: int) -> tuple[Shards, Shards]:
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
        train = train.take(limit_classes(train, data.images_per_class, seed))
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


def _check_cache(data: Data, splits: int, *sets: ImageSet) -> tuple[str, ...]:
    """A warning if every epoch downloads shards again. ConfigError if every batch would."""
    if data.cache is None:
        return ()
    within = Path(data.cache).absolute()
    gb = {
        (images.folder.root, number): images.folder.manifest.shards[number].bytes / 1e9
        for images in sets
        if isinstance(images, Shards) and within in images.folder.root.parents
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
    count = data.shuffle_window * splits  # each is read in an order of its own
    needed = sum(sorted(gb.values())[-count:])
    if needed > data.cache_gb:
        refuse(
            "data.cache_gb",
            data.cache_gb,
            f"{needed:.3g} or more, which the {count} shards that are read at a time hold; or "
            "lower data.shuffle_window",
        )
    return (f"{few}, so every epoch downloads shards again",)


def _some(images: ImageSet, seed: int, report: Report) -> Images:
    """The images to measure: all of those in memory, MEASURED of those in shards."""
    if isinstance(images, Images):
        return images
    index = torch.randperm(len(images), generator=stream(seed, "measure"))[:MEASURED]
    index = index.sort().values  # each shard is opened once
    read = []
    for done, some in enumerate(index.split(MEASURED_AT_ONCE), 1):
        read.append(images.central(some))
        report("measuring pictures", min(done * MEASURED_AT_ONCE, len(index)), len(index))
    return Images(torch.cat(read), images.labels[index], images.classes)


def crop(data: Data) -> Crop:
    """Return how data.* has training images cut."""
    scale = None if data.crop_scale is None else (data.crop_scale[0], data.crop_scale[1])
    return Crop(data.crop_padding, data.flip, scale)


def open_feed(
    data: Data,
    images: Mapping[str, Source],
    *,
    batch_size: int,
    seed: int,
    epochs: int,
    part: Part,
    device: torch.device,
    change: Change | None = None,
) -> Feed | StreamFeed:
    """The batches of a run, by purpose; an epoch is one of the first of them. change: what else is
    done to images where they are read, not of a stream."""
    first, pin = next(iter(images.values())), device.type == "cuda"
    workers = workers_for(first, data.workers)
    if isinstance(first, Stream):
        streams = {
            purpose: StreamOrder(each, Batches(len(each), batch_size, seed, purpose))
            for purpose, each in images.items()
            if isinstance(each, Stream)
        }
        return StreamFeed(streams, crop(data), seed, part=part, workers=workers, pin=pin)

    def order(purpose: str, each: ImageSet) -> Order:
        window = None
        if isinstance(each, Shards) and data.shuffle_window is not None:
            window = each.file_N(), data.shuffle_window
        return Order(each, Batches(len(each), batch_size, seed, purpose, window))

    orders = {
        purpose: order(purpose, each)
        for purpose, each in images.items()
        if not isinstance(each, Stream)
    }
    steps = epochs * next(iter(orders.values())).batches.steps_per_epoch
    return Feed(
        orders,
        crop(data),
        seed,
        part=part,
        steps=steps,
        workers=workers,
        pin=pin,
        change=change,
    )


def share(images: Source, part: Part) -> Source:
    """The images of one of `of` parts that differ by one at most, or for streams by chance."""
    if part.of == 1:
        return images
    if isinstance(images, Stream):
        return images.share_of(part)
    return images.take(torch.arange(len(images)).tensor_split(part.of)[part.number])


def read_tests(feed: Feed | StreamFeed, images: Source, batch_size: int) -> Iterator[Read]:
    """All of the test images, each once, by a feed of the same data.*."""
    if isinstance(images, Stream):
        assert isinstance(feed, StreamFeed)
        return feed.tests(images, batch_size)
    assert isinstance(feed, Feed)
    return feed.tests(images, batch_size)


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


def tell_replaced(feed: Feed | StreamFeed, told: int, log: RunLog | None) -> int:
    """Tell of bad samples in whose place others of their class were read, after the first `told`.

    Returns how many there are by now."""
    for wrong in feed.bad[told:]:
        message = f"another picture of its class was read in the place of {wrong}"
        print(escaping.told(message), file=sys.stderr)
        if log is not None:
            log.event("warning", message=message)
    return len(feed.bad)
