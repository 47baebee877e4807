"""How a number moves from the start of a run (progress 0) to its end (progress 1), and the learning
rate of a training.

Epochs are counted from 0 and may be fractions: 2.5 is half-way through the third.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

TAIL = 5
"""Epochs of linear_with_tail's gentler end (peer: PC-DARTS train_imagenet.py)."""
DECAY = 0.1
"""What is left of the rate at each milestone (Goyal et al. 2017, torch's MultiStepLR)."""
CURVES = ("cosine", "linear", "steps")


def cosine(start: float, end: float, progress: float) -> float:
    """Half a cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def linear(start: float, end: float, progress: float) -> float:
    return start + (end - start) * progress


def linear_with_tail(start: float, epoch: float, epochs: int) -> float:
    """A line that would reach 0 at epochs − 5, and for the last five epochs one from there on that
    starts at its last whole epoch's rate and reaches 0 at the end (peer: PC-DARTS)."""
    body = epochs - TAIL
    if epochs - epoch > TAIL:
        return start * (body - epoch) / body
    return start * (epochs - epoch) / (body * TAIL)


def steps(start: float, epoch: float, milestones: Sequence[int]) -> float:
    """A tenth of the rate from each milestone on."""
    return start * DECAY ** sum(epoch >= milestone for milestone in milestones)


@dataclass(frozen=True)
class Schedule:
    """A training's learning rate. Which values go together is schema.Train's to check.

    curve: one of CURVES. by_step: the rate changes at every step, else once an epoch. A warm-up
    with a multiplier rises from start to multiplier × start, from where the curve goes on, that
    much later; one without takes (epoch + 1) / warmup_epochs of the curve.
    """

    curve: str
    start: float
    epochs: int
    by_step: bool = False
    milestones: tuple[int, ...] = ()
    warmup_epochs: int = 0
    warmup_multiplier: float | None = None


def learning_rate(schedule: Schedule, epoch: float) -> float:
    """The rate of a step that is made `epoch` epochs into the training."""
    at = epoch if schedule.by_step else math.floor(epoch)
    if schedule.warmup_multiplier is not None:
        return _gradual(schedule, at, schedule.warmup_multiplier)
    rate = _curve(schedule, schedule.start, at)
    # Peer: PC-DARTS, whose first five epochs take 1/5, 2/5, … of the falling line.
    return rate * min(1.0, (at + 1) / schedule.warmup_epochs) if schedule.warmup_epochs else rate


def _gradual(schedule: Schedule, epoch: float, multiplier: float) -> float:
    """Goyal et al. 2017, as Fast AutoAugment and DADA run it: their scheduler hands the curve the
    epochs since the warm-up, of as many as the whole training has. So a cosine starts from its top
    and ends a little above 0 (195 / 200 of the way), and steps come `warmup_epochs` later."""
    if epoch < schedule.warmup_epochs:
        return schedule.start * linear(1.0, multiplier, epoch / schedule.warmup_epochs)
    return _curve(schedule, schedule.start * multiplier, epoch - schedule.warmup_epochs)


def _curve(schedule: Schedule, start: float, epoch: float) -> float:
    if schedule.curve == "cosine":
        return cosine(start, 0.0, epoch / schedule.epochs)
    if schedule.curve == "linear":
        return linear_with_tail(start, epoch, schedule.epochs)
    if schedule.curve == "steps":
        return steps(start, epoch, schedule.milestones)
    raise ValueError(f"unknown curve {schedule.curve!r}; choose from {', '.join(CURVES)}")
