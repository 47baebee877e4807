"""How the C library hands out memory on a CPU, and what is said where a device has too little."""

import ctypes
from collections.abc import Generator
from contextlib import contextmanager

import torch

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""glibc's numbers of two settings (mallopt(3))."""
KEPT = 2**30
LARGEST = 2**25
"""The most that glibc takes."""


def keep_freed_memory() -> None:
    """Return what a step frees, up to a GiB, stays at hand for the next tensors. Only in glibc.

    Else feature maps are new memory every time, whose pages the kernel clears at the first touch: a
    twelfth of a search step (batch 16, one thread), with as high a peak.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # not on musl or macOS
        mallopt(MMAP_THRESHOLD, LARGEST)
        mallopt(TRIM_THRESHOLD, KEPT)


@contextmanager
def within_memory(lower: str, at: str = "") -> Generator[None]:
    """MemoryError where the device has too little memory. lower: the keys that help; at: what the
    message starts with."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MemoryError(f"{at}the device has too little memory; lower {lower}") from error
