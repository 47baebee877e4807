"""Parts and sums of a data set, and the order of its batches, against their definitions."""

import hashlib
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from daas_dist.data import (
    Batches,
    Images,
    measure,
)
from daas_dist.rng import Part


def made_up(counts: tuple[int, ...], channels: int = 3, side: int = 4) -> Images:
    """Random pixels, the classes interleaved at random."""
    draw = np.random.default_rng(sum(counts))
    labels = draw.permutation(np.repeat(np.arange(len(counts)), counts))
    pixels = draw.integers(0, 256, (len(labels), channels, side, side), dtype=np.uint8)
    names = tuple(f"class {i}" for i in range(len(counts)))
    return Images(torch.from_numpy(pixels), torch.from_numpy(labels), names)


ORDERS = {
    "count": st.integers(1, 300),
    "batch": st.integers(1, 40),
    "seed": st.integers(0, 2**40),
    "epoch": st.integers(0, 50),
}


@settings(deadline=None, max_examples=60)
@given(**ORDERS)
def test_an_epoch_is_a_permutation_without_its_tail(
    count: int, batch: int, seed: int, epoch: int
) -> None:
    batches = Batches(max(count, batch), batch, seed, "train")
    steps = range(epoch * batches.steps_per_epoch, (epoch + 1) * batches.steps_per_epoch)
    seen = torch.cat([batches.indices(step) for step in steps])
    assert len(seen) == batches.count - batches.dropped
    assert len(set(seen.tolist())) == len(seen)
    assert set(seen.tolist()) <= set(range(batches.count))
    assert 0 <= batches.dropped < batch
    assert {batches.epoch(step) for step in steps} == {epoch}


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 100), min_size=1, max_size=12), st.integers(0, 9))
def test_a_batch_depends_on_its_step_alone(steps: list[int], seed: int) -> None:
    wandering = Batches(37, 8, seed, "train")
    for step in steps:
        assert torch.equal(wandering.indices(step), Batches(37, 8, seed, "train").indices(step))


def test_epochs_seeds_and_purposes_have_their_own_orders() -> None:
    orders = [
        Batches(1000, 64, seed, purpose).order(epoch)
        for seed in (3, 4)
        for purpose in ("train", "val")
        for epoch in (0, 1)
    ]
    agreeing = [int((a == b).sum()) for i, a in enumerate(orders) for b in orders[i + 1 :]]
    # Two random permutations agree in one place on average (Poisson): more than 8 is 1 in 10^6.
    assert max(agreeing) <= 8


def test_a_batch_may_be_changed_without_changing_the_next_reading() -> None:
    batches = Batches(20, 5, 1, "train")
    first = batches.indices(2)
    expected = first.clone()
    first.zero_()
    assert torch.equal(batches.indices(2), expected)


def test_a_batch_larger_than_the_data_is_refused() -> None:
    with pytest.raises(ValueError, match=r"63 images for 'val'.*64.*batch_size.*data\.limit"):
        Batches(63, 64, 0, "val")
    with pytest.raises(ValueError, match="count from 0"):
        Batches(64, 64, 0, "val").indices(-1)


# ---------------------------------------------------------------- parts and sums


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(2, 40), min_size=2, max_size=6), st.floats(0.3, 0.7), st.integers(0, 5))
def test_split_parts_the_images_and_keeps_the_proportions(
    counts: list[int], share: float, seed: int
) -> None:
    data = made_up(tuple(counts), channels=1, side=1)
    # Pixels that tell the images apart, so that the parts can be compared as sets.
    numbers = torch.arange(len(data), dtype=torch.int16).view(torch.uint8).view(-1, 1, 1, 2)
    data = Images(numbers, data.labels, data.classes)
    try:
        train, val = data.split(share, seed)
    except ValueError:
        assert not len(counts) <= round(share * sum(counts)) <= sum(counts) - len(counts)
        return
    assert len(train) == round(share * len(data))
    rows = [part.images.contiguous().view(torch.int16).flatten().tolist() for part in (train, val)]
    assert sorted(rows[0] + rows[1]) == list(range(len(data)))
    assert rows == [sorted(rows[0]), sorted(rows[1])]
    for part, part_rows in zip((train, val), rows, strict=True):
        assert torch.equal(part.labels, data.labels[part_rows])
    exact_C = np.array(counts) * len(train) / len(data)
    got_C = np.bincount(train.labels.numpy(), minlength=len(counts))
    assert got_C.min() >= 1
    assert (np.array(counts) - got_C).min() >= 1
    # A whole image off at most, but where a class of two or three had to keep one on either side.
    assert np.abs(got_C - exact_C).max() <= 1 + (min(counts) <= 3)


