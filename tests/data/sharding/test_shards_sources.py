"""Archives that are damaged or hostile, and builds that are disturbed."""

import fcntl
import gzip
import io
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from damage import flip
from make_imagenet import SmallImageNet
from spoil import (
    COUNT,
    JPEG,
    NOT_WHOLE,
    ONE,
    PER_SHARD,
    RECIPE,
    ends_within,
    linked,
    listing,
    text,
    write_tar,
)
from whole_runs import needs_fashion_mnist

from daas_dist.data.manifest import INDEX, MANIFEST, NAMES, DataError
from daas_dist.data.sharding import build, sources, verify

pytestmark = needs_fashion_mnist


# --- The archives of ILSVRC2012 ------------------------------------------------------------------


@pytest.fixture
def archives(imagenet: SmallImageNet, tmp_path: Path) -> Path:
    return Path(shutil.copytree(imagenet.archives, tmp_path / "in" / "archives"))


def untarred(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {each.name: tar.extractfile(each).read() for each in tar}  # type: ignore[union-attr]


def tarred(files: Mapping[str, bytes]) -> bytes:
    with tempfile.TemporaryDirectory() as name:
        write_tar(Path(name) / "x.tar", list(files.items()))
        return (Path(name) / "x.tar").read_bytes()


def train_with(change: Callable[[dict[str, bytes]], object]) -> Callable[[Path], None]:
    """Other tars in the tar of the training set."""
    return tar_with(sources.TRAIN_ARCHIVE, change)


def val_with(change: Callable[[dict[str, bytes]], object]) -> Callable[[Path], None]:
    return tar_with(sources.VAL_ARCHIVE, change)


def tar_with(name: str, change: Callable[[dict[str, bytes]], object]) -> Callable[[Path], None]:
    def damage(archives: Path) -> None:
        files = untarred(archives / name)
        change(files)
        data = tarred(files)
        (archives / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)

    return damage


def devkit_with(end: str, change: Callable[[bytes], bytes | None]) -> Callable[[Path], None]:
    """Another of its files, or none."""

    def damage(files: dict[str, bytes]) -> None:
        (name,) = (each for each in files if each.endswith(end))
        data = change(files.pop(name))
        if data is not None:
            files[name] = data

    return tar_with(sources.DEVKIT_ARCHIVE, damage)


def cut_to(name: str, share: float) -> Callable[[Path], None]:
    return lambda root: os.truncate(root / name, int(share * (root / name).stat().st_size))


def linked_in_train(archives: Path) -> None:
    write_tar(archives / sources.TRAIN_ARCHIVE, linked(tarfile.SYMTYPE))


def inner(files: dict[str, bytes], change: Callable[[bytes], bytes]) -> None:
    """Another first tar of the training set."""
    first = min(files)
    files[first] = change(files[first])


VAL_ONE = "ILSVRC2012_val_00000001.JPEG"
TRUTH, META = "validation_ground_truth.txt", "meta.mat"
TRAIN_TAR, VAL_TAR, DEVKIT = sources.TRAIN_ARCHIVE, sources.VAL_ARCHIVE, sources.DEVKIT_ARCHIVE

ARCHIVES: list[tuple[str, str, Callable[[Path], object], Sequence[str]]] = [
    ("missing", "train", lambda root: (root / TRAIN_TAR).unlink(), [f"{TRAIN_TAR}; --ilsvrc2012"]),
    (
        "a class that the devkit has not",
        "train",
        train_with(lambda files: files.update({"n09999999.tar": tarred({"a.JPEG": JPEG})})),
        [TRAIN_TAR, "holds the class 'n09999999'", DEVKIT],
    ),
    ("cut", "train", cut_to(TRAIN_TAR, 0.5), [TRAIN_TAR, NOT_WHOLE, "cut or changed in n0"]),
    (
        "cut between two tars",
        "train",
        lambda root: os.truncate(root / TRAIN_TAR, 512 + 40960),
        [TRAIN_TAR, NOT_WHOLE],
    ),
    (
        "without its end",
        "train",
        lambda root: write_bytes(root / TRAIN_TAR, (root / TRAIN_TAR).read_bytes().rstrip(b"\0")),
        [TRAIN_TAR, NOT_WHOLE],
    ),
    (
        "a tar in it that was cut",
        "train",
        train_with(lambda files: inner(files, lambda data: data[:3000])),
        [TRAIN_TAR, "n01000000.tar is no whole tar file: cut or changed in n01000000_"],
    ),
    (
        "a tar in it without its end",
        "train",
        train_with(lambda files: inner(files, lambda data: data.rstrip(b"\0"))),
        [TRAIN_TAR, "n01000000.tar is no whole tar file"],
    ),
    (
        "a tar in it that is none",
        "train",
        train_with(lambda files: inner(files, lambda data: JPEG)),
        [TRAIN_TAR, "n01000000.tar is no whole tar file: cut or changed at byte 0"],
    ),
    (
        "a bit of a header in a tar in it",
        "train",
        train_with(lambda files: inner(files, lambda data: b"x" + data[1:])),
        [TRAIN_TAR, "n01000000.tar is no whole tar file: cut or changed at byte 0"],
    ),
    (
        "a picture where a tar is expected",
        "train",
        train_with(lambda files: files.update({"a.JPEG": JPEG})),
        [TRAIN_TAR, "holds a.JPEG, expected one tar file a class"],
    ),
    (
        "a picture twice",
        "train",
        train_with(lambda files: files.update({"more/n01000000.tar": files["n01000000.tar"]})),
        ["n01000000/n01000000_", "is twice in"],
    ),
    ("a link", "train", linked_in_train, [TRAIN_TAR, "1.jpg, expected one tar"]),
    (
        "no pictures",
        "train",
        train_with(lambda files: [files.update({name: tarred({})}) for name in files]),
        ["no pictures in ILSVRC2012_img_train.tar"],
    ),
    ("cut", "val", cut_to(VAL_TAR, 0.5), [VAL_TAR, NOT_WHOLE]),
    (
        "a wrong name",
        "val",
        val_with(lambda files: files.update({"cat.JPEG": files.pop(VAL_ONE)})),
        [VAL_TAR, "holds cat.JPEG, expected ILSVRC2012_val_00000001.JPEG to 00000008"],
    ),
    (
        "number 0",
        "val",
        val_with(lambda files: files.update({VAL_ONE.replace("1.", "0."): JPEG})),
        [VAL_TAR, "holds ILSVRC2012_val_00000000.JPEG, expected"],
    ),
    (
        "a picture fewer",
        "val",
        val_with(lambda files: files.pop(VAL_ONE)),
        [VAL_TAR, "holds 7 pictures", DEVKIT, "the classes of 8; get both again"],
    ),
    (
        "a picture twice",
        "val",
        val_with(lambda files: files.update({f"more/{VAL_ONE}": files[VAL_ONE]})),
        [VAL_ONE, "is twice in"],
    ),
    ("no devkit", "val", lambda root: (root / DEVKIT).unlink(), [f"{DEVKIT}; --ilsvrc2012"]),
    ("a devkit that was cut", "val", cut_to(DEVKIT, 0.5), [DEVKIT, "is damaged", "get it again"]),
    ("a devkit of a few bytes", "val", cut_to(DEVKIT, 0.002), [DEVKIT, "is damaged"]),
    (
        "a bit of the devkit",
        "val",
        lambda root: flip(root / DEVKIT, (root / DEVKIT).stat().st_size // 2),
        [DEVKIT],
    ),
    (
        "a devkit that is not compressed",
        "val",
        lambda root: write_bytes(root / DEVKIT, gzip.decompress((root / DEVKIT).read_bytes())),
        [DEVKIT, "is damaged (Not a gzipped file"],
    ),
    (
        "a devkit that unpacks to gigabytes",
        "val",
        lambda root: write_bytes(root / DEVKIT, gzip.compress(bytes(1 << 27), 9)),
        [DEVKIT, "has more than 67108864 bytes"],
    ),
    ("no meta.mat", "val", devkit_with(META, lambda _: None), [DEVKIT, "holds no data/meta.mat"]),
    ("no truth", "val", devkit_with(TRUTH, lambda _: None), [DEVKIT, "holds no data/ILSVRC2012_v"]),
    ("an empty meta.mat", "val", devkit_with(META, lambda _: b""), [DEVKIT, "not as published"]),
    (
        "a meta.mat that was cut",
        "val",
        devkit_with(META, lambda data: data[:-300]),
        [DEVKIT, "is not as published"],
    ),
    ("a meta.mat that is none", "val", devkit_with(META, lambda _: JPEG), [DEVKIT, "as published"]),
    (
        "a truth too short",
        "val",
        devkit_with(TRUTH, lambda data: b"".join(data.splitlines(True)[:-1])),
        [VAL_TAR, "ILSVRC2012_val_00000008.JPEG, expected", "to 00000007, of which", DEVKIT],
    ),
    (
        "a truth too long",
        "val",
        devkit_with(TRUTH, lambda data: data + b"1\n"),
        [VAL_TAR, "holds 8 pictures", "the classes of 9; get both again"],
    ),
    (
        "a truth of a class that is not there",
        "val",
        devkit_with(TRUTH, lambda data: data.replace(b"1", b"77")),
        [DEVKIT, "is not as published (KeyError(77))"],
    ),
    (
        "a truth in words",
        "val",
        devkit_with(TRUTH, lambda data: data.replace(b"1", b"cat")),
        [DEVKIT, "is not as published (ValueError"],
    ),
]


def write_bytes(path: Path, data: bytes) -> None:
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("of", "damage", "fragments"),
    [each[1:] for each in ARCHIVES],
    ids=[f"{each[1]}: {each[0]}" for each in ARCHIVES],
)
def test_an_archive_that_is_wrong(
    of: str, damage: Callable[[Path], object], fragments: Sequence[str], archives: Path
) -> None:
    damage(archives)
    before = listing(archives.parent.parent)
    with ends_within(10), pytest.raises((DataError, FileNotFoundError)) as refused:
        sources.ilsvrc2012(archives, of, check=False, tell=lambda text: None)
    for fragment in fragments:
        assert fragment in str(refused.value)
    assert listing(archives.parent.parent) == before


@pytest.mark.parametrize("of", ["train", "val"])
def test_names_that_lead_outside_lead_nowhere(
    of: str, imagenet: SmallImageNet, archives: Path, tmp_path: Path
) -> None:
    """Absolute ones and ../, in the archives as in the tars in them: the same shards come."""

    def led(files: dict[str, bytes], depth: int = 0) -> None:
        for i, name in enumerate(sorted(files)):
            data = files.pop(name)
            if name.endswith(".tar"):
                own = untarred_bytes(data)
                led(own, 1)
                data = tarred(own)
            files[("/etc/" if i % 2 else "../../") + name] = data

    whole = sources.ilsvrc2012(archives, of, check=False, tell=lambda text: None)
    tar_with(TRAIN_TAR if of == "train" else VAL_TAR, led)(archives)
    source = sources.ilsvrc2012(archives, of, check=False, tell=lambda text: None)
    assert source.names == whole.names and source.labels.tolist() == whole.labels.tolist()
    before = listing(tmp_path)
    build.build(source, tmp_path / "led", build.Recipe(of, per_shard=PER_SHARD))
    new = listing(tmp_path).keys() - before.keys()
    assert all(name.partition("/")[0] == "led" for name in new)
    assert verify.verify(tmp_path / "led", full=True, decode=COUNT) == []
    folder = imagenet.train if of == "train" else imagenet.val
    expected = sorted(path.read_bytes() for path in folder.rglob("*.JPEG"))
    assert sorted(source.read(i) for i in range(len(source.names))) == expected


def untarred_bytes(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {each.name: tar.extractfile(each).read() for each in tar}  # type: ignore[union-attr]


def test_an_archive_that_is_not_the_published_one(archives: Path) -> None:
    """But with --unchecked; test_shards_build has the devkit's."""
    with pytest.raises(DataError) as refused:
        sources.ilsvrc2012(archives, "train", tell=lambda text: None)
    for fragment in (DEVKIT, "published is", "get it again, or give --unchecked"):
        assert fragment in str(refused.value)


def test_an_archive_that_ends_while_it_is_read(archives: Path) -> None:
    source = sources.ilsvrc2012(archives, "val", check=False, tell=lambda text: None)
    os.truncate(archives / VAL_TAR, 2000)
    with pytest.raises(DataError, match=f"{VAL_TAR} ended at byte 2000 while it was read"):
        for i in range(len(source.names)):
            source.read(i)


# --- Building ------------------------------------------------------------------------------------


def tree(imagenet: SmallImageNet, tmp_path: Path) -> Path:
    return Path(shutil.copytree(imagenet.train, tmp_path / "pictures"))


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file() and p.name[0] != "."}


def test_what_is_left_out_is_told_once_however_often_it_is_built(
    imagenet: SmallImageNet, tmp_path: Path
) -> None:
    """A rerun that mends a shard, or all of them, makes the same bytes, the manifest's too."""
    pictures, out = tree(imagenet, tmp_path), tmp_path / "b"
    first = min(pictures.iterdir())
    odd = {f"{first.name}/{name}": data for name, data in (("a.JPEG", b""), ("b.JPEG", b"what?"))}
    for name, data in odd.items():
        (pictures / name).write_bytes(data)
    source = sources.from_folder(pictures)
    recipe = build.Recipe("train", per_shard=PER_SHARD, max_bad_files=2)
    manifest = build.build(source, out, recipe)
    assert manifest.made["left_out"].keys() == odd.keys() and manifest.samples == COUNT
    before = contents(out)
    for damage in (
        lambda: None,
        *(lambda path=path: flip(path, 700) for path in sorted(out.glob("*.tar"))),
        lambda: [flip(path, 700) for path in out.glob("*.tar")],
        lambda: (out / INDEX).unlink(),
        lambda: flip(out / INDEX, 50),
        lambda: flip(out / NAMES, 5),
        lambda: (out / MANIFEST).unlink(),
    ):
        damage()
        build.build(source, out, recipe)
        assert contents(out) == before
    with pytest.raises(DataError, match="2 files are no pictures, --max-bad-files allows 1: n0"):
        build.build(source, tmp_path / "c", build.Recipe(per_shard=3, max_bad_files=1))


def test_a_shard_of_which_all_is_left_out_is_none(tmp_path: Path) -> None:
    """And where there is no picture there are no shards."""
    for name in ("cat", "dog"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        (tmp_path / "pictures" / name / "0.jpg").write_text(name)
    recipe = build.Recipe(per_shard=1, max_bad_files=3)
    with pytest.raises(DataError, match="no file of the folder .*pictures is a picture"):
        build.build(sources.from_folder(tmp_path / "pictures"), tmp_path / "none", recipe)
    assert not (tmp_path / "none" / MANIFEST).exists()
    (tmp_path / "pictures" / "dog" / "1.jpg").write_bytes(JPEG)
    source = sources.from_folder(tmp_path / "pictures")
    for _ in range(3):
        manifest = build.build(source, tmp_path / "one", recipe)
        assert manifest.samples == len(list((tmp_path / "one").glob("*.tar"))) == 1
        assert len(manifest.made["left_out"]) == 2
        assert verify.verify(tmp_path / "one", full=True, decode=1) == []


def test_a_picture_that_cannot_be_resized_is_left_out(
    imagenet: SmallImageNet, tmp_path: Path
) -> None:
    pictures = tree(imagenet, tmp_path)
    path = min(pictures.rglob("*.JPEG"))
    path.write_bytes(path.read_bytes()[:-300])
    source, name = sources.from_folder(pictures), f"{path.parent.name}/{path.name}"
    recipe = build.Recipe(resize=16)
    with pytest.raises(DataError, match=f"allows 0: {name}: OSError: image file is truncated"):
        build.build(source, tmp_path / "b", recipe)
    manifest = build.build(source, tmp_path / "b", build.Recipe(resize=16, max_bad_files=1))
    assert list(manifest.made["left_out"]) == [name]


def test_shards_are_not_built_over_those_of_others(
    imagenet: SmallImageNet, root: Path, tmp_path: Path
) -> None:
    source = sources.from_folder(imagenet.train)
    write_tar(tmp_path / "b" / "shard-000000.tar", ONE)
    theirs = contents(tmp_path / "b")
    with pytest.raises(DataError, match="b holds tar files of others; name a new folder"):
        build.build(source, tmp_path / "b", RECIPE)
    assert contents(tmp_path / "b") == theirs
    with pytest.raises(DataError, match="made of other pictures or by other settings .*train"):
        build.build(source, root, build.Recipe("train", per_shard=3))
    text(lambda said: said[:-9])(root)
    with pytest.raises(DataError, match=f"{MANIFEST}: is no JSON .* take it away and build"):
        build.build(source, root, RECIPE)


def test_of_two_builders_one_is_refused(imagenet: SmallImageNet, root: Path) -> None:
    before = contents(root)
    with (root / ".building").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(DataError, match=f"another process is building shards in {root}"):
            build.build(sources.from_folder(imagenet.train), root, RECIPE)
    build.build(sources.from_folder(imagenet.train), root, RECIPE)
    assert contents(root) == before


def test_what_a_killed_builder_left_is_gone(
    imagenet: SmallImageNet, whole: Path, tmp_path: Path
) -> None:
    """A half-written shard, shards and words of an unfinished build by other settings."""
    out, source = tmp_path / "b", sources.from_folder(imagenet.train)
    build.build(source, out, build.Recipe("train", per_shard=2))
    (out / MANIFEST).unlink()
    (out / ".shard-000002.tar.tmp-123").write_bytes(b"half")
    (out / ".parts").mkdir()
    (out / ".parts" / "000001.json").write_text('{"plan": "another", "shard"')
    build.build(source, out, RECIPE)
    assert contents(out) == contents(whole)
    assert sorted(path.name for path in out.iterdir() if path.name[0] == ".") == [".building"]


def test_a_picture_that_goes_away_while_it_is_packed(
    imagenet: SmallImageNet, tmp_path: Path
) -> None:
    pictures = tree(imagenet, tmp_path)
    source, path = sources.from_folder(pictures), min(pictures.rglob("*.JPEG"))
    path.unlink()
    with pytest.raises(FileNotFoundError, match=path.name):
        build.build(source, tmp_path / "b", RECIPE)
    assert not (tmp_path / "b" / MANIFEST).exists()
    assert not list((tmp_path / "b").glob(".*.tmp-*"))
