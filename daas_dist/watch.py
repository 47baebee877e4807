"""A run on a terminal: live while it runs, or from another shell by `daas watch RUN`.

On a terminal a panel is redrawn in place; anywhere else (a log file, a pipe) every row becomes one
line of plain text.
"""

import time
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from daas_dist.report.markup import duration
from daas_dist.report.panels import (
    event_line,
    plain_line,
    search_panel,
    seconds_left,
    trainings_panel,
)
from daas_dist.report.record import ENDED, Row, read_rows, require_run, state

SILENCE = 300.0
"""Seconds without a new line after which the panel says so."""


class Display:
    """What a search shows of itself. `with Display(name) as display: display.row({...})`."""

    def __init__(self, name: str, console: Console | None = None) -> None:
        self._name = name
        self._console = Console() if console is None else console
        self._rows: list[Row] = []
        self._live = Live(search_panel(name, ()), console=self._console, refresh_per_second=2)

    def __enter__(self) -> "Display":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def row(self, row: Row) -> None:
        """A new line of metrics."""
        self._rows.append(row)
        if self._console.is_terminal:
            self._live.update(search_panel(self._name, self._rows))
        else:
            _print_plain(self._console, plain_line(row, seconds_left(self._rows)))


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
        self.status = "in progress"
        self._search = Follower(path / "metrics.jsonl")
        self._events = Follower(path / "events.jsonl")
        self._trainings: dict[str, Follower] = {}

    def poll(self) -> list[str]:
        """Read on; what is new, as plain lines."""
        lines = [event_line(event) for event in self._events.poll()]
        # Before the rows: a run writes its last rows first, then DONE.
        self.status = state(self.path, self._events.rows)
        for folder in sorted((self.path / "trainings").glob("*")):
            if folder.name not in self._trainings and folder.is_dir():
                self._trainings[folder.name] = Follower(folder / "metrics.jsonl")
        lines += [plain_line(row) for row in self._search.poll()]
        for name, follower in self._trainings.items():
            lines += [f"{name} | {plain_line(row)}" for row in follower.poll()]
        return lines

    def panel(self) -> RenderableType:
        name = self.path.resolve().name
        trainings = {each: follower.rows for each, follower in self._trainings.items()}
        if not trainings:
            return search_panel(name, self._search.rows, self.status, self._notes())
        table = trainings_panel(name, trainings, self.status, self._notes())
        if not self._search.rows:
            return table
        return Group(search_panel(name, self._search.rows, self.status), table)

    def _notes(self) -> list[Text]:
        """The latest warnings and failures, and what a run that writes nothing may be up to."""
        told = [event for event in self._events.rows if event["event"] in ("warning", "failed")]
        notes = [
            Text(event_line(event), style="red" if event["event"] == "failed" else "yellow")
            for event in told[-3:]
        ]
        files = [self._search, self._events, *self._trainings.values()]
        silent = time.time() - max(
            (each.path.stat().st_mtime for each in files if each.path.exists()),
            default=self.path.stat().st_mtime,
        )
        if self.status == "stopped":
            notes.append(Text("stopped: the command that started it goes on from here"))
        elif self.status == "in progress" and silent > SILENCE:
            words = f"nothing written for {duration(silent)}: is it alive?"
            notes.append(Text(words, style="yellow"))
        return notes


def main(run: Path, *, poll_seconds: float = 1.0, console: Console | None = None) -> int:
    """Follow a run, over its stops and resumes, until it is DONE or FAILED. Returns 0 or 1; 2 where
    there is no run; 130 when interrupted: the run itself does not notice."""
    console = Console() if console is None else console
    try:
        watched = Watched(Path(run))
    except ValueError as error:
        _print_plain(console, str(error))
        return 2
    try:
        _follow(watched, console, poll_seconds)
    except KeyboardInterrupt:
        return 130
    _print_plain(console, f"{watched.path}: {watched.status}")
    return 1 if watched.status == "failed" else 0


def _follow(watched: Watched, console: Console, poll_seconds: float) -> None:
    lines = watched.poll()
    live = Live(watched.panel(), console=console, auto_refresh=False)
    if console.is_terminal:
        live.start(refresh=True)
    try:
        while True:
            if console.is_terminal:
                live.update(watched.panel(), refresh=True)
            else:
                for line in lines:
                    _print_plain(console, line)
            if watched.status in ENDED:
                return
            time.sleep(poll_seconds)
            lines = watched.poll()
    finally:
        if console.is_terminal:
            live.stop()


def _print_plain(console: Console, line: str) -> None:
    """Names from a run are no markup, and a line of a log is not to be wrapped."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)
