"""Batches read ahead: other processes decode the images of later steps while this one computes.

What a step gets is a function of its number, so reading ahead changes nothing: a resume starts at
its step and nothing that was read and not used is missed.
"""

import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from mmap import mmap
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from daas_dist.data.crops import Crop
from daas_dist.data.images import Images, ImageSet
from daas_dist.data.manifest import DataError
from daas_dist.data.reader import Batches
from daas_dist.data.shards import Shards
from daas_dist.rng import Part, stream
from daas_dist.runs.stopping import obey_parent, shielded

AHEAD = 2
"""Steps that each worker reads ahead: torch's own."""

MOST_WORKERS = 16


@dataclass(frozen=True)
class Order:
    """One of the things that a run reads: which images, in which batches."""

    images: ImageSet
    batches: Batches


class Read(NamedTuple):
    """One rank's part of a batch, on the CPU."""

    images: Tensor
    """uint8 [B, C, H, W], cut; of shards and by workers in channels_last."""
    labels: Tensor


def workers_for(images: object, asked: int | None) -> int:
    """Return how many processes read ahead. None: for shards this rank's share of the cores but
    one, for images in memory none, as cutting them costs less than handing them over."""
    if asked is not None:
        return asked
    if isinstance(images, Images):
        return 0
    cores = len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, min(MOST_WORKERS, cores - 1))


Found = tuple[dict[str, Read], list[str]] | DataError
"""(purpose -> this rank's part of its batch, what is wrong with each sample that another took the
place of), or what is wrong with one that has to be there."""

Slots = Mapping[str, Tensor]
"""Purpose -> uint8 [B or more, C, H, W], memory for the images that are read; or none, for new."""


Change = Callable[[Tensor, int, Part], Tensor]
"""(uint8 [B, C, H, W] of a step, its number, which part of its batch) -> uint8 of that shape."""


class Reader(Protocol):
    """What is read under a number."""

    def shapes(self) -> dict[str, tuple[int, int, int, int]]:
        """Purpose -> [B, C, H, W] of the largest batch."""
        ...

    def read(self, number: int, slots: Slots) -> Found: ...


