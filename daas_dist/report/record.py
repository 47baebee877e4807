"""A run directory, read: what a page shows of its metrics, events, results and trainings.

A run may be read while it is being written. What is read follows what is shown: of metrics.jsonl
lines spread over it, of events.jsonl the last, and a training's tests when they are asked for.
Needs no torch, so that what is damaged is told at once.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from daas_dist.documents import events, lines, metrics, results
from daas_dist.documents.events import Event
from daas_dist.documents.files import Damaged, is_there, read
from daas_dist.documents.lines import Sample, read_rows
from daas_dist.documents.metrics import SearchRow, TrainingRow
from daas_dist.documents.results import Comparison, Evaluation, SearchResult, Telemetry
from daas_dist.documents.run import PROVENANCE, Provenance

if TYPE_CHECKING:
    from daas_dist.spaces.cells import Genotype
    from daas_dist.spaces.policy import Policy

D = TypeVar("D")
T = TypeVar("T")

__all__ = ["Run", "Training", "read_rows"]

SHOWN_EVENTS = 500
"""The newest, of more."""
SHOWN_BYTES = 1 << 18
"""Of config.yaml."""


@dataclass(frozen=True)
class Training:
    """One network trained from scratch: a folder of trainings/."""

    path: Path
    architecture: str
    policy: str
    seed: int | None

    @staticmethod
    def of(path: Path) -> "Training":
        named = re.fullmatch(r"([^-]+)-([^-]+)-seed(\d{1,18})", path.name)
        architecture, policy, seed = named.groups() if named else (path.name, "", None)
        return Training(path, architecture, policy, None if seed is None else int(seed))

    @cached_property
    def metrics(self) -> list[TrainingRow]:
        """Its epochs, or of very many those that are spread over them."""
        return lines.spread(self.path / metrics.FILE, TrainingRow.parse).rows

    @cached_property
    def latest(self) -> TrainingRow | None:
        """Its last epoch so far."""
        return next(iter(lines.backward(self.path / metrics.FILE, TrainingRow.parse)), None)

    def evaluation(self) -> Evaluation | None:
        """Return the evaluation of its newest epoch."""
        return results.EVALUATION.read(self.path)


@dataclass(frozen=True)
class Found:
    """result.json of a search, with what it found; None is what it did not search for."""

    path: Path
    document: SearchResult

    @cached_property
    def genotype(self) -> "Genotype | None":
        from daas_dist.spaces.cells import Genotype

        found = self.document.genotype
        return None if found is None else self._parsed(Genotype.from_document, found)

    @cached_property
    def policy(self) -> "Policy | None":
        from daas_dist.spaces.policy import Policy

        found = self.document.policy
        return None if found is None else self._parsed(Policy.from_document, found)

    @property
    def telemetry(self) -> Telemetry:
        if self.document.telemetry is None:
            raise Damaged(self.path, "has no telemetry", results.REMEDY)
        return self.document.telemetry

    def _parsed(self, parse: Callable[[D], T], found: D) -> T:
        try:
            return parse(found)
        except ValueError as error:
            raise Damaged(self.path, str(error), results.REMEDY) from error


@dataclass(frozen=True)
class Run:
    """What one run directory holds. A directory may hold a search, trainings, or both."""

    path: Path
    status: str
    reason: str
    """Why it failed, where it did."""
    sampled: Sample[SearchRow]
    events: list[Event]
    """The newest."""
    all_events: bool
    """Whether these are all."""
    result: Found | None
    """result.json of a search."""
    searched: Found | None
    """The copy that trainings keep of the search's result."""
    comparison: Comparison | None
    trainings: list[Training]
    config: str
    provenance: Provenance | None

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @property
    def metrics(self) -> list[SearchRow]:
        return self.sampled.rows

    @property
    def is_search(self) -> bool:
        return self.result is not None or bool(self.metrics) or not self.is_training

    @property
    def is_training(self) -> bool:
        return self.comparison is not None or bool(self.trainings)

    @staticmethod
    def read(path: Path) -> "Run":
        """ValueError says which document is not right."""
        events.require_run(path)
        told, all_of_them = lines.last(path / events.FILE, Event.parse, SHOWN_EVENTS)
        kept = results.SEARCH_COPY.read(path)
        return Run(
            path=path,
            status=events.state(path),
            reason=_reason(events.ending(path), told),
            sampled=lines.spread(path / metrics.FILE, SearchRow.parse),
            events=told,
            all_events=all_of_them,
            result=_found(path),
            searched=None if kept is None else Found(path / results.SEARCH_COPY.file, kept),
            comparison=results.COMPARISON.read(path),
            trainings=[Training.of(folder) for folder in events.trainings(path)],
            config=_config(path / "config.yaml"),
            provenance=PROVENANCE.read(path),
        )

    @property
    def origin(self) -> str | None:
        """The result.json that the trainings took what was found from, as they were told it."""
        return None if self.comparison is None else self.comparison.search

    def came_from(self, search: "Run") -> bool:
        """Tell whether its trainings are of what this search found; the folders may have moved
        since."""
        if self.searched is None or search.result is None:
            return False
        ours, theirs = self.searched.document, search.result.document
        return ours.genotype == theirs.genotype and ours.policy == theirs.policy


def _found(path: Path) -> Found | None:
    """The result of a search; of another kind it is none of a page's."""
    file = path / results.FILE
    document = results.read(file) if is_there(file) else None
    return Found(file, document) if isinstance(document, SearchResult) else None


def _config(path: Path) -> str:
    data = read(path, "get it back from a copy")
    return "" if data is None else data[:SHOWN_BYTES].decode(errors="replace")


def _reason(ended: tuple[str, str] | None, told: list[Event]) -> str:
    if ended is None or events.STATES[ended[0]] != "failed":
        return ""
    failures = [event for event in told if event.event in ("failed", "stalled")]
    return ended[1] or (failures[-1].words if failures else "")
