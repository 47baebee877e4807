"""Shards without an index: read in turn, equal steps, nothing lost in silence."""

import io
import shutil
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import make_imagenet
import pytest
import torch
from shard_server import Server
from torture import same
from webdataset.compat import WebDataset
from whole_runs import column, finish, needs_fashion_mnist, read

from daas_dist.data import Crop, Feed, Plan, Stream, open_stream
from daas_dist.data.manifest import DataError
from daas_dist.data.sharding import build, sources
from daas_dist.rng import WHOLE, Part

pytestmark = needs_fashion_mnist
CLASSES, PER_CLASS, PER_SHARD = 6, 10, 10
COUNT = CLASSES * PER_CLASS
CUT = Crop(padding=0, flip=True, scale=(0.2, 1.0))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train/ and val/, tar files alone."""
    out = tmp_path_factory.mktemp("stream")
    small = make_imagenet.make(out / "pictures", CLASSES, PER_CLASS, 3, side=0.15)
    for part, folder in (("train", small.train), ("val", small.train.with_name("val"))):
        source = sources.from_folder(folder)
        build.build(source, out / "built" / part, build.Recipe(part, per_shard=PER_SHARD))
        (out / "shards" / part).mkdir(parents=True)
        for tar in (out / "built" / part).glob("*.tar"):
            shutil.copy(tar, out / "shards" / part)
    return out / "shards"


def opened(place: Path | str, count: int = COUNT) -> Stream:
    return open_stream(str(place), count=count, classes=CLASSES, size=24, channels=3, shorter=28)


def plan(batch: int = 8, seed: int = 0, part: Part = WHOLE, workers: int = 0) -> Plan:
    return Plan(batch_size=batch, part=part, epochs=1, seed=seed, crop=CUT, workers=workers)


def feed(images: Stream, **more: Any) -> Feed:
    return Feed({"train": images}, plan(**more))


def batches(own: Feed, steps: range) -> torch.Tensor:
    return torch.stack([own.batch(step)["train"].images for step in steps])


def names(samples: Iterator[object], count: int) -> list[str]:
    return [str(next(samples)[0]) for _ in range(count)]  # type: ignore[index]


def test_a_split_by_key_is_the_same_in_every_pass_and_shares_nothing(root: Path) -> None:
    train, val = opened(root / "train").split(0.7, 0)
    found = [{sample.name for sample in part.once()} for part in (train, val)]
    assert not found[0] & found[1] and len(found[0] | found[1]) == COUNT
    assert 0.5 < len(found[0]) / COUNT < 0.9 and len(train) + len(val) == COUNT
    endless = train.for_ever(0, "x", first=0, every=1)
    assert set(names(endless, 3 * len(found[0]))) == found[0]


def test_each_pass_has_every_sample_in_another_order(root: Path) -> None:
    endless = opened(root / "train").for_ever(3, "stream", first=0, every=1)
    first, second = names(endless, COUNT), names(endless, COUNT)
    assert sorted(first) == sorted(second) and len(set(first)) == COUNT and first != second
    again = opened(root / "train").for_ever(3, "stream", first=0, every=1)
    assert names(again, COUNT) == first
    assert names(opened(root / "train").for_ever(4, "stream", first=0, every=1), COUNT) != first


def test_workers_and_the_ranks_of_a_batch_share_the_shards(root: Path) -> None:
    images = opened(root / "train")
    parts = [set(names(images.for_ever(0, first=first, every=3), 20)) for first in range(3)]
    assert Counter(name for part in parts for name in part) == dict.fromkeys(
        (sample.name for sample in images.once()), 1
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_ranks_with_the_same_batch_read_the_same_and_a_restart_reads_on(
    root: Path, workers: int
) -> None:
    """60 pictures in batches of 8 are 7 steps an epoch, and no step is ever missing."""
    images = opened(root / "train")
    first, second = (batches(feed(images, workers=workers), range(20)) for _ in range(2))
    assert torch.equal(first, second) and first.shape == (20, 8, 3, 24, 24)
    restarted = batches(feed(images, workers=workers), range(5, 12))
    assert restarted.shape == (7, 8, 3, 24, 24) and not torch.equal(restarted, first[5:12])
    parts = [batches(feed(images, part=Part(i, 2), workers=workers), range(5)) for i in range(2)]
    assert parts[0].shape == (5, 4, 3, 24, 24) and not torch.equal(*parts)


def test_more_ranks_than_shards_are_refused_and_more_workers_lowered(root: Path) -> None:
    images = opened(root / "train")
    with pytest.raises(DataError, match="6 shards cannot be shared by 7 ranks; lower mesh.data"):
        feed(images, part=Part(0, 7))
    steps = images.steps({"train": images}, plan(part=Part(0, 2), workers=9))
    assert steps.workers == 3


def test_the_test_set_is_read_once_by_one_rank_or_three(root: Path) -> None:
    read = list(feed(opened(root / "train")).tests(opened(root / "val", 18), 5))
    assert [len(batch.labels) for batch in read] == [5, 5, 5, 3]
    assert Counter(torch.cat([b.labels for b in read]).tolist()) == dict.fromkeys(range(6), 3)
    shares = [opened(root / "val", 18).share_of(Part(i, 3)) for i in range(3)]
    names = [sample.name for share in shares for sample in share.once()]
    assert len(names) == len(set(names)) == 18
    # By chance, and before they are read nobody knows by which.
    assert [opened(root / "val", 18).fewest_of(shares) for shares in (1, 3)] == [18, 0]


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves its files open
def test_a_shard_cut_off_between_two_members_is_an_error_where_webdataset_sees_none(
    root: Path, tmp_path: Path
) -> None:
    whole = sorted((root / "train").glob("*.tar"))[0]
    with tarfile.open(whole) as tar:
        fifth = tar.getmembers()[10].offset
    cut = tmp_path / "cut.tar"
    cut.write_bytes(whole.read_bytes()[:fifth])
    assert len(list(WebDataset([str(cut)], shardshuffle=False))) == 5 < PER_SHARD
    with pytest.raises(DataError, match=r"cut.tar ends without the mark of a whole tar"):
        list(opened(cut).once())
    cut.write_bytes(whole.read_bytes()[: fifth + 700])
    with pytest.raises(DataError, match=r"cut.tar cannot be read"):
        list(opened(cut).once())


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a.jpg": b"no picture", "a.cls": b"1"}, "odd.tar: sample a: no picture that is read"),
        ({"a.jpg": b"x"}, "odd.tar: sample a has jpg; expected one of jpg, jpeg, png, webp, and"),
        ({"a.jpg": b"x", "a.cls": b"6"}, "odd.tar: sample a: class b'6', expected 0 to 5"),
        ({"a.pyd": b"x", "a.cls": b"0"}, "odd.tar: sample a has pyd, cls; expected"),
        ({"a.jpg": b"x", "a.png": b"x", "a.cls": b"0"}, "sample a has jpg, png, cls; expected"),
        ({}, "no sample in .*odd.tar"),
    ],
)
@pytest.mark.parametrize("workers", [0, 1])
def test_what_is_wrong_with_a_sample_is_named(
    tmp_path: Path, members: dict[str, bytes], message: str, workers: int
) -> None:
    with tarfile.open(tmp_path / "odd.tar", "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    with pytest.raises(DataError, match=message):
        feed(opened(tmp_path / "odd.tar"), workers=workers).batch(0)


def test_over_http(root: Path) -> None:
    server = Server(root)
    try:
        url = f"{server.url}/train/shard-{{000000..000005}}.tar"
        there, here = opened(url), opened(root / "train")
        assert torch.equal(batches(feed(there), range(4)), batches(feed(here), range(4)))
        with pytest.raises(DataError, match="shard-000009.tar cannot be read"):
            list(opened(f"{server.url}/train/shard-000009.tar").once())
    finally:
        server.close()


def words(run_dir: Path, root: Path, ranks: int, *more: str) -> list[str]:
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks), "-m"]
    return [
        *(launcher if ranks > 1 else []), "daas_dist", "preset=tiny", "data=stream",
        f"data.root={root / 'train'}", f"data.val_root={root / 'val'}", "data.size=32",
        "data.test_resize=36", "data.classes='6'", "data.limit=60", "data.test_limit=18",
        f"run_dir={run_dir}", *more,
    ]  # fmt: skip


@pytest.mark.long
def test_a_search_and_a_training_on_a_stream(root: Path, tmp_path: Path) -> None:
    """Equal steps on every rank, the same bits along arch; it says that a resume is not exact."""
    search = ["stage=search_imagenet", "search.joint_epochs=1", "search.log_every=1"]
    finish(*words(tmp_path / "one", root, 1, *search))
    finish(*words(tmp_path / "two", root, 2, *search))
    same(tmp_path / "two", tmp_path / "one")
    steps = column(tmp_path / "one" / "metrics.jsonl", "step")
    assert len(steps) == 2 * (30 // 16)
    assert "goes on with other images" in (tmp_path / "one" / "events.jsonl").read_text()
    found = f"train.result={tmp_path / 'one' / 'result.json'}"
    train = ["stage=train_imagenet", found, "train.compare=[found/found]", "data.size=64",
             "data.test_resize=72"]  # fmt: skip
    finish(*words(tmp_path / "train", root, 1, *train))
    assert 0 <= read(tmp_path / "train" / "comparison.json")["rows"][0]["last"] <= 1