def test_split_is_of_its_seed() -> None:
    data = made_up((50, 30, 20))
    one, again, other = (data.split(0.5, seed)[0] for seed in (7, 7, 8))
    assert torch.equal(one.images, again.images)
    assert not torch.equal(one.images, other.images)
    assert Counter(one.labels.tolist()) == {0: 25, 1: 15, 2: 10}


@pytest.mark.parametrize("shares", [1, 3, 7])
def test_shares_have_each_image_once_and_as_few_as_is_told(shares: int) -> None:
    data = made_up((9, 8))
    parts = [data.share_of(Part(i, shares)) for i in range(shares)]
    assert torch.equal(torch.cat([part.images for part in parts]), data.images)
    assert min(map(len, parts)) == data.fewest_of(shares)
    assert max(map(len, parts)) <= data.fewest_of(shares) + 1


def test_limits_are_nested_and_in_proportion() -> None:
    data = made_up((50, 30, 20))
    small, large = data.limit(20, 3), data.limit(40, 3)
    assert Counter(small.labels.tolist()) == {0: 10, 1: 6, 2: 4}
    assert Counter(large.labels.tolist()) == {0: 20, 1: 12, 2: 8}
    pictures = [{image.numpy().tobytes() for image in part.images} for part in (small, large)]
    assert pictures[0] < pictures[1]
    assert data.limit(100, 3) is data


def test_impossible_parts_are_refused() -> None:
    data = made_up((50, 30, 1))
    with pytest.raises(ValueError, match="class 'class 2' has 1 picture here"):
        data.split(0.5, 0)
    with pytest.raises(ValueError, match=r"data\.val_share"):
        data.split(1.0, 0)
    with pytest.raises(ValueError, match=r"2 of 81 images.*3 classes.*data\.limit"):
        data.limit(2, 0)
    with pytest.raises(ValueError, match=r"82 of 81.*data\.limit"):
        data.limit(82, 0)


def test_measure_is_numpy_s_mean_and_deviation() -> None:
    data = made_up((9, 8))
    pixels = data.images.numpy() / 255
    mean, std = measure(data)
    np.testing.assert_allclose(mean, pixels.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std, pixels.std((0, 2, 3)), rtol=1e-12)
    data.images[:, 1] = 77
    with pytest.raises(ValueError, match=r"channels \[1\].*same value"):
        measure(data)


def test_digest_sees_every_pixel_and_label() -> None:
    data = made_up((5, 4))
    told = hashlib.sha256(b"(9, 3, 4, 4)")
    told.update(data.images.numpy().tobytes() + data.labels.numpy().tobytes())
    assert data.digest() == told.hexdigest()
    pixel, label = data.images.clone(), data.labels.clone()
    pixel[8, 2, 3, 3] ^= 1
    label[8] = 1 - label[8]
    others = (Images(pixel, data.labels, data.classes), Images(data.images, label, data.classes))
    assert len({data.digest(), *(other.digest() for other in others)}) == 3
    reversed_rows = data.take(torch.arange(9).flip(0))
    strided = Images(reversed_rows.images.flip(0), reversed_rows.labels.flip(0), data.classes)
    assert strided.digest() == data.digest()


def test_images_are_checked() -> None:
    data = made_up((5, 4))
    with pytest.raises(ValueError, match="expected uint8"):
        Images(data.images.float(), data.labels, data.classes)
    with pytest.raises(ValueError, match=r"expected int64 \[9\]"):
        Images(data.images, data.labels[:8], data.classes)
    with pytest.raises(ValueError, match="from 0 to 1, outside the 1 classes"):
        Images(data.images, data.labels, data.classes[:1])
