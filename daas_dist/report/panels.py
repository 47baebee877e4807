"""The rows of a run as a terminal shows them: a line each for logs, or a panel of the latest state.

`rows` are lines of metrics.jsonl, of a search or of one training.
"""

import statistics
from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from daas_dist.report.markup import duration
from daas_dist.report.record import Row, details

LEADING = 5
"""Operations that are shown of the policy, and of each cell."""
SHOWN = 16
"""Trainings that are shown, those under way first."""
FULL = 0.4
"""The share at which an operation's bar is full, if none has more: an undecided search looks so."""
RECENT = 20
"""Intervals that the time left is estimated from."""
COLOURS = {"finished": "green", "failed": "red", "stopped": "yellow", "in progress": "blue"}


def is_training(row: Row) -> bool:
    return "test_accuracy" in row


def position(row: Row) -> tuple[int, int]:
    """(done, of how many): steps of a search, epochs of a training."""
    if is_training(row):
        return row["epoch"], row["epochs"]
    return row["step"], row["steps"]


def seconds_left(rows: Sequence[Row]) -> float | None:
    """At the median pace of the latest intervals of this phase; None before there are two rows.

    A median, so that the pause of an interruption does not count. A joint step costs more than one
    of the warm-up: during the warm-up this is too little.
    """
    phase = rows[-1].get("phase") if rows else None
    recent = [row for row in rows[-RECENT - 1 :] if row.get("phase") == phase]
    paces = []
    for before, after in zip(recent, recent[1:], strict=False):
        steps = position(after)[0] - position(before)[0]
        if steps > 0:
            paces.append((after["time"] - before["time"]) / steps)
    if not paces:
        return None
    done, total = position(rows[-1])
    return max(0.0, statistics.median(paces) * (total - done))


# --- Plain lines ---------------------------------------------------------------------------------


def plain_line(row: Row, left: float | None = None) -> str:
    """One row as one line, for logs."""
    parts = [f"epoch {row['epoch']}/{row['epochs']}"]
    if is_training(row):
        held, shown = "test", f"lr {row['learning_rate']:.2g}"
    else:
        held = "val"
        parts.append(f"{row['phase']} step {row['step']}/{row['steps']}")
        skip, shown = row["skip_share"], "–"
        if skip is not None:
            shares = f"{_percent(skip['normal'])} {_percent(skip['reduce'])}"
            shown = f"τ {row['tau']:.2f}, skip {shares}"
    parts += [
        f"loss {row['train_loss']:.3f} {held} {row[f'{held}_loss']:.3f}",
        f"accuracy {_percent(row['train_accuracy'])} {held} {_percent(row[f'{held}_accuracy'])}",
        shown,
        f"{row['images_per_second']:.0f} images/s",
    ]
    if left is not None:
        parts.append(f"{duration(left)} left")
    return " | ".join(parts)


def event_line(event: Row) -> str:
    told = details(event)
    return f"{event['event']}: {told}" if told else str(event["event"])


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f}%"


# --- Panels --------------------------------------------------------------------------------------


def search_panel(
    name: str, rows: Sequence[Row], status: str = "in progress", notes: Sequence[Text] = ()
) -> RenderableType:
    """The latest state of a search. status: a key of COLOURS."""
    if not rows:
        return _panel(name, status, [Text("No metrics yet.", style="dim")], notes)
    parts = [_progress(rows, status), Text(), _numbers(rows[-1]), Text(), _operations(rows[-1])]
    return _panel(name, status, parts, notes)