class Steps:
    """What a run reads at each of its steps."""

    def __init__(
        self,
        orders: Mapping[str, Order],
        crop: Crop,
        seed: int,
        part: Part,
        change: Change | None = None,
    ) -> None:
        self.orders, self.crop, self.seed, self.part = dict(orders), crop, seed, part
        self.change = change

    def shapes(self) -> dict[str, tuple[int, int, int, int]]:
        return {
            purpose: (order.batches.batch_size // self.part.of, *order.images.shape)
            for purpose, order in self.orders.items()
        }

    def read(self, number: int, slots: Slots) -> Found:
        read = {}
        try:
            for purpose, order in self.orders.items():
                index = order.batches.indices(number)
                generator = stream(self.seed, "crop", purpose, number)
                images = order.images.training(
                    index, self.crop, generator, self.part, slots.get(purpose)
                )
                if self.change is not None:
                    images.copy_(self.change(images.contiguous(), number, self.part))
                read[purpose] = Read(images, order.images.labels[self.part.take(index)])
        except DataError as error:  # raised in a worker it would come with a traceback
            return error
        return read, replaced(*(order.images for order in self.orders.values()))


class Tests:
    """Images as they are tested, batch after batch."""

    def __init__(self, images: ImageSet, batch_size: int) -> None:
        self.images, self.index = images, torch.arange(len(images)).split(batch_size)

    def shapes(self) -> dict[str, tuple[int, int, int, int]]:
        return {"test": (len(self.index[0]), *self.images.shape)}

    def read(self, number: int, slots: Slots) -> Found:
        index = self.index[number]
        try:
            images = self.images.central(index, slots.get("test"))
        except DataError as error:
            return error
        return {"test": Read(images, self.images.labels[index])}, replaced(self.images)


def replaced(*sets: ImageSet) -> list[str]:
    """Return what is wrong with each bad sample that this process has met since it was last
    asked."""
    fresh = []
    for images in sets:
        if isinstance(images, Shards):
            fresh += images.reading.fresh
            images.reading.fresh.clear()
    return fresh


def _max_bad(images: ImageSet) -> int:
    return images.max_bad if isinstance(images, Shards) else 0


class Feed:
    """The batches of a run's steps, in whatever order they are asked for; in turn read ahead."""

    def __init__(
        self,
        orders: Mapping[str, Order],
        crop: Crop,
        seed: int,
        *,
        part: Part,
        steps: int,
        workers: int = 0,
        pin: bool = False,
        change: Change | None = None,
    ) -> None:
        """steps: of the run; nothing after them is read. pin: into memory that a GPU copies from
        while it computes. change: what else is done to a step's images where they are read."""
        self.orders, self.workers, self.pin = dict(orders), workers, pin
        self._steps, self._last = Steps(orders, crop, seed, part, change), steps
        self._next = -1
        self._most_bad = max(_max_bad(order.images) for order in orders.values())
        self._ahead: Iterator[Found] = iter(())
        self.bad: list[str] = []
        """What is wrong with each bad sample so far. Another of its class was read instead."""

    def batch(self, step: int) -> dict[str, Read]:
        """Return the batch of a step by purpose; its memory is written again when the batch
        after the next is asked for. DataError names a bad sample that may not be replaced."""
        if step != self._next:
            self._ahead = _in_turn(self._steps, range(step, self._last), self.workers, self.pin)
        self._next = step + 1
        return self._checked(next(self._ahead))

    def tests(self, images: ImageSet, batch_size: int) -> Iterator[Read]:
        """All of another set in batches as they are tested, each image once."""
        tests = Tests(images, batch_size)
        for found in _in_turn(tests, range(len(tests.index)), self.workers, self.pin):
            yield self._checked(found)["test"]

    def _checked(self, found: Found) -> dict[str, Read]:
        if isinstance(found, DataError):
            # The variable itself, raised, would refer to itself and keep the workers alive.
            raise type(found)(str(found))
        read, bad = found
        self.bad += [wrong for wrong in bad if wrong not in self.bad]
        if len(self.bad) > self._most_bad:  # each process has counted its own
            raise DataError(
                f"{len(self.bad)} samples are bad, data.max_bad_files allows {self._most_bad}: "
                + "; ".join(self.bad[:20])
            )
        return read


Written = tuple[dict[str, int], list[str]] | DataError
"""Found, but of each batch only how many images it has: they and their labels are in a slot."""


class Ring(Dataset[Written]):
    """What a reader reads, in memory that the workers share with their parent. In tensors of their
    own it would cost a worker a tenth of its time, and fill a container's /dev/shm."""

    def __init__(self, reader: Reader, slots: int) -> None:
        """slots: two more than the DataLoader has on their way: of the batch that is asked for, and
        of the one before it, which is still used."""
        self.reader, self.slots = reader, slots
        self.images: dict[str, Tensor] = {}
        self.labels: dict[str, Tensor] = {}
        for purpose, (batch, channels, *size) in reader.shapes().items():
            # Channels last, as decoders have it: turning one costs a fourteenth of reading it.
            pixels = _shared(torch.uint8, slots, batch, *size, channels)
            self.images[purpose] = pixels.movedim(-1, 2)
            self.labels[purpose] = _shared(torch.int64, slots, batch)

    def __getitem__(self, number: int) -> Written:
        """Read a batch in a worker."""
        slot = number % self.slots
        found = self.reader.read(number, {key: each[slot] for key, each in self.images.items()})
        if isinstance(found, DataError):
            return found
        read, bad = found
        for purpose, each in read.items():
            self.labels[purpose][slot, : len(each.labels)] = each.labels
        return {purpose: len(each.labels) for purpose, each in read.items()}, bad

    def filled(self, number: int, written: Written) -> Found:
        """Return what was written, which the next one may overwrite."""
        if isinstance(written, DataError):
            return written
        slot, (counts, bad) = number % self.slots, written
        read = {
            key: Read(self.images[key][slot, :count], self.labels[key][slot, :count])
            for key, count in counts.items()
        }
        return read, bad


def _shared(dtype: torch.dtype, *shape: int) -> Tensor:
    """Memory that forked processes have in common."""
    size = math.prod(shape) * dtype.itemsize
    return torch.frombuffer(mmap(-1, size), dtype=dtype).view(shape)


# Not of Feed: its iterator would hold on to it, and it to the iterator, and the workers would live
# until a collector of such circles came by.
def _in_turn(reader: Reader, numbers: range, workers: int, pin: bool) -> Iterator[Found]:
    """Return what is read under these numbers, in turn, ahead of its use if there are workers."""
    if workers == 0:
        return (_pinned(reader.read(number, {}), pin) for number in numbers)
    ring = Ring(reader, slots=AHEAD * workers + 2)
    loader: DataLoader[Written] = DataLoader(
        ring,
        batch_size=None,
        sampler=numbers,
        num_workers=workers,
        prefetch_factor=AHEAD,
        multiprocessing_context="fork",  # a ring is shared by being there before
        worker_init_fn=obey_parent,
        # Otherwise it would draw from torch's own.
        generator=stream(0, "workers"),
    )
    with shielded():  # here the workers start
        found = zip(numbers, loader, strict=True)
    return (_pinned(ring.filled(*each), pin) for each in found)


def _pinned(found: Found, pin: bool) -> Found:
    """Put tensors into memory from which a GPU copies while it computes: 2 ms for 64 images of
    224 pixels."""
    if isinstance(found, DataError) or not pin:
        return found
    read, bad = found
    return {key: Read(each.images.pin_memory(), each.labels) for key, each in read.items()}, bad
