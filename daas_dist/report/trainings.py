"""The training comparison on the page: dots, curves, a table, and the joining with searches."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from itertools import islice

from daas_dist.documents.metrics import TrainingRow
from daas_dist.report import markup, pictures, plots, tested
from daas_dist.report.compare import Figures, Group, difference, groups, leading, rivals
from daas_dist.report.record import Run, Training

MOST_GROUPS, MOST_SEEDS = 40, 20
"""That are drawn, of more."""

WORDS = {
    "found": "found",
    "random": "random",
    "default": "default",
    "trivial_augment": "TrivialAugment",
    "rand_augment": "RandAugment",
    "auto_augment": "AutoAugment",
    "none": "none",
    "small": "small network",
    "wide_resnet_40_2": "WRN-40-2",
    "wide_resnet_28_10": "WRN-28-10",
    "shake_shake_32d": "Shake-Shake 2×32d",
    "shake_shake_96d": "Shake-Shake 2×96d",
    "shake_shake_112d": "Shake-Shake 2×112d",
    "pyramidnet_272": "PyramidNet-272",
    "resnet50": "ResNet-50",
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
    left_out = ""
    if len(ranked) > MOST_GROUPS:
        left_out = (
            f"<p class='lead'>Shown are the {MOST_GROUPS} of the highest accuracy, of "
            f"{len(ranked):,} pairs of an architecture and a policy.</p>"
        )
        ranked = ranked[:MOST_GROUPS]
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
    best = leading(ranked)
    assert best is not None
    return (
        left_out
        + f"<div class='pair'>{pictured}</div>"
        + _table(ranked, searches)
        + _costs(ranked)
        + tested.view(runs[best.key], best, label(best), f"{name}-tested")
    )


def _percent(figures: tuple[float, float | None]) -> tuple[float, float | None]:
    mean, deviation = figures
    return 100 * mean, None if deviation is None else 100 * deviation


def _metrics(run: Run, group: Group) -> list[list[TrainingRow]]:
    def belongs(training: Training) -> bool:
        named = (training.architecture, training.policy)
        return named == (group.architecture, group.policy)

    kept = list(islice((each for each in run.trainings if belongs(each)), MOST_SEEDS))
    return [training.metrics for training in kept if training.metrics]


def _table(ranked: Sequence[Group], searches: Mapping[str, str]) -> str:
    rows = []
    for group in ranked:
        best = leading([other for other in ranked if other.key == group.key])
        behind = best is not None and group in rivals(best, ranked)
        rows.append([
            searches[group.key],
            *_names(group),
            str(len(group.rows)),
            markup.percent_spread(group.last()),
            lead(best, group) if best is not None and behind else "–",
            markup.percent_spread(group.best()),
            _shown(group.figures("top5")),
            _shown(group.figures("calibration_error")),
        ])  # fmt: skip
    found = any(group.architecture == group.policy == "found" for group in ranked)
    named = "found / found" if found else "the found policy"
    head = ["Search", "Architecture", "Policy", "Seeds", "Last epoch", f"{named}<br>is ahead by",
            "Best epoch", "Top-5", "Calibration error"]  # fmt: skip
    note = (
        "<p class='lead'>± after an accuracy is the standard deviation over seeds. What "
        f"{named} is ahead by is in percentage points of the last epoch, ± the standard error of "
        "the difference (paired by seed where the seeds agree). The best epoch is chosen on the "
        "test images, so it is optimistic; peers report it.</p>"
    )
    return f"<h3>In numbers</h3>{note}{_told(head, rows)}"


def _costs(ranked: Sequence[Group]) -> str:
    """Size, time, speed and memory of what tells them."""
    rows = []
    for group in ranked:
        mark = " ▲" if any(row.above_mobile for row in group.rows) else ""
        throughput = [row.throughput for row in group.rows if row.throughput is not None]
        where = sorted({f"{row.ranks} × {row.engine}" for row in throughput})
        rows.append([
            group.key,
            *_names(group),
            _one([row.parameters for row in group.rows], markup.amount),
            _one([row.multiply_adds for row in group.rows], markup.amount) + mark,
            _mean([row.seconds for row in group.rows if row.seconds], markup.duration),
            markup.text(", ".join(where)) or "–",
            _mean([row.images_per_second for row in throughput], "{:,.0f}".format),
            _mean([row.peak_memory_mb for row in throughput], "{:,.0f} MB".format),
        ])  # fmt: skip
    head = ["Run", "Architecture", "Policy", "Parameters", "Multiply-adds", "Time each",
            "Ranks × engine", "Images a second", "Peak memory of a rank"]  # fmt: skip
    note = ""
    if any(row.above_mobile for group in ranked for row in group.rows):
        note = (
            "<p class='lead'>▲ is outside the mobile setting: more than 600 M multiply-adds at "
            "224 pixels.</p>"
        )
    return f"<h3>Size and speed</h3>{note}{_told(head, rows)}"


def _told(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table without the columns in which no row says anything."""
    kept = [i for i in range(len(head)) if any(row[i] not in ("", "–") for row in rows)]
    shown = [[row[i] for i in kept] for row in rows]
    return markup.table([head[i] for i in kept], shown, "numbers tight")


def _names(group: Group) -> tuple[str, str]:
    architecture = markup.text(WORDS.get(group.architecture, group.architecture))
    return architecture, markup.text(WORDS.get(group.policy, group.policy)) + _unfinished(group)


def _shown(figures: Figures | None) -> str:
    return "–" if figures is None else markup.percent_spread(figures)


def _one(values: Sequence[int | None], unit: Callable[[float], str]) -> str:
    """Return what all seeds share: a random architecture is another one with each."""
    told = {value for value in values if value is not None}
    return unit(told.pop()) if len(told) == 1 else "–"


def _mean(values: Sequence[float], unit: Callable[[float], str]) -> str:
    return unit(sum(values) / len(values)) if values else "–"


def _unfinished(group: Group) -> str:
    waiting = [row for row in group.rows if not row.finished]
    if not waiting:
        return ""
    first = waiting[0]
    return (
        f" <span class='status running'>{len(waiting)} of {len(group.rows)} at "
        f"epoch {first.epoch}</span>"
    )
