"""What can happen to shards, their lists and the pictures in them: each is named, or read as told.

A row of DAMAGE is done to a fresh copy of shards; opening them, `verify --full` or reading every
sample must then say each of the words. A row of ODD is a picture that is read like any other.
"""

import gzip
import hashlib
import io
import json
import os
import pickle
import random
import struct
import tarfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import make_imagenet
import numpy as np
import pytest
import torch
from make_imagenet import SmallImageNet
from PIL import Image
from whole_runs import needs_fashion_mnist

from daas_dist.data import open_shards
from daas_dist.data.manifest import INDEX, MANIFEST, NAMES, ROW, DataError
from daas_dist.data.shards import Reading
from daas_dist.shards import build, sources, verify
from daas_dist.shards.sources import DEVKIT_ARCHIVE, TRAIN_ARCHIVE, VAL_ARCHIVE

pytestmark = needs_fashion_mnist
FIRST, SECOND = "shard-000000.tar", "shard-000001.tar"
Do = Callable[[Path], object]


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> SmallImageNet:
    return make_imagenet.make(tmp_path_factory.mktemp("imagenet"), 4, 6, 2, side=0.1)


@pytest.fixture(scope="module")
def whole(imagenet: SmallImageNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shards") / "whole"
    build.build(sources.from_folder(imagenet.train), out, build.Recipe(per_shard=8))
    return out


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "shards"
    folder.mkdir()
    for path in whole.iterdir():
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    return folder


# --- Doing damage --------------------------------------------------------------------------------


def change(name: str, at: int, new: bytes = b"") -> Do:
    """Other bytes at a place (from the end if negative); one flipped bit without `new`."""

    def do(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        place = at % len(data)
        data[place : place + max(1, len(new))] = new or bytes([data[place] ^ 4])
        (folder / name).write_bytes(data)

    return do


def cut(name: str, length: int) -> Do:
    return lambda folder: os.truncate(
        folder / name, length if length >= 0 else (folder / name).stat().st_size + length
    )


def manifest(edit: Callable[[dict[str, Any]], object]) -> Do:
    def do(folder: Path) -> None:
        read = json.loads((folder / MANIFEST).read_text())
        edit(read)
        (folder / MANIFEST).write_text(json.dumps(read))

    return do


def row(number: int, **values: int) -> Do:
    """Another row of the index, and a manifest that has its sha256."""

    def do(folder: Path) -> None:
        rows = np.frombuffer((folder / INDEX).read_bytes(), ROW).copy()
        for name, value in values.items():
            rows[number][name] = value
        data = rows.tobytes()
        (folder / INDEX).write_bytes(data)
        manifest(lambda m: m.update(index_sha256=hashlib.sha256(data).hexdigest()))(folder)

    return do


def swap(folder: Path) -> None:
    (folder / FIRST).rename(folder / "x")
    (folder / SECOND).rename(folder / FIRST)
    (folder / "x").rename(folder / SECOND)


def become_folder(folder: Path) -> None:
    (folder / FIRST).unlink()
    (folder / FIRST).mkdir()


def become_ring(folder: Path) -> None:
    (folder / FIRST).unlink()
    (folder / FIRST).symlink_to(folder / FIRST)


def shard(**values: object) -> Do:
    return manifest(lambda m: m["shards"][0].update(values))


def other_class(folder: Path) -> None:
    label = int(np.frombuffer((folder / INDEX).read_bytes(), ROW)[0]["label"])
    row(0, label=(label + 1) % 4)(folder)


def lengthen(folder: Path) -> None:
    with (folder / FIRST).open("ab") as file:
        file.write(b"garbage")


PAYLOAD = 512 + 300
"""A byte inside the first picture of a shard."""

DAMAGE: dict[str, tuple[Do, tuple[str, ...]]] = {
    "a payload bit": (change(FIRST, PAYLOAD), (FIRST, "sample 0", ".JPEG", "have changed")),
    "a header bit": (change(FIRST, 20), (FIRST,)),
    "a checksum of a header": (change(FIRST, 150), (FIRST,)),
    "a class member": (change(FIRST, -3 * 512 - 10240 % 512), (FIRST,)),
    "the end blocks": (change(FIRST, -100), (FIRST, "sha256 has changed")),
    "cut in data": (cut(FIRST, 900), (FIRST, "has 900 bytes")),
    "cut at a header": (cut(FIRST, 512), (FIRST, "512 bytes")),
    "cut in a header": (cut(FIRST, 100), (FIRST, "100 bytes")),
    "the end cut": (cut(FIRST, -1024), (FIRST, "bytes")),
    "empty": (cut(FIRST, 0), (FIRST, "0 bytes")),
    "longer": (lengthen, (FIRST, "bytes")),
    "missing": (lambda f: (f / FIRST).unlink(), (FIRST, "is missing")),
    "swapped": (swap, (FIRST,)),
    "other bytes of its size": (
        lambda f: (f / FIRST).write_bytes(os.urandom((f / FIRST).stat().st_size)),
        (FIRST, "sample 0"),
    ),
    "a folder": (become_folder, (FIRST,)),
    "a ring of links": (become_ring, (FIRST,)),
    "no manifest": (lambda f: (f / MANIFEST).unlink(), (MANIFEST, "daas shards build")),
    "a manifest that is no JSON": (change(MANIFEST, 0, b"<"), (MANIFEST, "is no JSON")),
    "a manifest cut": (cut(MANIFEST, -50), (MANIFEST, "is no JSON")),
    "a manifest that is no text": (change(MANIFEST, 30, b"\xff\xfe"), (MANIFEST, "is no text")),
    "nesting": (
        lambda f: (f / MANIFEST).write_text("[" * 100_000),
        (MANIFEST,),
    ),
    "a list": (lambda f: (f / MANIFEST).write_text("[]"), (MANIFEST, "is no manifest")),
    "another format": (manifest(lambda m: m.update(format=9)), (MANIFEST, "format 9", "reads 1")),
    "a field missing": (manifest(lambda m: m.pop("class_ids")), (MANIFEST, "no class_ids")),
    "a field of another type": (
        manifest(lambda m: m.update(seed="0")),
        (MANIFEST, "seed is '0'", "whole number"),
    ),
    "not a number": (manifest(lambda m: m.update(seed=float("nan"))), (MANIFEST, "seed is nan")),
    "a negative size": (shard(bytes=-1), (MANIFEST, "shards[0].bytes is -1")),
    "a huge size": (shard(bytes=1 << 70), (MANIFEST, "shards[0].bytes")),
    "a wrong histogram": (
        shard(histogram={"0": 1}),
        (MANIFEST, "shards[0].histogram does not sum"),
    ),
    "a histogram of other classes": (
        manifest(lambda m: m["shards"][0].update(histogram={"3": 8})),
        (FIRST, "different classes"),
    ),
    "a way out": (shard(name="../../etc/passwd"), (MANIFEST, "not a plain file name")),
    "an absolute path": (shard(name="/etc/passwd"), (MANIFEST, "not a plain file name")),
    "a command": (shard(name="pipe:touch here"), ("pipe:touch here", "is missing")),
    "no name": (shard(name=""), (MANIFEST, "not a plain file name")),
    "a shard twice": (shard(name=SECOND), (MANIFEST, "names a shard twice")),
    "unsorted classes": (
        manifest(lambda m: m["class_ids"].reverse()),
        (MANIFEST, "not sorted"),
    ),
    "a class twice": (
        manifest(lambda m: m["class_ids"].__setitem__(1, m["class_ids"][0])),
        (MANIFEST, "there twice"),
    ),
    "no shards": (manifest(lambda m: m.update(shards=[])), (MANIFEST, "lists no shards")),
    "no index": (lambda f: (f / INDEX).unlink(), (INDEX,)),
    "an index bit": (change(INDEX, 45), (INDEX, "sha256")),
    "an index cut": (cut(INDEX, -20), (INDEX, "sha256")),
    "a row outside its shard": (row(3, offset=1 << 40), (INDEX, "row 3", "outside its shard")),
    "a row over the end": (row(3, size=1 << 20), (INDEX, "row 3", "outside")),
    "a row of an unknown class": (row(3, label=99), (INDEX, "row 3", "its classes")),
    "an empty row": (row(3, size=0), (INDEX, "row 3")),
    "a row of another picture": (row(3, offset=512), (FIRST, "index does not fit")),
    "a row of another class": (other_class, (FIRST, "different classes")),
    "no names": (lambda f: (f / NAMES).unlink(), (NAMES, "is missing")),
    "other names": (change(NAMES, 0), (NAMES, "not the one")),
}


def complaints(folder: Path) -> str:
    """What opening, verifying every byte and reading every sample say."""
    said = verify.verify(folder, full=True)
    try:
        images = open_shards(folder, size=8, channels=3)
        reading = Reading()
        for number in range(len(images)):
            try:
                images.folder.read(int(images.rows[number]), reading)
            except (DataError, OSError) as error:
                said.append(str(error))
        reading.close()
    except (DataError, FileNotFoundError) as error:
        said.append(str(error))
    return "\n".join(said)


def test_there_are_forty_kinds_of_damage() -> None:
    assert len(DAMAGE) >= 40


def test_whole_shards_have_nothing_to_complain_of(copy: Path) -> None:
    assert complaints(copy) == ""


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_named(copy: Path, kind: str) -> None:
    do, words = DAMAGE[kind]
    before = sorted(copy.parent.iterdir())
    do(copy)
    said = complaints(copy)
    assert all(word in said for word in words), said
    assert str(copy) in said and sorted(copy.parent.iterdir()) == before


def test_names_that_are_lost_leave_shard_and_sample(copy: Path) -> None:
    (copy / NAMES).unlink()
    change(FIRST, PAYLOAD)(copy)
    with pytest.raises(DataError, match=f"{FIRST}: sample 0: its bytes have changed"):
        open_shards(copy, size=8, channels=3).central(torch.arange(8))


def test_random_damage_gives_the_right_bytes_or_a_sentence(whole: Path, tmp_path: Path) -> None:
    """300 mutations of manifest, index and a shard: no other error, nothing beside the folder."""
    chance = random.Random(0)
    expected = open_shards(whole, size=8, channels=3)
    right = {row: expected.folder.read(row, Reading()) for row in range(len(expected))}
    folder = tmp_path / "shards"
    folder.mkdir()
    files = {path.name: path.read_bytes() for path in whole.iterdir() if path.is_file()}
    named = 0
    for _ in range(300):
        victim = chance.choice([MANIFEST, MANIFEST, INDEX, FIRST])
        data = bytearray(files[victim])
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(data))
            if victim == FIRST:
                at = at // 512 * 512 + at % 160  # mostly inside the headers
            how = chance.randrange(3)
            if how == 0:
                data[min(at, len(data) - 1)] = chance.randrange(256)
            elif how == 1:
                del data[at : at + chance.randint(1, 9)]
            else:
                data[at:at] = bytes(chance.choice(b'0123456789-[]{}",.e\0') for _ in range(3))
        for name, content in {**files, victim: bytes(data)}.items():
            (folder / name).write_bytes(content)
        try:
            wrong = verify.verify(folder, full=True)
            images = open_shards(folder, size=8, channels=3)
            reading = Reading()
            for number, original in right.items():
                assert images.folder.read(number, reading) == original
        except (DataError, FileNotFoundError, IndexError) as error:
            assert isinstance(error, DataError | FileNotFoundError), error
            wrong = [str(error)]
        named += bool(wrong)
        assert all(len(sentence) > 20 for sentence in wrong)
        assert [path.name for path in tmp_path.iterdir()] == ["shards"]
    assert named > 200


# --- Odd pictures --------------------------------------------------------------------------------


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def colours() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)
    return Image.fromarray(pixels).resize((60, 45), Image.Resampling.BICUBIC)


