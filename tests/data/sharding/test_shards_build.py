"""Shards from every kind of source: the same bytes, readable by webdataset, after any kill."""

import gc
import hashlib
import io
import multiprocessing
import os
import random
import signal
import tarfile
import time
import warnings
from pathlib import Path

import make_imagenet
import pytest
import torch
from make_imagenet import SmallImageNet
from PIL import Image
from webdataset.compat import WebDataset
from webdataset.writer import ShardWriter
from whole_runs import needs_fashion_mnist

from daas_dist import cli
from daas_dist.data import Shards, fashion_mnist, open_shards
from daas_dist.data.manifest import MANIFEST, DataError, parse
from daas_dist.data.sharding import build, sources, verify

pytestmark = needs_fashion_mnist
CLASSES, TRAIN, VAL, PER_SHARD = 12, 15, 3, 25


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> SmallImageNet:
    out = tmp_path_factory.mktemp("imagenet")
    return make_imagenet.make(out, CLASSES, TRAIN, VAL, side=0.2)


@pytest.fixture(scope="module")
def built(imagenet: SmallImageNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """From the folders."""
    out = tmp_path_factory.mktemp("shards") / "of-folders"
    words = ["--folder", str(imagenet.train), "--val-folder", str(imagenet.val)]
    assert cli.main(["shards", "build", str(out), *words, "--per-shard", str(PER_SHARD)]) == 0
    return out


def files(root: Path) -> dict[str, str]:
    """Each file below a folder and its sha256; the manifest without what made it."""
    found = {}
    for path in sorted(each for each in root.rglob("*") if each.is_file()):
        if path.name == MANIFEST:
            found[str(path.relative_to(root))] = parse(path.read_text(), str(path)).digest
        elif path.name != ".building":
            found[str(path.relative_to(root))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def stock(*paths: Path) -> list[dict[str, bytes]]:
    """Every sample, by webdataset as it comes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves its files to the collector
        read = list(WebDataset([str(path) for path in paths], shardshuffle=False))
        gc.collect()
    return read


def test_folders_and_nested_archives_give_the_same_bytes(
    imagenet: SmallImageNet, built: Path, tmp_path: Path
) -> None:
    words = ["--ilsvrc2012", str(imagenet.archives), "--unchecked", "--workers", "2"]
    words += ["--per-shard", str(PER_SHARD)]
    assert cli.main(["shards", "build", str(tmp_path / "b"), *words]) == 0
    assert files(tmp_path / "b") == files(built)
    assert len(files(built)) == 8 + 2 + 2 * 3  # shards of train and val, and what is beside them
    manifest = parse((tmp_path / "b" / "train" / MANIFEST).read_text(), "")
    assert manifest.class_ids == imagenet.ids and manifest.class_names == imagenet.words


def test_stock_webdataset_reads_every_sample(imagenet: SmallImageNet, built: Path) -> None:
    """Every picture's own bytes with its class, and the classes are mixed in every shard."""
    paths = sorted((built / "train").glob("*.tar"))
    read = stock(*paths)
    expected = {
        hashlib.sha256(path.read_bytes()).hexdigest(): label
        for label, class_id in enumerate(imagenet.ids)
        for path in (imagenet.train / class_id).iterdir()
    }
    assert len(read) == len(expected) == CLASSES * TRAIN
    assert {hashlib.sha256(each["jpg"]).hexdigest(): int(each["cls"]) for each in read} == expected
    for path in paths:
        shard = [int(each["cls"]) for each in stock(path)]
        assert len(set(shard)) > min(len(shard), CLASSES) // 2


def test_another_seed_is_another_order_of_the_same_samples(
    imagenet: SmallImageNet, built: Path, tmp_path: Path
) -> None:
    recipe = build.Recipe("train", seed=1, per_shard=PER_SHARD)
    build.build(sources.from_folder(imagenet.train), tmp_path / "b", recipe)
    ours, theirs = (
        (folder / "names.txt").read_text().splitlines()
        for folder in (tmp_path / "b", built / "train")
    )
    assert ours != theirs and sorted(ours) == sorted(theirs)


def test_an_iterable_of_the_same_pictures_gives_the_same_bytes(
    imagenet: SmallImageNet, built: Path, tmp_path: Path
) -> None:
    samples = [
        (path.parent.name, path.name, path.read_bytes()) for path in imagenet.train.rglob("*.JPEG")
    ]
    random.Random(3).shuffle(samples)
    with sources.from_iterable(iter(samples), tmp_path) as source:
        build.build(source, tmp_path / "b", build.Recipe("train", per_shard=PER_SHARD), workers=2)
    ours, theirs = files(tmp_path / "b"), files(built / "train")
    assert ours == theirs


def test_killed_ten_times_and_run_again_the_bytes_are_the_same(
    imagenet: SmallImageNet, tmp_path: Path
) -> None:
    """kill -9 of the builder, each time some shards later."""
    source, recipe = sources.from_folder(imagenet.train), build.Recipe("train", per_shard=2)

    build.build(source, tmp_path / "whole", recipe, workers=2)
    chance, made = random.Random(0), []
    for life in range(10):
        process = multiprocessing.get_context("fork").Process(
            target=build.build, args=(source, tmp_path / "b", recipe), kwargs={"workers": 2}
        )
        process.start()
        assert process.pid is not None
        until = 9 * life + chance.randrange(9)
        while process.is_alive() and len(list((tmp_path / "b").glob("*.tar"))) < until:
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.01))
        os.kill(process.pid, signal.SIGKILL)  # its own processes have to end by themselves
        process.join()
        made.append(len(list((tmp_path / "b").glob("*.tar"))))
    assert not (tmp_path / "b" / MANIFEST).exists() and len(set(made)) > 5
    build.build(source, tmp_path / "b", recipe, workers=2)
    assert files(tmp_path / "b") == files(tmp_path / "whole")
    assert verify.verify(tmp_path / "b", full=True) == []


