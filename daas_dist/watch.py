"""A run, as a terminal shows it: live while it runs, or from another shell by `daas watch RUN`.

`rows` are lines of metrics.jsonl, of a search or of one training. On a terminal a panel is redrawn
in place; anywhere else (a log file, a pipe) every row becomes one line of plain text.
"""

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from daas_dist.report.markup import duration
from daas_dist.report.record import Row, read_rows, require_run, state

LEADING = 5
"""Operations of the policy that are shown."""
RECENT = 20
"""Intervals that the time left is estimated from."""
SILENCE = 300.0
"""Seconds without a new line after which the panel says so."""
COLOURS = {"finished": "green", "failed": "red", "in progress": "blue"}


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


def render(
    metrics: Sequence[Row], events: Sequence[Row], meta: Mapping[str, Any]
) -> RenderableType:
    """A panel of the latest state.

    meta: "name" of the run; optionally "status" ("in progress", "finished", "failed") and "silent"
    (seconds since the last line was written).
    """
    status = meta.get("status", "in progress")
    parts: list[RenderableType] = []
    if not metrics:
        parts.append(Text("No metrics yet: the run is starting.", style="dim"))
    else:
        row = metrics[-1]
        parts += [_progress(metrics, status), Text(), _numbers(row)]
        if not is_training(row):
            parts += [Text(), _operations(row)]
    parts += _notes(events, meta)
    colour = COLOURS[status]
    title = f"[bold]{escape(str(meta['name']))}[/] [{colour}]{status}[/]"
    return Panel(
        Group(*parts), title=title, title_align="left", border_style=colour, padding=(1, 2)
    )


def render_trainings(
    trainings: Mapping[str, Sequence[Row]], events: Sequence[Row], meta: Mapping[str, Any]
) -> RenderableType:
    """Several trainings of one run, one a row of a table. meta as in render."""
    status = meta.get("status", "in progress")
    table = Table(box=None, pad_edge=False, expand=True, header_style="dim")
    table.add_column("network", overflow="fold")
    table.add_column("", ratio=1, min_width=8)
    for head in ("epoch", "train", "test", "best"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("left", justify="right", no_wrap=True, min_width=10)
    for name, rows in trainings.items():
        if not rows:
            table.add_row(escape(name), "", "–", "", "", "", "")
            continue
        row, left = rows[-1], seconds_left(rows)
        done, total = position(row)
        going = left is not None and done < total and status == "in progress"
        table.add_row(
            escape(name),
            ProgressBar(total, done, complete_style="blue", finished_style="green"),
            f"{done}/{total}",
            _percent(row["train_accuracy"]),
            _percent(row["test_accuracy"]),
            _percent(max(each["test_accuracy"] for each in rows)),
            duration(left) if going and left is not None else "",
        )
    colour = COLOURS[status]
    title = f"[bold]{escape(str(meta['name']))}[/] [{colour}]{status}[/]"
    body = Group(table, *_notes(events, meta))
    return Panel(body, title=title, title_align="left", border_style=colour, padding=(1, 2))


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f}%"


def _progress(rows: Sequence[Row], status: str) -> RenderableType:
    row, left = rows[-1], seconds_left(rows)
    done, total = position(row)
    words = Text(f"epoch {row['epoch']} of {row['epochs']}", style="bold")
    if not is_training(row):
        phase = "warm-up" if row["phase"] == "warmup" else row["phase"]
        words.append(f"   {phase}   step {row['step']} of {row['steps']}", style="not bold")
    remaining = ""
    if status == "in progress" and left is not None:
        remaining = f"{duration(left)} left"
        if row.get("phase") == "warmup":
            remaining = f"over {remaining}"
    line = Table.grid(expand=True, padding=(0, 1))
    line.add_column(ratio=1)
    line.add_column(justify="right", no_wrap=True)
    line.add_row(words, Text(remaining))
    bar = ProgressBar(total, done, complete_style="blue", finished_style="green")
    return Group(line, bar)


