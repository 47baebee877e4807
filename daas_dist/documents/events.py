"""events.jsonl, what happened to a run, and the files that it ends with."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from daas_dist.documents import lines
from daas_dist.documents.checked import Moment, checked
from daas_dist.documents.files import Damaged, is_there, read

FILE = "events.jsonl"
STATES = {"DONE": "finished", "FAILED": "failed", "STALLED": "failed"}
"""By the file that a run ends with."""
ENDED = frozenset(STATES.values())
PASSING = ("warning", "checkpointed")
"""Events that say nothing of whether the run goes on."""
LONGEST_REASON = 1 << 16


@dataclass(frozen=True)
class Event:
    """One line: when, what, and its details."""

    time: Moment
    event: str
    details: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def parse(row: lines.Row) -> "Event":
        """ValueError says what is wrong with the line."""
        head = checked(Event, {key: row[key] for key in ("time", "event") if key in row})
        told = {key: value for key, value in row.items() if key not in ("time", "event")}
        return Event(head.time, head.event, told)

    @property
    def words(self) -> str:
        """Return what it says beside its name and its time."""
        return ", ".join(
            str(value) if key in ("message", "error") else f"{key} {value}"
            for key, value in self.details.items()
        )


def newest_first(run_dir: Path) -> Iterable[Event]:
    """The events but those of PASSING, of which only those are read that are asked for."""
    passing = [f'"event": "{name}"'.encode() for name in PASSING]
    return lines.backward(run_dir / FILE, Event.parse, without=passing)


def ending(run_dir: Path) -> tuple[str, str] | None:
    """(DONE, FAILED or STALLED; what it says), None of a run that has not ended. Damaged if what
    stands there is no file."""
    for name in STATES:
        if is_there(run_dir / name):
            return name, _reason(run_dir / name)
    return None


def _reason(path: Path) -> str:
    remedy = "remove it"
    data = read(path, remedy)
    if data is None:
        return ""
    return data[:LONGEST_REASON].decode(errors="replace").strip()


def state(run_dir: Path) -> str:
    """ "finished", "failed" (by the files of STATES), "stopped" (by the last event that says
    anything about it) or "in progress"."""
    return state_after(run_dir, last_move(newest_first(run_dir)))


def last_move(events: Iterable[Event]) -> str:
    """The first event that says whether the run goes on; "" if none does."""
    return next((each.event for each in events if each.event not in PASSING), "")


def state_after(run_dir: Path, move: str) -> str:
    """Return the state as state() does; move: the last event that says anything about it."""
    ended = ending(run_dir)
    if ended is not None:
        return STATES[ended[0]]
    return "stopped" if move in ("stopped", "cancelled") else "in progress"


MARKS = ("config.yaml", "metrics.jsonl", "result.json", "comparison.json", "trainings")
"""A directory that holds any of these is a run."""


def require_run(path: Path) -> None:
    """Raise ValueError, with what was expected, unless the path is a run directory."""
    if not path.is_dir():
        raise ValueError(f"{path} is no run: expected a directory, as run_dir=… names one")
    if not any(is_there(path / mark) for mark in MARKS):
        raise ValueError(f"{path} is no run: it holds none of {', '.join(MARKS)}")


def trainings(run_dir: Path) -> list[Path]:
    """The folders of its trainings, in order. Damaged if `trainings` is no folder."""
    folder = run_dir / "trainings"
    if not is_there(folder):
        return []
    if not folder.is_dir():
        raise Damaged(folder, "is no folder", "remove it")
    return sorted(each for each in folder.iterdir() if each.is_dir())
