"""What shards are made of. A source lists its pictures first and gives the bytes of each later.

Whichever source it is, its pictures are sorted by (class, name): the same pictures make the same
shards from a folder and from the archives. Nothing is unpacked, so no name in an archive ever
becomes a path.
"""

import gzip
import hashlib
import io
import os
import re
import tempfile
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from daas_dist.data import Images, list_classes
from daas_dist.data.layout import Keys
from daas_dist.data.manifest import LARGEST_PICTURE, DataError
from daas_dist.data.sharding.tars import members
from daas_dist.data.words import left_out_line
from daas_dist.documents.escaping import printable

TRAIN_ARCHIVE = "ILSVRC2012_img_train.tar"
VAL_ARCHIVE = "ILSVRC2012_img_val.tar"
DEVKIT_ARCHIVE = "ILSVRC2012_devkit_t12.tar.gz"

PUBLISHED_MD5 = {
    TRAIN_ARCHIVE: "1d675b47d978889d74fa0da5fadfb00e",
    VAL_ARCHIVE: "29b22e2961454d5413ddabcf34fc5622",
    DEVKIT_ARCHIVE: "fa75699e90414af021442c21a62c3abf",
}
"""image-net.org's, as torchvision/datasets/imagenet.py has them."""

LARGEST_DEVKIT = 1 << 26
"""Bytes, unpacked. Packed, the published one has 2.5 MB."""

Tell = Callable[[str], None]
"""Told what is being done, as listing and hashing 138 GB take minutes."""


@dataclass(frozen=True)
class Source:
    """Pictures sorted by (class, name), and how to get the bytes of each."""

    class_ids: tuple[str, ...]
    """Sorted."""
    class_names: tuple[str, ...]
    labels: np.ndarray
    """[N] int64, numbers into class_ids."""
    names: tuple[str, ...]
    """Each unique within its class."""
    sizes: np.ndarray
    """[N] int64, bytes."""
    read: Callable[[int], bytes]
    """Called in many processes."""
    made: dict[str, Any] = field(default_factory=dict)
    """What it is and its checksums, for the manifest."""
    bad: dict[str, str] = field(default_factory=dict)
    """Name -> why it cannot be had, of what should have been a picture."""
    remarks: tuple[str, ...] = ()
    """What else was left out, and what is odd."""


def _arrange(
    ids: Sequence[str],
    words: Sequence[str],
    found: list[tuple[str, str, int, Any]],
    read: Callable[[Any], bytes],
    made: dict[str, Any],
) -> Source:
    """A source of (class id, name, size, where), in whatever order they were found."""
    if not found:
        raise DataError(f"no pictures in {made['source']}")
    found.sort(key=lambda each: each[:2])
    for before, after in zip(found, found[1:], strict=False):
        if before[:2] == after[:2]:
            raise DataError(f"{after[0]}/{after[1]} is twice in {made['source']}")
    for class_id, name, size, _ in found:
        if size > LARGEST_PICTURE:
            raise DataError(
                f"{class_id}/{name} has {size} bytes, expected {LARGEST_PICTURE} at most; "
                "take it out of the source"
            )
    number = {class_id: i for i, class_id in enumerate(sorted(ids))}
    word = dict(zip(ids, words, strict=True))
    where = [each[3] for each in found]
    return Source(
        class_ids=tuple(number),
        class_names=tuple(word[class_id] for class_id in number),
        labels=np.array([number[each[0]] for each in found], dtype=np.int64),
        names=tuple(each[1] for each in found),
        sizes=np.array([each[2] for each in found], dtype=np.int64),
        read=lambda i: read(where[i]),
        made=made,
    )


# --- A folder ------------------------------------------------------------------------------------


TRAIN_KEYS, TEST_KEYS = Keys("--folder", "--val-folder"), Keys("--val-folder", None)


