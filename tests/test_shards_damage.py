"""Shards that are damaged: who notices, and what the sentence says.

Each row is a damage and who must notice it: opening ("open"), reading every sample of a folder that
was opened without a look at its files ("read"), and `daas shards verify`, "quick", "full" or
"decode". Who is not named must find nothing. A sentence always names the file; of a sample also its
number and what the picture was called.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import flip
from spoil import (
    CLASSES,
    COUNT,
    LAST,
    PER_SHARD,
    ROW_OF,
    SAMPLE,
    SHARD,
    Place,
    edit,
    listing,
    place,
    put,
    reindex,
    replace,
    text,
)
from whole_runs import needs_fashion_mnist

from daas_dist.data import Crop, open_shards
from daas_dist.data.manifest import INDEX, MANIFEST, NAMES, ROW, DataError, Manifest
from daas_dist.data.shards import ShardFolder
from daas_dist.shards import verify
from daas_dist.shards.tars import BLOCK

pytestmark = needs_fashion_mnist
EVERYONE = "open read quick full decode"
VERIFY = "quick full decode"
CUT = Crop(padding=0, flip=True, scale=(0.2, 1.0))


def everyone(root: Path) -> dict[str, str]:
    """What each of them says of a folder; nothing if nothing is wrong."""

    def saying(task: Callable[[], object]) -> str:
        try:
            task()
        except (DataError, OSError) as error:
            return str(error)
        return ""

    def read() -> None:
        images = open_shards(root, size=8, channels=3, locate=root.joinpath)
        wrong = []
        for row in range(len(images)):
            try:
                images.folder.read(row, images.reading)
            except DataError as error:
                wrong.append(str(error))
        images.reading.close()
        if wrong:
            raise DataError("\n".join(wrong))

    return {
        "open": saying(lambda: open_shards(root, size=8, channels=3)),
        "read": saying(read),
        "quick": "\n".join(verify.verify(root)),
        "full": "\n".join(verify.verify(root, full=True)),
        "decode": "\n".join(verify.verify(root, decode=COUNT)),
    }


def check(root: Path, notices: Mapping[str, Sequence[str]], name: str = "") -> None:
    """Who is named says all of the fragments and the folder, the others nothing."""
    told = everyone(root)
    expected: dict[str, list[str]] = {}
    for names, fragments in notices.items():
        for who in names.split():
            expected.setdefault(who, []).extend(fragments)
    silent = {who: said for who, said in told.items() if who not in expected and said}
    assert not silent
    for who, fragments in expected.items():
        for fragment in (str(root), *fragments):
            fragment = fragment.format(sample=f"{SHARD}: sample {SAMPLE} ({name})")
            assert fragment in told[who], (who, told[who])


def test_nothing_is_wrong_with_what_is_whole(root: Path) -> None:
    check(root, {})


# --- A shard -------------------------------------------------------------------------------------


def shard(task: Callable[[Path, Place], object]) -> Callable[[Path], object]:
    return lambda root: task(root / SHARD, place(root))


def cut_at(path: Path, size: int) -> None:
    os.truncate(path, size)


def swap(other: str) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        mine, theirs = (root / SHARD).read_bytes(), (root / other).read_bytes()
        (root / SHARD).write_bytes(theirs)
        (root / other).write_bytes(mine)

    return damage


def same_size(root: Path) -> None:
    (root / SHARD).write_bytes((root / SHARD).read_bytes()[::-1])


def replaced_by(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        (root / SHARD).unlink()
        make(root / SHARD)

    return damage


def padding(p: Place) -> int:
    assert p.size % BLOCK
    return p.data + p.size


CHANGED = "its bytes have changed since they were packed"
ALL_OF_IT = [f"{SHARD}: sample {i} (n0" for i in range(PER_SHARD)]

SHARDS: list[tuple[str, Callable[[Path], object], dict[str, Sequence[str]]]] = [
    (
        "cut in a picture",
        shard(lambda path, p: cut_at(path, p.data + p.size // 2)),
        {
            f"open {VERIFY}": [SHARD, "bytes, manifest.json expects"],
            "read full decode": ["{sample}", "the shard ends after"],
        },
    ),
    (
        "cut before a header",
        shard(lambda path, p: cut_at(path, p.header)),
        {f"open {VERIFY}": [SHARD, "bytes"], "read full decode": ["{sample}", "ends after 0 of"]},
    ),
    (
        "cut in a header",
        shard(lambda path, p: cut_at(path, p.header + 200)),
        {f"open {VERIFY}": [SHARD, "bytes"], "read full decode": ["{sample}", "ends after 0 of"]},
    ),
    (
        "without its end",
        shard(lambda path, p: cut_at(path, p.end)),
        {
            f"open {VERIFY}": [SHARD, "bytes"],
            "full": [SHARD, "ends without the blocks of an end"],
        },
    ),
    (
        "with more behind its end",
        shard(lambda path, _: path.write_bytes(path.read_bytes() + b"what is this?")),
        {
            f"open {VERIFY}": [SHARD, "bytes"],
            "full": [SHARD, "holds something after the end of the tar"],
        },
    ),
    (
        "missing",
        replaced_by(lambda path: None),
        {EVERYONE: [SHARD], f"open {VERIFY}": [f"{SHARD} is missing"]},
    ),
    (
        "empty",
        replaced_by(Path.touch),
        {
            f"open {VERIFY}": [f"{SHARD} has 0 bytes"],
            "read decode full": ["{sample}", "ends after 0 of"],
        },
    ),
    (
        "a folder",
        replaced_by(Path.mkdir),
        {
            f"open {VERIFY}": [f"{SHARD} is no file"],
            "read decode": ["{sample}", "Is a directory"],
        },
    ),
    (
        "a ring of links",
        replaced_by(lambda path: path.symlink_to(path.name)),
        {EVERYONE: [SHARD, "cannot be read", "Too many levels of symbolic links"]},
    ),
    (
        "a link to nowhere",
        replaced_by(lambda path: path.symlink_to("nowhere")),
        {
            f"open {VERIFY}": [f"{SHARD} is missing"],
            "read decode": ["{sample}", "No such file"],
        },
    ),
    (
        "a pipe that nobody writes to",
        replaced_by(os.mkfifo),
        {f"open {VERIFY}": [f"{SHARD} is no file"], "read decode": ["{sample}", "Illegal seek"]},
    ),
    (
        "swapped with another",
        swap("shard-000000.tar"),
        {
            "read decode": ["{sample}", "shard-000000.tar: sample 2 ("],
            "full": [f"{SHARD} is a copy of shard-000000.tar"],
        },
    ),
    (
        "swapped with a smaller one",
        swap(LAST),
        {
            f"open {VERIFY}": [f"{SHARD} has", "manifest.json expects"],
            "read decode": ["{sample}", f"{LAST}: sample 2 ("],
            "full": [f"{SHARD} is a copy of {LAST}"],
        },
    ),
    (
        "of the same size with other bytes",
        same_size,
        {"read full decode": ["{sample}", CHANGED, *ALL_OF_IT]},
    ),
    (
        "a bit of a picture",
        shard(lambda path, p: flip(path, p.data + p.size // 3)),
        {"read full decode": ["{sample}", CHANGED]},
    ),
    (
        "the last bit of a picture",
        shard(lambda path, p: flip(path, p.data + p.size - 1)),
        {"read full decode": ["{sample}", CHANGED]},
    ),
    (
        "a bit of a picture's header",
        shard(lambda path, p: flip(path, p.header + 3)),
        {"full": ["cut or changed at byte", "at or after", "{sample}"]},
    ),
    (
        "a bit of a size",
        shard(lambda path, p: flip(path, p.header + 130)),
        {"full": ["cut or changed at byte", "at or after", "{sample}"]},
    ),
    (
        "a bit of a class",
        shard(lambda path, p: flip(path, p.cls + BLOCK)),
        {"full": ["{sample}", "is of class", f"in {INDEX}"]},
    ),
    (
        "a class that is no number",
        shard(lambda path, p: write_at(path, p.cls + BLOCK, b"x")),
        {"full": ["sample 00000009 has the class b'x', expected a number", "{sample}"]},
    ),
    (
        "a bit of a class's header",
        shard(lambda path, p: flip(path, p.cls)),
        {"full": ["cut or changed at byte", "at or after", "{sample}"]},
    ),
    (
        "a bit between two members",
        shard(lambda path, p: flip(path, padding(p))),
        {"full": [f"{SHARD}: its sha256 has changed, though every sample is whole"]},
    ),
    (
        "a bit of the end",
        shard(lambda path, p: flip(path, p.end + BLOCK + 7)),
        {"full": [SHARD, "holds something after the end"]},
    ),
    (
        "one too many",
        lambda root: shutil.copy(root / SHARD, root / "old.tar"),
        {VERIFY: ["old.tar is not in manifest.json", "take it away"]},
    ),
]


def write_at(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


@pytest.mark.parametrize(
    ("damage", "notices"), [each[1:] for each in SHARDS], ids=[each[0] for each in SHARDS]
)
def test_a_damaged_shard(
    damage: Callable[[Path], object], notices: dict[str, Sequence[str]], root: Path
) -> None:
    name = place(root).name
    damage(root)
    check(root, notices, name)


def test_a_shard_that_may_not_be_read(whole: Path) -> None:
    """As a user who is not root, who reads everything."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(shutil.copytree(whole, Path(name) / "shards"))
        for path in (Path(name), *Path(name).rglob("*")):
            os.chown(path, 65534 if os.geteuid() == 0 else -1, -1)
        (root / SHARD).chmod(0)
        own, called = os.geteuid(), place(whole).name
        notices = {
            "full": [SHARD, "cannot be read (Permission denied)"],
            "read decode": ["{sample} cannot be read", "Permission denied"],
        }
        try:
            os.seteuid(65534 if own == 0 else own)
            check(root, notices, called)
        finally:
            os.seteuid(own)


