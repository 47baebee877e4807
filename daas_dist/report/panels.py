"""The rows of a run as a terminal shows them: a line each for logs, or a panel of the latest state.

`rows` are lines of metrics.jsonl, of a search or of one training, the newest of many.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from daas_dist.documents.escaping import told, visible
from daas_dist.documents.events import Event
from daas_dist.documents.metrics import MetricsRow, SearchRow, TrainingRow
from daas_dist.report.markup import duration

LEADING = 5
"""Operations that are shown of the policy, and of each cell."""
SHOWN = 16
"""Trainings that are shown, those under way first."""
FULL = 0.4
"""The share at which an operation's bar is full, if none has more: an undecided search looks so."""
RECENT = 20
"""Intervals that the time left is estimated from."""


@dataclass(frozen=True)
class Progress:
    """A training under way: its newest epochs, and its best test accuracy of all."""

    rows: Sequence[TrainingRow]
    best: float | None


COLOURS = {"finished": "green", "failed": "red", "stopped": "yellow", "in progress": "blue"}


def seconds_left(rows: Sequence[MetricsRow]) -> float | None:
    """At the median pace of the latest intervals of this phase; None before there are two rows.

    A median, so that the pause of an interruption does not count. A joint step costs more than one
    of the warm-up: during the warm-up this is too little.
    """
    phase = _phase(rows[-1]) if rows else ""
    recent = [row for row in rows[-RECENT - 1 :] if _phase(row) == phase]
    paces = []
    for before, after in zip(recent, recent[1:], strict=False):
        steps = after.position[0] - before.position[0]
        if steps > 0:
            paces.append((after.time - before.time) / steps)
    if not paces:
        return None
    done, total = rows[-1].position
    return max(0.0, statistics.median(paces) * (total - done))


def _phase(row: MetricsRow) -> str:
    return row.phase if isinstance(row, SearchRow) else ""


# --- Plain lines ---------------------------------------------------------------------------------


def plain_line(row: MetricsRow, left: float | None = None) -> str:
    """One row as one line, for logs."""
    parts = [f"epoch {row.epoch}/{row.epochs}"]
    if isinstance(row, SearchRow):
        parts.append(f"{row.phase} step {row.step}/{row.steps}")
        held, loss, accuracy, shown = "val", row.val_loss, row.val_accuracy, "–"
        if row.skip_share is not None and row.tau is not None:
            skip = row.skip_share
            shares = f"{_percent(skip['normal'])} {_percent(skip['reduce'])}"
            shown = f"τ {row.tau:.2f}, skip {shares}"
    else:
        held, loss, accuracy = "test", row.test_loss, row.test_accuracy
        shown = f"lr {row.learning_rate:.2g}"
    parts += [
        f"loss {_number(row.train_loss, '.3f')} {held} {_number(loss, '.3f')}",
        f"accuracy {_percent(row.train_accuracy)} {held} {_percent(accuracy)}",
        shown,
        f"{row.images_per_second:.0f} images/s",
    ]
    if left is not None:
        parts.append(f"{duration(left)} left")
    return " | ".join(parts)


def event_line(event: Event) -> str:
    return told(f"{event.event}: {event.words}" if event.words else event.event)


def _percent(fraction: float | None) -> str:
    return "–" if fraction is None else f"{100 * fraction:.1f}%"


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


# --- Panels --------------------------------------------------------------------------------------


def search_panel(
    name: str, rows: Sequence[SearchRow], status: str = "in progress", notes: Sequence[Text] = ()
) -> RenderableType:
    """The latest state of a search. status: a key of COLOURS."""
    if not rows:
        return _panel(name, status, [Text("No metrics yet.", style="dim")], notes)
    parts = [_progress(rows, status), Text(), _numbers(rows[-1]), Text(), _operations(rows[-1])]
    return _panel(name, status, parts, notes)


