"""Curves and plots as inline SVG, drawn by matplotlib without any global state.

Runs have letters in a picture; a name that comes from a file is made visible, as text without
markup, and matplotlib writes it as XML. `rows` are lines of metrics.jsonl in order.
"""

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from daas_dist.documents.escaping import visible
from daas_dist.documents.metrics import MetricsRow, SearchRow, TrainingRow
from daas_dist.spaces.cells import OPERATIONS
from daas_dist.spaces.operations import MAGNITUDES, NAMES

COLOUR = {
    "sep_conv_3x3": "#0072b2",
    "sep_conv_5x5": "#6db9e8",
    "dil_conv_3x3": "#00785a",
    "dil_conv_5x5": "#5cc2a0",
    "max_pool_3x3": "#b8628f",
    "avg_pool_3x3": "#e3b1cc",
    "skip_connect": "#d55e00",
}
"""Families share a hue and differ in lightness; hues after Okabe and Ito, for every eye."""
HUES = ("#0072b2", "#d55e00", "#00785a", "#b8628f", "#e69f00", "#56b4e9", "#4d4d4d", "#8f7a00")
"""For series that are no operation: runs, groups, curves."""
DASHES: tuple[Any, ...] = ("-", (0, (3, 1.4)), (0, (1, 1)))
AUGMENTATION = {
    name: (HUES[position % len(HUES)], DASHES[position // len(HUES)])
    for position, name in enumerate(NAMES)
}
INK, SOFT, LINE = "#1b2333", "#5a6478", "#e1e5ec"
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "daas",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#b4bcc9",
    "axes.labelcolor": SOFT,
    "axes.labelsize": 9,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.7,
    "xtick.color": "#b4bcc9",
    "ytick.color": "#b4bcc9",
    "xtick.labelcolor": SOFT,
    "ytick.labelcolor": SOFT,
    "text.color": INK,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "axes.formatter.useoffset": False,
}
POINTS = 200
"""A curve of more rows is drawn through the means of this many blocks."""
SIZE = (3.8, 2.5)
"""Inches: about 330 pixels on the page, one column of three or a telephone's only one."""
Curve = tuple[str, np.ndarray, Any, Any]
"""Label, values, colour, line style."""


def inline(svg: str, name: str) -> str:
    """An SVG document as a part of a page: no header, ids of its own, size from the page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*" height="[^"]*"', r"\1", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r"url\(#", f"url(#{name}-", svg)
    return re.sub(r'href="#', f'href="#{name}-', svg).strip()


def run_hue(letter: str) -> str:
    """The colour of a run: A, B, … Z, A1, B1, …"""
    position = 26 * int(letter[1:] or 0) + ord(letter[0]) - ord("A")
    return HUES[position % len(HUES)]


def draw(name: str, plot: Callable[[Axes], None], size: tuple[float, float] = SIZE) -> str:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        plot(figure.add_subplot())
        written = io.StringIO()
        nothing = {"Creator": None, "Date": None, "Format": None, "Type": None}
        figure.savefig(written, format="svg", metadata=nothing, transparent=True)
    return inline(written.getvalue(), name)


def column(rows: Sequence[MetricsRow], name: str, *keys: str) -> np.ndarray:
    """One number of every row; nan where it, or what holds it, is null (not searched) or absent."""
    values = []
    for row in rows:
        value: Any = getattr(row, name)
        for key in keys:
            value = None if value is None else value.get(key)
        values.append(math.nan if value is None else float(value))
    return np.array(values)


def blocks(values: np.ndarray) -> np.ndarray:
    """At most POINTS values: means over blocks of neighbours, without the missing ones."""
    if len(values) <= POINTS:
        return values
    means = []
    for block in np.array_split(values, POINTS):
        known = block[~np.isnan(block)]
        means.append(known.mean() if len(known) else math.nan)
    return np.array(means)


def epochs(rows: Sequence[MetricsRow]) -> np.ndarray:
    """Return how far each row is, in epochs: fractional, from the step."""
    if not isinstance(rows[0], SearchRow):
        return column(rows, "epoch")
    return column(rows, "step") / column(rows, "steps") * column(rows, "epochs")


def joint_from(rows: Sequence[MetricsRow]) -> float | None:
    """Return where the policy started to learn, in epochs; None if it has not, or did from the
    start."""
    phases = [row.phase for row in rows if isinstance(row, SearchRow)]
    if "joint" not in phases or phases[0] == "joint":
        return None
    first = phases.index("joint")
    return float(epochs(rows)[first - 1 : first + 1].mean())


def _frame(axes: Axes, label: str) -> None:
    axes.set_xlabel("epoch")
    axes.set_ylabel(label)
    axes.margins(x=0.01)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=(1, 2, 5, 10), integer=True))


def _mark_joint(axes: Axes, rows: Sequence[MetricsRow]) -> None:
    boundary = joint_from(rows)
    if boundary is not None:
        axes.axvline(boundary, color="#8b95a7", linewidth=0.9, linestyle=(0, (2, 2)))
        axes.annotate(
            "joint →", (boundary, 1), xycoords=("data", "axes fraction"), xytext=(0, 2),
            textcoords="offset points", va="bottom", fontsize=8, color=SOFT,
        )  # fmt: skip


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions near the wanted ones, at least a gap apart, inside low..high where they fit."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    placed = [wanted[i] for i in order]
    for i in range(1, len(placed)):
        placed[i] = max(placed[i], placed[i - 1] + gap)
    if placed and placed[-1] > high:
        placed[-1] = high
        for i in range(len(placed) - 2, -1, -1):
            placed[i] = min(placed[i], placed[i + 1] - gap)
    placed = [max(value, low + gap * i) for i, value in enumerate(placed)]
    result = [0.0] * len(placed)
    for i, value in zip(order, placed, strict=True):
        result[i] = value
    return result


def _label_ends(axes: Axes, ends: Sequence[tuple[str, float, Any]]) -> None:
    """Names at the right end of their curves, in their colours, without overlap."""
    low, high = axes.get_ylim()
    scale = axes.transData + axes.transAxes.inverted()
    x = axes.get_xlim()[0]
    known = [end for end in ends if math.isfinite(end[1])]
    heights = [float(scale.transform((x, value))[1]) for _, value, _ in known]
    placed = spread(heights, 0.088, 0.0, 1.0)
    for (label, _, colour), height in zip(known, placed, strict=True):
        axes.annotate(
            label, (1, height), xycoords="axes fraction", xytext=(5, 0), textcoords="offset points",
            va="center", fontsize=9, color=colour, annotation_clip=False, parse_math=False,
        )  # fmt: skip
    axes.set_ylim(low, high)


def _end(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known[-1]) if len(known) else math.nan


def curves(
    name: str,
    rows: Sequence[MetricsRow],
    lines: Sequence[Curve],
    label: str,
    *,
    band: tuple[np.ndarray, np.ndarray] | None = None,
    low: float | None = None,
) -> str:
    """Labelled curves over epochs, from `low` up; `band`: (centre, half width) behind the first."""

    def plot(axes: Axes) -> None:
        x = blocks(epochs(rows))
        marker = "o" if len(x) == 1 else None
        if band is not None:
            centre, half = (blocks(values) for values in band)
            axes.fill_between(x, centre - half, centre + half, color=lines[0][2], alpha=0.16, lw=0)
        for _, values, colour, style in lines:
            axes.plot(x, blocks(values), color=colour, linestyle=style, marker=marker, markersize=3)
        axes.set_ylim(bottom=low)
        _frame(axes, label)
        _mark_joint(axes, rows)
        ends = [(title, _end(blocks(values)), hue) for title, values, hue, _ in lines if title]
        _label_ends(axes, ends)

    return draw(name, plot)


def shares(name: str, rows: Sequence[MetricsRow], kind: str) -> str:
    """The expected share of each operation in the kept edges, stacked."""

    def plot(axes: Axes) -> None:
        x = blocks(epochs(rows))
        parts = [blocks(100 * column(rows, "operation_share", kind, op)) for op in COLOUR]
        if len(x) == 1:
            x, parts = np.array([x[0] - 0.5, x[0] + 0.5]), [part.repeat(2) for part in parts]
        axes.stackplot(x, parts, colors=list(COLOUR.values()), edgecolor="white", linewidth=0.5)
        axes.set_ylim(0, 100)
        axes.set_xlim(x[0], x[-1])
        axes.grid(False)
        _frame(axes, "share of the edges, %")
        _mark_joint(axes, rows)
        tops = np.cumsum([part[-1] for part in parts])
        middles = [top - part[-1] / 2 for top, part in zip(tops, parts, strict=True)]
        named = zip(COLOUR, middles, parts, strict=True)
        _label_ends(
            axes,
            [(op.replace("_", " ").replace("3x3", "3×3").replace("5x5", "5×5"), middle, INK)
             for op, middle, part in named if part[-1] >= 4],
        )  # fmt: skip

    return draw(name, plot)


def policy_weights(name: str, rows: Sequence[SearchRow], shown: int = 6) -> str:
    """All operations of the policy; the heaviest of the last row are named, the others are grey."""
    last = rows[-1].policy_weight or {}
    heaviest = sorted(last, key=lambda operation: -last[operation])[:shown]
    grey = [operation for operation in last if operation not in heaviest]
    lines: list[Curve] = [("", column(rows, "policy_weight", op), "#d3d8e0", "-") for op in grey]
    lines += [
        (visible(op.replace("_", " ")), column(rows, "policy_weight", op), *_look(op))
        for op in reversed(heaviest)
    ]
    return curves(name, rows, lines, "probability × application", low=0)


def _look(operation: str) -> tuple[Any, Any]:
    return AUGMENTATION.get(operation, (SOFT, ":"))


def overlay(name: str, runs: Mapping[str, Sequence[MetricsRow]], label: str, *path: str) -> str:
    """The same number of several runs; a run is named by its letter, where its curve ends."""
    furthest = max(float(epochs(rows)[-1]) for rows in runs.values())

    def plot(axes: Axes) -> None:
        ends = []
        for letter, rows in runs.items():
            x, values, hue = blocks(epochs(rows)), blocks(column(rows, *path)), run_hue(letter)
            axes.plot(x, values, color=hue)
            if x[-1] > 0.97 * furthest:
                ends.append((letter, _end(values), hue))
            else:
                axes.plot(x[-1:], values[-1:], "o", color=hue, markersize=3.5)
                axes.annotate(
                    letter, (x[-1], values[-1]), xytext=(4, 3), textcoords="offset points",
                    fontsize=9, color=hue, fontweight="bold",
                )  # fmt: skip
        _frame(axes, label)
        _label_ends(axes, ends)

    return draw(name, plot)


def training_curves(name: str, series: Sequence[tuple[Any, Any, list[list[TrainingRow]]]]) -> str:
    """Test accuracy over the epochs, a line a training: hue, line style, trainings of each group.

    The steep first third is cut off below, so that the differences of the end can be seen.
    """

    def plot(axes: Axes) -> None:
        floors = []
        for hue, style, trainings in series:
            for rows in trainings:
                values = 100 * column(rows, "test_accuracy")
                late = [row.epoch > row.epochs // 3 for row in rows]
                floors.append(values[late].min(initial=values[-1]))
                axes.plot(
                    blocks(epochs(rows)), blocks(values), color=hue, ls=style, lw=1, alpha=0.75
                )
        _frame(axes, "test accuracy, %")
        axes.set_ylim(bottom=min(floors) - 0.05)

    return draw(name, plot)


LARGEST = {
    "alpha": ("cell operations", math.log(len(OPERATIONS))),
    "beta": ("cell edges", sum(math.log(sources) for sources in range(2, 6)) / 4),
    "application": ("application", math.log(2)),
    "magnitude": ("magnitudes", math.log(MAGNITUDES)),
}
"""Names and largest entropies, in nats (β: mean over nodes of 2 to 5 sources)."""


def known(rows: Sequence[MetricsRow], *path: str) -> bool:
    """Tell whether a number is part of this search at all."""
    return bool(np.isfinite(column(rows, *path)).any())


def search_curves(rows: Sequence[MetricsRow], name: str) -> list[tuple[str, str, str]]:
    """Title, note and picture of what a search logs over time, as far as it searches for it."""

    def lines(scale: float, *named: tuple[str, tuple[str, ...]]) -> list[Curve]:
        return [
            (label, scale * column(rows, *path), HUES[position], "-")
            for position, (label, path) in enumerate(named)
            if known(rows, *path)
        ]

    operations = len(rows[-1].policy_weight or ()) if isinstance(rows[-1], SearchRow) else 0
    pi = {"pi": ("policy operations", math.log(operations))} if operations > 1 else {}
    entropy = [
        (label, 100 / most * column(rows, "entropy", key), HUES[position], "-")
        for position, (key, (label, most)) in enumerate((LARGEST | pi).items())
        if known(rows, "entropy", key)
    ]
    # At least a tenth of the whole is shown: else the noise of an undecided search fills the frame.
    least = min([90.0, *(float(np.nanmin(values)) - 2 for _, values, _, _ in entropy)])
    reward = (column(rows, "reward_mean"), column(rows, "reward_std"))
    loss = (("validation", ("val_loss",)), ("training", ("train_loss",)))
    accuracy = (("validation", ("val_accuracy",)), ("training", ("train_accuracy",)))
    wanted: list[tuple[str, str, list[Curve], str, dict[str, Any]]] = [
        ("Loss", "on augmented training and on validation batches", lines(1, *loss), "loss", {}),
        ("Accuracy", "on the same batches", lines(100, *accuracy), "accuracy, %", {}),
        ("Reward", "of the sampled policies, mean ± standard deviation",
         lines(1, ("mean", ("reward_mean",))), "reward", {"band": reward}),
        ("Undecidedness", "entropy as a share of the largest possible; 100 % is undecided",
         entropy, "entropy, %", {"low": least}),
    ]  # fmt: skip
    return [
        (title, note, curves(f"{name}-{title.split()[0].lower()}", rows, drawn, label, **options))
        for title, note, drawn, label, options in wanted
        if drawn
    ]
