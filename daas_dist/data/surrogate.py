"""Which classes of a data set are searched on: all, a fixed list, a random choice, a list of yours.

A choice is a view: the shards stay as they are.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import torch

from daas_dist.data.manifest import DataError
from daas_dist.rng import stream

IMAGENET_CLASSES = 1000

DADA_120 = (
    16, 23, 52, 57, 76, 93, 95, 96, 99, 121, 122, 128, 148, 172, 181, 189, 202, 210, 232, 238,
    257, 258, 259, 277, 283, 289, 295, 304, 307, 318, 322, 331, 337, 338, 345, 350, 361, 375, 376,
    381, 388, 399, 401, 408, 424, 431, 432, 440, 447, 462, 464, 472, 483, 497, 506, 512, 530, 541,
    553, 554, 557, 564, 570, 584, 612, 614, 619, 626, 631, 632, 650, 657, 658, 660, 674, 675, 680,
    682, 691, 695, 699, 711, 734, 736, 741, 754, 757, 764, 769, 770, 780, 781, 787, 797, 799, 811,
    822, 829, 830, 835, 837, 842, 843, 845, 873, 883, 897, 900, 902, 905, 913, 920, 925, 937, 938,
    940, 941, 944, 949, 959,
)  # fmt: skip
"""DADA's and Fast AutoAugment's 120 classes of ImageNet, by their place among its sorted ids (DADA
search_relax/dataset.py, FastAutoAugment/data.py). An older list in DADA's search_gumbel has 10
classes twice, so only 110."""

WAYS = "all, dada120, random:COUNT:SEED, or a file with a class id or number a line"


def choose(how: str, class_ids: Sequence[str]) -> list[int]:
    """The chosen classes' numbers among class_ids, sorted. DataError where the choice is wrong."""
    if how == "all":
        return list(range(len(class_ids)))
    if how == "dada120":
        if len(class_ids) != IMAGENET_CLASSES:
            raise DataError(
                f"data.classes=dada120 are places among ImageNet's {IMAGENET_CLASSES} classes, "
                f"these shards have {len(class_ids)}; expected {WAYS}"
            )
        return list(DADA_120)
    random = re.fullmatch(r"random:(\d+):(\d+)", how)
    if random:
        count, seed = int(random[1]), int(random[2])
        if not 2 <= count <= len(class_ids):
            raise DataError(
                f"data.classes={how} wants {count} of {len(class_ids)} classes, expected 2 or more"
            )
        order = torch.randperm(len(class_ids), generator=stream(seed, "classes"))
        return sorted(order[:count].tolist())
    path = Path(how)
    if not path.is_file():
        raise DataError(f"data.classes={how}: no such file; expected {WAYS}")
    return _listed(path, class_ids)


def _listed(path: Path, class_ids: Sequence[str]) -> list[int]:
    """The classes of a file: ids, or numbers where no id is called so; # starts a comment."""
    number = {class_id: i for i, class_id in enumerate(class_ids)}
    number = {str(i): i for i in range(len(class_ids))} | number
    lines = (line.partition("#")[0].strip() for line in path.read_text("utf-8").splitlines())
    words = [line for line in lines if line]
    unknown = [word for word in words if word not in number]
    if unknown:
        raise DataError(f"{path}: no class {', '.join(unknown[:5])} in these shards")
    chosen = [number[word] for word in words]
    if len(set(chosen)) < len(chosen):
        twice = sorted({class_ids[i] for i in chosen if chosen.count(i) > 1})
        raise DataError(
            f"{path} names {len(chosen)} classes of which {len(set(chosen))} are different; "
            f"twice: {', '.join(twice[:10])}"
        )
    if len(chosen) < 2:
        raise DataError(f"{path} names {len(chosen)} classes, expected 2 or more")
    return sorted(chosen)