def lying() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(colours().transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif, quality=98)


def transparent() -> Image.Image:
    picture = colours().convert("RGBA")
    picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    return picture


def over_white() -> Image.Image:
    white = Image.new("RGBA", colours().size, "white")
    return Image.alpha_composite(white, transparent()).convert("RGB")


ODD: dict[str, tuple[bytes, Image.Image]] = {
    "grey": (encoded(colours().convert("L"), "PNG"), colours().convert("L").convert("RGB")),
    "CMYK": (encoded(colours().convert("CMYK"), "JPEG", quality=98), colours()),
    "PNG called JPEG": (encoded(colours(), "PNG"), colours()),
    "lying": (lying(), colours()),
    "palette": (encoded(colours().quantize(64), "PNG"), colours().quantize(64).convert("RGB")),
    "transparent": (encoded(transparent(), "PNG"), over_white()),
    "progressive": (encoded(colours(), "JPEG", quality=98, progressive=True), colours()),
    "animated": (
        encoded(colours(), "GIF", save_all=True, append_images=[colours().rotate(90)]),
        colours(),
    ),
    "WebP": (encoded(colours(), "WEBP", lossless=True), colours()),
}


def shards_of(data: bytes, tmp_path: Path) -> Path:
    """Two classes, one of good pictures; the other has this one."""
    good = encoded(colours(), "JPEG")
    samples = [("good", f"{i}.jpg", good) for i in range(2)] + [("odd", "odd.JPEG", data)]
    with sources.from_iterable(samples, tmp_path) as source:
        build.build(source, tmp_path / "b", build.Recipe())
    return tmp_path / "b"


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_picture_is_read_as_people_see_it(kind: str, tmp_path: Path) -> None:
    data, expected = ODD[kind]
    images = open_shards(shards_of(data, tmp_path), size=45, channels=3)
    own = images.central(images.labels.nonzero().flatten())[0].int()
    square = expected.crop((8, 0, 53, 45))  # the centre: 7.5 rounds to 8
    apart = (own - torch.from_numpy(np.array(square)).permute(2, 0, 1).int()).abs().float().mean()
    # Half a pixel's shift and a JPEG's loss; another picture is 60 and more away.
    assert apart < 12, apart


