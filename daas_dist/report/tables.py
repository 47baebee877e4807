"""Nested lists of a document as arrays."""

from pathlib import Path
from typing import Any

import numpy as np

from daas_dist.documents import Damaged, results


def table(values: Any, shape: tuple[int, ...], key: str, path: Path) -> np.ndarray:
    """Nested lists of numbers as an array, null as nan. Damaged if they have another shape."""
    try:
        found = np.array(values, float)
    except (TypeError, ValueError) as error:
        raise Damaged(path, f"{key} is no table of numbers", results.REMEDY) from error
    if found.shape != shape:
        wrong = f"{key} is of the shape {list(found.shape)}, expected {list(shape)}"
        raise Damaged(path, wrong, results.REMEDY)
    return found
