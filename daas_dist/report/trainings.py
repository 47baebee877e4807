"""The training comparison on the page: dots, curves, a table, and the joining with searches."""

import itertools
from collections.abc import Mapping, Sequence

from daas_dist.report import markup, pictures, plots
from daas_dist.report.compare import Group, difference, groups, leading, rivals
from daas_dist.report.record import Row, Run, Training

WORDS = {
    "found": "found",
    "random": "random",
    "default": "default",
    "trivial_augment": "TrivialAugment",
    "rand_augment": "RandAugment",
    "none": "none",
}


def label(group: Group) -> str:
    """Plain text: the run's letter where there are several, architecture, policy."""
    key = f"{group.key} · " if group.key else ""
    return f"{key}{WORDS.get(group.architecture, '?')} / {WORDS.get(group.policy, '?')}"


def lead(best: Group, other: Group) -> str:
    """+0.41 ± 0.12: how many points best is ahead of other, with the standard error."""
    mean, error = difference(best, other)
    shown = f"{100 * mean:+.2f}" + ("" if error is None else f" ± {100 * error:.2f}")
    return shown.replace("-", "−")


def view(runs: Mapping[str, Run], searches: Mapping[str, str], name: str) -> str:
    """The trainings of one run (letter "") or of several; `searches`: HTML saying where each's
    architecture and policy came from."""
    among = [group for key, run in runs.items() for group in groups(run, key)]
    if not among:
        return "<p class='lead'>No network has finished an epoch yet.</p>"
    ranked = sorted(among, key=lambda group: -group.last()[0])
    pairs = list(dict.fromkeys((group.architecture, group.policy) for group in ranked))
    hues = [
        pictures.HUES[pairs.index((group.architecture, group.policy)) % len(pictures.HUES)]
        for group in ranked
    ]
    styles = dict(zip(runs, itertools.cycle(("-", "--", ":", "-.")), strict=False))
    series = [
        (hue, styles[group.key], _metrics(runs[group.key], group))
        for group, hue in zip(ranked, hues, strict=True)
    ]
    pictured = markup.figure(
        "Test accuracy, last epoch",
        "architecture / policy; a dot a seed, a bar their mean, ± one standard deviation",
        plots.dots(
            f"{name}-last",
            [label(group) for group in ranked],
            [[100 * row.last for row in group.rows] for group in ranked],
            [_percent(group.last()) for group in ranked],
            hues,
            "test accuracy, %",
        ),
    )
    if any(trainings for _, _, trainings in series):
        pictured += markup.figure(
            "Over the epochs",
            "in the same colours, a line a seed; the steep start is cut off",
            pictures.training_curves(f"{name}-curves", series),
        )
    return f"<div class='pair'>{pictured}</div>" + _table(ranked, searches)


def _percent(figures: tuple[float, float | None]) -> tuple[float, float | None]:
    mean, deviation = figures
    return 100 * mean, None if deviation is None else 100 * deviation


def _metrics(run: Run, group: Group) -> list[list[Row]]:
    def belongs(training: Training) -> bool:
        named = (training.architecture, training.policy)
        return bool(training.metrics) and named == (group.architecture, group.policy)

    return [training.metrics for training in run.trainings if belongs(training)]


def _table(ranked: Sequence[Group], searches: Mapping[str, str]) -> str:
    several = any(searches.values())
    rows = []
    for group in ranked:
        best = leading([other for other in ranked if other.key == group.key])
        behind = best is not None and group in rivals(best, ranked)
        costs = {(row.parameters, row.multiply_adds) for row in group.rows if row.parameters}
        parameters, multiply_adds = next(iter(costs)) if len(costs) == 1 else (None, None)
        seconds = [row.seconds for row in group.rows if row.seconds is not None]
        row = [
            markup.text(WORDS.get(group.architecture, group.architecture)),
            markup.text(WORDS.get(group.policy, group.policy)) + _unfinished(group),
            str(len(group.rows)),
            markup.percent_spread(group.last()),
            lead(best, group) if best is not None and behind else "–",
            markup.percent_spread(group.best()),
            markup.amount(parameters) if parameters else "–",
            markup.amount(multiply_adds) if multiply_adds else "–",
            markup.duration(sum(seconds) / len(seconds)) if seconds else "–",
        ]
        rows.append([searches[group.key], *row] if several else row)
    head = ["Architecture", "Policy", "Seeds", "Last epoch", "found / found<br>is ahead by",
            "Best epoch", "Parameters", "Multiply-adds", "Time each"]  # fmt: skip
    note = (
        "<p class='lead'>± after an accuracy is the standard deviation over seeds. What found / "
        "found is ahead by is in percentage points of the last epoch, ± the standard error of the "
        "difference (paired by seed where the seeds agree). The best epoch is chosen on the test "
        "images, so it is optimistic; peers report it.</p>"
    )
    return (
        "<h3>In numbers</h3>"
        + note
        + markup.table(["Search", *head] if several else head, rows, "numbers tight")
    )


def _unfinished(group: Group) -> str:
    waiting = [row for row in group.rows if not row.finished]
    if not waiting:
        return ""
    first = waiting[0]
    return (
        f" <span class='status running'>{len(waiting)} of {len(group.rows)} at "
        f"epoch {first.epoch}</span>"
    )
