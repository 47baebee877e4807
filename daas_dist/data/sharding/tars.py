"""One shard: packed from pictures, and read again member by member."""

import hashlib
import io
import itertools
import os
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from daas_dist.data.formats import ending
from daas_dist.data.manifest import LARGEST_PICTURE, ROW, DataError, Shard
from daas_dist.documents.escaping import printable
from daas_dist.runs.log import sync_folder

BLOCK = tarfile.BLOCKSIZE

LONGEST_HEADER, LONGEST_PATH = 1 << 16, 1 << 12
"""Of an extended header, and of a path: systems allow no longer one."""

MOST_CLASSES = 1_000_000
"""The full ImageNet has 21,841."""


@dataclass(frozen=True)
class Sample:
    key: str
    """Short and without a dot, as webdataset takes the first dot for the end of the key."""
    label: int
    data: bytes


class _Hashed:
    """A file that knows the sha256 of what was written to it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.sha256, self._at = file, hashlib.sha256(), 0

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        self._at += len(data)
        return self._file.write(data)

    def tell(self) -> int:
        return self._at


def pack(path: Path, samples: Iterable[Sample]) -> tuple[Shard, np.ndarray]:
    """Write a shard, on the disk whole or not at all: what the manifest and the index say of it.

    The bytes depend on the samples alone: no times, no owners.
    """
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    rows: list[tuple[int, int, int, int]] = []
    try:
        with temporary.open("wb") as file:
            hashed = _Hashed(file)
            with tarfile.open(fileobj=hashed, mode="w", format=tarfile.USTAR_FORMAT) as tar:  # type: ignore[arg-type]
                for sample in samples:
                    kind = ending(sample.data)
                    assert kind is not None and "." not in sample.key and len(sample.key) < 90
                    rows.append(
                        (
                            tar.offset + BLOCK,
                            len(sample.data),
                            sample.label,
                            zlib.crc32(sample.data),
                        )
                    )
                    _add(tar, f"{sample.key}.{kind}", sample.data)
                    _add(tar, f"{sample.key}.cls", str(sample.label).encode())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
    array = np.array(rows, dtype=ROW)
    return describe(path.name, hashed.tell(), hashed.sha256.hexdigest(), array), array


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o444
    tar.addfile(info, io.BytesIO(data))


def describe(name: str, size: int, sha256: str, rows: np.ndarray) -> Shard:
    labels, counts = np.unique(rows["label"], return_counts=True)
    histogram = {str(label): n for label, n in zip(labels.tolist(), counts.tolist(), strict=True)}
    return Shard(name, size, sha256, len(rows), histogram)


def scan(path: Path) -> tuple[str, np.ndarray, list[str]]:
    """(sha256, rows of ROW, keys) of a shard as its tar headers have it, whoever wrote it.

    Only pictures and .cls members are read; others, as .json or .pth, are stepped over.
    DataError names the shard and the sample where a tar is cut or damaged, where a sample has no
    picture or no class, or where two samples are mixed.
    """
    rows: list[tuple[int, int, int, int]] = []
    keys: list[str] = []
    try:
        with path.open("rb") as file:
            for key, group in itertools.groupby(members(file, str(path)), _key):
                rows.append(_row(file.fileno(), f"{path}: sample {key}", list(group)))
                keys.append(key)
            file.seek(0)
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); get it again") from None
    for key, times in Counter(keys).most_common(1):
        if times > 1:
            raise DataError(f"{path}: sample {key} is there {times} times, or mixed with another")
    return sha256, np.array(rows, dtype=ROW), keys


def _row(descriptor: int, where: str, sample: list["Member"]) -> tuple[int, int, int, int]:
    """A row of the index, from the members of a sample."""
    pictures: list[Member] = []
    classes: list[bytes] = []
    for member in sample:
        start = os.pread(descriptor, min(member.size, 16), member.offset)
        if member.name.rpartition("/")[2].partition(".")[2].lower() == "cls":
            classes.append(start)
        elif ending(start) is not None:
            pictures.append(member)
    at = sample[0].offset
    if len(pictures) != 1 or len(classes) != 1:
        raise DamagedTar(
            f"{where} has {len(pictures)} pictures and {len(classes)} classes (.cls), "
            "expected one of each",
            at,
        )
    digits = classes[0].strip()
    if not digits.isdigit() or int(digits) >= MOST_CLASSES:
        raise DamagedTar(
            f"{where} has the class {classes[0]!r}, expected a number below {MOST_CLASSES}", at
        )
    offset, size = pictures[0].offset, pictures[0].size
    if size > LARGEST_PICTURE:
        raise DamagedTar(f"{where} has {size} bytes, expected {LARGEST_PICTURE} at most", at)
    return offset, size, int(digits), zlib.crc32(os.pread(descriptor, size, offset))


# --- Headers -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Member:
    """A file in a tar, and where its bytes are."""

    name: str
    offset: int
    size: int


def _key(member: Member) -> str:
    """Return the key of its sample, as webdataset has it: the path up to the first dot of the
    name."""
    folder, slash, name = member.name.rpartition("/")
    return folder + slash + name.partition(".")[0]


FILE = b"0\x007"
"""Types of a plain file."""
FOLDER, ABOUT_ALL, ABOUT_NEXT, LONG_NAME = b"5", b"g", b"x", b"L"


class DamagedTar(DataError):
    """With the byte at which something is wrong."""

    def __init__(self, message: str, at: int = 0) -> None:
        super().__init__(message)
        self.at = at


def members(file: BinaryIO | io.RawIOBase, where: str) -> Iterator[Member]:
    """A tar's files. DamagedTar where it is cut or changed, or holds a link or a device.

    Not by Python's tarfile, which takes a header that it cannot read for the end of the tar, gives
    other bytes for sparse files, and never ends on some sizes (CVE-2025-8194).
    """
    end, at = file.seek(0, os.SEEK_END), 0
    said: dict[str, str] = {}  # of the next member, by a header of its own
    while True:
        file.seek(at)
        header = file.read(BLOCK) or b""
        if not any(header):
            return _check_end(file, at, end, where)
        if len(header) < BLOCK or _number(header[148:156]) != _checksum(header):
            raise DamagedTar(f"{where} is no whole tar file: cut or changed at byte {at}", at)
        kind, name, size = header[156:157], _name(header), _number(header[124:136])
        if kind in FILE:
            name, size = said.get("path", name), int(said["size"]) if "size" in said else size
        if kind == FOLDER or kind == b"\0" and name.endswith("/"):
            kind, size = FOLDER, 0
        if len(name) > LONGEST_PATH:
            raise DamagedTar(f"{where}: a name of {len(name)} characters at byte {at}", at)
        if size is None or at + BLOCK + size > end:
            raise DamagedTar(f"{where} is no whole tar file: cut or changed in {name}", at)
        if kind in FILE:
            yield Member(name, at + BLOCK, size)
        elif kind not in (FOLDER, ABOUT_ALL, ABOUT_NEXT, LONG_NAME):
            raise DamagedTar(f"{where}: {name} is a link, a device or the like, no plain file", at)
        elif kind in (ABOUT_NEXT, LONG_NAME) and size > LONGEST_HEADER:
            raise DamagedTar(f"{where}: an extended header of {size} bytes at byte {at}", at)
        file.seek(at + BLOCK)
        if kind == LONG_NAME:
            said["path"] = _text((file.read(size) or b"").rstrip(b"\0"))
        elif kind == ABOUT_NEXT:
            said |= _said(file.read(size) or b"", where, at)
        elif kind != ABOUT_ALL:
            said = {}
        at += BLOCK + -(-size // BLOCK) * BLOCK


def _check_end(file: BinaryIO | io.RawIOBase, at: int, end: int, where: str) -> None:
    if end - at < 2 * BLOCK:
        raise DamagedTar(f"{where} is no whole tar file: it ends without the blocks of an end", at)
    file.seek(at)
    while data := file.read(1 << 20):
        if any(data):
            raise DamagedTar(f"{where} holds something after the end of the tar at byte {at}", at)


def _checksum(header: bytes) -> int:
    return sum(header) - sum(header[148:156]) + 8 * ord(" ")


def _number(field: bytes) -> int | None:
    """Octal digits or, where they do not suffice, 0x80 and the bytes of the number."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    digits = field.partition(b"\0")[0].strip(b" ")
    return None if digits.strip(b"01234567") else int(digits or b"0", 8)


def _name(header: bytes) -> str:
    name, prefix = header[:100].partition(b"\0")[0], header[345:500].partition(b"\0")[0]
    return _text(prefix + b"/" + name if prefix and header[257:263] == b"ustar\0" else name)


def _text(name: bytes) -> str:
    return printable(name.decode("utf-8", "surrogateescape"))


def _said(data: bytes, where: str, at: int) -> dict[str, str]:
    """Path and size of the next member from an extended header of POSIX: "LENGTH KEY=VALUE\\n" …"""
    said = {}
    while data:
        digits = data[:10].partition(b" ")[0]
        length = int(digits) if digits.isdigit() else 0
        record, data = data[:length], data[length:]
        key, _, value = record[len(digits) + 1 : -1].partition(b"=")
        wrong = len(record) != length or not record.endswith(b"\n")
        wrong |= key == b"size" and not (value.isdigit() and len(value) < 20)
        if wrong or key.startswith(b"GNU.sparse"):
            raise DamagedTar(
                f"{where}: the tar header at byte {at} is damaged, or of no plain file", at
            )
        if key in (b"path", b"size"):
            said[key.decode()] = _text(value)
    return said
