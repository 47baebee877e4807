"""What is handed over: a search's result or a trained network, and where it comes from."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daas_dist.documents import results
from daas_dist.documents.results import SearchResult, TrainedResult
from daas_dist.documents.run import PROVENANCE, Provenance
from daas_dist.results import searched, trained
from daas_dist.results.trained import Trained
from daas_dist.spaces.cells import Genotype
from daas_dist.spaces.policy import Policy


class Lacking(ValueError):
    """A target needs a part that the result has not, or a library that is not installed."""


@dataclass(frozen=True)
class Subject:
    """A result.json and its parts. genotype is None where a policy was searched alone or a fixed
    network trained, trained where it is a search's result, search where a training has none."""

    document: SearchResult | TrainedResult
    sha256: str
    """Of the file."""
    genotype: Genotype | None
    policy: Policy | None
    trained: Trained | None
    search: SearchResult | None
    """The result of the search that found it."""
    provenance: Provenance | None
    """Of the run that made it; None where its file was moved away."""

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.document.data.classes)

    @property
    def origin(self) -> dict[str, Any]:
        """Return what exported files say about where they come from."""
        row = None if self.trained is None else self.trained.document
        return {
            "made_by": "daas export",
            "result_sha256": self.sha256,
            "kind": self.document.kind,
            "architecture": "searched" if row is None else row.network.name,
            "seed": None if row is None else row.seed,
            "commit": None if self.provenance is None else self.provenance.commit,
        }


def read(path: Path) -> Subject:
    """The subject of a result.json. ValueError if it is none."""
    if isinstance(results.read(path), TrainedResult):
        return _of_training(path)
    found = searched.load(path)
    return Subject(
        document=found.document,
        sha256=_sha256(path),
        genotype=found.genotype,
        policy=found.policy,
        trained=None,
        search=found.document,
        provenance=found.document.provenance,
    )


def _of_training(path: Path) -> Subject:
    loaded = trained.load(path)
    run_dir = path.absolute().parent.parent.parent  # of run/trainings/row/result.json
    return Subject(
        document=loaded.document,
        sha256=_sha256(path),
        genotype=loaded.genotype,
        policy=loaded.policy,
        trained=loaded,
        search=results.SEARCH_COPY.read(run_dir),
        provenance=PROVENANCE.read(run_dir),
    )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
