"""Shards of others, read in turn by webdataset's own pipeline, for what has no index.

Statistical, not exact: which pictures a step gets depends on the workers and on the step at which
the run was started, so a resume does not go on with the very next one; and a picture may come twice
in an epoch, or not at all. What is promised: as many steps as data.limit says, on every rank, the
same pictures on all ranks along arch, another order every time, and no sample lost in silence.
"""

import hashlib
import io
import random
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from braceexpand import braceexpand
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from webdataset import filters
from webdataset.tariterators import group_by_keys, tar_file_expander

from daas_dist.config.rules import is_url
from daas_dist.data.crops import Crop, Parts
from daas_dist.data.decode import central_square, quiet, reason, resized_part
from daas_dist.data.manifest import DataError
from daas_dist.data.reader import Batches
from daas_dist.data.remote import opened
from daas_dist.data.ring import AHEAD
from daas_dist.data.source import Account, Found, Plan, Read
from daas_dist.rng import Part, stream
from daas_dist.runs.stopping import obey_parent, shielded
from daas_dist.spaces import operations as augment

SHUFFLED = 1000
"""Samples among which the next is drawn, still encoded (webdataset's own number)."""

PICTURES = ("jpg", "jpeg", "png", "webp")
"""The fields of a sample that may be its picture."""

END = bytes(1024)
"""What every whole tar ends with."""


class Sample(NamedTuple):
    """A picture as it was packed."""

    name: str
    data: bytes
    label: int


