"""Small shards, what can be done to them, and tars of every kind, for the tests of damage."""

import hashlib
import io
import json
import signal
import tarfile
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from daas_dist.data.manifest import INDEX, MANIFEST, NAMES, ROW
from daas_dist.data.sharding import build
from daas_dist.data.sharding.tars import BLOCK

CLASSES, TRAIN, VAL, PER_SHARD, COUNT = 4, 6, 2, 7, 24
"""Of conftest.py's shards."""
SHARD, SAMPLE, ROW_OF = "shard-000001.tar", 2, 9
"""The damaged one, and its row of the index."""
LAST = "shard-000003.tar"
RECIPE = build.Recipe("train", per_shard=PER_SHARD)

Members = Sequence[tuple[Any, ...]]
"""(name, bytes) or (name, bytes, what differs in its header)."""


@dataclass(frozen=True)
class Place:
    """Where the damaged sample lies in its shard."""

    header: int
    data: int
    size: int
    cls: int
    """Its class's header."""
    end: int
    """The blocks that end the shard."""
    name: str
    """What its picture was called."""


def place(root: Path) -> Place:
    with tarfile.open(root / SHARD) as tar:
        members = tar.getmembers()
    picture, cls, last = members[2 * SAMPLE], members[2 * SAMPLE + 1], members[-1]
    name = (root / NAMES).read_text().splitlines()[ROW_OF]
    end = last.offset_data + BLOCK
    return Place(picture.offset, picture.offset_data, picture.size, cls.offset, end, name)


def listing(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Everything below a folder, as it was last written."""
    found = {}
    for path in folder.rglob("*"):
        state = path.lstat()
        found[str(path.relative_to(folder))] = state.st_mode, state.st_size, state.st_mtime_ns
    return found


@contextmanager
def ends_within(seconds: float) -> Generator[None]:
    def stop(*_: object) -> None:
        raise AssertionError(f"not done after {seconds} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# --- Manifest and index ---------------------------------------------------------------------------


def sealed(fields: dict[str, Any]) -> str:
    """A manifest.json with the sha256 that fits."""
    said = {key: value for key, value in fields.items() if key != "sha256"}
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
    return json.dumps({**said, "sha256": digest})


def edit(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        fields = json.loads((root / MANIFEST).read_text())
        change(fields)
        (root / MANIFEST).write_text(sealed(fields))

    return damage


def put(*address: str | int, value: object) -> Callable[[Path], None]:
    """Another value at a place of the manifest."""

    def change(fields: Any) -> None:
        for key in address[:-1]:
            fields = fields[key]
        fields[address[-1]] = value

    return edit(change)


def text(change: Callable[[str], str]) -> Callable[[Path], object]:
    return lambda root: (root / MANIFEST).write_text(change((root / MANIFEST).read_text()))


def reindex(change: Callable[[np.ndarray], object]) -> Callable[[Path], None]:
    """Other rows, of which the manifest says that they are right."""

    def damage(root: Path) -> None:
        rows = np.fromfile(root / INDEX, ROW)
        given = change(rows)
        rows = given if isinstance(given, np.ndarray) else rows
        (root / INDEX).write_bytes(rows.tobytes())
        put("index_sha256", value=hashlib.sha256(rows.tobytes()).hexdigest())(root)

    return damage


def replace(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


# --- Pictures and tars ----------------------------------------------------------------------------


def encoded(picture: Image.Image, kind: str, **more: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **more)
    return file.getvalue()


def square() -> Image.Image:
    """24 x 24 pixels, so that nothing is resized where 24 are wanted."""
    return Image.fromarray(np.random.default_rng(4).integers(0, 256, (24, 24, 3), dtype=np.uint8))


def write_tar(path: Path, members: Members, **more: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **more) as tar:
        for name, data, *differing in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for key, value in (differing[0] if differing else {}).items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(data))


JPEG = encoded(square(), "JPEG")


def sample(key: str, label: bytes = b"0") -> list[tuple[Any, ...]]:
    return [(f"{key}.jpg", JPEG), (f"{key}.cls", label)]


ONE, TWO = sample("1"), sample("2", b"1")
END = bytes(10 * BLOCK)
NOT_WHOLE = "is no whole tar file"


def linked(kind: bytes) -> list[tuple[Any, ...]]:
    return [*ONE, ("2.jpg", b"", {"type": kind, "linkname": "/etc/passwd"}), ("2.cls", b"1")]


def header(size: bytes = b"", kind: bytes = b"0", name: bytes = b"1.jpg") -> bytes:
    """Of a tar, with a checksum that fits."""
    said = bytearray(tarfile.TarInfo().tobuf(tarfile.USTAR_FORMAT))
    said[:100] = name.ljust(100, b"\0")
    said[124:136] = size.rjust(12, b"0")
    said[156:157] = kind
    said[148:156] = b" " * 8
    said[148:156] = b"%06o\0 " % sum(said)
    return bytes(said)


def extended(record: bytes) -> bytes:
    """A header of its own about the next member."""
    return header(b"%o" % len(record), tarfile.XHDTYPE) + record.ljust(BLOCK, b"\0")
