"""Reading shards: what comes, and in which order, on any ranks and workers, after any stop."""

import io
import time
from collections import Counter
from pathlib import Path
from typing import Any

import make_imagenet
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv
from whole_runs import needs_fashion_mnist

from daas_dist.data import (
    Batches,
    Crop,
    Feed,
    Images,
    ImageSet,
    Plan,
    Shards,
    open_shards,
)
from daas_dist.data.crops import Parts
from daas_dist.data.decode import quiet, resized_part
from daas_dist.data.manifest import DataError
from daas_dist.data.sharding import build, sources
from daas_dist.data.surrogate import DADA_120, choose
from daas_dist.rng import Part, stream

pytestmark = needs_fashion_mnist
CLASSES, TRAIN = 8, 12
CUT = Crop(padding=0, flip=True, scale=(0.2, 1.0))
SHIFTED = Crop(padding=3, flip=True)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("imagenet")
    small = make_imagenet.make(out / "pictures", CLASSES, TRAIN, 1, side=0.2)
    source = sources.from_folder(small.train)
    build.build(source, out / "shards", build.Recipe("train", per_shard=10))
    return out / "shards"


@pytest.fixture(scope="module")
def shards(root: Path) -> Shards:
    return open_shards(root, size=24, channels=3, shorter=28)


def feed(images: ImageSet, crop: Crop, batch: int, epochs: int = 2, **more: Any) -> Feed:
    plan = Plan(batch_size=batch, epochs=epochs, seed=5, crop=crop, **more)
    return Feed({"train": images}, plan)


def read(own: Feed, steps: range) -> tuple[torch.Tensor, torch.Tensor]:
    batches = [[part.clone() for part in own.batch(step)["train"]] for step in steps]
    images, labels = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(labels)


# --- What comes ----------------------------------------------------------------------------------


def test_a_random_part_is_torchvision_s_crop_of_pillow_s_picture(shards: Shards) -> None:
    """Also upside down, in grey and with other shapes than ours."""
    for row in range(0, len(shards), 7):
        data = shards.folder.read(row, shards.reading)
        with Image.open(io.BytesIO(data)) as opened:
            picture = torch.from_numpy(np.array(opened.convert("RGB"))).permute(2, 0, 1)
        height, width = picture.shape[1:]
        left, top, w, h = width // 5, height // 7, width // 2 + row % 3, height // 3 + row % 5
        theirs = tv.resized_crop(picture, top, left, h, w, [20, 20], antialias=True)
        ours = torch.zeros(2, 3, 20, 20, dtype=torch.uint8)
        for image, mirror in zip(ours, (False, True), strict=True):
            with quiet():
                resized_part(data, image, lambda *size: (left, top, w, h), mirror)  # noqa: B023  called at once
        assert torch.equal(ours[0], theirs) and torch.equal(ours[1], tv.horizontal_flip(theirs))


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 3000), st.integers(1, 3000), st.floats(0.01, 1), st.integers(0, 99))
def test_a_part_lies_in_the_picture(width: int, height: int, least: float, seed: int) -> None:
    parts = Parts.draw(4, (least, 1.0), True, stream(seed, "parts"))
    for i in range(4):
        left, top, w, h = parts.box(i, width, height)
        assert 0 <= left <= left + w <= width and 0 <= top <= top + h <= height
        assert w >= 1 and h >= 1