def trainings_panel(
    name: str,
    trainings: Mapping[str, Progress],
    status: str = "in progress",
    notes: Sequence[Text] = (),
) -> RenderableType:
    """The trainings of one run, one a row of a table."""
    table = Table(box=None, pad_edge=False, expand=True, header_style="dim")
    table.add_column("architecture-policy-seed", overflow="fold")
    table.add_column("", ratio=1, min_width=8)
    for head in ("epoch", "train", "test", "best"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("left", justify="right", no_wrap=True, min_width=10)
    begun = {each: progress for each, progress in trainings.items() if progress.rows}
    under_way = sorted(begun, key=lambda each: _done(begun[each].rows[-1]))
    for each in under_way[:SHOWN]:
        rows = begun[each].rows
        row, left = rows[-1], seconds_left(rows)
        if status != "in progress" or _done(row):
            left = None
        table.add_row(
            Text(visible(each)),
            _bar(*row.position),
            f"{row.epoch}/{row.epochs}",
            _percent(row.train_accuracy),
            _percent(row.test_accuracy),
            _percent(begun[each].best),
            "" if left is None else duration(left),
        )
    parts: list[RenderableType] = [table]
    if len(begun) > SHOWN:
        parts.append(Text(f"and {len(begun) - SHOWN} more", style="dim"))
    waiting = len(trainings) - len(begun)
    if waiting:
        parts.append(Text(f"{waiting} in their first epoch", style="dim"))
    return _panel(name, status, parts, notes)


def _done(row: MetricsRow) -> bool:
    done, total = row.position
    return done >= total


def _panel(
    name: str, status: str, parts: Sequence[RenderableType], notes: Sequence[Text]
) -> RenderableType:
    colour = COLOURS[status]
    return Panel(
        Group(*parts, *([Text(), *notes] if notes else [])),
        title=Text.assemble((visible(name), "bold"), " ", (status, colour)),
        title_align="left",
        border_style=colour,
        padding=(1, 2),
    )


def _bar(done: float, total: float, colour: str = "blue", finished: str = "green") -> ProgressBar:
    return ProgressBar(total, done, complete_style=colour, finished_style=finished, style="default")


def _progress(rows: Sequence[SearchRow], status: str) -> RenderableType:
    row, left = rows[-1], seconds_left(rows)
    warming_up = row.phase == "warmup"
    words = Text(f"epoch {row.epoch} of {row.epochs}", style="bold")
    phase = "warm-up" if warming_up else row.phase
    words.append(f"   {phase}   step {row.step} of {row.steps}", style="not bold")
    remaining = ""
    if status == "in progress" and left is not None:
        remaining = f"{'over ' if warming_up else ''}{duration(left)} left"
    line = Table.grid(expand=True, padding=(0, 1))
    line.add_column(ratio=1)
    line.add_column(justify="right", no_wrap=True)
    line.add_row(words, Text(remaining))
    return Group(line, _bar(*row.position))


def _numbers(row: SearchRow) -> RenderableType:
    cells = [
        ("training loss", _number(row.train_loss, ".4f")),
        ("validation loss", _number(row.val_loss, ".4f")),
        ("training accuracy", _percent(row.train_accuracy)),
        ("validation accuracy", _percent(row.val_accuracy)),
        ("learning rate", f"{row.learning_rate:.2g}"),
        ("images a second", f"{row.images_per_second:.0f}"),
        ("temperature τ", _number(row.tau, ".2f")),
        ("reward", f"{_number(row.reward_mean, '.2g')} ± {_number(row.reward_std, '.2g')}"),
    ]
    table = Table.grid(padding=(0, 2))
    for _ in range(2):
        table.add_column(style="dim", no_wrap=True, min_width=18)
        table.add_column(justify="right", no_wrap=True, min_width=10)
    for left, right in zip(cells[::2], cells[1::2], strict=True):
        table.add_row(*left, *right)
    return table


def _operations(row: SearchRow) -> RenderableType:
    """Short bar charts: the policy's leading operations once it is searched, and those of both
    cells; only of what is searched for."""
    charts: list[RenderableType] = []
    if row.policy_weight is not None and row.phase != "warmup":
        charts.append(_bars("policy", _leading(row.policy_weight, LEADING)))
    for kind, title in (("normal", "normal cell"), ("reduce", "reduction cell")):
        if row.operation_share is not None:
            shares = row.operation_share[kind]
            skip = {"skip_connect": shares["skip_connect"]}
            charts.append(_bars(title, _leading(shares, LEADING - 1) | skip))
    grid = Table.grid(expand=True, padding=(0, 2))
    for _ in charts:
        grid.add_column(ratio=1)
    grid.add_row(*charts)
    return grid


def _leading(values: Mapping[str, float], count: int) -> dict[str, float]:
    return dict(sorted(values.items(), key=lambda pair: -pair[1])[:count])


def _bars(title: str, values: Mapping[str, float]) -> RenderableType:
    """A skip connection that has more than half of the edges is yellow."""
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(no_wrap=True, min_width=12)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(ratio=1, no_wrap=True, max_width=40)
    full = max([FULL, *values.values()])
    for name, value in values.items():
        style = "yellow" if name == "skip_connect" and value > 0.5 else ""
        words = Text(visible(name.replace("_", " ")), style=style)
        table.add_row(words, Text(_percent(value), style=style), _bar(value, full, "cyan", "cyan"))
    return Group(Text(title, style="dim"), table)
