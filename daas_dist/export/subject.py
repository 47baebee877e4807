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
            "commit": self.document.get("provenance", {}).get("commit"),
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
    )


def _of_training(path: Path) -> Subject:
    loaded = trained.load(path)
    return Subject(
        document=loaded.document,
        sha256=_sha256(path),
        genotype=loaded.genotype,
        policy=loaded.policy,
        classes=loaded.classes,
        trained=loaded,
        search=_search_beside(path),
    )


def _search_beside(path: Path) -> dict[str, Any] | None:
    """The copy of the search's result that a training keeps: run/search.json, where this is
    run/trainings/row/result.json. None where the row was moved away from its run."""
    kept = path.absolute().parent.parent.parent / "search.json"
    try:
        document = json.loads(kept.read_text())
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
