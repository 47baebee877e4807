"""One shard: packed from pictures, and read again member by member."""

import hashlib
import io
import os
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from daas_dist.data.manifest import LARGEST_PICTURE, ROW, DataError, Shard
from daas_dist.runlog import sync_folder

BLOCK = tarfile.BLOCKSIZE

PICTURE_ENDINGS = {
    b"\xff\xd8\xff": "jpg",
    b"\x89PNG\r\n\x1a\n": "png",
    b"GIF8": "gif",
    b"BM": "bmp",
    b"II*\0": "tif",
    b"MM\0*": "tif",
    b"P5": "pgm",
    b"P6": "ppm",
}
"""What a file is called in a shard, by how it begins: ImageNet has a PNG that is called JPEG."""


def ending(data: bytes) -> str | None:
    """The ending that fits these bytes; None if they are no picture that is read."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    return next((name for start, name in PICTURE_ENDINGS.items() if data.startswith(start)), None)


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
    count_C = np.bincount(rows["label"].astype(np.int64))
    histogram = {str(label): int(n) for label, n in enumerate(count_C) if n}
    return Shard(name, size, sha256, len(rows), histogram)


def scan(path: Path) -> tuple[str, np.ndarray, list[str]]:
    """(sha256, rows of ROW, keys) of a shard as its tar headers have it, whoever wrote it.

    DataError names the shard and the sample where a tar is cut or damaged, where a sample has no
    picture or no class, or where two samples are mixed.
    """
    rows: list[tuple[int, int, int, int]] = []
    keys: list[str] = []
    for key, members in _samples(path):
        where = f"{path}: sample {key}"
        pictures = [each for each in members if ending(each[2]) is not None]
        classes = [each for each in members if each[0] == "cls"]
        if len(pictures) != 1 or len(classes) != 1:
            raise DataError(
                f"{where} has {len(pictures)} pictures and {len(classes)} classes (.cls), "
                "expected one of each"
            )
        label = classes[0][2]
        if not (label.isascii() and label.strip().isdigit() and len(label) < 10):
            raise DataError(f"{where} has the class {label[:20]!r}, expected a number")
        data = pictures[0][2]
        rows.append((pictures[0][1], len(data), int(label), zlib.crc32(data)))
        keys.append(key)
    if len(set(keys)) != len(keys):
        raise DataError(f"{path}: a sample is there twice")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), np.array(rows, dtype=ROW), keys


def _samples(path: Path) -> Iterator[tuple[str, list[tuple[str, int, bytes]]]]:
    """(key, [(ending, offset, bytes)]) of each sample: members that follow each other."""
    key, members = "", []
    for name, offset, data in members_of(path):
        own, _, kind = name.rpartition("/")[2].partition(".")
        own = name.rpartition("/")[0] + own
        if members and own != key:
            yield key, members
            members = []
        key = own
        members.append((kind.lower(), offset, data))
    if members:
        yield key, members


def members_of(path: Path) -> Iterator[tuple[str, int, bytes]]:
    """(name, offset, bytes) of a tar's files. DataError where the tar is cut or damaged."""
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            size = os.fstat(file.fileno()).st_size
            for member in tar:
                name = member.name.encode("utf-8", "backslashreplace").decode()
                if not member.isfile():
                    raise DataError(f"{path}: {name} is no plain file")
                if member.size > LARGEST_PICTURE:
                    raise DataError(f"{path}: {name} has {member.size} bytes, too many to read")
                if member.offset_data + member.size > size:
                    raise DataError(f"{path} ends inside {name}: it was cut")
                yield (
                    name,
                    member.offset_data,
                    os.pread(file.fileno(), member.size, member.offset_data),
                )
            # tarfile takes the end of a file, and a broken header, for the end of a tar.
            end = os.pread(file.fileno(), 2 * BLOCK, tar.offset)
            if len(end) < 2 * BLOCK or any(end):
                raise DataError(f"{path} has no end at byte {tar.offset}: it was cut or damaged")
    except (tarfile.TarError, OSError) as error:
        raise DataError(f"{path} is no whole tar file ({error})") from None
