"""What is handed over: a search's result or a trained network, and where it comes from."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daas_dist.documents import results
from daas_dist.documents.whole import read_object
from daas_dist.results import searched as result
from daas_dist.results import trained
from daas_dist.results.trained import Trained
from daas_dist.spaces.cells import Genotype
from daas_dist.spaces.policy import Policy


class Lacking(ValueError):
    """A target needs a part that the result has not, or a library that is not installed."""


@dataclass(frozen=True)
class Subject:
    """A result.json and its parts. genotype is None where a policy was searched alone or a fixed
    network trained, trained where it is a search's result, search where a training has none."""

    document: dict[str, Any]
    sha256: str
    """Of the file."""
    genotype: Genotype | None
    policy: Policy | None
    classes: tuple[str, ...]
    trained: Trained | None
    search: dict[str, Any] | None
    """The result of the search that found it."""
    provenance: dict[str, Any]
    """Commit, versions and host of the run that made it; empty where its file was moved away."""

    @property
    def origin(self) -> dict[str, Any]:
        """Return what exported files say about where they come from."""
        given = self.document if self.trained is None else self.document["network"]
        return {
            "made_by": "daas export",
            "result_sha256": self.sha256,
            "kind": self.document["kind"],
            "architecture": given.get("name", "searched"),
            "seed": self.document.get("seed"),
            "commit": _commit(self.provenance),
        }


def read(path: Path) -> Subject:
    """The subject of a result.json. ValueError if it is none."""
    if results.kind_of(path) == "trained":
        return _of_training(path)
    document, found = result.read(path), result.load(path)
    return Subject(
        document=document,
        sha256=_sha256(path),
        genotype=found.genotype,
        policy=found.policy,
        classes=tuple(document["data"]["classes"]),
        trained=None,
        search=document,
        provenance=document.get("provenance") or {},
    )


def _of_training(path: Path) -> Subject:
    loaded = trained.load(path)
    run_dir = path.absolute().parent.parent.parent  # of run/trainings/row/result.json
    return Subject(
        document=loaded.document,
        sha256=_sha256(path),
        genotype=loaded.genotype,
        policy=loaded.policy,
        classes=loaded.classes,
        trained=loaded,
        search=_beside(run_dir / "search.json"),
        provenance=_beside(run_dir / "provenance.json") or {},
    )


def _commit(provenance: dict[str, Any]) -> str | None:
    """A commit by its number; None where the file has another thing there."""
    commit = provenance.get("commit")
    return commit if isinstance(commit, str) and re.fullmatch("[0-9a-f]{6,64}", commit) else None


def _beside(path: Path) -> dict[str, Any] | None:
    """A file of the run; None where the row was moved away from it."""
    return read_object(path, "remove it to export without what it says")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
