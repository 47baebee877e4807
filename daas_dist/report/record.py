"""A run directory, read: metrics, events, results and trainings as plain frozen values.

The files are described in design.md ("Run directory"). A run may be read while it is being written:
an incomplete last line of a .jsonl file is left for the next reading; any other malformed line is
an error that names file and line.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = dict[str, Any]

MARKS = ("config.yaml", "metrics.jsonl", "result.json", "comparison.json", "trainings")
"""A directory that holds any of these is a run."""
STATES = {"DONE": "finished", "FAILED": "failed", "STALLED": "failed"}
"""By the file that a run ends with."""
ENDED = frozenset(STATES.values())
SCHEMA = 1


def require_run(path: Path) -> None:
    """Raise ValueError, with what was expected, unless the path is a run directory."""
    if not path.is_dir():
        raise ValueError(f"{path} is no run: expected a directory, as run_dir=… names one")
    if not any((path / mark).exists() for mark in MARKS):
        raise ValueError(f"{path} is no run: it holds none of {', '.join(MARKS)}")


def state(path: Path, events: list[Row]) -> str:
    """ "finished", "failed" (by the files of STATES), "stopped" (by the last event that says
    anything about it) or "in progress"."""
    for file, word in STATES.items():
        if (path / file).exists():
            return word
    moves = [each["event"] for each in events if each["event"] not in ("warning", "checkpointed")]
    return "stopped" if moves[-1:] in (["stopped"], ["cancelled"]) else "in progress"


def read_rows(path: Path, offset: int = 0) -> tuple[list[Row], int]:
    """The complete lines from a byte offset on, and the offset to go on from. No file: no rows."""
    if not path.exists():
        return [], offset
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read()
    complete = data[: data.rfind(b"\n") + 1]
    rows = []
    for number, line in enumerate(complete.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            where = f"line {number}" if offset == 0 else f"line {number} after byte {offset}"
            raise ValueError(f"{path}: {where} is not JSON ({error})") from error
        if not isinstance(row, dict):
            raise ValueError(f"{path}: line {number} should be an object, got {line[:60]!r}")
        rows.append(row)
    return rows, offset + len(complete)


def read_document(path: Path) -> Row | None:
    """A JSON object from a file, or None where there is no file."""
    if not path.exists():
        return None
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error})") from error
    if not isinstance(document, dict):
        raise ValueError(f"{path} should hold an object, got {type(document).__name__}")
    return document


@dataclass(frozen=True)
class Training:
    """One network trained from scratch: a folder of trainings/."""

    name: str
    architecture: str
    policy: str
    seed: int | None
    metrics: list[Row]
    evaluation: Row | None
    """Of the newest epoch, as evaluation.Evaluation.document has it."""

    @staticmethod
    def read(path: Path) -> "Training":
        named = re.fullmatch(r"([^-]+)-([^-]+)-seed(\d+)", path.name)
        architecture, policy, seed = named.groups() if named else (path.name, "", None)
        rows, _ = read_rows(path / "metrics.jsonl")
        number = None if seed is None else int(seed)
        evaluation = read_document(path / "evaluation.json")
        return Training(path.name, architecture, policy, number, rows, evaluation)


@dataclass(frozen=True)
class Run:
    """What one run directory holds. A directory may hold a search, trainings, or both."""

    path: Path
    status: str
    reason: str
    """Why it failed, where it did."""
    metrics: list[Row]
    events: list[Row]
    result: Row | None
    """result.json of a search."""
    searched: Row | None
    """The copy that trainings keep of the search's result."""
    comparison: Row | None
    trainings: list[Training]
    config: str
    provenance: Row | None

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @property
    def is_search(self) -> bool:
        return self.result is not None or bool(self.metrics) or not self.is_training

    @property
    def is_training(self) -> bool:
        return self.comparison is not None or bool(self.trainings)

    @staticmethod
    def read(path: Path) -> "Run":
        require_run(path)
        events, _ = read_rows(path / "events.jsonl")
        status = state(path, events)
        metrics, _ = read_rows(path / "metrics.jsonl")
        result = read_document(path / "result.json")
        comparison = read_document(path / "comparison.json")
        for name, document in (("result.json", result), ("comparison.json", comparison)):
            if document is not None and document["schema"] != SCHEMA:
                raise ValueError(
                    f"{path / name}: schema {document['schema']!r}; this version reads {SCHEMA}"
                )
        config = path / "config.yaml"
        return Run(
            path=path,
            status=status,
            reason=_reason(path, events) if status == "failed" else "",
            metrics=metrics,
            events=events,
            result=result if result is not None and result["kind"] == "search" else None,
            searched=read_document(path / "search.json"),
            comparison=comparison,
            trainings=[
                Training.read(folder)
                for folder in sorted((path / "trainings").glob("*"))
                if folder.is_dir()
            ],
            config=config.read_text(encoding="utf-8") if config.exists() else "",
            provenance=read_document(path / "provenance.json"),
        )

    @property
    def origin(self) -> str | None:
        """The result.json that the trainings took what was found from, as they were told it."""
        return None if self.comparison is None else self.comparison["search"]

    def came_from(self, search: "Run") -> bool:
        """Whether its trainings are of what this search found; the folders may have moved since."""
        if self.searched is None or search.result is None:
            return False
        return all(self.searched[part] == search.result[part] for part in ("genotype", "policy"))


def details(event: Row) -> str:
    """What an event says beside its name and its time."""
    told = {key: value for key, value in event.items() if key not in ("time", "event")}
    return ", ".join(
        str(value) if key in ("message", "error") else f"{key} {value}"
        for key, value in told.items()
    )


def _reason(path: Path, events: list[Row]) -> str:
    file = next(path / name for name in ("FAILED", "STALLED") if (path / name).exists())
    written = file.read_text(encoding="utf-8", errors="replace").strip()
    failures = [event for event in events if event["event"] in ("failed", "stalled")]
    return written or (details(failures[-1]) if failures else "")
