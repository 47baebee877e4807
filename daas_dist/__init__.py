"""DAAS: a network's architecture and its augmentation policy, searched together."""

from pathlib import Path
from typing import Any

__all__ = ["load"]


def load(path: Path | str) -> Any:
    """Return what a result.json holds: a result.Found of a search's, a trained.Trained of a
    training's.

    daas_dist.load("runs/search/result.json").network() is untrained,
    daas_dist.load("runs/train/trainings/found-found-seed0/result.json").network() is trained.
    """
    from daas_dist.documents import results
    from daas_dist.results import searched as result
    from daas_dist.results import trained  # torch takes seconds to import, a submission needs none

    document = results.read(Path(path))
    is_trained = isinstance(document, results.TrainedResult)
    return trained.load(path) if is_trained else result.load(path)