# --- manifest.json -------------------------------------------------------------------------------


def without(*address: str | int) -> Callable[[Path], None]:
    def change(fields: Any) -> None:
        for key in address[:-1]:
            fields = fields[key]
        del fields[address[-1]]

    return edit(change)


AGAIN = "get it again"
NO_NAME = ["shards[1].name", "expected a plain file name"]

MANIFESTS: list[tuple[str, Callable[[Path], object], Sequence[str]]] = [
    ("missing", lambda root: (root / MANIFEST).unlink(), ["no ", "daas shards build"]),
    ("empty", text(lambda _: ""), ["is no JSON", AGAIN]),
    ("cut", text(lambda said: said[: len(said) // 2]), ["is no JSON", AGAIN]),
    ("a list", text(lambda _: "[]"), ["is no manifest"]),
    ("nested deep", text(lambda _: "[" * 100_000), ["nested too deep"]),
    ("nested deep in a value", put("seed", value=[[[[[[[1]]]]]]]), ["seed is [[[[[[[1]]]]]]]"]),
    (
        "no text",
        lambda root: (root / MANIFEST).write_bytes(b"\xff\xfe{}"),
        ["is no text", "get it again"],
    ),
    ("a folder", lambda root: replace(root / MANIFEST, Path.mkdir), ["Is a directory"]),
    (
        "a ring of links",
        lambda root: replace(root / MANIFEST, lambda path: path.symlink_to(path.name)),
        ["Too many levels"],
    ),
    (
        "changed by hand",
        text(lambda said: said.replace('"seed": 0', '"seed": 1')),
        ["has been changed since it was written"],
    ),
    ("of another format", put("format", value=2), ["has the format 2, this program reads 1"]),
    ("without a format", without("format"), ["has the format None"]),
    *((f"without {key}", without(key), [f"has no {key}"]) for key in Manifest.__dataclass_fields__),
    ("without a shard's size", without("shards", 1, "bytes"), ["shards[1] has not the fields"]),
    ("with more of a shard", put("shards", 1, "url", value="x"), ["shards[1] has not the fields"]),
    ("no shards", put("shards", value=[]), ["lists no shards"]),
    ("shards that are no list", put("shards", value={"0": 1}), ["lists no shards"]),
    ("a shard that is a name", put("shards", 1, value="x.tar"), ["shards[1] has not the fields"]),
    ("classes that are no list", put("class_ids", value="n01"), ["class_ids is no list"]),
    ("a class that is no text", put("class_ids", 0, value=1), ["class_ids is 1, expected text"]),
    (
        "half a surrogate",
        put("class_names", 0, value="\ud800"),
        ["class_names is '\\ud800', expected text"],
    ),
    ("no classes", edit(lambda m: m.update(class_ids=[], class_names=[])), ["names 0 of 0"]),
    ("fewer names than classes", without("class_names", 0), ["names 3 of 4 classes"]),
    ("classes unsorted", edit(lambda m: m["class_ids"].reverse()), ["class_ids are not sorted"]),
    (
        "a class twice",
        edit(lambda m: m["class_ids"].__setitem__(1, m["class_ids"][0])),
        ["class_ids are not sorted, or one is there twice"],
    ),
    ("samples as text", put("shards", 1, "samples", value="7"), ["shards[1].samples is '7'"]),
    ("samples as a fraction", put("shards", 1, "samples", value=7.0), ["samples is 7.0"]),
    ("samples as true", put("shards", 1, "samples", value=True), ["samples is True"]),
    ("samples that are no number", put("shards", 1, "samples", value=float("nan")), ["is nan"]),
    ("fewer than no samples", put("shards", 1, "samples", value=-7), ["samples is -7"]),
    ("huge samples", put("shards", 1, "samples", value=10**40), ["samples is 1000"]),
    (
        "more samples than the index",
        edit(lambda m: m["shards"][1].update(samples=2**61, histogram={"0": 2**61})),
        [INDEX, "480 bytes, expected 20 for each of"],
    ),
    ("infinite bytes", put("shards", 1, "bytes", value=float("inf")), ["shards[1].bytes is inf"]),
    ("a seed below 0", put("seed", value=-1), ["seed is -1, expected a whole number"]),
    ("a resize of nothing", put("resize", value="no"), ["resize is 'no'"]),
    ("a number without end", text(lambda said: said.replace("1", "1" * 5000, 1)), ["is no JSON"]),
    ("made of what is no table", put("made", value=[]), ["made is [], expected a table"]),
    ("a sum that is wrong", put("shards", 1, "histogram", "0", value=9), ["does not sum to its 7"]),
    (
        "a class that is not there",
        put("shards", 1, "histogram", value={"4": 7}),
        ["shards[1].histogram has the class '4' of 4"],
    ),
    (
        "a class of many digits",
        put("shards", 1, "histogram", value={"1" * 5000: 7}),
        ["shards[1].histogram has the class '111"],
    ),
    (
        "a count that is no number",
        put("shards", 1, "histogram", value={"0": "7"}),
        ["shards[1].histogram is '7'"],
    ),
    ("a shard outside", put("shards", 1, "name", value="../x.tar"), NO_NAME),
    ("a shard from the root", put("shards", 1, "name", value="/etc/passwd"), NO_NAME),
    ("a shard in a folder", put("shards", 1, "name", value="x/y.tar"), NO_NAME),
    ("a shard without a name", put("shards", 1, "name", value=""), NO_NAME),
    ("a shard that is the folder", put("shards", 1, "name", value="."), NO_NAME),
    ("a shard that is hidden", put("shards", 1, "name", value=".x.tar"), NO_NAME),
    ("a shard with a zero in its name", put("shards", 1, "name", value="x\0.tar"), NO_NAME),
    ("a shard with a new line", put("shards", 1, "name", value="x\n.tar"), NO_NAME),
    ("a shard that is a command", put("shards", 1, "name", value="pipe:touch x"), NO_NAME),
    ("a shard of an address", put("shards", 1, "name", value="http://x/y.tar"), NO_NAME),
    (
        "a shard twice",
        edit(lambda m: m["shards"][1].update(name=m["shards"][0]["name"])),
        ["names a shard twice"],
    ),
    ("a long name", put("shards", 1, "name", value="ä" * 150), NO_NAME),
]  # fmt: skip


@pytest.mark.parametrize(
    ("damage", "fragments"), [each[1:] for each in MANIFESTS], ids=[each[0] for each in MANIFESTS]
)
def test_a_manifest_that_is_wrong(
    damage: Callable[[Path], object], fragments: Sequence[str], root: Path
) -> None:
    damage(root)
    before = listing(root.parent.parent)
    check(root, {EVERYONE: fragments})
    assert listing(root.parent.parent) == before and not (Path.cwd() / "x").exists()


def test_every_depth_of_nesting_is_refused_in_words(root: Path) -> None:
    fields = json.loads((root / MANIFEST).read_text())
    for depth in range(1, 1200, 7):
        nested = "[" * depth + "]" * depth
        (root / MANIFEST).write_text(
            json.dumps(fields | {"seed": 0}).replace('"seed": 0', f'"seed": {nested}')
        )
        with pytest.raises(DataError, match="changed since|nested too deep|expected a whole"):
            ShardFolder(root)


def test_every_byte_of_a_manifest_counts(root: Path) -> None:
    """But for the spaces between its values."""
    said = (root / MANIFEST).read_bytes()
    before = ShardFolder(root).manifest
    for at in range(len(said)):
        (root / MANIFEST).write_bytes(said[:at] + bytes([said[at] ^ 1]) + said[at + 1 :])
        try:
            assert ShardFolder(root).manifest == before
        except DataError:
            continue
        assert chr(said[at]).isspace()


# --- index.bin -----------------------------------------------------------------------------------


def in_row(**values: int) -> Callable[[Path], None]:
    def change(rows: np.ndarray) -> None:
        for key, value in values.items():
            rows[key][ROW_OF] = value

    return reindex(change)


def other_label(rows: np.ndarray) -> None:
    rows["label"][ROW_OF] = (rows["label"][ROW_OF] + 1) % CLASSES


def swapped_labels(rows: np.ndarray) -> None:
    """Two of one shard, so that it holds as many of each as before."""
    inside = rows["label"][PER_SHARD : 2 * PER_SHARD]
    other = int((inside != inside[SAMPLE]).argmax())
    inside[[SAMPLE, other]] = inside[[other, SAMPLE]]


OUTSIDE = [INDEX, f"sample {SAMPLE} of {SHARD}", "expected 1 to"]

INDEXES: list[tuple[str, Callable[[Path], object], dict[str, Sequence[str]]]] = [
    ("missing", lambda root: (root / INDEX).unlink(), {EVERYONE: ["but no index.bin; get both"]}),
    (
        "a folder",
        lambda root: replace(root / INDEX, Path.mkdir),
        {EVERYONE: [INDEX, "cannot be read (Is a directory)"]},
    ),
    (
        "cut",
        lambda root: os.truncate(root / INDEX, 21),
        {EVERYONE: [INDEX, "has the sha256", "manifest.json expects"]},
    ),
    (
        "longer",
        lambda root: (root / INDEX).write_bytes((root / INDEX).read_bytes() * 2),
        {EVERYONE: [INDEX, "has the sha256"]},
    ),
    ("a bit", lambda root: flip(root / INDEX, 170), {EVERYONE: [INDEX, "has the sha256"]}),
    (
        "a row fewer",
        reindex(lambda rows: rows[:-1]),
        {EVERYONE: [INDEX, "has 460 bytes, expected 20 for each of 24 samples"]},
    ),
    (
        "half a row",
        reindex(lambda rows: np.frombuffer(rows.tobytes()[:-7], np.uint8)),
        {EVERYONE: [INDEX, "has 473 bytes"]},
    ),
    ("outside the shard", in_row(offset=10**7), {EVERYONE: [*OUTSIDE, "at byte 10000000"]}),
    ("at the largest number", in_row(offset=2**64 - 1), {EVERYONE: OUTSIDE}),
    ("of no bytes", in_row(size=0), {EVERYONE: [*OUTSIDE, "of 0 bytes"]}),
    ("of the largest size", in_row(size=2**32 - 1), {EVERYONE: OUTSIDE}),
    ("of a class that is not there", in_row(label=4), {EVERYONE: [*OUTSIDE, "and class 4"]}),
    (
        "elsewhere in the shard",
        in_row(offset=BLOCK),
        {"read decode": ["{sample}", CHANGED], "full": ["{sample} does not lie where index.bin"]},
    ),
    (
        "of another crc",
        in_row(crc=1),
        {"read decode": ["{sample}", CHANGED], "full": ["{sample} does not lie where index.bin"]},
    ),
    (
        "of another class",
        reindex(other_label),
        {VERIFY: [f"{SHARD}: {MANIFEST} and {INDEX} give it different classes"],
         "full": ["{sample} is of class", "in the shard", "get index.bin again"]},
    ),
    (
        "with two classes swapped",
        reindex(swapped_labels),
        {"full": ["{sample} is of class", "in the shard", "get index.bin again"]},
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("damage", "notices"), [each[1:] for each in INDEXES], ids=[each[0] for each in INDEXES]
)
def test_an_index_that_is_wrong(
    damage: Callable[[Path], object], notices: dict[str, Sequence[str]], root: Path
) -> None:
    name = place(root).name
    damage(root)
    check(root, notices, name)


# --- names.txt -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (Path.unlink, "cannot be read (No such file or directory)"),
        (lambda path: replace(path, Path.mkdir), "cannot be read (Is a directory)"),
        (lambda path: flip(path, 9), "is not the one that manifest.json expects"),
        (lambda path: path.write_bytes(b"\xff\n"), "is not the one that manifest.json expects"),
    ],
    ids=["missing", "a folder", "changed", "no text"],
)
def test_without_the_names_pictures_are_read_and_the_bad_one_is_still_named(
    damage: Callable[[Path], object], said: str, root: Path
) -> None:
    damage(root / NAMES)
    check(root, {VERIFY: [NAMES, said, "errors cannot say what a picture was called"]})
    p = place_without_names(root)
    flip(root / SHARD, p)
    told = everyone(root)
    for who in ("read", "full", "decode"):
        assert f"{SHARD}: sample {SAMPLE}: {CHANGED}" in told[who]


def place_without_names(root: Path) -> int:
    return int(np.fromfile(root / INDEX, ROW)["offset"][ROW_OF]) + 5


def test_names_that_are_too_few_and_no_text_are_no_names(root: Path) -> None:
    """Though the manifest says that they are right."""
    (root / NAMES).write_bytes(b"\xffone\n")
    put("names_sha256", value=hashlib.sha256(b"\xffone\n").hexdigest())(root)
    folder = ShardFolder(root)
    assert folder.name(0).endswith(r"sample 0 (\xffone)")
    assert folder.name(ROW_OF).endswith(f"{SHARD}: sample {SAMPLE}")
