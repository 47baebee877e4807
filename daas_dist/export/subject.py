"""What is handed over: a search's result or a trained network, and where it comes from."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daas_dist import result, trained
from daas_dist.policy import Policy
from daas_dist.space import Genotype
from daas_dist.trained import Trained


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
        """What exported files say about where they come from."""
        given = self.document if self.trained is None else self.document["network"]
        return {
            "made_by": "daas export",
            "result_sha256": self.sha256,
            "kind": self.document["kind"],
            "architecture": given.get("name", "searched"),
            "seed": self.document.get("seed"),
            "commit": self.provenance.get("commit"),
        }


def read(path: Path) -> Subject:
    """The subject of a result.json. ValueError if it is none."""
    if result.kind(path) == "trained":
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


def _beside(path: Path) -> dict[str, Any] | None:
    """A file of the run; None where the row was moved away from it."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