def from_folder(
    root: Path | str, keys: Keys = TRAIN_KEYS, counted: Callable[[int], None] = lambda count: None
) -> Source:
    """root/<class>/…/<picture>, as torchvision's ImageFolder; links are followed.

    keys: how the user named the root, for errors. counted: told how many were listed by now.
    """
    root = Path(root)
    listed = list_classes(root, keys, counted)
    found, bad = [], dict(listed.bad)
    for path, label in zip(listed.files, listed.labels.tolist(), strict=True):
        if not os.access(path, os.R_OK, effective_ids=True):
            bad[printable(path)] = "cannot be read (Permission denied)"
            continue
        # list_classes has made the class names printable; the folders are those on the disk.
        inside = printable(Path(*path.relative_to(root).parts[1:]).as_posix())
        found.append((listed.classes[label], inside, path.stat().st_size, path))
    source = _arrange(
        listed.classes,
        listed.classes,
        found,
        lambda path: path.read_bytes(),
        {"source": f"the folder {printable(root)}"},
    )
    left_out = map(left_out_line, listed.left_out.items())
    return replace(source, bad=bad, remarks=(*left_out, *listed.remarks))


# --- The archives of ILSVRC2012 ------------------------------------------------------------------


@dataclass(frozen=True)
class Devkit:
    """What the development kit says: the 1,000 classes, and the classes of the validation set."""

    names: dict[str, str]
    """WordNet id -> words."""
    val_ids: tuple[str, ...]
    """The WordNet id of validation picture i + 1."""


def ilsvrc2012(root: Path | str, part: str, *, check: bool = True, tell: Tell = print) -> Source:
    """Part "train" or "val" of the folder that holds the three archives as they were published.

    check: compare md5 sums with the published ones first.
    """
    root = Path(root)
    archive = root / (TRAIN_ARCHIVE if part == "train" else VAL_ARCHIVE)
    made: dict[str, Any] = {"source": archive.name}
    for path in (root / DEVKIT_ARCHIVE, archive):
        if not path.is_file():
            raise FileNotFoundError(f"no {path}; --ilsvrc2012 takes the folder that holds it")
        if check:
            tell(f"checking the md5 of {path.name}")
            md5 = made[f"md5 of {path.name}"] = _md5(path)
            if md5 != PUBLISHED_MD5[path.name]:
                raise DataError(
                    f"{path} has the md5 {md5}, published is {PUBLISHED_MD5[path.name]}; get it "
                    "again, or give --unchecked for an archive of your own"
                )
    devkit = read_devkit(root / DEVKIT_ARCHIVE)
    tell(f"listing the pictures of {archive.name}")
    listed = _nested(archive) if part == "train" else _flat(archive, devkit)
    found = []
    for class_id, name, offset, size in listed:
        if class_id not in devkit.names:
            raise DataError(f"{archive} holds the class {class_id!r}, {DEVKIT_ARCHIVE} does not")
        found.append((class_id, name, size, (offset, size)))
    words = [devkit.names[class_id] for class_id in devkit.names]
    source = _arrange(list(devkit.names), words, found, _Ranges(archive), made)
    if part == "val" and len(found) != len(devkit.val_ids):
        raise DataError(
            f"{archive} holds {len(found)} pictures, {DEVKIT_ARCHIVE} has the classes of "
            f"{len(devkit.val_ids)}; get both again"
        )
    return source


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


@dataclass(frozen=True)
class _Ranges:
    """(offset, size) of one file -> those bytes."""

    path: Path

    def __call__(self, where: tuple[int, int]) -> bytes:
        offset, size = where
        with self.path.open("rb", buffering=0) as file:
            data = os.pread(file.fileno(), size, offset)
        if len(data) != size:
            raise DataError(f"{self.path} ended at byte {offset + len(data)} while it was read")
        return data


class _Window(io.RawIOBase):
    """Part of a file as a file, so that a tar inside a tar is read in place."""

    def __init__(self, file: BinaryIO, offset: int, size: int) -> None:
        self._file, self._offset, self._size, self._at = file, offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        self._file.seek(self._offset + self._at)
        data = self._file.read(min(len(buffer), max(0, self._size - self._at)))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _nested(archive: Path) -> Iterator[tuple[str, str, int, int]]:
    """(class, name, offset, size) of the pictures in the tars in a tar: n01440764.tar/…"""
    with archive.open("rb") as file:
        for inner in members(file, str(archive)):
            class_id, dot, end = inner.name.rpartition("/")[2].rpartition(".")
            if (dot + end) != ".tar":
                raise DataError(f"{archive} holds {inner.name}, expected one tar file a class")
            window = _Window(file, inner.offset, inner.size)
            for each in members(window, f"{archive}: {inner.name}"):
                yield class_id, each.name.rpartition("/")[2], inner.offset + each.offset, each.size


