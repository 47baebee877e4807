"""Randomness has an address: what it is for, never a rank, a clock or an ambient generator."""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor


def stream(seed: int, *address: int | str) -> torch.Generator:
    """A CPU generator for one purpose: stream(0, "arch", step, i) is the same on every rank.

    Draws are made on the CPU and moved, so that they do not depend on the device either.
    """
    digest = hashlib.blake2b(repr((seed, *address)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


@dataclass(frozen=True)
class Part:
    """One of `of` equal parts of a batch. What it draws is its part of the batch's draws."""

    number: int = 0
    of: int = 1

    def take(self, whole: Tensor) -> Tensor:
        """This part of a tensor whose first axis is the batch's."""
        return whole.chunk(self.of)[self.number]


WHOLE = Part()
