"""How far a long piece of work is: a bar on a terminal, elsewhere a line now and then."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from daas_dist.documents.escaping import visible

Report = Callable[[str, int, int | None], None]
"""(what is done, how much of it, of how much: None where that is not known yet)."""

FIRST, THEN = 10.0, 30.0
"""Seconds until the first line and between lines where there is no terminal."""


def silent(what: str, done: int, total: int | None) -> None:
    """Tell nothing."""


@contextmanager
def shown(console: Console | None = None) -> Generator[Report]:
    """Give a Report that shows on stderr, each `what` in turn."""
    console = Console(stderr=True) if console is None else console
    if console.is_terminal:
        with _bar(console) as report:
            yield report
    else:
        yield _Lines(console)


@contextmanager
def _bar(console: Console) -> Generator[Report]:
    columns = TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as progress:
        tasks: dict[str, TaskID] = {}

        def report(what: str, done: int, total: int | None) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(visible(what), total=total)
            progress.update(tasks[what], completed=done, total=total)

        yield report


class _Lines:
    """A line after FIRST seconds, and again every THEN."""

    def __init__(self, console: Console) -> None:
        self._console, self._due = console, time.monotonic() + FIRST

    def __call__(self, what: str, done: int, total: int | None) -> None:
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + THEN
        of = "" if total is None else f" of {total}"
        self._console.print(
            f"{visible(what)}: {done}{of}", markup=False, highlight=False, soft_wrap=True
        )
