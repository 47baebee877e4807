"""Bad samples in a run: named, replaced the same way by everyone, counted, never passed over."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from damage import flip
from spoil import (
    COUNT,
    PER_SHARD,
    ROW_OF,
)
from whole_runs import needs_fashion_mnist

from daas_dist.data import Batches, Crop, Feed, Plan, Shards, open_shards
from daas_dist.data.manifest import INDEX, NAMES, ROW, DataError
from daas_dist.data.shards import Reading
from daas_dist.rng import Part

pytestmark = needs_fashion_mnist
CUT = Crop(padding=0, flip=True, scale=(0.2, 1.0))
CHANGED = "its bytes have changed since they were packed"


def with_bad(root: Path, *rows: int) -> Shards:
    """A bit of each of these pictures is flipped."""
    index = np.fromfile(root / INDEX, ROW)
    for row in rows:
        flip(root / f"shard-{row // PER_SHARD:06d}.tar", int(index["offset"][row]) + 9)
    return open_shards(root, size=8, channels=3)


def allowing(images: Shards, most: int) -> Shards:
    return dataclasses.replace(images, max_bad=most, reading=Reading())


def feed_of(images: Shards, most: int, **more: Any) -> Feed:
    plan = Plan(batch_size=6, epochs=2, seed=0, crop=CUT, **more)
    return Feed({"train": allowing(images, most)}, plan)


def read(own: Feed, steps: range) -> tuple[torch.Tensor, torch.Tensor]:
    batches = [[part.clone() for part in own.batch(step)["train"]] for step in steps]
    images, labels = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(labels)


@pytest.fixture
def spoilt(root: Path, tmp_path: Path) -> tuple[Path, list[str]]:
    """A copy in which a byte of two samples is changed; what the two are called."""
    copy = Path(shutil.copytree(root, tmp_path / "spoilt"))
    with_bad(copy, 3, 4)
    return copy, (copy / NAMES).read_text().splitlines()[3:5]


def test_a_bad_sample_ends_the_run_by_name(spoilt: tuple[Path, list[str]]) -> None:
    images = open_shards(spoilt[0], size=8, channels=3)
    for workers in (0, 2):
        own = feed_of(images, 0, workers=workers)
        said = r"shard-000000.tar: sample [34] \(n.*JPEG\): its bytes have changed.*allows 0"
        with pytest.raises(DataError, match=said) as caught:
            read(own, range(8))
        assert "Traceback" not in str(caught.value)


def test_others_of_its_class_take_its_place(spoilt: tuple[Path, list[str]], root: Path) -> None:
    """Always the same ones, on any number of workers and after a resume, and each is named."""
    images = open_shards(spoilt[0], size=8, channels=3)
    pixels, labels = read(feed_of(images, 2), range(8))
    whole = read(feed_of(open_shards(root, size=8, channels=3), 0), range(8))
    assert torch.equal(labels, whole[1])
    changed = (pixels != whole[0]).flatten(1).any(1)
    assert int(changed.sum()) == 4  # two samples, two epochs
    for workers, first in ((0, 0), (2, 0), (1, 3)):
        own = feed_of(images, 2, workers=workers)
        ours = read(own, range(first, 8))
        assert torch.equal(ours[0], pixels[6 * first :])
        assert len(own.bad) == 2
        assert all(any(name in wrong for wrong in own.bad) for name in spoilt[1])


def test_more_bad_samples_than_allowed_end_the_run(spoilt: tuple[Path, list[str]]) -> None:
    """Counted over the workers together, and in the pictures of a test."""
    images = open_shards(spoilt[0], size=8, channels=3)
    for workers in (0, 2):
        with pytest.raises(DataError, match=r"2 (bad samples by now|samples are bad)"):
            read(feed_of(images, 1, workers=workers), range(8))
        with pytest.raises(DataError, match=r"2 (bad samples by now|samples are bad)"):
            list(feed_of(images, 1, workers=workers).tests(allowing(images, 1), 4))


def test_every_rank_takes_the_same_in_the_place_of_a_bad_sample(root: Path) -> None:
    """Its slice of what one rank reads, also from the middle on; two of them are bad."""
    images = with_bad(root, ROW_OF, 3)
    alone = feed_of(images, 2)
    expected = [alone.batch(step)["train"] for step in range(8)]
    assert len(alone.bad) == 2 and all(CHANGED in wrong for wrong in alone.bad)
    for of in (2, 3):
        found = set[str]()
        for rank in range(of):
            own = feed_of(images, 2, part=Part(rank, of))
            mine = slice(6 // of * rank, 6 // of * (rank + 1))
            for step in (0, 1, 2, 3, 6, 7):
                read = own.batch(step)["train"]
                assert torch.equal(read.images, expected[step].images[mine])
                assert torch.equal(read.labels, expected[step].labels[mine])
            found |= set(own.bad)
        assert found == set(alone.bad)  # the same words


def test_what_takes_the_place_is_a_picture_of_the_same_class(root: Path) -> None:
    whole = open_shards(root, size=8, channels=3)
    pictures = whole.central(torch.arange(COUNT))
    for row in range(0, COUNT, 5):
        images = allowing(with_bad(root, row), COUNT)
        instead = images.central(torch.tensor([row]))[0]
        same = (pictures == instead).flatten(1).all(1).nonzero().flatten().tolist()
        assert len(same) == 1 and same != [row]
        assert whole.labels[same[0]] == whole.labels[row]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_more_bad_samples_than_are_allowed_end_a_run_at_the_same_step(
    root: Path, workers: int
) -> None:
    """Though no worker has met them all."""
    images = with_bad(root, ROW_OF, 3)
    order = Batches(COUNT, 6, 0, "train").order(0).tolist()
    last = max(order.index(row) // 6 for row in (ROW_OF, 3))
    own = feed_of(images, 1, workers=workers)
    for step in range(last):
        own.batch(step)
    with pytest.raises(
        DataError, match=f"{root}.*{CHANGED}.*data.max_bad_files allows 1|allows 1.*{CHANGED}"
    ):
        own.batch(last)


def test_a_class_without_a_picture_that_can_be_read_ends_a_run(root: Path) -> None:
    images = open_shards(root, size=8, channels=3)
    rows = (images.labels == images.labels[ROW_OF]).nonzero().flatten().tolist()
    images = allowing(with_bad(root, *rows), COUNT)
    with pytest.raises(DataError, match=f"{CHANGED}; no other sample of class n0.* can be read"):
        images.central(torch.tensor([ROW_OF]))
    assert len(images.reading.bad) == len(rows)
