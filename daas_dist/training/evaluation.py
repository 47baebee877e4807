"""How good a network is, from its logits: loss, top-1, top-5, calibration, accuracy by class.

What is counted over the test images is one vector that is added up, over batches and over ranks:

    total = sum(sums(logits, labels) for each batch); all-reduce it; numbers(total, classes)

Axes: N images, C classes, B bins of confidence.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from daas_dist.documents.metrics import TrainingRow
from daas_dist.documents.results import Bin, Evaluation

__all__ = ["Bin", "Evaluation", "best", "numbers", "size", "sums"]

BINS = 15
"""Guo et al. 2017, Sec. 5."""
TOP = 5
MOST_CONFUSED = 100
"""Classes up to which it is kept which was taken for which: 1,000 would make a million counts."""


def size(classes: int) -> int:
    """Return how long the vector of sums is."""
    return 2 + 3 * BINS + classes * _columns(classes)


def _columns(classes: int) -> int:
    """Count the columns of a class's row: how often it was taken for each class, or how many
    images and how many of them right."""
    return classes if classes <= MOST_CONFUSED else 2


def sums(logits_NC: Tensor, labels_N: Tensor) -> Tensor:
    """float64 [size(C)] on the logits' device: loss, images whose class is among the TOP, for each
    bin (images, right ones, confidences), for each class its row. Counts stay exact to 2**53."""
    logits_NC = logits_NC.double()
    classes = logits_NC.shape[1]
    loss = cross_entropy(logits_NC, labels_N, reduction="sum")
    confidence_N, taken_N = logits_NC.softmax(-1).max(-1)
    right_N = (taken_N == labels_N).double()
    among = logits_NC.topk(min(TOP, classes)).indices.eq(labels_N[:, None]).sum()
    # Of bin b the confidences are above b / B and at most (b + 1) / B.
    edges = torch.arange(1, BINS, dtype=torch.float64, device=logits_NC.device) / BINS
    bin_N = torch.bucketize(confidence_N, edges)
    counted_N3 = torch.stack([torch.ones_like(right_N), right_N, confidence_N], 1)
    # Not index_add, which on a GPU adds confidences in any order.
    bins_B3 = one_hot(bin_N, BINS).double().T @ counted_N3
    row = one_hot(taken_N, classes) if _columns(classes) == classes else counted_N3[:, :2]
    table = counted_N3.new_zeros(classes, _columns(classes)).index_add(0, labels_N, row.double())
    return torch.cat([torch.stack([loss, among.double()]), bins_B3.flatten(), table.flatten()])


def numbers(total: Tensor, classes: int) -> Evaluation:
    """Return what the sums over all images say. ValueError where they are of another number of
    classes."""
    total = total.cpu()
    if total.shape != (size(classes),):
        raise ValueError(f"{list(total.shape)} sums, not {size(classes)} for {classes} classes")
    bins_B3 = total[2 : 2 + 3 * BINS].view(BINS, 3)
    table = total[2 + 3 * BINS :].view(classes, _columns(classes))
    confused = _columns(classes) == classes
    count_C = table.sum(1) if confused else table[:, 0]
    right_C = table.diag() if confused else table[:, 1]
    images = int(count_C.sum())
    return Evaluation(
        images=images,
        loss=float(total[0]) / images,
        top1=float(right_C.sum()) / images,
        top5=float(total[1]) / images if classes > TOP else None,
        calibration_error=expected_calibration_error(bins_B3),
        bins=[Bin(int(n), _share(r, n), _share(sure, n)) for n, r, sure in bins_B3.tolist()],
        class_images=count_C.long().tolist(),
        class_accuracy=[
            _share(*each) for each in zip(right_C.tolist(), count_C.tolist(), strict=True)
        ],
        confusion=table.long().tolist() if confused else None,
    )


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def expected_calibration_error(bins_B3: Tensor) -> float:
    """Guo et al. 2017, Eq. (5): the gap between accuracy and mean confidence, bin by bin, weighed
    by the images in them. bins_B3: images, right ones, sum of confidences."""
    return float((bins_B3[:, 1] - bins_B3[:, 2]).abs().sum() / bins_B3[:, 0].sum())


def best(epochs: Sequence[TrainingRow]) -> TrainingRow:
    """Return the first epoch of the highest top-1."""
    return max(epochs, key=lambda row: row.test_accuracy)
