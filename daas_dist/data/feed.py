"""Batches read ahead: other processes decode the images of later steps while this one computes.

What a step gets is a function of its number, so reading ahead changes nothing: a resume starts at
its step and nothing that was read and not used is missed.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from daas_dist.data.crops import Crop
from daas_dist.data.images import Images, ImageSet
from daas_dist.data.manifest import DataError
from daas_dist.data.reader import Batches
from daas_dist.data.shards import Shards
from daas_dist.rng import Part, stream

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
    """uint8 [B, C, H, W], cut."""
    labels: Tensor


def workers_for(images: ImageSet, asked: int | None) -> int:
    """How many processes read ahead. None: for shards this rank's share of the cores but one, for
    images in memory none, as cutting them costs less than handing them over."""
    if asked is not None:
        return asked
    if isinstance(images, Images):
        return 0
    cores = len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, min(MOST_WORKERS, cores - 1))


Found = tuple[dict[str, Read], list[str]] | DataError
"""(purpose -> this rank's part of its batch, what is wrong with each sample that another took the
place of), or what is wrong with one that has to be there."""


class _Steps(Dataset[Found]):
    """What a run reads at each of its steps."""

    def __init__(self, orders: Mapping[str, Order], crop: Crop, seed: int, part: Part) -> None:
        self.orders, self.crop, self.seed, self.part = dict(orders), crop, seed, part

    def __getitem__(self, step: int) -> "Found":
        try:
            return self._read(step)
        except DataError as error:  # raised in a worker it would come with a traceback
            return error

    def _read(self, step: int) -> tuple[dict[str, Read], list[str]]:
        read = {}
        for purpose, order in self.orders.items():
            index = order.batches.indices(step)
            generator = stream(self.seed, "crop", purpose, step)
            images = order.images.training(index, self.crop, generator, self.part)
            read[purpose] = Read(images, order.images.labels[self.part.take(index)])
        return read, replaced(*(order.images for order in self.orders.values()))


def replaced(*sets: ImageSet) -> list[str]:
    """What is wrong with each bad sample that this process has met since it was last asked."""
    fresh = []
    for images in sets:
        if isinstance(images, Shards):
            fresh += images.reading.fresh
            images.reading.fresh.clear()
    return fresh


def _max_bad(images: ImageSet) -> int:
    return images.max_bad if isinstance(images, Shards) else 0


class _From(Sampler[int]):
    def __init__(self, first: int, last: int) -> None:
        self.first, self.last = first, last

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.first, self.last))


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
    ) -> None:
        """steps: of the run; nothing after them is read. pin: into memory that a GPU copies from
        while it computes."""
        self.orders, self.workers, self.pin = dict(orders), workers, pin
        self._steps, self._last = _Steps(orders, crop, seed, part), steps
        self._next = -1
        self._most_bad = max(_max_bad(order.images) for order in orders.values())
        self._ahead: Iterator[Found] = iter(())
        self.bad: list[str] = []
        """What is wrong with each bad sample so far. Another of its class was read instead."""

    def batch(self, step: int) -> dict[str, Read]:
        """By purpose. DataError names a bad sample that may not be replaced."""
        if self.workers == 0 and not self.pin:
            found = self._steps[step]
        else:
            if step != self._next:
                self._ahead = iter(self._loader(step))
            found = next(self._ahead)
            self._next = step + 1
        if isinstance(found, DataError):
            raise _again(found)
        read, bad = found
        self._note(bad)
        return read

    def tests(self, images: ImageSet, batch_size: int) -> Iterator[Read]:
        """All of another set in batches as they are tested, each image once."""
        loader: DataLoader[tuple[Read, list[str]] | DataError] = DataLoader(
            _Tests(images, batch_size),
            batch_size=None,
            num_workers=self.workers,
            pin_memory=self.pin,
            generator=stream(0, "workers"),
        )
        for found in loader:
            if isinstance(found, DataError):
                raise _again(found)
            self._note(found[1])
            yield found[0]

    def _note(self, bad: list[str]) -> None:
        self.bad += [wrong for wrong in bad if wrong not in self.bad]
        if len(self.bad) > self._most_bad:  # each process has counted its own
            raise DataError(
                f"{len(self.bad)} samples are bad, data.max_bad_files allows {self._most_bad}: "
                + "; ".join(self.bad[:20])
            )

    def _loader(self, first: int) -> DataLoader[Found]:
        return DataLoader(
            self._steps,
            batch_size=None,
            sampler=_From(first, self._last),
            num_workers=self.workers,
            prefetch_factor=AHEAD if self.workers else None,
            pin_memory=self.pin,
            # Otherwise it would draw from torch's own.
            generator=stream(0, "workers"),
        )


def _again(error: DataError) -> DataError:
    """Raised from where it is a variable, it would refer to itself and keep the workers alive."""
    return type(error)(str(error))


class _Tests(Dataset[tuple[Read, list[str]] | DataError]):
    """Images as they are tested, batch after batch."""

    def __init__(self, images: ImageSet, batch_size: int) -> None:
        self.images, self.index = images, torch.arange(len(images)).split(batch_size)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, number: int) -> tuple[Read, list[str]] | DataError:
        index = self.index[number]
        try:
            read = Read(self.images.central(index), self.images.labels[index])
        except DataError as error:
            return error
        return read, replaced(self.images)
