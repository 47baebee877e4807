"""DAAS: a network's architecture and its augmentation policy, searched together."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from daas_dist.result import Found

__all__ = ["load"]


def load(path: Path | str) -> "Found":
    """daas_dist.load("result.json").network() and .transform()."""
    from daas_dist import result  # torch takes seconds to import, and a submission needs none

    return result.load(path)
