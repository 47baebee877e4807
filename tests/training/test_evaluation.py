"""Loss, top-k, calibration and accuracy by class, against loops over single images."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from daas_dist.documents.metrics import TrainingRow
from daas_dist.rng import stream
from daas_dist.training.evaluation import BINS, best, numbers, size, sums


def problem(images: int, classes: int) -> tuple[Tensor, Tensor]:
    """Logits of which a part is right, with confidences all over."""
    generator = stream(images, "evaluation", classes)
    labels = torch.randint(classes, (images,), generator=generator)
    logits = 1.5 * torch.randn(images, classes, generator=generator)
    logits[torch.arange(images), labels] += 1 + math.log(classes)
    return logits, labels


def by_loops(logits: Tensor, labels: Tensor) -> dict[str, Any]:
    loss, top1, top5 = 0.0, 0, 0
    bins: list[list[tuple[bool, float]]] = [[] for _ in range(BINS)]
    classes = logits.shape[1]
    confusion = [[0] * classes for _ in range(classes)]
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        exponents = [math.exp(value) for value in row]
        probability = [value / sum(exponents) for value in exponents]
        loss -= math.log(probability[label])
        ranked = sorted(range(classes), key=lambda c: -row[c])
        top1 += ranked[0] == label
        top5 += label in ranked[:5]
        number = next(b for b in range(BINS) if probability[ranked[0]] <= (b + 1) / BINS)
        bins[number].append((ranked[0] == label, probability[ranked[0]]))
        confusion[label][ranked[0]] += 1
    n = len(labels)
    error = 0.0
    for each in filter(None, bins):
        accuracy = sum(right for right, _ in each) / len(each)
        confidence = sum(sure for _, sure in each) / len(each)
        error += len(each) / n * abs(accuracy - confidence)
    return {"loss": loss / n, "top1": top1 / n, "top5": top5 / n, "error": error,
            "confusion": confusion, "bins": [len(each) for each in bins]}  # fmt: skip


@pytest.mark.parametrize("classes", [3, 10, 120])
def test_every_number_is_that_of_a_loop_over_the_images(classes: int) -> None:
    logits, labels = problem(400, classes)
    found, expected = numbers(sums(logits, labels), classes), by_loops(logits, labels)
    assert found.images == 400
    assert found.loss == pytest.approx(expected["loss"], rel=1e-6)
    assert found.top1 == expected["top1"] and 0.3 < found.top1 < 0.95
    assert found.top5 == (expected["top5"] if classes > 5 else None)
    assert found.calibration_error == pytest.approx(expected["error"], rel=1e-6)
    assert found.calibration_error > 0.02
    assert [each.images for each in found.bins] == expected["bins"]
    assert found.confusion == (expected["confusion"] if classes <= 100 else None)
    for c, row in enumerate(expected["confusion"]):
        assert found.class_images[c] == sum(row)
        accuracy = row[c] / sum(row) if sum(row) else None
        assert found.class_accuracy[c] == accuracy


def test_sums_over_uneven_batches_add_up_to_those_of_the_whole() -> None:
    logits, labels = problem(101, 10)
    parts = zip(logits.split([1, 60, 33, 7]), labels.split([1, 60, 33, 7]), strict=True)
    total = torch.stack([sums(*part) for part in parts]).sum(0)
    torch.testing.assert_close(total, sums(logits, labels), rtol=1e-13, atol=1e-13)
    assert total.shape == (size(10),) and numbers(total, 10).images == 101
    counts = total[2 : 2 + 3 * BINS].view(BINS, 3)[:, :2]
    assert torch.equal(counts, sums(logits, labels)[2 : 2 + 3 * BINS].view(BINS, 3)[:, :2])


def test_the_calibration_error_of_a_network_that_is_always_equally_sure() -> None:
    """Closed form: sure to 0.7, right in 3 of 5, an error of 0.1; a bin holds its upper edge."""
    rest = math.log(0.3 / 2)
    logits = torch.tensor([[math.log(0.7), rest, rest]], dtype=torch.float64).repeat(5, 1)
    found = numbers(sums(logits, torch.tensor([0, 0, 0, 1, 2])), 3)
    assert found.calibration_error == pytest.approx(0.1, rel=1e-12)
    assert [b for b, each in enumerate(found.bins) if each.images] == [math.ceil(0.7 * BINS) - 1]
    edge = torch.tensor([[0.0, 0.0, 0.0]])  # 1 / 3 is the upper edge of bin 4 of 15
    held = [each.images for each in numbers(sums(edge, torch.tensor([2])), 3).bins]
    assert held.index(1) == 4 and numbers(sums(edge, torch.tensor([2])), 3).bins[0].accuracy is None


def test_half_precision_logits_are_summed_in_double() -> None:
    logits, labels = problem(300, 10)
    half = logits.bfloat16()
    assert numbers(sums(half, labels), 10) == numbers(sums(half.double(), labels), 10)


def test_logits_that_are_no_numbers_are_a_loss_that_is_none() -> None:
    logits, labels = problem(8, 10)
    logits[3] = math.nan
    found = numbers(sums(logits, labels), 10)
    assert math.isnan(found.loss) and found.images == 8


def test_sums_of_other_classes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[147\] sums, not 56 for 3 classes"):
        numbers(sums(*problem(4, 10)), 3)


def test_the_best_epoch_is_the_first_of_the_highest_accuracy() -> None:
    rows = [
        TrainingRow(
            epoch=epoch, epochs=4, time=0.0, learning_rate=0.1, train_loss=1.0, train_accuracy=0.5,
            test_loss=1.0, test_accuracy=top1, images_per_second=9.0,
        )
        for epoch, top1 in ((1, 0.5), (2, 0.8), (3, 0.8), (4, 0.7))
    ]  # fmt: skip
    assert best(rows) == rows[1]
