"""What is read under a number, read ahead: other processes decode the images of later steps while
this one computes."""

import math
from collections.abc import Iterator, Mapping
from mmap import mmap
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from daas_dist.data.manifest import DataError
from daas_dist.data.source import Found, Read
from daas_dist.rng import stream
from daas_dist.runs.stopping import obey_parent, shielded

AHEAD = 2
"""Steps that each worker reads ahead: torch's own."""

Slots = Mapping[str, Tensor]
"""Purpose -> uint8 [B or more, C, H, W], memory for the images that are read; or none, for new."""


class Reader(Protocol):
    """What is read under a number."""

    def shapes(self) -> dict[str, tuple[int, int, int, int]]:
        """Purpose -> [B, C, H, W] of the largest batch."""
        ...

    def read(self, number: int, slots: Slots) -> Found: ...


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


# Not of what holds the iterator: it would hold on to that, and the workers would live until a
# collector of such circles came by.
def in_turn(reader: Reader, numbers: range, workers: int, pin: bool) -> Iterator[Found]:
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
