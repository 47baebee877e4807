"""What a run reads, whether any of it can be read at any time (indexed.py) or it comes in turn
(stream.py): a Source. Its steps are what a Feed reads."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, Self, TypeVar

from torch import Tensor

from daas_dist.data.crops import Crop
from daas_dist.data.manifest import DataError
from daas_dist.data.reader import Batches
from daas_dist.rng import WHOLE, Part

AnySource = TypeVar("AnySource", bound="Source")


@dataclass(frozen=True)
class Account:
    """What a look at a data set left out, and what is odd about it."""

    left_out: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Why -> names, of what is no picture."""
    remarks: tuple[str, ...] = ()
    """A sentence each."""


class Read(NamedTuple):
    """One rank's part of a batch, on the CPU."""

    images: Tensor
    """uint8 [B, C, H, W], cut; of shards and by workers in channels_last."""
    labels: Tensor


Found = tuple[dict[str, Read], list[str]] | DataError
"""(purpose -> this rank's part of its batch, what is wrong with each sample that another took the
place of), or what is wrong with one that has to be there."""


Change = Callable[[Tensor, int, Part], Tensor]
"""(uint8 [B, C, H, W] of a step, its number, which part of its batch) -> uint8 of that shape."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How the steps of a run read their images."""

    batch_size: int
    """Of a step, on all ranks that share it."""
    part: Part = WHOLE
    """Which of them this rank reads."""
    epochs: int
    """Of the first of the sets; nothing after them is read."""
    seed: int
    crop: Crop
    window: int | None = None
    """How many files are read at a time; None: all. Not of a stream."""
    change: Change | None = None
    """What else is done to images where they are read. Not of a stream."""
    workers: int = 0
    pin: bool = False
    """Whether they are read into memory from which a GPU copies while it computes."""


class Steps(Protocol):
    """What a run reads at each of its steps."""

    @property
    def batches(self) -> Batches:
        """Of the first set: an epoch of the run is one of its."""
        ...

    def ahead(self, step: int) -> Iterator[Found]:
        """Return what is read at a step and those after it, by purpose, read before it is asked for
        if there are workers."""
        ...


class Source(Protocol):
    """Images to learn from or to test on, before they are read."""

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def bad_files(self) -> tuple[str, ...]:
        """ "name: reason" of each file that was left out."""
        ...

    @property
    def bits(self) -> int | None:
        """Return how many bits are used by its pictures whose numbers have more than 8; None if
        there are none such."""
        ...

    @property
    def account(self) -> Account: ...

    @property
    def shape(self) -> tuple[int, int, int]:
        """[C, H, W] of what is read."""
        ...

    @property
    def max_bad(self) -> int:
        """How many bad samples others of their class may take the place of."""
        ...

    @property
    def in_memory(self) -> bool:
        """Whether its pictures are decoded already, so that nobody need read them ahead."""
        ...

    def __len__(self) -> int: ...

    def digest(self) -> str:
        """sha256 (hex) of what it holds: what a run says it was trained on."""
        ...

    def central(self, index: Tensor) -> Tensor:
        """uint8 [B, C, H, W]: as they are tested."""
        ...

    def split(self, share: float, seed: int) -> tuple[Self, Self]:
        """(train, val) of a search: `share` of the images to train."""
        ...

    def share_of(self, part: Part) -> Self:
        """Return one of part.of shares, of all of which each image is in one."""
        ...

    def fewest_of(self, shares: int) -> int:
        """Return how many images each of so many shares has at least, as far as is known."""
        ...

    def steps(self, sets: Mapping[str, Self], plan: Plan) -> Steps:
        """Return the steps of a run that reads these sets, by purpose; this is the first of them.
        DataError where the ranks of plan.part cannot share them."""
        ...

    def tests(self, batch_size: int, workers: int, pin: bool) -> Iterator[Found]:
        """Return all of it in batches as they are tested, each image once, under "test"."""
        ...
