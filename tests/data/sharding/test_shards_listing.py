"""What lists the pictures of shards, damaged: manifest.json, index.bin, names.txt. As in
test_shards_damage.py, each row says who must notice."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import flip
from noticed import CHANGED, EVERYONE, VERIFY, check, everyone
from spoil import (
    CLASSES,
    PER_SHARD,
    ROW_OF,
    SAMPLE,
    SHARD,
    edit,
    listing,
    place,
    put,
    reindex,
    replace,
    text,
)
from whole_runs import needs_fashion_mnist

from daas_dist.data.manifest import INDEX, MANIFEST, NAMES, ROW, DataError, Manifest
from daas_dist.data.sharding.tars import BLOCK
from daas_dist.data.shards import ShardFolder

pytestmark = needs_fashion_mnist

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
