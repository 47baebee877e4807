"""Pictures of which any can be read at any time: an ImageSet, and what its steps read.

What a step gets is a function of its number, so reading ahead changes nothing: a resume starts at
its step and nothing that was read and not used is missed.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Self

import torch
from torch import Generator, Tensor

from daas_dist.data import strata
from daas_dist.data.crops import Crop
from daas_dist.data.manifest import DataError
from daas_dist.data.reader import Batches
from daas_dist.data.ring import Slots, in_turn
from daas_dist.data.source import Account, Found, Plan, Read
from daas_dist.rng import Part, stream


class ImageSet(ABC):
    """A Source of pictures with labels, in memory (images.Images) or on a disk (shards.Shards)."""

    labels: Tensor
    """[N] int64, numbers into classes."""
    classes: tuple[str, ...]
    bad_files: tuple[str, ...]
    bits: int | None
    account: Account
    max_bad: int = 0
    in_memory: bool = False

    # --- Each its own ----------------------------------------------------------------------------

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int]: ...

    @abstractmethod
    def take(self, index: Tensor) -> Self:
        """The images at these indices, or where a mask is true, in this order."""

    @abstractmethod
    def training(
        self,
        index: Tensor,
        crop: Crop,
        generator: Generator,
        part: Part,
        into: Tensor | None = None,
    ) -> Tensor:
        """uint8 [B / part.of, C, H, W]: this part of a batch, cut at random. The draws are the
        whole batch's, each image's own. into: memory for them, else new."""

    @abstractmethod
    def central(self, index: Tensor, into: Tensor | None = None) -> Tensor:
        """uint8 [B, C, H, W]: as they are tested. into: memory for as many or more, else new."""

    @abstractmethod
    def digest(self) -> str: ...

    @abstractmethod
    def file_N(self) -> Tensor:
        """[N] which file each lies in, where jumping between files is slow."""

    @abstractmethod
    def replaced(self) -> list[str]:
        """Return what is wrong with each bad sample that this process has met since it was last
        asked."""

    # --- Its parts -------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.labels)

    def counts(self) -> list[int]:
        """Return how many images there are of each class."""
        return strata.count_classes(self.labels, self.classes)

    def split(self, share: float, seed: int) -> tuple[Self, Self]:
        """As Source has it; strata.choose_share says which. Both keep the order of the data set."""
        in_train = strata.choose_share(self.labels, self.classes, share, seed)
        return self.take(in_train), self.take(~in_train)

    def limit(self, count: int, seed: int, key: str = "data.limit") -> Self:
        """Return `count` of the images, in their order; strata.choose_count says which."""
        chosen = strata.choose_count(self.labels, self.classes, count, seed, key)
        return self if count == len(self) else self.take(chosen)

    def limit_classes(self, count: int, seed: int) -> Self:
        """Return `count` images of each class; strata.choose_of_each says which."""
        return self.take(strata.choose_of_each(self.labels, self.classes, count, seed))

    def share_of(self, part: Part) -> Self:
        """As Source has it. Shares differ by one image at most."""
        if part.of == 1:
            return self
        return self.take(torch.arange(len(self)).tensor_split(part.of)[part.number])

    def fewest_of(self, shares: int) -> int:
        return len(self) // shares

    # --- Its batches -----------------------------------------------------------------------------

    def steps(self, sets: Mapping[str, "ImageSet"], plan: Plan) -> "IndexedSteps":
        return IndexedSteps(sets, plan)

    def tests(self, batch_size: int, workers: int, pin: bool) -> Iterator[Found]:
        tests = IndexedTests(self, batch_size)
        return in_turn(tests, range(len(tests.index)), workers, pin)


class IndexedSteps:
    """What a run reads of ImageSets at each of its steps: a function of the step's number."""

    def __init__(self, sets: Mapping[str, ImageSet], plan: Plan) -> None:
        self.sets, self.plan = dict(sets), plan
        self.orders = {
            purpose: Batches(
                len(each),
                plan.batch_size,
                plan.seed,
                purpose,
                None if plan.window is None else (each.file_N(), plan.window),
            )
            for purpose, each in sets.items()
        }
        self.batches = next(iter(self.orders.values()))

    def ahead(self, step: int) -> Iterator[Found]:
        end = self.plan.epochs * self.batches.steps_per_epoch
        return in_turn(self, range(step, end), self.plan.workers, self.plan.pin)

    def shapes(self) -> dict[str, tuple[int, int, int, int]]:
        count = self.plan.batch_size // self.plan.part.of
        return {purpose: (count, *each.shape) for purpose, each in self.sets.items()}

    def read(self, number: int, slots: Slots) -> Found:
        plan, read = self.plan, {}
        try:
            for purpose, each in self.sets.items():
                index = self.orders[purpose].indices(number)
                generator = stream(plan.seed, "crop", purpose, number)
                images = each.training(index, plan.crop, generator, plan.part, slots.get(purpose))
                if plan.change is not None:
                    images.copy_(plan.change(images.contiguous(), number, plan.part))
                read[purpose] = Read(images, each.labels[plan.part.take(index)])
        except DataError as error:  # raised in a worker it would come with a traceback
            return error
        return read, [wrong for each in self.sets.values() for wrong in each.replaced()]


class IndexedTests:
    """An ImageSet as it is tested, batch after batch."""

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
        return {"test": Read(images, self.images.labels[index])}, self.images.replaced()
