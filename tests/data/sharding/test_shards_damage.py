"""Shards that are damaged: who notices, and what the sentence says.

Each row is a damage and who must notice it: opening ("open"), reading every sample of a folder that
was opened without a look at its files ("read"), and `daas shards verify`, "quick", "full" or
"decode". Who is not named must find nothing. A sentence always names the file; of a sample also its
number and what the picture was called.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from damage import flip
from noticed import CHANGED, EVERYONE, VERIFY, check
from spoil import LAST, PER_SHARD, SHARD, Place, place
from whole_runs import needs_fashion_mnist

from daas_dist.data.manifest import INDEX
from daas_dist.data.sharding.tars import BLOCK

pytestmark = needs_fashion_mnist


def test_nothing_is_wrong_with_what_is_whole(root: Path) -> None:
    check(root, {})


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
