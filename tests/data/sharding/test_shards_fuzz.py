"""Anything at all in a manifest, an index or a tar: the right pictures come, or a sentence."""

import json
import random
import resource
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from spoil import (
    SHARD,
    ends_within,
    listing,
    reindex,
    sealed,
)
from whole_runs import needs_fashion_mnist

from daas_dist.data import open_shards
from daas_dist.data.manifest import INDEX, MANIFEST, NAMES, DataError, Manifest
from daas_dist.data.sharding import verify
from daas_dist.data.sharding.tars import BLOCK
from daas_dist.data.shards import Reading, ShardFolder

pytestmark = needs_fashion_mnist


# --- Anything at all -----------------------------------------------------------------------------

SECONDS = 4.0
"""Of each of the three that follow."""

ODD_VALUES = [
    None, True, -1, 0, 1, 2**31, 2**63, 10**400, 1e308, float("nan"), float("inf"), "", "x", "\0",
    "\ud800", "../x", "/etc/passwd", "pipe:touch x", "9" * 5000, [], {}, [[[[]]]], {"a": []},
]  # fmt: skip


def mutated(data: bytes, draw: random.Random) -> bytes:
    """A few bytes changed, cut, put in, or doubled."""
    for _ in range(draw.choice([1, 1, 2, 5])):
        at = draw.randrange(len(data) + 1)
        length = draw.choice([1, 1, 2, 8, 100])
        new = draw.choice([draw.randbytes(length), b"\0" * length, b"\xff" * length, b"9" * length])
        data = draw.choice(
            [
                data[:at] + new + data[at + length :],
                data[:at] + new + data[at:],
                data[:at] + data[at + length :],
                data[:at],
                data[:at] + data[at : at + length] * 2 + data[at + length :],
            ]
        )
    return data


def with_odd_value(text: str, draw: random.Random) -> str:
    """A manifest with another value somewhere, or without it, whose sha256 fits."""
    fields = json.loads(text)
    here: Any = fields
    while True:
        key = draw.choice(list(here) if isinstance(here, dict) else range(len(here)))
        if isinstance(here[key], dict | list) and here[key] and draw.random() < 0.8:
            here = here[key]
            continue
        if draw.random() < 0.2:
            del here[key]
        else:
            here[key] = draw.choice(ODD_VALUES)
        return sealed(fields)


@contextmanager
def nothing_else_is_touched(around: Path, folder: Path) -> Generator[None]:
    before = {name: state for name, state in listing(around).items() if around / name != folder}
    yield
    after = {name: state for name, state in listing(around).items() if around / name != folder}
    assert after == before


def in_words(root: Path, task: Callable[[], object]) -> bool:
    """Whether it was done; else it is refused by a sentence that names the folder."""
    try:
        with ends_within(10):
            task()
    except (DataError, FileNotFoundError, OSError) as error:
        assert str(root) in str(error) and len(str(error)) < 30_000
        return False
    return True


def truth(root: Path) -> tuple[Manifest, list[tuple[bytes, int]]]:
    images = open_shards(root, size=8, channels=3)
    reading = Reading()
    rows = range(len(images))
    read = [(bytes(images.folder.read(i, reading)), int(images.labels[i])) for i in rows]
    reading.close()
    return images.folder.manifest, read


def read_right(root: Path, expected: Sequence[tuple[bytes, int]]) -> None:
    """What can be read is what was packed; DataError of the rest."""
    images, reading = open_shards(root, size=8, channels=3), Reading()
    wrong = None
    for i, (data, label) in enumerate(expected):
        try:
            assert (images.folder.read(i, reading), int(images.labels[i])) == (data, label)
        except DataError as error:
            wrong = error
    reading.close()
    if wrong is not None:
        raise wrong


def for_a_while() -> Iterator[random.Random]:
    """Draws of seeds 0, 1, … until the time is up; they take little memory."""
    began, seed = time.monotonic(), 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    while time.monotonic() - began < SECONDS:
        yield random.Random(seed)
        seed += 1
    assert seed > 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - most < 200_000  # KiB