def bomb_png() -> bytes:
    """A header of 60,000 x 60,000 pixels with little behind it."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    chunks = b"".join(
        struct.pack(">I", len(part)) + kind + part + struct.pack(">I", zlib.crc32(kind + part))
        for kind, part in ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    )
    return b"\x89PNG\r\n\x1a\n" + chunks


def bomb_jpeg() -> bytes:
    data = bytearray(encoded(colours(), "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", 60_000, 60_000)
    return bytes(data)


BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "a JPEG cut": (lambda: encoded(colours(), "JPEG")[:400], "odd/odd.JPEG"),
    "a JPEG's start alone": (lambda: b"\xff\xd8\xff\xe0" + bytes(100), "odd/odd.JPEG"),
    "a PNG of noise": (lambda: b"\x89PNG\r\n\x1a\n" + os.urandom(200), "odd/odd.JPEG"),
    "a bomb, PNG": (bomb_png, "3600000000 pixels"),
    "a bomb, JPEG": (bomb_jpeg, "3600000000 pixels"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_picture_that_cannot_be_read_is_named(kind: str, tmp_path: Path) -> None:
    make, said = BAD[kind]
    folder = shards_of(make(), tmp_path)
    began = time.monotonic()
    [wrong] = verify.verify(folder, decode=3)
    assert FIRST in wrong and "odd/odd.JPEG" in wrong and said in wrong
    images = open_shards(folder, size=8, channels=3)
    with pytest.raises(DataError, match="odd/odd.JPEG"):
        images.central(torch.arange(3))
    assert time.monotonic() - began < 5


# --- Sources and shards of others ----------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [b"text", pickle.dumps(1), b"\x7fELF", os.urandom(40)],
    ids=["text", "pickle", "ELF", "noise"],  # fmt: skip
)
def test_a_file_that_is_no_picture_ends_a_build_or_is_left_out(data: bytes, tmp_path: Path) -> None:
    good = encoded(colours(), "JPEG")
    samples = [("a", "1.jpg", good), ("a", "x.JPEG", data), ("b", "1.jpg", good)]
    with sources.from_iterable(samples, tmp_path) as source:
        with pytest.raises(DataError, match="1 files are no pictures.*a/x.JPEG"):
            build.build(source, tmp_path / "b", build.Recipe())
        manifest = build.build(source, tmp_path / "c", build.Recipe(max_bad_files=1))
    assert manifest.samples == 2 and manifest.made["left_out"] == ["a/x.JPEG"]


def test_an_empty_file_and_a_name_twice_are_refused(tmp_path: Path) -> None:
    for samples, said in (
        ([("a", "1.jpg", b"")], "a/1.jpg has 0 bytes"),
        ([("a", "1.jpg", b"x"), ("a", "1.jpg", b"y")], "a/1.jpg is twice"),
        ([], "no pictures"),
    ):
        with (
            pytest.raises(DataError, match=said),
            sources.from_iterable(samples, tmp_path),
        ):
            pass


def foreign(folder: Path, *members: tuple[str, bytes] | tarfile.TarInfo) -> None:
    with tarfile.open(folder / "x.tar", "w") as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))


def link(name: str, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/passwd"
    return info


GOOD = encoded(colours(), "JPEG")


class Explosive:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("exploded",)


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ([("1.jpg", GOOD)], "sample 1 has 1 pictures and 0 classes"),
        ([("1.jpg", GOOD), ("1.png", GOOD), ("1.cls", b"0")], "2 pictures and 1 classes"),
        ([("1.cls", b"0")], "0 pictures"),
        ([("1.jpg", GOOD), ("1.cls", b"cat")], "class b'cat', expected a number"),
        ([("1.jpg", GOOD), ("2.cls", b"0")], "1 pictures and 0 classes"),
        ([("1.jpg", GOOD), ("1.cls", b"0")] * 2, "classes|there twice"),
        ([link("1.jpg", tarfile.SYMTYPE), ("1.cls", b"0")], "1.jpg is no plain file"),
        ([link("1.jpg", tarfile.CHRTYPE), ("1.cls", b"0")], "1.jpg is no plain file"),
        ([("1.pyd", pickle.dumps(Explosive())), ("1.cls", b"0")], "0 pictures"),
        ([], "hold no samples"),
    ],
)
def test_shards_of_others_that_get_no_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, members: list[Any], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    foreign(tmp_path, *members)
    with pytest.raises(DataError, match=said):
        verify.index(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["x.tar"]


def test_member_names_are_no_paths_and_pickles_are_never_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside a picture and a class other members are passed over: webdataset's users have them."""
    monkeypatch.chdir(tmp_path)
    for key in ("../out", "/tmp/daas-absolute", "a/b"):
        (tmp_path / "in").mkdir(exist_ok=True)
        pickled = f"{key}.pyd", pickle.dumps(Explosive())
        foreign(tmp_path / "in", (f"{key}.jpg", GOOD), (f"{key}.cls", b"0"), pickled)
        verify.index(tmp_path / "in")
        images = open_shards(tmp_path / "in", size=8, channels=3)
        assert images.central(torch.arange(1)).shape == (1, 3, 8, 8)
        (tmp_path / "in" / MANIFEST).unlink()
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert not Path("/tmp/daas-absolute.jpg").exists()


