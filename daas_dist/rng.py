"""Randomness has an address: what it is for, never a rank, a clock or an ambient generator."""

import hashlib

import torch


def stream(seed: int, *address: int | str) -> torch.Generator:
    """A CPU generator for one purpose: stream(0, "arch", step, i) is the same on every rank.

    Draws are made on the CPU and moved, so that they do not depend on the device either.
    """
    digest = hashlib.blake2b(repr((seed, *address)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