def trainings_panel(
    name: str,
    trainings: Mapping[str, Sequence[Row]],
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
    begun = {each: rows for each, rows in trainings.items() if rows}
    under_way = sorted(begun, key=lambda each: _done(begun[each][-1]))
    for each in under_way[:SHOWN]:
        rows = begun[each]
        row, left = rows[-1], seconds_left(rows)
        if status != "in progress" or _done(row):
            left = None
        table.add_row(
            escape(each),
            _bar(*position(row)),
            f"{row['epoch']}/{row['epochs']}",
            _percent(row["train_accuracy"]),
            _percent(row["test_accuracy"]),
            _percent(max(other["test_accuracy"] for other in rows)),
            "" if left is None else duration(left),
        )
    parts: list[RenderableType] = [table]
    if len(begun) > SHOWN:
        parts.append(Text(f"and {len(begun) - SHOWN} more", style="dim"))
    waiting = len(trainings) - len(begun)
    if waiting:
        parts.append(Text(f"{waiting} in their first epoch", style="dim"))
    return _panel(name, status, parts, notes)


def _done(row: Row) -> bool:
    done, total = position(row)
    return done >= total


def _panel(
    name: str, status: str, parts: Sequence[RenderableType], notes: Sequence[Text]
) -> RenderableType:
    colour = COLOURS[status]
    return Panel(
        Group(*parts, *([Text(), *notes] if notes else [])),
        title=f"[bold]{escape(name)}[/] [{colour}]{status}[/]",
        title_align="left",
        border_style=colour,
        padding=(1, 2),
    )


def _bar(done: float, total: float, colour: str = "blue", finished: str = "green") -> ProgressBar:
    return ProgressBar(total, done, complete_style=colour, finished_style=finished, style="default")


def _progress(rows: Sequence[Row], status: str) -> RenderableType:
    row, left = rows[-1], seconds_left(rows)
    warming_up = row["phase"] == "warmup"
    words = Text(f"epoch {row['epoch']} of {row['epochs']}", style="bold")
    phase = "warm-up" if warming_up else row["phase"]
    words.append(f"   {phase}   step {row['step']} of {row['steps']}", style="not bold")
    remaining = ""
    if status == "in progress" and left is not None:
        remaining = f"{'over ' if warming_up else ''}{duration(left)} left"
    line = Table.grid(expand=True, padding=(0, 1))
    line.add_column(ratio=1)
    line.add_column(justify="right", no_wrap=True)
    line.add_row(words, Text(remaining))
    return Group(line, _bar(*position(row)))


def _numbers(row: Row) -> RenderableType:
    mean, deviation = row["reward_mean"], row["reward_std"]
    cells = [
        ("training loss", f"{row['train_loss']:.4f}"),
        ("validation loss", f"{row['val_loss']:.4f}"),
        ("training accuracy", _percent(row["train_accuracy"])),
        ("validation accuracy", _percent(row["val_accuracy"])),
        ("learning rate", f"{row['learning_rate']:.2g}"),
        ("images a second", f"{row['images_per_second']:.0f}"),
        ("temperature τ", "–" if row["tau"] is None else f"{row['tau']:.2f}"),
        ("reward", "–" if mean is None else f"{mean:.2g} ± {deviation:.2g}"),
    ]
    table = Table.grid(padding=(0, 2))
    for _ in range(2):
        table.add_column(style="dim", no_wrap=True, min_width=18)
        table.add_column(justify="right", no_wrap=True, min_width=10)
    for left, right in zip(cells[::2], cells[1::2], strict=True):
        table.add_row(*left, *right)
    return table


def _operations(row: Row) -> RenderableType:
    """Short bar charts: the policy's leading operations once it is searched, and those of both
    cells; only of what is searched for."""
    charts: list[RenderableType] = []
    if row["policy_weight"] is not None and row["phase"] != "warmup":
        charts.append(_bars("policy", _leading(row["policy_weight"], LEADING)))
    for kind, title in (("normal", "normal cell"), ("reduce", "reduction cell")):
        if row["operation_share"] is not None:
            shares = row["operation_share"][kind]
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
    full = max(FULL, *values.values())
    for name, value in values.items():
        style = "yellow" if name == "skip_connect" and value > 0.5 else ""
        words = Text(name.replace("_", " "), style=style)
        table.add_row(words, Text(_percent(value), style=style), _bar(value, full, "cyan", "cyan"))
    return Group(Text(title, style="dim"), table)
