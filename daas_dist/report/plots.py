"""Plots that are not over time: evidence, choices of the edges, the spread of trainings."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from daas_dist.report.pictures import COLOUR, HUES, INK, draw
from daas_dist.spaces.cells import EDGES, OPERATIONS
from daas_dist.spaces.operations import MAGNITUDES

CLEAR = 2.0
"""Standard errors from zero beyond which evidence is called clear: chance passes 1 time in 22."""

FEW = 10
"""Images of a bin below which its accuracy says little."""


def intervals(
    name: str,
    operations: Sequence[str],
    means_KO: np.ndarray,
    errors_KO: np.ndarray,
    order: Sequence[int],
) -> str:
    """The mean advantage of every operation in `order` from the top, one hue a slot: ± 1 standard
    error thick, ± CLEAR thin; pale where that does not keep off zero."""

    def plot(axes: Axes) -> None:
        slots = len(means_KO)
        axes.axvline(0, color="#8b95a7", linewidth=0.9)
        for slot, (mean_O, error_O) in enumerate(zip(means_KO, errors_KO, strict=True)):
            hue = HUES[slot % len(HUES)]
            for row, o in enumerate(order):
                y = row + 0.26 * (slot - (slots - 1) / 2)
                shade = 1.0 if abs(mean_O[o]) > CLEAR * error_O[o] else 0.3
                for times, width in ((1, 2.6), (CLEAR, 0.9)):
                    ends = (mean_O[o] - times * error_O[o], mean_O[o] + times * error_O[o])
                    axes.plot(ends, (y, y), color=hue, linewidth=width, alpha=shade)
                axes.plot(mean_O[o], y, "o", color=hue, markersize=3.8, alpha=shade, mew=0)
            axes.plot([], [], "o-", color=hue, markersize=3.8, label=f"slot {slot + 1}")
        axes.set_yticks(range(len(order)), [operations[o].replace("_", " ") for o in order])
        axes.set_ylim(len(order) - 0.4, -0.6)
        axes.grid(True, axis="x")
        axes.grid(False, axis="y")
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.set_xlabel("standard deviations of the reward")
        axes.legend(
            frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=slots, fontsize=9
        )

    return draw(name, plot, (3.8, 4.4))


def magnitudes(
    name: str, operations: Sequence[str], means_OM: np.ndarray, errors_OM: np.ndarray
) -> str:
    """Evidence of every magnitude in its standard errors: purple for, orange against."""

    def plot(axes: Axes) -> None:
        ratio = np.divide(means_OM, errors_OM, out=np.zeros_like(means_OM), where=errors_OM > 0)
        image = axes.imshow(ratio, cmap="PuOr", vmin=-4, vmax=4, aspect="auto")
        axes.set_yticks(range(len(operations)), [each.replace("_", " ") for each in operations])
        axes.set_xticks(range(MAGNITUDES))
        axes.set_xlabel("magnitude")
        axes.tick_params(length=0, labelcolor=INK)
        axes.grid(False)
        axes.spines[:].set_visible(False)
        bar = axes.figure.colorbar(image, ax=axes, shrink=0.6, aspect=16)
        bar.outline.set_visible(False)  # type: ignore[operator]
        bar.set_label("standard errors")

    return draw(name, plot, (3.8, 3.7))


def edge_choices(
    name: str, alpha_EO: np.ndarray, beta_E: np.ndarray | None, kept: Sequence[int]
) -> str:
    """Draw α of every edge as a grid, its β beside it if there is one; kept edges are marked."""

    def plot(axes: Axes) -> None:
        order = [OPERATIONS.index(operation) for operation in COLOUR]
        axes.imshow(alpha_EO[:, order], cmap="Blues", vmin=0, vmax=1, aspect="auto")
        axes.set_yticks(
            range(len(EDGES)),
            [f"{'● ' if e in kept else ''}{i} → {j}" for e, (i, j) in enumerate(EDGES)],
        )
        names = [operation.replace("_", " ").replace("x", "×") for operation in COLOUR]
        names = [label.replace("ma×", "max") for label in names]
        axes.set_xticks(range(len(names)), names, rotation=38, ha="right", rotation_mode="anchor")
        for edge in range(len(EDGES)):
            for place, operation in enumerate(order):
                value = alpha_EO[edge, operation]
                axes.text(
                    place, edge, f"{100 * value:.0f}", ha="center", va="center", fontsize=7.5,
                    color="white" if value > 0.55 else INK,
                )  # fmt: skip
            if beta_E is None:
                continue
            axes.annotate(
                f"β {100 * beta_E[edge]:.0f}", (1, edge), xycoords=("axes fraction", "data"),
                xytext=(5, 0), textcoords="offset points", va="center", fontsize=8,
                color=INK if edge in kept else "#8b95a7",
            )  # fmt: skip
        axes.tick_params(length=0, labelcolor=INK)
        axes.grid(False)
        axes.spines[:].set_visible(False)

    return draw(name, plot, (4.7, 4.5))


def dots(
    name: str,
    labels: Sequence[str],
    values: Sequence[Sequence[float]],
    summary: Sequence[tuple[float, float | None]],
    hues: Sequence[Any],
    label: str,
) -> str:
    """One row a group, in the order given: a dot a seed, the mean as a bar, ± its deviation."""

    def plot(axes: Axes) -> None:
        for y, (points, (mean, deviation), hue) in enumerate(
            zip(values, summary, hues, strict=True)
        ):
            if deviation is not None:
                axes.plot(
                    [mean - deviation, mean + deviation], [y, y], color=hue, linewidth=6, alpha=0.22
                )
            axes.plot([mean, mean], [y - 0.25, y + 0.25], color=hue, linewidth=2)
            axes.plot(
                points, [y] * len(points), "o", markersize=5, markerfacecolor=hue,
                markeredgecolor="white", markeredgewidth=0.8, alpha=0.9,
            )  # fmt: skip
        axes.set_yticks(range(len(labels)), labels)
        for tick in axes.get_yticklabels():
            tick.set_parse_math(False)
        axes.set_ylim(len(labels) - 0.45, -0.55)
        axes.grid(True, axis="x")
        axes.grid(False, axis="y")
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.set_xlabel(label)
        axes.xaxis.set_major_locator(MaxNLocator(4))

    return draw(name, plot, (3.8, 0.7 + 0.3 * len(labels)))


def reliability(name: str, bins_B3: np.ndarray) -> str:
    """Accuracy of each bin of confidence against the diagonal (Guo et al. 2017, Fig. 1), a dot at
    its mean confidence; pale where there are few. The share of the images above it. bins_B3:
    images, right ones, sum of confidences."""

    def plot(axes: Axes) -> None:
        images, right, confidence = bins_B3.T
        known = images > 0
        edges = np.arange(len(images)) / len(images)
        width = 100 / len(images)
        accuracy = 100 * right[known] / images[known]
        sure = 100 * confidence[known] / images[known]
        hues = np.where(images[known] < FEW, "#e4edf6", "#a9c9e6").tolist()
        axes.bar(100 * edges[known], accuracy, width, align="edge", color=hues,
                 edgecolor="white", linewidth=0.8)  # fmt: skip
        axes.plot((0, 100), (0, 100), color="#8b95a7", linewidth=0.9, linestyle=(0, (3, 2)))
        axes.plot(sure, accuracy, "o", color=HUES[0], markersize=3.8)
        axes.set(xlim=(0, 100), ylim=(0, 100))
        axes.set(xlabel="confidence, %", ylabel="right, %")
        above = axes.inset_axes((0, 1.06, 1, 0.26))
        above.bar(100 * edges, 100 * images / images.sum(), width, align="edge", color="#8b95a7",
                  edgecolor="white", linewidth=0.8)  # fmt: skip
        above.set(xlim=(0, 100), ylim=(0, 100), xticks=[], yticks=[0, 50])
        above.set_ylabel("images, %", fontsize=8)

    return draw(name, plot, (3.8, 3.7))