def test_parts_are_distributed_as_torchvision_s() -> None:
    """Share of the area, shape and place, by the largest distance of their distributions."""
    count, width, height = 4000, 500, 375
    parts = Parts.draw(count, (0.08, 1.0), True, stream(0, "parts"))
    ours = np.array([parts.box(i, width, height) for i in range(count)], float)
    crop, picture = v2.RandomResizedCrop(224), torch.zeros(3, height, width)
    torch.manual_seed(0)
    drawn = [crop.make_params([picture]) for _ in range(count)]
    theirs = np.array([[d["left"], d["top"], d["width"], d["height"]] for d in drawn], float)
    assert abs(sum(parts.mirror_B) - count // 2) < 4 * (count / 4) ** 0.5
    for name, of in {
        "area": lambda b: b[:, 2] * b[:, 3],
        "shape": lambda b: b[:, 2] / b[:, 3],
        "left": lambda b: b[:, 0],
        "top": lambda b: b[:, 1],
    }.items():
        a, b = np.sort(of(ours)), np.sort(of(theirs))
        places = np.concatenate([a, b])
        apart = np.abs(
            np.searchsorted(a, places, "right") - np.searchsorted(b, places, "right")
        ).max() / count  # fmt: skip
        # Two samples of 4,000 from one distribution are further apart once in 10,000 times.
        assert apart < 0.05, name


def test_what_is_tested_is_the_central_square(shards: Shards) -> None:
    """torchvision's Resize(28), CenterCrop(24) of the whole picture, to 2 of 255."""
    for row in range(0, len(shards), 9):
        data = shards.folder.read(int(shards.rows[row]), shards.reading)
        with Image.open(io.BytesIO(data)) as opened:
            picture = v2.Compose([v2.Resize(28), v2.CenterCrop(24)])(opened.convert("RGB"))
        expected = tv.pil_to_tensor(picture).int()
        ours = shards.central(torch.tensor([row]))[0].int()
        assert (ours - expected).abs().float().mean() < 2


def test_without_a_scale_it_is_the_shifted_square_of_a_set_in_memory(shards: Shards) -> None:
    """The same batches as from the same pictures in memory, bit for bit."""
    index = torch.arange(len(shards))
    memory = Images(shards.central(index), shards.labels, shards.classes)
    ours, theirs = feed(shards, SHIFTED, 10), feed(memory, SHIFTED, 10)
    for a, b in zip(read(ours, range(9)), read(theirs, range(9)), strict=True):
        assert torch.equal(a, b)


# --- The order -----------------------------------------------------------------------------------


def numbered(shards: Shards) -> Shards:
    """Labels that say which sample it is."""
    return Shards(shards.folder, shards.rows, torch.arange(len(shards)), shards.classes, 8, 3, 8)


@settings(deadline=None, max_examples=12)
@given(
    st.integers(4, CLASSES * TRAIN), st.integers(1, 20), st.sampled_from([1, 2, 3, 4]),
    st.sampled_from([0, 1, 2]), st.lists(st.integers(0, 30), max_size=3),
)  # fmt: skip
def test_every_world_every_worker_and_every_stop_see_one_sequence(
    shards: Shards, count: int, own: int, world: int, workers: int, stops: list[int]
) -> None:
    """Each epoch a permutation without its tail; two epochs differ; ranks take slices of one batch;
    a run that stops anywhere and goes on with other workers reads what comes next."""
    batch = min(own * world, count // world * world)
    images = numbered(shards).take(torch.arange(count))
    whole = feed(images, CUT, batch)
    steps = whole.batches.steps_per_epoch
    pixels, labels = read(whole, range(2 * steps))
    first, second = labels.split(steps * batch)
    for epoch in (first, second):
        assert len(set(epoch.tolist())) == len(epoch) == count - count % batch
    assert count < 12 or not torch.equal(first, second)

    cuts = sorted({0, 2 * steps, *(stop % (2 * steps) for stop in stops)})
    for rank in range(world):
        parts = []
        for life, (begin, end) in enumerate(zip(cuts, cuts[1:], strict=False)):
            again = feed(images, CUT, batch, part=Part(rank, world), workers=(workers + life) % 3)
            parts.append(read(again, range(begin, end)))
        ours = [torch.cat(each) for each in zip(*parts, strict=True)]
        for a, b in zip(ours, (pixels, labels), strict=True):
            mine = b.view(2 * steps, world, batch // world, *b.shape[1:])[:, rank]
            assert torch.equal(a, mine.reshape(a.shape))


@pytest.mark.parametrize("width", [1, 3, 7])
def test_a_window_reads_few_shards_at_a_time_and_every_sample_once(
    shards: Shards, width: int
) -> None:
    batches = Batches(len(shards), 6, 0, "train", (shards.file_N(), width))
    orders = [batches.order(epoch) for epoch in range(3)]
    for order in orders:
        assert sorted(order.tolist()) == list(range(len(shards)))
        files = shards.file_N()[order].tolist()
        for file in set(files):  # ten samples a shard: all of one come while its window is open
            first, last = files.index(file), len(files) - 1 - files[::-1].index(file)
            assert last - first < 10 * width
    assert not torch.equal(orders[0], orders[1])
    inside = shards.file_N()[orders[0]][: 10 * width]
    assert width == 1 or (inside[1:] != inside[:-1]).sum() > width  # and mixes them


def test_the_steps_may_be_asked_for_in_any_order(shards: Shards) -> None:
    ahead, plain = feed(shards, CUT, 12, workers=2), feed(shards, CUT, 12)
    for step in (3, 4, 5, 1, 2, 9, 9, 0):
        a, b = ahead.batch(step)["train"], plain.batch(step)["train"]
        assert torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels)


def test_a_batch_stays_as_it_is_until_the_one_after_the_next(shards: Shards) -> None:
    """While two workers read four steps ahead, into memory that has to last for that."""
    own = feed(shards, CUT, 12, workers=2)
    before = own.batch(0)["train"]
    kept = [part.clone() for part in before]
    for step in range(1, 12):
        after = own.batch(step)["train"]
        time.sleep(0.02)  # the workers are as far ahead as they go
        assert all(map(torch.equal, before, kept))
        before, kept = after, [part.clone() for part in after]


def test_reading_ahead_draws_nothing_from_torch_s_own_generator(shards: Shards) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    read(feed(shards, CUT, 12, workers=1), range(3))
    assert torch.equal(torch.get_rng_state(), before)


# --- Views ---------------------------------------------------------------------------------------


def test_dada_s_list_has_120_classes() -> None:
    assert len(set(DADA_120)) == 120 and sorted(DADA_120) == list(DADA_120)
    assert (DADA_120[0], DADA_120[-1], sum(DADA_120)) == (16, 959, sum(choose("dada120", IDS)))
    assert choose("dada120", IDS) == list(DADA_120)


IDS = [f"n{i:08d}" for i in range(1000)]


def test_a_random_choice_depends_on_its_seed_alone() -> None:
    assert choose("random:120:0", IDS) == choose("random:120:0", IDS) != choose("random:120:1", IDS)
    assert len(set(choose("random:120:0", IDS))) == 120


def test_a_list_of_your_own(tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    path.write_text("n00000007\n\n3  # by its number\nn00000001\n")
    assert choose(str(path), IDS) == [1, 3, 7]


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("dada120", "these shards have 8"),
        ("random:9:0", "wants 9 of 8 classes"),
        ("random:1:0", "2 or more"),
        ("nowhere", "no such file; expected all, dada120"),
    ],
)
def test_a_choice_that_cannot_be(shards: Shards, how: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        choose(how, shards.folder.manifest.class_ids)


def test_dada_s_older_list_is_refused(tmp_path: Path) -> None:
    """120 lines of which 10 are there twice, as in DADA's search_gumbel."""
    path = tmp_path / "older.txt"
    path.write_text("\n".join(map(str, [*DADA_120[:110], *DADA_120[:10]])))
    with pytest.raises(DataError, match="names 120 classes of which 110 are different; twice"):
        choose(str(path), IDS)


def test_a_view_holds_its_classes_and_copies_nothing(root: Path) -> None:
    whole = open_shards(root, size=8, channels=3)
    view = open_shards(root, classes="random:3:2", size=8, channels=3)
    chosen = choose("random:3:2", whole.folder.manifest.class_ids)
    assert view.classes == tuple(whole.classes[i] for i in chosen)
    expected = torch.isin(whole.labels, torch.tensor(chosen))
    ours, theirs = torch.arange(len(view)), expected.nonzero().flatten()
    assert torch.equal(view.central(ours), whole.central(theirs))
    assert [chosen[i] for i in view.labels.tolist()] == whole.labels[expected].tolist()
    few = view.limit_classes(5, seed=0)
    assert Counter(few.labels.tolist()) == {0: 5, 1: 5, 2: 5}
    train, val = few.split(0.6, seed=0)
    assert set(train.rows) | set(val.rows) == set(few.rows) and not set(train.rows) & set(val.rows)
    assert len({each.digest() for each in (whole, view, few, train, val)}) == 5
    assert open_shards(root, classes="random:3:2", size=8, channels=3).digest() == view.digest()