def _numbers(row: Row) -> RenderableType:
    held = "test" if is_training(row) else "val"
    word = {"test": "test", "val": "validation"}[held]
    cells = [
        ("training loss", f"{row['train_loss']:.4f}"),
        (f"{word} loss", f"{row[f'{held}_loss']:.4f}"),
        ("training accuracy", _percent(row["train_accuracy"])),
        (f"{word} accuracy", _percent(row[f"{held}_accuracy"])),
        ("learning rate", f"{row['learning_rate']:.2g}"),
        ("images a second", f"{row['images_per_second']:.0f}"),
    ]
    if not is_training(row):
        reward = row["reward_mean"]
        shown = "–" if reward is None else f"{reward:.2g}±{row['reward_std'] or math.nan:.2g}"
        tau = "–" if row["tau"] is None else f"{row['tau']:.2f}"
        cells += [("temperature τ", tau), ("reward", shown)]
    table = Table.grid(expand=True, padding=(0, 2))
    for _ in range(2):
        table.add_column(style="dim", no_wrap=True)
        table.add_column(justify="right", ratio=1, no_wrap=True)
    for left, right in zip(cells[::2], cells[1::2], strict=True):
        table.add_row(*left, *right)
    return table


def _operations(row: Row) -> RenderableType:
    """Short bar charts: the policy's leading operations, and those of both cells; only of what is
    searched for."""
    charts: list[tuple[str, dict[str, float], str | None]] = []
    if row["policy_weight"] is not None:
        policy = sorted(row["policy_weight"].items(), key=lambda pair: -pair[1])[:LEADING]
        charts.append(("policy", dict(policy), None))
    titles = (("normal", "normal cell"), ("reduce", "reduction cell"))
    shares = row["operation_share"] or {}
    for kind, title in titles:
        if kind not in shares:
            continue
        leading = dict(sorted(shares[kind].items(), key=lambda pair: -pair[1])[: LEADING - 1])
        leading["skip_connect"] = row["skip_share"][kind]
        charts.append((title, leading, "skip_connect"))
    grid = Table.grid(expand=True, padding=(0, 2))
    for _ in charts:
        grid.add_column(ratio=1)
    grid.add_row(*(_bars(title, values, alarm) for title, values, alarm in charts))
    return grid


def _bars(title: str, values: Mapping[str, float], alarm: str | None) -> RenderableType:
    """`alarm`: the operation whose share is shown in any case, and in yellow above one half."""
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(no_wrap=True, min_width=12)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(ratio=1, no_wrap=True)
    largest = max(values.values()) or 1.0
    for name, value in values.items():
        style = "yellow" if name == alarm and value > 0.5 else ""
        words = name.replace("_", " ")
        bar = ProgressBar(
            largest, value, complete_style="cyan", finished_style="cyan", style="default"
        )
        table.add_row(Text(words, style=style), Text(_percent(value), style=style), bar)
    return Group(Text(title, style="dim"), table)


def _notes(events: Sequence[Row], meta: Mapping[str, Any]) -> list[RenderableType]:
    """The latest warnings and failures, and how long nothing was written."""
    lines: list[RenderableType] = []
    for event in [each for each in events if each["event"] in ("warning", "failed")][-3:]:
        details = ", ".join(str(v) for key, v in event.items() if key not in ("time", "event"))
        style = "red" if event["event"] == "failed" else "yellow"
        lines.append(Text(f"{event['event']}: {details}", style=style))
    silent = meta.get("silent", 0.0)
    if meta.get("status", "in progress") == "in progress" and silent > SILENCE:
        lines.append(Text(f"nothing written for {duration(silent)}: is it alive?", style="yellow"))
    return [Text(), *lines] if lines else []


class Display:
    """What a run shows of itself. `with Display(name) as display: display.row({...})`."""

    def __init__(self, name: str, console: Console | None = None) -> None:
        self._meta = {"name": name}
        self._console = Console() if console is None else console
        self._rows: list[Row] = []
        self._events: list[Row] = []
        self._live = (
            Live(self._panel(), console=self._console, refresh_per_second=2)
            if self._console.is_terminal
            else None
        )

    def __enter__(self) -> "Display":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.update(self._panel(), refresh=True)
            self._live.stop()

    def row(self, row: Row) -> None:
        """A new line of metrics."""
        self._rows.append(row)
        self._show(plain_line(row, seconds_left(self._rows)))

    def event(self, event: Row) -> None:
        self._events.append(event)
        self._show(_event_line(event))

    def _show(self, line: str) -> None:
        if self._live is not None:
            self._live.update(self._panel())
        else:
            _print_plain(self._console, line)

    def _panel(self) -> RenderableType:
        return render(self._rows, self._events, self._meta)