def archives(imagenet: SmallImageNet, tmp_path: Path, name: str, data: bytes) -> Path:
    """The archives with one of them replaced."""
    for path in imagenet.archives.iterdir():
        (tmp_path / path.name).write_bytes(data if path.name == name else path.read_bytes())
    return tmp_path


def retar(data: bytes, edit: Callable[[str, bytes], tuple[str, bytes] | None]) -> bytes:
    """A tar whose members have been edited, or are gone."""
    file = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(data)) as old, tarfile.open(fileobj=file, mode="w") as new:
        for member in old:
            opened = old.extractfile(member)
            assert opened is not None
            edited = edit(member.name, opened.read())
            if edited is not None:
                info = tarfile.TarInfo(edited[0])
                info.size = len(edited[1])
                new.addfile(info, io.BytesIO(edited[1]))
    return file.getvalue()


def short_truth(name: str, data: bytes) -> tuple[str, bytes]:
    return name, data[:4] if name.endswith("ground_truth.txt") else data


def members(edit: Callable[[str, bytes], tuple[str, bytes] | None]) -> Callable[[bytes], bytes]:
    return lambda data: retar(data, edit)


def packed(edit: Callable[[str, bytes], tuple[str, bytes] | None]) -> Callable[[bytes], bytes]:
    return lambda data: gzip.compress(retar(gzip.decompress(data), edit))


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def endless(data: bytes) -> bytes:
    """Up to the end of the last member."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        last = tar.getmembers()[-1]
    return data[: last.offset_data + -(-last.size // 512) * 512]


ARCHIVES: dict[str, tuple[str, Callable[[bytes], bytes], str]] = {
    "the outer tar cut": (TRAIN_ARCHIVE, half, TRAIN_ARCHIVE),
    "the outer tar's end cut": (TRAIN_ARCHIVE, endless, "has no end"),
    "no tar": (TRAIN_ARCHIVE, lambda data: b"no" * 5 + data, TRAIN_ARCHIVE),
    "an inner tar cut": (TRAIN_ARCHIVE, members(lambda n, x: (n, x[:1500])), r"n\d+\.tar"),
    "no inner tars": (TRAIN_ARCHIVE, members(lambda n, x: ("a.txt", x)), "one tar file a class"),
    "an unknown class": (TRAIN_ARCHIVE, members(lambda n, x: ("n9.tar", x)), "'n9'"),
    "a wrong name": (VAL_ARCHIVE, members(lambda n, x: ("cat.jpg", x)), "holds cat.jpg"),
    "a number too high": (
        VAL_ARCHIVE,
        members(lambda n, x: ("ILSVRC2012_val_00009999.JPEG", x)),
        "00009999.JPEG, expected",
    ),
    "a short truth": (DEVKIT_ARCHIVE, packed(short_truth), "holds ILSVRC2012_val"),
    "a devkit cut": (DEVKIT_ARCHIVE, half, "is damaged"),
    "a devkit's bit": (
        DEVKIT_ARCHIVE,
        lambda data: data[:200] + bytes([data[200] ^ 8]) + data[201:],
        DEVKIT_ARCHIVE,
    ),
    "no truth": (
        DEVKIT_ARCHIVE,
        packed(lambda n, x: None if "truth" in n else (n, x)),
        "holds no data/ILSVRC2012_validation",
    ),
}


@pytest.mark.parametrize("kind", ARCHIVES)
def test_damaged_archives_are_named(imagenet: SmallImageNet, tmp_path: Path, kind: str) -> None:
    name, edit, said = ARCHIVES[kind]
    root = archives(imagenet, tmp_path, name, edit((imagenet.archives / name).read_bytes()))
    part = "val" if name == VAL_ARCHIVE or "holds ILSVRC2012_val" in said else "train"
    with pytest.raises(DataError, match=said):
        sources.ilsvrc2012(root, part, check=False, tell=lambda text: None)


def test_a_missing_archive_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=DEVKIT_ARCHIVE):
        sources.ilsvrc2012(tmp_path, "train", tell=lambda text: None)
