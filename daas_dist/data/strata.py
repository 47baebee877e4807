"""Which images a part of a data set gets, so that every class keeps its proportion.

Shapes: labels [N] int64, numbers into classes; a choice [N] bool.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from daas_dist.data.words import pictures
from daas_dist.rng import stream

TEST_SHARE = 0.2
"""Of each class, where there is no folder of test pictures: ours."""


def count_classes(labels: Tensor, classes: Sequence[str]) -> list[int]:
    """Return how many images there are of each class."""
    return torch.bincount(labels, minlength=len(classes)).tolist()


def choose_share(labels: Tensor, classes: Sequence[str], share: float, seed: int) -> Tensor:
    """Choose `share` of the images, as much of every class as whole images allow, and none of which
    a class has all or nothing. Drawn by stream(seed, "split")."""
    if not 0 < share < 1:
        raise ValueError(f"a share of {share} for training; set data.val_share between 0 and 1")
    total, count = round(share * len(labels)), len(classes)
    most = len(labels) - count
    if min(count_classes(labels, classes)) > 1 and not count <= total <= most:
        raise ValueError(
            f"{total} of {len(labels)} images for training cannot leave every one of {count} "
            f"classes an image on both sides; change data.val_share, or add images"
        )
    return stratified(labels, total, classes, seed, "split", both=True)


def choose_count(labels: Tensor, classes: Sequence[str], count: int, seed: int, key: str) -> Tensor:
    """Choose `count` of the images; a smaller count gives a subset. Drawn by stream(seed, "limit").

    key: what gave the count.
    """
    if not 1 <= count <= len(labels):
        raise ValueError(
            f"{count} of {len(labels)} images wanted; set {key} to {len(labels)} or less, or null "
            "for all"
        )
    if count == len(labels):
        return torch.ones(count, dtype=torch.bool)
    if count < len(classes):
        raise ValueError(
            f"{count} of {len(labels)} images cannot leave every one of {len(classes)} "
            f"classes an image; set {key} to {len(classes)} or more, or null for all"
        )
    return stratified(labels, count, classes, seed, "limit", both=False)


def choose_of_each(labels: Tensor, classes: Sequence[str], count: int, seed: int) -> Tensor:
    """Choose `count` images of each class, all of a class that has fewer (peer: DADA's 50)."""
    order = torch.randperm(len(labels), generator=stream(seed, "images-per-class"))
    by_class = order[labels[order].argsort(stable=True)]
    count_C = torch.bincount(labels, minlength=len(classes))
    first_C = count_C.cumsum(0) - count_C
    place = torch.arange(len(labels)) - torch.repeat_interleave(first_C, count_C)
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    chosen[by_class[place < count]] = True
    return chosen


def put_aside(labels: Tensor, classes: Sequence[str], seed: int, purpose: str, key: str) -> Tensor:
    """[N] bool: what stays for training once TEST_SHARE of each class is put aside for testing.

    key: which one gives test pictures instead, for the ValueError on a class of one.
    """
    count_C = torch.bincount(labels, minlength=len(classes))
    if int(count_C.min()) < 2:
        lacking = int(count_C.argmin())
        raise ValueError(
            f"class {classes[lacking]!r} has {pictures(int(count_C.min()))}, expected 2 or more, "
            f"as some of each class are put aside for testing; add pictures to it, or set {key} to "
            "a folder of test pictures"
        )
    total = round((1 - TEST_SHARE) * len(labels))
    total = min(max(total, len(classes)), len(labels) - len(classes))
    return stratified(labels, total, classes, seed, purpose, both=True)


def stratified(
    labels: Tensor, total: int, classes: Sequence[str], seed: int, purpose: str, *, both: bool
) -> Tensor:
    """[N] bool with `total` true, stratified; `both`: no class may lack on either side."""
    count_C = torch.bincount(labels, minlength=len(classes))
    if int(count_C.min()) < (2 if both else 1):
        lacking = int(count_C.argmin())
        raise ValueError(
            f"class {classes[lacking]!r} has {pictures(int(count_C.min()))} here, too few for "
            f"{'two parts' if both else 'a part'} of the data set; add pictures to it"
        )
    quota_C = _apportion(count_C, total, both)
    order = torch.randperm(len(labels), generator=stream(seed, purpose))
    by_class = order[labels[order].argsort(stable=True)]
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for members, quota in zip(by_class.split(count_C.tolist()), quota_C.tolist(), strict=True):
        chosen[members[:quota]] = True
    return chosen


def _apportion(count_C: Tensor, total: int, both: bool) -> Tensor:
    """[C] whole numbers near total * count_C / N, summing to total (largest remainders)."""
    least_C = torch.ones_like(count_C)
    most_C = count_C - 1 if both else count_C
    if not int(least_C.sum()) <= total <= int(most_C.sum()):
        raise ValueError(
            f"{total} of {int(count_C.sum())} images cannot leave every one of {len(count_C)} "
            "classes an image; change data.limit, data.test_limit or data.val_share"
        )
    exact_C = count_C.double() * total / count_C.sum()
    quota_C = exact_C.floor().long().clamp(least_C, most_C)
    while int(quota_C.sum()) != total:
        # One at a time to the class that is furthest from its due, ties to the first.
        missing = total - int(quota_C.sum())
        due_C = (exact_C - quota_C) if missing > 0 else (quota_C - exact_C)
        movable_C = quota_C < most_C if missing > 0 else quota_C > least_C
        due_C = due_C.masked_fill(~movable_C, -torch.inf)
        quota_C[due_C.argmax()] += 1 if missing > 0 else -1
    return quota_C
