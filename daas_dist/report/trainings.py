"""The training comparison on the page: dots, curves, a table, and the joining with searches."""

import itertools
from collections.abc import Mapping, Sequence

from daas_dist.report import markup, pictures, plots
from daas_dist.report.compare import Group, baseline, difference, groups
from daas_dist.report.record import Run, Training

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


def gain(group: Group, other: Group) -> str:
    """+0.41 ± 0.12, in points, with its standard error."""
    mean, error = difference(group, other)
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
    pair = [
        markup.figure(
            f"Test accuracy, {which} epoch",
            note,
            plots.dots(
                f"{name}-{which}",
                [label(group) for group in ranked],
                [[100 * getattr(row, which) for row in group.rows] for group in ranked],
                [_percent(getattr(group, which)()) for group in ranked],
                hues,
                "test accuracy, %",
            ),
        )
        for which, note in (
            ("last", "architecture / policy; a dot a seed, mean and ± one standard deviation"),
            ("best", "chosen on the test images, so optimistic: as the peers report it"),
        )
    ]
    body = f"<div class='pair'>{''.join(pair)}</div>" + _table(ranked, searches)
    series = [
        (label(group), hue, styles[group.key], _metrics(runs[group.key], group))
        for group, hue in zip(ranked, hues, strict=True)
    ]
    drawn = [each for each in series if each[-1]]
    if drawn:
        chart = pictures.training_curves(f"{name}-curves", drawn)
        note = "a line a seed; the steep start is cut off"
        body += markup.figure("Over the epochs", note, chart, "half")
    return body


def _percent(figures: tuple[float, float | None]) -> tuple[float, float | None]:
    mean, deviation = figures
    return 100 * mean, None if deviation is None else 100 * deviation


def _metrics(run: Run, group: Group) -> list[list[dict]]:
    def belongs(training: Training) -> bool:
        named = (training.architecture, training.policy)
        return bool(training.metrics) and named == (group.architecture, group.policy)

    return [training.metrics for training in run.trainings if belongs(training)]


def _table(ranked: Sequence[Group], searches: Mapping[str, str]) -> str:
    several = any(searches.values())
    rows = []
    for group in ranked:
        other = baseline(group, ranked)
        costs = {(row.parameters, row.multiply_adds) for row in group.rows if row.parameters}
        parameters, multiply_adds = next(iter(costs)) if len(costs) == 1 else (None, None)
        seconds = [row.seconds for row in group.rows if row.seconds is not None]
        row = [
            markup.text(WORDS.get(group.architecture, group.architecture)),
            markup.text(WORDS.get(group.policy, group.policy)) + _unfinished(group),
            str(len(group.rows)),
            markup.percent_spread(group.last()),
            markup.percent_spread(group.best()),
            gain(group, other) if other is not None else "–",
            markup.amount(parameters) if parameters else "–",
            markup.amount(multiply_adds) if multiply_adds else "–",
            markup.duration(sum(seconds) / len(seconds)) if seconds else "–",
        ]
        rows.append([searches[group.key], *row] if several else row)
    head = ["Architecture", "Policy", "Seeds", "Last epoch", "Best epoch",
            "Gain over<br>default policy", "Parameters", "Multiply-adds",
            "Time each"]  # fmt: skip
    note = (
        "<p class='lead'>± after an accuracy is the standard deviation over seeds; the gain is in "
        "percentage points of the last epoch, ± its standard error (paired by seed where the seeds "
        "agree).</p>"
    )
    return f"<h3>In numbers</h3>{note}" + markup.table(
        ["Search", *head] if several else head, rows, "numbers tight"
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
