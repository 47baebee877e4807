"""The training comparison: every (architecture, policy) over its seeds, and the found pair's lead.

Accuracies are fractions here; percent only where they are printed. Spread is the sample standard
deviation over seeds (n − 1); a difference carries the standard error of its mean.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from daas_dist.report.record import Run

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
    parameters: int | None = None
    multiply_adds: int | None = None
    seconds: float | None = None

    @property
    def finished(self) -> bool:
        return self.epoch >= self.epochs


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

    @property
    def finished(self) -> bool:
        return all(row.finished for row in self.rows)


def trained(run: Run) -> list[Trained]:
    """What comparison.json lists, then the trainings that are not in it yet, from their metrics."""
    listed = run.comparison["rows"] if run.comparison is not None else []
    rows = [
        Trained(
            architecture=row["architecture"],
            policy=row["policy"],
            seed=row["seed"],
            last=row["last"],
            best=row["best"],
            epoch=row["epochs"],
            epochs=row["epochs"],
            parameters=row["parameters"],
            multiply_adds=row["multiply_adds"],
            seconds=row["seconds"],
        )
        for row in listed
    ]
    known = {(row.architecture, row.policy, row.seed) for row in rows}
    for training in run.trainings:
        identity = (training.architecture, training.policy, training.seed)
        if identity in known or not training.metrics:
            continue
        latest = training.metrics[-1]
        rows.append(
            Trained(
                *identity,
                last=latest["test_accuracy"],
                best=max(row["test_accuracy"] for row in training.metrics),
                epoch=latest["epoch"],
                # Listed is finished: one that reached its last epoch but is unlisted is not, yet.
                epochs=max(latest["epochs"], latest["epoch"] + 1),
            )
        )
    return rows


def groups(run: Run, key: str = "") -> list[Group]:
    """In order of appearance."""
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


def rivals(best: Group, among: Sequence[Group]) -> list[Group]:
    """What the found pair is to beat: the other groups of its run, as far as all are finished."""
    if (best.architecture, best.policy) != ("found", "found") or not best.finished:
        return []
    return [g for g in among if g.key == best.key and g != best and g.finished]


def leading(among: Sequence[Group]) -> Group | None:
    """The group a headline is about: found architecture and policy, else the most accurate."""
    found = [g for g in among if (g.architecture, g.policy) == ("found", "found")]
    return max(found or among, key=lambda group: group.last()[0], default=None)
