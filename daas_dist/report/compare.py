"""The training comparison: every (architecture, policy) over its seeds, and the found pair's lead.

Accuracies are fractions here; percent only where they are printed. Spread is the sample standard
deviation over seeds (n − 1); a difference carries the standard error of its mean.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from daas_dist.documents.metrics import best_accuracy
from daas_dist.documents.results import Throughput
from daas_dist.report.record import Run

MOBILE, MOBILE_SIDE = 600e6, 224
"""Multiply-adds that the "mobile setting" allows, and the images' side in pixels."""

Figures = tuple[float, float | None]
"""A mean, and its spread or standard error (None when there is one value only)."""


def mean_and_deviation(values: Sequence[float]) -> Figures:
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, None
    return mean, math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))


@dataclass(frozen=True)
class Trained:
    """One trained network; an unfinished one with what it has reached, its costs unknown."""

    architecture: str
    policy: str
    seed: int | None
    last: float
    best: float
    epoch: int
    epochs: int
    top5: float | None = None
    """Of the last epoch; None for 5 classes or fewer."""
    best_top5: float | None = None
    calibration_error: float | None = None
    parameters: int | None = None
    multiply_adds: int | None = None
    seconds: float | None = None
    throughput: Throughput | None = None
    shape: tuple[int, ...] = ()
    """Of an image, (C, H, W)."""

    @property
    def finished(self) -> bool:
        return self.epoch >= self.epochs

    @property
    def above_mobile(self) -> bool:
        """Tell whether it is a network for 224 pixels that the mobile setting leaves out."""
        large = self.shape[-1:] >= (MOBILE_SIDE,)
        return large and self.multiply_adds is not None and self.multiply_adds > MOBILE


@dataclass(frozen=True)
class Group:
    """The seeds of one architecture under one policy, of one run (`key`: its letter)."""

    key: str
    architecture: str
    policy: str
    rows: tuple[Trained, ...]

    def last(self) -> Figures:
        return mean_and_deviation([row.last for row in self.rows])

    def best(self) -> Figures:
        return mean_and_deviation([row.best for row in self.rows])

    def figures(self, number: str) -> Figures | None:
        """The mean over the seeds of one of Trained's numbers, None where a seed has none."""
        values = [getattr(row, number) for row in self.rows]
        return None if None in values else mean_and_deviation(values)

    @property
    def finished(self) -> bool:
        return all(row.finished for row in self.rows)


def trained(run: Run) -> list[Trained]:
    """Return what comparison.json lists, then the trainings that are not in it yet, from their
    metrics.

    Rows of before there was a top-5, and of before a row told of its data, have none."""
    listed = run.comparison.rows if run.comparison is not None else []
    rows = [
        Trained(
            architecture=row.architecture,
            policy=row.policy,
            seed=row.seed,
            last=row.last,
            best=row.best,
            epoch=row.epochs,
            epochs=row.epochs,
            top5=row.last_top5,
            best_top5=row.best_top5,
            calibration_error=row.calibration_error,
            parameters=row.parameters,
            multiply_adds=row.multiply_adds,
            seconds=row.seconds,
            throughput=row.throughput,
            shape=() if row.data is None else tuple(row.data.shape),
        )
        for row in listed
    ]
    known = {(row.architecture, row.policy, row.seed) for row in rows}
    for training in run.trainings:
        identity = (training.architecture, training.policy, training.seed)
        latest = None if identity in known else training.latest
        if latest is None:
            continue
        rows.append(
            Trained(
                *identity,
                last=latest.test_accuracy,
                best=best_accuracy(training.path),
                top5=latest.test_top5,
                calibration_error=latest.test_calibration_error,
                epoch=latest.epoch,
                # Listed is finished: one that reached its last epoch but is unlisted is not, yet.
                epochs=max(latest.epochs, latest.epoch + 1),
            )
        )
    return rows


def groups(run: Run, key: str = "") -> list[Group]:
    """Group rows in order of appearance."""
    gathered: dict[tuple[str, str], list[Trained]] = {}
    for row in trained(run):
        gathered.setdefault((row.architecture, row.policy), []).append(row)
    return [Group(key, *name, rows=tuple(rows)) for name, rows in gathered.items()]


def difference(group: Group, other: Group) -> Figures:
    """Mean of the last accuracies, group minus other, and its standard error.

    Paired by seed where both have the same seeds, else Welch's standard error.
    """
    ours = {row.seed: row.last for row in group.rows}
    theirs = {row.seed: row.last for row in other.rows}
    if set(ours) == set(theirs) and len(ours) == len(group.rows) == len(other.rows):
        mean, deviation = mean_and_deviation([ours[seed] - theirs[seed] for seed in ours])
        error = None if deviation is None else deviation / math.sqrt(len(ours))
        return mean, error
    (mean, deviation), (base, spread) = group.last(), other.last()
    error = None
    if deviation is not None and spread is not None:
        error = math.sqrt(deviation**2 / len(group.rows) + spread**2 / len(other.rows))
    return mean - base, error


def _was_found(group: Group) -> bool:
    """Not a policy on the random architecture that what was found is to beat."""
    return group.policy == "found" and group.architecture != "random"


def rivals(best: Group, among: Sequence[Group]) -> list[Group]:
    """Return what was found is to beat: the other groups of its run, as far as all are finished;
    where its network was not searched, those on the same network."""
    if not _was_found(best) or not best.finished:
        return []
    others = [g for g in among if g.key == best.key and g != best and g.finished]
    if best.architecture == "found":
        return others
    return [g for g in others if g.architecture == best.architecture]


def leading(among: Sequence[Group]) -> Group | None:
    """The group a headline is about: found architecture and policy, else the found policy on a
    network that was not searched, else the most accurate."""
    found = [g for g in among if _was_found(g)]
    found = [g for g in found if g.architecture == "found"] or found
    return max(found or among, key=lambda group: group.last()[0], default=None)