@dataclass(frozen=True, eq=False)
class Stream:
    """A Source of webdataset shards, whose samples can only be read in turn."""

    urls: tuple[str, ...]
    count: int
    """How many there are, as was said: nobody has counted."""
    classes: tuple[str, ...]
    size: int
    channels: int
    shorter: int
    """As data.shards.Shards has it."""
    share: tuple[float, float] = (0.0, 1.0)
    """Of the hashes of the keys: which samples are of this part."""
    bad_files: tuple[str, ...] = ()
    bits: int | None = None
    """Nobody has seen the greatest number of all pictures: one of more than 8 bits is refused."""
    account: Account = Account()

    max_bad = 0
    in_memory = False

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.size, self.size

    def __len__(self) -> int:
        return self.count

    def split(self, share: float, seed: int) -> tuple["Stream", "Stream"]:
        """Two parts by the hash of the key, the same in every pass and under every seed; about
        `share` in the first."""
        first = round(share * self.count)
        return (
            replace(self, count=first, share=(0.0, share)),
            replace(self, count=self.count - first, share=(share, 1.0)),
        )

    def share_of(self, part: Part) -> "Stream":
        """As Source has it, by the hash of the key: shares are of about the same size."""
        low, high = self.share
        width = (high - low) / part.of
        own = (low + part.number * width, low + (part.number + 1) * width)
        return replace(self, share=(own[0], high if part.number + 1 == part.of else own[1]))

    def fewest_of(self, shares: int) -> int:
        """Nobody has counted what is in a share."""
        return self.count if shares == 1 else 0

    def steps(self, sets: Mapping[str, "Stream"], plan: Plan) -> "StreamSteps":
        return StreamSteps(sets, plan)

    def tests(self, batch_size: int, workers: int, pin: bool) -> Iterator[Found]:
        return _read_ahead(_Tests(self, batch_size), min(1, workers), pin)

    def digest(self) -> str:
        """sha256 (hex) of where the pictures are and how many; not of what they show."""
        said = repr((self.urls, self.count, self.classes, self.shape))
        return hashlib.sha256(said.encode()).hexdigest()

    def once(self) -> Iterator[Sample]:
        """Every sample, in the order of the shards. DataError names what is wrong."""
        for url in self.urls:
            try:
                for found in group_by_keys(_members(url)):
                    key = found["__key__"].encode()
                    if self.share[0] <= zlib.crc32(key) / 2**32 < self.share[1]:
                        yield self._sample(url, found)
            except DataError:
                raise
            except Exception as error:  # tarfile's, fsspec's and webdataset's own
                raise DataError(f"{url} cannot be read ({error})") from None

    def for_ever(self, seed: int, *address: int | str, first: int, every: int) -> Iterator[Sample]:
        """Pass after pass, each in another order: of the shards, every `every`-th from `first` on,
        and of the samples near each other in them. DataError if a pass has none."""
        for turn in count():
            generator = stream(seed, *address, turn)
            place = torch.randperm(len(self.urls), generator=generator)[first::every].tolist()
            rng = random.Random(int(torch.randint(2**62, (), generator=generator)))
            own = replace(self, urls=tuple(self.urls[i] for i in place))
            some = False
            for sample in filters.shuffle(SHUFFLED, rng=rng)(own.once()):
                some = True
                yield sample
            if not some:
                raise DataError(f"no sample in {', '.join(own.urls)}; lower data.workers or ranks")

    def central(self, index: Tensor) -> Tensor:
        """uint8 [B, C, H, W]: the samples at these places, as they are tested; reads up to them."""
        wanted = index.tolist()
        found = dict(zip(range(max(wanted) + 1), self.once(), strict=False))
        if len(found) <= max(wanted):
            raise DataError(f"{self.urls[0]} …: {len(found)} samples, data.limit says more")
        return torch.stack([self.tested(found[i]) for i in wanted])

    def tested(self, sample: Sample) -> Tensor:
        """uint8 [C, H, W], as it is tested."""

        def cut(data: bytes) -> np.ndarray:
            file = io.BytesIO(data)
            return central_square(file, self.size, self.channels, self.shorter, bits=self.bits)

        return torch.from_numpy(np.ascontiguousarray(self._decoded(sample, cut)))

    def trained(self, samples: list[Sample], crop: Crop, generator: torch.Generator) -> Tensor:
        """uint8 [B, C, H, W], cut at random."""
        if crop.scale is None:
            own = torch.stack([self.tested(sample) for sample in samples])
            return augment.crop_flip(own, crop.padding, crop.flip, generator)
        parts = Parts.draw(len(samples), crop.scale, crop.flip, generator)
        images = torch.empty(len(samples), *self.shape, dtype=torch.uint8)
        for i, sample in enumerate(samples):

            def cut(data: bytes, i: int = i) -> None:
                box_of, mirror = partial(parts.box, i), parts.mirror_B[i]
                resized_part(data, images[i], box_of, mirror, bits=self.bits)

            self._decoded(sample, cut)
        return images

    def _decoded(self, sample: Sample, cut: Any) -> Any:
        try:
            with quiet():
                return cut(sample.data)
        except MemoryError:
            raise
        except Exception as error:  # Pillow raises nearly anything on broken files
            raise DataError(f"{sample.name}: {reason(error, sample.data)}") from None

    def _sample(self, url: str, found: Mapping[str, Any]) -> Sample:
        name = f"{url}: sample {found['__key__']}"
        pictures = [found[field] for field in PICTURES if field in found]
        if len(pictures) != 1 or "cls" not in found:
            has = ", ".join(field for field in found if not field.startswith("__"))
            raise DataError(f"{name} has {has}; expected one of {', '.join(PICTURES)}, and cls")
        text = found["cls"].strip()
        if not text.isdigit() or int(text) >= len(self.classes):
            raise DataError(f"{name}: class {text[:20]!r}, expected 0 to {len(self.classes) - 1}")
        return Sample(name, pictures[0], int(text))


def open_stream(
    place: str, *, count: int, classes: int, size: int, channels: int, shorter: int | None
) -> Stream:
    """place: a folder of tar files, or a path or URL with braces for several of them:
    shards/train-{000000..000146}.tar. DataError for a folder without."""
    urls = tuple(braceexpand(place))
    if not is_url(place) and Path(place).is_dir():
        urls = tuple(map(str, sorted(Path(place).glob("*.tar"))))
        if not urls:
            raise DataError(f"{place} holds no .tar file")
    names = tuple(map(str, range(classes)))
    return Stream(urls, count, names, size, channels, shorter or size)