def test_any_change_of_a_manifest_or_an_index_is_noticed_or_changes_nothing(
    root: Path,
) -> None:
    manifest, expected = truth(root)
    whole = {name: (root / name).read_bytes() for name in (MANIFEST, INDEX)}
    for draw in for_a_while():
        name = draw.choice([MANIFEST, INDEX])
        (root / name).write_bytes(mutated(whole[name], draw))
        with nothing_else_is_touched(root.parent.parent, root):
            if in_words(root, lambda: read_right(root, expected)):
                assert ShardFolder(root).manifest == manifest
            assert all(str(root) in said for said in verify.verify(root, full=True, decode=3))
        (root / name).write_bytes(whole[name])


def test_any_value_of_a_manifest_or_an_index_that_is_sealed_is_refused_or_read(
    root: Path,
) -> None:
    """What a program with a fault of its own could write: other classes are read as they are, other
    places are found not to hold what was packed."""
    manifest, expected = truth(root)
    whole = {name: (root / name).read_bytes() for name in (MANIFEST, INDEX)}
    for draw in for_a_while():
        if draw.random() < 0.5:
            (root / MANIFEST).write_text(with_odd_value(whole[MANIFEST].decode(), draw))
        else:
            reindex(lambda rows, draw=draw: odd_rows(rows, draw))(root)
        with nothing_else_is_touched(root.parent.parent, root):
            if in_words(root, lambda: open_shards(root, size=8, channels=3)):
                images, reading = open_shards(root, size=8, channels=3), Reading()
                for i in range(len(images)):
                    try:
                        assert bytes(images.folder.read(i, reading)) in {
                            data for data, _ in expected
                        }
                    except DataError as error:
                        assert str(root) in str(error)
                reading.close()
            assert all(str(root) in said for said in verify.verify(root, full=True, decode=3))
        for name, data in whole.items():
            (root / name).write_bytes(data)
    assert ShardFolder(root).manifest == manifest


def odd_rows(rows: np.ndarray, draw: random.Random) -> None:
    for _ in range(draw.choice([1, 3])):
        key = draw.choice(["offset", "size", "label", "crc"])
        most = 2**64 if key == "offset" else 2**32
        values = [0, 1, 3, 4, 512, most - 1, draw.randrange(most), draw.randrange(50_000)]
        rows[key][draw.randrange(len(rows))] = draw.choice(values)


def test_any_change_of_a_tar_is_noticed_or_changes_nothing(root: Path) -> None:
    """By reading, by verify --full, and by an index that is made anew."""
    _, expected = truth(root)
    whole = (root / SHARD).read_bytes()
    bare = root.parent / "bare"
    bare.mkdir()
    for draw in for_a_while():
        changed = mutated_tar(whole, draw)
        (root / SHARD).write_bytes(changed)
        (bare / SHARD).write_bytes(changed)
        with nothing_else_is_touched(root.parent.parent, root):
            in_words(root, lambda: read_right(root, expected))
            found = verify.verify(root, full=True)
            assert (found == []) == (changed == whole)
            assert all(str(root) in said for said in found)
        if in_words(bare, lambda: verify.index(bare)):
            assert verify.verify(bare, full=True) == []
            for data, label in truth(bare)[1]:
                assert changed == whole or data in changed and 0 <= label < 10**6
        for name in (MANIFEST, INDEX, NAMES):
            (bare / name).unlink(missing_ok=True)
    (root / SHARD).write_bytes(whole)


def mutated_tar(data: bytes, draw: random.Random) -> bytes:
    """Anywhere, or in a header, with a checksum that fits or without."""
    if draw.random() < 0.2:
        return mutated(data, draw)
    headers = [at for at in range(0, len(data), BLOCK) if data[at + 257 : at + 262] == b"ustar"]
    at = draw.choice(headers)
    said = bytearray(mutated(data[at : at + BLOCK], draw).ljust(BLOCK, b"\0")[:BLOCK])
    if draw.random() < 0.3:
        said[156:157] = draw.choice([b"1", b"2", b"5", b"L", b"K", b"x", b"g", b"S", b"7", b"\0"])
    if draw.random() < 0.8:
        said[148:156] = b" " * 8
        said[148:156] = b"%06o\0 " % sum(said)
    return data[:at] + bytes(said) + data[at + BLOCK :]
