"""Folders of small pictures for the tests, each picture another one."""

import itertools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

_seeds = itertools.count()


def picture(path: Path, side: int = 12) -> Path:
    """A coloured picture, of the format of its name's ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(next(_seeds)).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def tree(root: Path, counts: Mapping[str, int], ending: str = "png") -> Path:
    """So many pictures in each folder below root; a folder may be written as a path."""
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            picture(root / name / f"{number}.{ending}")
    return root