class _Watched:
    """A tar as it is read, and what it ended with."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.tail = file, b""

    def read(self, size: int) -> bytes:
        data = self.file.read(size)
        self.tail = (self.tail + data)[-len(END) :]
        return data


def _members(url: str) -> Iterator[dict[str, Any]]:
    """Return what webdataset makes of the members of a shard. DataError if the shard was cut off,
    which it would take for its end."""
    with opened(url) as file:
        watched = _Watched(file)
        yield from tar_file_expander([{"url": url, "stream": watched}])
        while watched.read(1 << 20):
            pass
        if watched.tail != END:
            raise DataError(f"{url} ends without the mark of a whole tar: it was cut off")


class StreamSteps:
    """What a run reads of streams: the batches of its steps, in turn from wherever one starts."""

    def __init__(self, sets: Mapping[str, Stream], plan: Plan) -> None:
        self.sets, self.plan = dict(sets), plan
        orders = [
            Batches(len(each), plan.batch_size, plan.seed, purpose)
            for purpose, each in sets.items()
        ]
        self.batches, part = orders[0], plan.part
        fewest = min(len(each.urls) for each in sets.values())
        if fewest < part.of:
            raise DataError(f"{fewest} shards cannot be shared by {part.of} ranks; lower mesh.data")
        self.workers = min(plan.workers, fewest // part.of)

    def ahead(self, step: int) -> Iterator[Found]:
        return _read_ahead(_Endless(self.sets, self.plan, step), self.workers, self.plan.pin)


def _read_ahead(batches: IterableDataset[Found], workers: int, pin: bool) -> Iterator[Found]:
    loader: DataLoader[Found] = DataLoader(
        batches,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=AHEAD if workers else None,
        multiprocessing_context="fork" if workers else None,
        pin_memory=pin,
        worker_init_fn=obey_parent if workers else None,
        generator=stream(0, "workers"),
    )
    with shielded():  # here the workers start
        return iter(loader)


class _Endless(IterableDataset[Found]):
    """One worker's batches, from a step on, without end."""

    def __init__(self, sets: Mapping[str, Stream], plan: Plan, began: int) -> None:
        self.sets, self.plan, self.began = sets, plan, began

    def __iter__(self) -> Iterator[Found]:
        info, part = get_worker_info(), self.plan.part
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        first, every = part.number + worker * part.of, part.of * workers
        samples = {
            purpose: each.for_ever(
                self.plan.seed, "stream", purpose, self.began, first=first, every=every
            )
            for purpose, each in self.sets.items()
        }
        for number in count():
            try:
                read = {
                    purpose: self._read(purpose, each, first, number)
                    for purpose, each in samples.items()
                }
            except DataError as error:  # raised in a worker it would come with a traceback
                yield error
                return
            yield read, []

    def _read(self, purpose: str, samples: Iterator[Sample], first: int, number: int) -> Read:
        plan = self.plan
        batch = list(islice(samples, plan.batch_size // plan.part.of))
        generator = stream(plan.seed, "stream crop", purpose, self.began, first, number)
        images = self.sets[purpose].trained(batch, plan.crop, generator)
        return Read(images, torch.tensor([sample.label for sample in batch]))


class _Tests(IterableDataset[Found]):
    def __init__(self, images: Stream, batch_size: int) -> None:
        self.images, self.batch_size = images, batch_size

    def __iter__(self) -> Iterator[Found]:
        samples = self.images.once()
        try:
            while batch := list(islice(samples, self.batch_size)):
                images = torch.stack([self.images.tested(sample) for sample in batch])
                labels = torch.tensor([sample.label for sample in batch])
                yield {"test": Read(images, labels)}, []
        except DataError as error:
            yield error