def _flat(archive: Path, devkit: Devkit) -> Iterator[tuple[str, str, int, int]]:
    """(class, name, offset, size) of the validation pictures, their classes from the devkit."""
    with archive.open("rb") as file:
        for each in members(file, str(archive)):
            name = each.name.rpartition("/")[2]
            numbered = re.fullmatch(r"ILSVRC2012_val_(\d{8})\.JPEG", name)
            if numbered is None or not 0 < int(numbered[1]) <= len(devkit.val_ids):
                raise DataError(
                    f"{archive} holds {each.name}, expected ILSVRC2012_val_00000001.JPEG to "
                    f"{len(devkit.val_ids):08d}, of which {DEVKIT_ARCHIVE} has the classes"
                )
            yield devkit.val_ids[int(numbered[1]) - 1], name, each.offset, each.size


def read_devkit(path: Path) -> Devkit:
    """The classes and the validation set's ground truth, read in place."""
    from scipy.io import loadmat  # meta.mat is MATLAB's; only numbers and text are taken from it

    wanted = ("data/meta.mat", "data/ILSVRC2012_validation_ground_truth.txt")
    read: dict[str, bytes] = {}
    try:
        with gzip.open(path) as file:
            whole = file.read(LARGEST_DEVKIT + 1)
    except (EOFError, zlib.error, OSError) as error:
        raise DataError(f"{path} is damaged ({error}); get it again") from None
    if len(whole) > LARGEST_DEVKIT:
        raise DataError(f"{path} has more than {LARGEST_DEVKIT} bytes; get it again")
    for member in members(io.BytesIO(whole), str(path)):
        for end in wanted:
            if member.name.endswith(end):
                read[end] = whole[member.offset : member.offset + member.size]
    lacking = [end for end in wanted if end not in read]
    if lacking:
        raise DataError(f"{path} holds no {' and no '.join(lacking)}")
    try:
        synsets = loadmat(io.BytesIO(read[wanted[0]]), squeeze_me=True)["synsets"]
        # The first 1,000 are the classes; the others are their hypernyms and have children.
        leaves = [each for each in synsets if int(each["num_children"]) == 0]
        by_number = {int(each["ILSVRC2012_ID"]): str(each["WNID"]) for each in leaves}
        names = {str(each["WNID"]): str(each["words"]) for each in leaves}
        val_ids = tuple(by_number[int(line)] for line in read[wanted[1]].split())
    except MemoryError:
        raise
    except Exception as error:  # scipy raises nearly anything on a broken file
        raise DataError(f"{path} is not as published ({error!r}); get it again") from None
    return Devkit(dict(sorted(names.items())), val_ids)


# --- Arrays and iterables ------------------------------------------------------------------------


def from_images(images: Images, name: str) -> Source:
    """Pictures in memory, each as a PNG. Their class numbers stay as they are."""
    digits = len(str(len(images.classes) - 1))
    ids = [f"{i:0{digits}d}" for i in range(len(images.classes))]

    def png(i: int) -> bytes:
        array = images.images[i].permute(1, 2, 0).squeeze(-1).numpy()
        file = io.BytesIO()
        Image.fromarray(array).save(file, "PNG")
        return file.getvalue()

    # How long a PNG becomes is not known before it is made; its pixels are a bound.
    pixels = images.images[0].numel()
    found = [
        (ids[label], f"{i:08d}.png", pixels, i) for i, label in enumerate(images.labels.tolist())
    ]
    return _arrange(ids, images.classes, found, png, {"source": name})


@contextmanager
def from_iterable(
    samples: Iterable[tuple[str, str, bytes]], spool: Path | str, name: str = "an iterable"
) -> Generator[Source]:
    """Any (class id, name, encoded picture): put aside in a file in the folder `spool`, which is
    gone afterwards, as pictures are written in another order than they come."""
    with tempfile.TemporaryFile(dir=spool) as file:
        found: list[tuple[str, str, int, Any]] = []
        for class_id, picture, data in samples:
            where = file.tell(), len(data)
            found.append((printable(class_id), printable(picture), len(data), where))
            file.write(data)
        file.flush()
        ids = sorted({each[0] for each in found})

        def read(where: tuple[int, int]) -> bytes:
            return os.pread(file.fileno(), where[1], where[0])

        yield _arrange(ids, ids, found, read, {"source": name})
