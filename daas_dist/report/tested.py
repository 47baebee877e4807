"""How a trained network errs: its calibration, and its accuracy class by class.

Of the newest epoch of every seed of a group, put together: an image counts as often as it was
tested.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from daas_dist.documents.results import Evaluation
from daas_dist.report import markup, plots
from daas_dist.report.compare import Group, mean_and_deviation
from daas_dist.report.record import Run

LISTED = 20
"""Classes up to which all are shown."""
MOST_SEEDS = 100
"""Of which tests are put together."""
LOWEST, HIGHEST = 12, 4
"""How many are shown of more."""


@dataclass(frozen=True)
class ClassRow:
    name: str
    accuracies: list[float]
    """A number a seed."""
    taken_for: tuple[str, float] | None
    """The other class that it is most often taken for, its share; None if never or not known."""

    @property
    def mean(self) -> float:
        return mean_and_deviation(self.accuracies)[0]


def view(run: Run, group: Group, named: str, name: str) -> str:
    """HTML; nothing where no training of the group has left an evaluation."""
    read = (
        training.evaluation()
        for training in run.trainings
        if (training.architecture, training.policy) == (group.architecture, group.policy)
    )
    found = [evaluation for evaluation in islice(read, MOST_SEEDS) if evaluation is not None]
    if not found:
        return ""
    sizes = {(len(each.class_accuracy), len(each.bins)) for each in found}
    if len(sizes) > 1:
        raise ValueError(
            f"{run.path}: the evaluation.json of the seeds of {group.architecture} / "
            f"{group.policy} are of different numbers of classes or bins; remove the wrong one"
        )
    error = markup.percent(calibration_error(found))
    pictured = markup.figure(
        "How sure it is, and how right",
        f"test images by the confidence of the answer; expected calibration error {error}\u00a0%",
        plots.reliability(f"{name}-reliability", pooled_bins(found)),
    )
    rows = class_rows(found, _classes(run, len(found[0].class_accuracy)))
    pictured += markup.figure("Class by class, the hardest first", _note(rows), _table(rows))
    return f"<h3>How {markup.text(named)} errs</h3><div class='pair'>{pictured}</div>"


def pooled_bins(found: Sequence[Evaluation]) -> np.ndarray:
    """(bins, 3): images, right ones, sum of confidences."""
    return np.sum(
        [
            [
                [each.images, each.images * (each.accuracy or 0),
                 each.images * (each.confidence or 0)]
                for each in evaluation.bins
            ]
            for evaluation in found
        ],
        axis=0,
    )  # fmt: skip


def calibration_error(found: Sequence[Evaluation]) -> float:
    """The mean over the seeds, not of what is put together, whose errors would cancel."""
    return mean_and_deviation([evaluation.calibration_error for evaluation in found])[0]


def class_rows(found: Sequence[Evaluation], names: Sequence[str]) -> list[ClassRow]:
    """The lowest accuracy first; without classes that have no test image."""
    tables = [evaluation.confusion for evaluation in found if evaluation.confusion is not None]
    confusion = np.sum(tables, axis=0) if len(tables) == len(found) else None
    rows = []
    for c, name in enumerate(names):
        told = [each.class_accuracy[c] for each in found]
        accuracies = [accuracy for accuracy in told if accuracy is not None]
        if len(accuracies) == len(found):
            rows.append(ClassRow(name, accuracies, _taken_for(confusion, c, names)))
    return sorted(rows, key=lambda row: row.mean)


def _taken_for(
    confusion: np.ndarray | None, c: int, names: Sequence[str]
) -> tuple[str, float] | None:
    if confusion is None:
        return None
    others = confusion[c].copy()
    others[c] = 0
    most = int(others.argmax())
    return (names[most], others[most] / confusion[c].sum()) if others[most] else None


def _classes(run: Run, count: int) -> list[str]:
    rows = run.comparison.rows if run.comparison is not None else []
    told = [row.data.classes for row in rows if row.data is not None]
    if run.searched is not None:
        told.append(run.searched.document.data.classes)
    fitting = [classes for classes in told if len(classes) == count]
    return fitting[0] if fitting else [f"class {c}" for c in range(count)]


def _note(rows: Sequence[ClassRow]) -> str:
    if len(rows) <= LISTED:
        shown = "share of its test images that are right"
    else:
        shown = f"the {LOWEST} lowest and the {HIGHEST} highest of {len(rows)}"
    return f"{shown}, mean over the seeds; the tick is the mean of all"


def _table(rows: Sequence[ClassRow]) -> str:
    shown = rows if len(rows) <= LISTED else [*rows[:LOWEST], *rows[-HIGHEST:]]
    told = any(row.taken_for is not None for row in rows)
    mean = sum(row.mean for row in rows) / len(rows)
    body = [
        [
            markup.text(row.name),
            f"{markup.bar(row.mean, mean)}{markup.percent(row.mean, 1)} %",
            "–" if row.taken_for is None else _named(*row.taken_for),
        ][: 3 if told else 2]
        for row in shown
    ]
    head = ("Class", "Accuracy", "Most often taken for")
    return markup.table(head[: 3 if told else 2], body, "classes tight")


def _named(name: str, share: float) -> str:
    return f"{markup.text(name)} <span class='weak'>{markup.percent(share, 1)} %</span>"