def test_a_rerun_mends_a_damaged_shard_and_touches_no_other(
    imagenet: SmallImageNet, tmp_path: Path
) -> None:
    recipe, source = build.Recipe("train", per_shard=PER_SHARD), sources.from_folder(imagenet.train)
    build.build(source, tmp_path / "b", recipe)
    before = files(tmp_path / "b")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "b").glob("*.tar")}
    damaged = tmp_path / "b" / "shard-000002.tar"
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    build.build(source, tmp_path / "b", recipe)
    assert files(tmp_path / "b") == before
    assert {p for p, at in times.items() if p.stat().st_mtime_ns != at} == {damaged}


def test_other_pictures_or_settings_do_not_go_into_the_same_folder(
    imagenet: SmallImageNet, built: Path
) -> None:
    for source, recipe in (
        (sources.from_folder(imagenet.val), build.Recipe("train", per_shard=PER_SHARD)),
        (sources.from_folder(imagenet.train), build.Recipe("train", seed=5, per_shard=PER_SHARD)),
    ):
        with pytest.raises(DataError, match="made of other pictures or by other settings"):
            build.build(source, built / "train", recipe)


def test_resized_pictures_have_that_shorter_side_and_small_ones_keep_their_bytes(
    imagenet: SmallImageNet, tmp_path: Path
) -> None:
    """76 to 120 x 60 to 90 pixels: some are larger than 80, some are not."""
    manifest = build.build(
        sources.from_folder(imagenet.train), tmp_path / "b", build.Recipe("train", resize=72)
    )
    assert manifest.resize == 72
    originals = {path.read_bytes() for path in imagenet.train.rglob("*.JPEG")}
    kept = 0
    for each in stock(tmp_path / "b" / "shard-000000.tar"):
        picture = Image.open(io.BytesIO(each["jpg"]))
        kept += each["jpg"] in originals
        assert min(picture.size) == 72 or each["jpg"] in originals and min(picture.size) < 72
    assert 0 < kept < CLASSES * TRAIN


def test_fashion_mnist_in_shards_is_fashion_mnist(tmp_path: Path) -> None:
    """Pixel for pixel with its labels, in the seed's order."""
    images = fashion_mnist(None, train=False).take(torch.arange(300))
    build.build(sources.from_images(images, "part of it"), tmp_path / "b", build.Recipe("val"))
    read: Shards = open_shards(tmp_path / "b", size=28, channels=1)
    assert read.classes == images.classes
    names = (tmp_path / "b" / "names.txt").read_text().splitlines()
    place = torch.tensor([int(name.split("/")[1].removesuffix(".png")) for name in names])
    assert torch.equal(read.central(torch.arange(300)), images.images[place])
    assert torch.equal(read.labels, images.labels[place]) and len(place.unique()) == 300


def test_shards_that_others_wrote_get_an_index(imagenet: SmallImageNet, tmp_path: Path) -> None:
    """By webdataset's own writer; what is read then is what it wrote."""
    paths = sorted(imagenet.train.rglob("*.JPEG"))[:: CLASSES // 4]
    with ShardWriter(str(tmp_path / "x-%03d.tar"), maxcount=20, verbose=0) as writer:
        for i, path in enumerate(paths):
            label = imagenet.ids.index(path.parent.name)
            writer.write({"__key__": f"{i:05d}", "jpg": path.read_bytes(), "cls": label})
    assert cli.main(["shards", "index", str(tmp_path)]) == 0
    assert verify.verify(tmp_path, full=True, decode=10) == []
    read = open_shards(tmp_path, size=32, channels=3)
    assert len(read) == len(paths)
    assert [read.folder.read(i, read.reading) for i in range(len(read))] == [
        path.read_bytes() for path in paths
    ]
    assert read.labels.tolist() == [imagenet.ids.index(path.parent.name) for path in paths]


def test_the_archives_are_checked_by_their_published_md5(imagenet: SmallImageNet) -> None:
    with pytest.raises(DataError, match="published is fa75699e90414af021442c21a62c3abf"):
        sources.ilsvrc2012(imagenet.archives, "train", tell=lambda text: None)


def test_members_of_a_shard_have_no_time_and_no_owner(built: Path) -> None:
    with tarfile.open(built / "train" / "shard-000000.tar") as tar:
        for member in tar:
            assert (member.mtime, member.uid, member.gid, member.uname) == (0, 0, 0, "")
            assert member.name.count(".") == 1 and len(member.name) < 20


def test_list_tells_what_a_view_holds(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["shards", "list", str(built / "train"), "--classes", "random:5:1"]
    assert cli.main([*words, "--images-per-class", "4"]) == 0
    told = capsys.readouterr().out
    assert f"20 of {CLASSES * TRAIN} pictures, 5 of {CLASSES} classes" in told