def _event_line(event: Row) -> str:
    details = ", ".join(f"{key} {v}" for key, v in event.items() if key not in ("time", "event"))
    return f"{event['event']}: {details}" if details else str(event["event"])


def _print_plain(console: Console, line: str) -> None:
    """Names from a run are no markup, and a line of a log is not to be wrapped."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)


class Follower:
    """The lines of a .jsonl file as it grows. A file that was cut or replaced is read anew."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[Row] = []
        self._offset = 0
        self._inode: int | None = None

    def poll(self) -> list[Row]:
        """What is new since the last time."""
        if not self.path.exists():
            return []
        found = self.path.stat()
        if found.st_size < self._offset or self._inode not in (None, found.st_ino):
            self.rows, self._offset = [], 0
        self._inode = found.st_ino
        new, self._offset = read_rows(self.path, self._offset)
        self.rows += new
        return new


class Watched:
    """A run directory that is followed: its own metrics, its trainings', its events."""

    def __init__(self, path: Path) -> None:
        require_run(path)
        self.path = path
        self._search = Follower(path / "metrics.jsonl")
        self._events = Follower(path / "events.jsonl")
        self._trainings: dict[str, Follower] = {}
        self._written = 0.0

    def poll(self) -> list[str]:
        """Read on; what is new, as plain lines."""
        for folder in sorted((self.path / "trainings").glob("*")):
            if folder.name not in self._trainings and folder.is_dir():
                self._trainings[folder.name] = Follower(folder / "metrics.jsonl")
        lines = [_event_line(event) for event in self._events.poll()]
        lines += [plain_line(row) for row in self._search.poll()]
        for name, follower in self._trainings.items():
            lines += [f"{name} | {plain_line(row)}" for row in follower.poll()]
        files = [self._search, self._events, *self._trainings.values()]
        stamps = [each.path.stat().st_mtime for each in files if each.path.exists()]
        self._written = max(stamps, default=self.path.stat().st_mtime)
        return lines

    def panel(self) -> RenderableType:
        meta = {
            "name": self.path.resolve().name,
            "status": state(self.path),
            "silent": time.time() - self._written,
        }
        events = self._events.rows
        if not self._trainings:
            return render(self._search.rows, events, meta)
        trainings = {name: follower.rows for name, follower in self._trainings.items()}
        table = render_trainings(trainings, events, meta)
        if not self._search.rows:
            return table
        return Group(render(self._search.rows, (), meta), table)


def main(run: Path, *, poll_seconds: float = 1.0, console: Console | None = None) -> int:
    """Follow a run until it is DONE or FAILED. Returns 0 or 1; 2 where there is no run; 130 when
    interrupted: the run itself does not notice."""
    console = Console() if console is None else console
    try:
        watched = Watched(Path(run))
    except ValueError as error:
        _print_plain(console, str(error))
        return 2
    try:
        return _follow(watched, console, poll_seconds)
    except KeyboardInterrupt:
        return 130


def _follow(watched: Watched, console: Console, poll_seconds: float) -> int:
    # The state is read before the rows: a run writes its last rows first, then DONE.
    status = state(watched.path)
    lines = watched.poll()
    if console.is_terminal:
        with Live(watched.panel(), console=console, auto_refresh=False) as live:
            while status == "in progress":
                time.sleep(poll_seconds)
                status = state(watched.path)
                watched.poll()
                live.update(watched.panel(), refresh=True)
    else:
        while True:
            for line in lines:
                _print_plain(console, line)
            if status != "in progress":
                break
            time.sleep(poll_seconds)
            status = state(watched.path)
            lines = watched.poll()
    _print_plain(console, f"{watched.path}: {status}")
    return 1 if status == "failed" else 0
