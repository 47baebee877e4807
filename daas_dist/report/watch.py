"""A run on a terminal: live while it runs, or from another shell by `daas watch RUN`.

On a terminal a panel is redrawn in place; anywhere else (a log file, a pipe) every row becomes one
line of plain text.
"""

import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Generic, TypeVar

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from daas_dist.documents import lines
from daas_dist.documents.escaping import told, visible
from daas_dist.documents.events import (
    ENDED,
    Event,
    last_move,
    newest_first,
    require_run,
    state_after,
    trainings,
)
from daas_dist.documents.events import FILE as EVENTS
from daas_dist.documents.metrics import FILE as METRICS
from daas_dist.documents.metrics import SearchRow, TrainingRow, best_accuracy
from daas_dist.report.markup import duration
from daas_dist.report.panels import (
    Progress,
    event_line,
    plain_line,
    search_panel,
    seconds_left,
    trainings_panel,
)

T = TypeVar("T")

KEPT = 100
"""Lines of a file that are kept: what a panel shows and the pace needs."""
FIRST = 200
"""Plain lines that are printed of what is there already."""
SHOWN_FILES = 3
SILENCE = 300.0
"""Seconds without a new line after which the panel says so."""


class Display:
    """What a search shows of itself. `with Display(name) as display: display.row({...})`."""

    def __init__(self, name: str, console: Console | None = None) -> None:
        self._name = name
        self._console = Console() if console is None else console
        self._rows: deque[SearchRow] = deque(maxlen=KEPT)
        self._live = Live(search_panel(name, ()), console=self._console, refresh_per_second=2)

    def __enter__(self) -> "Display":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def row(self, row: SearchRow) -> None:
        """A new line of metrics."""
        self._rows.append(row)
        rows = list(self._rows)
        if self._console.is_terminal:
            self._live.update(search_panel(self._name, rows))
        else:
            _print_plain(self._console, plain_line(row, seconds_left(rows)))


class Follower(Generic[T]):
    """The lines of a .jsonl file as it grows. A file that was cut or replaced is read anew.

    Of a file with more than lines.READ bytes the first reading takes the newest lines alone.
    """

    def __init__(self, path: Path, parse: lines.Parse[T]) -> None:
        self.path, self._parse = path, parse
        self.rows: deque[T] = deque(maxlen=KEPT)
        self.left_out = False
        """Whether there are lines before those that were read first."""
        self._offset = 0
        self._inode: int | None = None

    def poll(self) -> list[T]:
        """Return what is new since the last time."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            found = None
        if found is None:
            return lines.read(self.path, self._parse)[0]  # none, or an error that names it
        if found.st_size < self._offset or self._inode not in (None, found.st_ino):
            self.rows.clear()
            self._offset, self._inode = 0, None
        first = self._inode is None
        self._inode = found.st_ino
        if first and found.st_size > lines.READ:
            new, whole = lines.last(self.path, self._parse, KEPT)
            self.left_out, self._offset = not whole, lines.end(self.path)
        else:
            new, self._offset = lines.read(self.path, self._parse, self._offset)
        self.rows += new
        return new


class Watched:
    """A run directory that is followed: its own metrics, its trainings', its events."""

    def __init__(self, path: Path) -> None:
        require_run(path)
        self.path = path
        self.status = "in progress"
        self._search = Follower(path / METRICS, SearchRow.parse)
        self._events = Follower(path / EVENTS, Event.parse)
        self._trainings: dict[str, Follower[TrainingRow]] = {}
        self._best: dict[str, float] = {}
        self._move: str | None = None
        """The last event that says whether the run goes on; None before the first look."""

    def poll(self) -> list[str]:
        """Read on; what is new, as plain lines."""
        happened = self._events.poll()
        told = [event_line(event) for event in happened]
        newest = newest_first(self.path) if self._move is None else reversed(happened)
        self._move = last_move(newest) or self._move or ""
        # Before the rows: a run writes its last rows first, then DONE.
        self.status = state_after(self.path, self._move)
        for folder in trainings(self.path):
            if folder.name not in self._trainings:
                self._trainings[folder.name] = Follower(folder / METRICS, TrainingRow.parse)
        told += [plain_line(row) for row in self._search.poll()]
        for name, follower in self._trainings.items():
            new = follower.poll()
            told += [f"{visible(name)} | {plain_line(row)}" for row in new]
            self._note_best(name, follower, new)
        return told

    def _note_best(
        self, name: str, follower: Follower[TrainingRow], new: Sequence[TrainingRow]
    ) -> None:
        if new and follower.left_out and name not in self._best:
            self._best[name] = best_accuracy(follower.path.parent)
        if new:
            best = max(row.test_accuracy for row in new)
            self._best[name] = max(best, self._best.get(name, 0.0))

    @property
    def left_out(self) -> list[Path]:
        """The files of which only the newest lines were read."""
        files = [self._search, self._events, *self._trainings.values()]
        return [each.path for each in files if each.left_out]

    def panel(self) -> RenderableType:
        name = self.path.resolve().name
        rows = list(self._search.rows)
        under_way = {
            each: Progress(list(follower.rows), self._best.get(each))
            for each, follower in self._trainings.items()
        }
        if not under_way:
            return search_panel(name, rows, self.status, self._notes())
        table = trainings_panel(name, under_way, self.status, self._notes())
        return Group(search_panel(name, rows, self.status), table) if rows else table

    def _notes(self) -> list[Text]:
        """The latest warnings and failures, and what a run that writes nothing may be up to."""
        worth = [event for event in self._events.rows if event.event in ("warning", "failed")]
        notes = [
            Text(event_line(event), style="red" if event.event == "failed" else "yellow")
            for event in worth[-3:]
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
    there is no run, or a damaged one; 130 when interrupted: the run itself does not notice."""
    console = Console() if console is None else console
    try:
        watched = Watched(Path(run))
        _follow(watched, console, poll_seconds)
    except ValueError as error:
        _print_plain(console, told(error))
        return 2
    except OSError as error:
        _print_plain(console, told(error))
        return 1
    except KeyboardInterrupt:
        return 130
    _print_plain(console, f"{visible(watched.path)}: {watched.status}")
    return 1 if watched.status == "failed" else 0


def _follow(watched: Watched, console: Console, poll_seconds: float) -> None:
    new = watched.poll()
    if watched.left_out or len(new) > FIRST:
        files = ", ".join(map(str, watched.left_out[:SHOWN_FILES])) or watched.path
        new = [f"({visible(files)}: earlier lines are not shown)", *new[-FIRST:]]
    live = Live(watched.panel(), console=console, auto_refresh=False)
    if console.is_terminal:
        live.start(refresh=True)
    try:
        while True:
            if console.is_terminal:
                live.update(watched.panel(), refresh=True)
            else:
                for line in new:
                    _print_plain(console, line)
            if watched.status in ENDED:
                return
            time.sleep(poll_seconds)
            new = watched.poll()
    finally:
        if console.is_terminal:
            live.stop()


def _print_plain(console: Console, line: str) -> None:
    """Names from a run are no markup, and a line of a log is not to be wrapped."""
    console.print(Text(line), soft_wrap=True)
