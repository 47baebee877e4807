"""How a number moves from the start of a run (progress 0) to its end (progress 1)."""

import math


def cosine(start: float, end: float, progress: float) -> float:
    """Half a cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def linear(start: float, end: float, progress: float) -> float:
    return start + (end - start) * progress
