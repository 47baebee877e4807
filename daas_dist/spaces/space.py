"""What the policies of a search are made of."""

from dataclasses import dataclass

import torch
from torch import Tensor

from daas_dist.spaces.operations import NAMES, RANGES, describe, names


@dataclass(frozen=True)
class Space:
    """Some of the operations that these ranges have, in the order of operations.TABLE.

    Policies and their draws count operations by their place here. ValueError where the ranges are
    unknown, or the operations are none, not of these ranges or in another order.
    """

    ranges: str
    operations: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.ranges not in RANGES:
            raise ValueError(f"policy: ranges {self.ranges!a:.40} is none of {RANGES}")
        known = names(self.ranges)
        if not self.operations or self.operations != tuple(
            n for n in known if n in self.operations
        ):
            raise ValueError(
                f"policy: operations are {list(self.operations)!a:.80}, expected one or more of "
                f"{list(known)} in this order"
            )

    @staticmethod
    def whole(ranges: str) -> "Space":
        """Return all that these ranges have."""
        return Space(ranges, names(ranges))

    def in_table(self, operation: Tensor) -> Tensor:
        """Return the places in operations.TABLE of operations of this space."""
        return torch.tensor([NAMES.index(name) for name in self.operations])[operation]

    def describe(self, operation: int, magnitude: int) -> str:
        """Write an operation of this space for a person, as operations.describe."""
        return describe(self.operations[operation], magnitude, self.ranges)
