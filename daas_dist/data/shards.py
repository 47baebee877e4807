"""Pictures in shards on a disk, read where they lie: any of them at any time, by the index.

A set of them is a choice of rows of the index, so a class subset, a split and a limit copy nothing.
"""

import hashlib
import io
import os
import stat
import zlib
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from torch import Generator, Tensor

from daas_dist.data.crops import Crop, Parts
from daas_dist.data.decode import central_square, quiet, reason, resized_part
from daas_dist.data.indexed import ImageSet
from daas_dist.data.manifest import (
    INDEX,
    MANIFEST,
    NAMES,
    DataError,
    Manifest,
    Shard,
    parse_index,
    read_manifest,
)
from daas_dist.data.remote import NotFetched
from daas_dist.data.source import Account
from daas_dist.data.surrogate import choose
from daas_dist.documents.escaping import printable
from daas_dist.rng import WHOLE, Part, stream
from daas_dist.spaces import operations as augment

READ = os.O_RDONLY | os.O_NONBLOCK
"""A pipe that has taken the place of a shard would be waited for."""

MOST_OPEN = 256
"""Shards that a process keeps open; systems allow 1,024 files a process."""

Cut = Callable[[bytearray, int], None]
"""Writes what is cut from an encoded picture to its place in a batch."""


@dataclass(eq=False)
class Reading:
    """What a process knows of the shards that it reads: open files, bad samples."""

    open: OrderedDict[int, int] = field(default_factory=OrderedDict)
    bad: dict[int, str] = field(default_factory=dict)
    """Row -> what is wrong with it, for each bad sample that another has taken the place of."""
    fresh: list[str] = field(default_factory=list)
    """Of bad, what nobody was told yet."""
    process: int = 0

    def close(self) -> None:
        if self.process == os.getpid():
            for descriptor in self.open.values():
                os.close(descriptor)
        self.open.clear()


class ShardFolder:
    """A folder of shards: its manifest, its index, and the bytes of any sample."""

    def __init__(self, root: Path | str, locate: Callable[[str], Path] | None = None) -> None:
        """locate: the path of a shard, from its name, where they are not in the folder itself.

        DataError if manifest, index and the sizes of the shards do not fit together.
        """
        self.root = Path(root)
        self._locate = locate or self.root.joinpath
        self.manifest = read_manifest(self.root)
        try:
            index = (self.root / INDEX).read_bytes()
        except FileNotFoundError:
            raise DataError(f"{self.root} has {MANIFEST} but no {INDEX}; get both") from None
        except OSError as error:
            raise DataError(f"{self.root / INDEX} cannot be read ({error.strerror})") from None
        self.rows = parse_index(index, self.manifest, str(self.root / INDEX))
        counts = (shard.samples for shard in self.manifest.shards)
        self.first = list(accumulate(counts, initial=0))
        """[shards + 1]: the row of each shard's first sample."""
        if locate is None:
            self._check_sizes()

    def _check_sizes(self) -> None:
        for shard in self.manifest.shards:
            wrong = self.wrong_size(shard)
            if wrong:
                raise DataError(f"{wrong}; get it again, or build again, which makes this one anew")

    def wrong_size(self, shard: Shard) -> str:
        """Return what a look at the folder tells of a shard; nothing if all is well."""
        path = self.root / shard.name
        try:
            found = path.stat()
        except FileNotFoundError:
            return f"{path} is missing"
        except OSError as error:
            return f"{path} cannot be read ({error.strerror})"
        if not stat.S_ISREG(found.st_mode):
            return f"{path} is no file"
        if found.st_size != shard.bytes:
            return f"{path} has {found.st_size} bytes, {MANIFEST} expects {shard.bytes}"
        return ""

    def shard_of(self, row: int) -> int:
        return bisect_right(self.first, row) - 1

    def read(self, row: int, reading: Reading) -> bytearray:
        """The bytes of a sample. DataError names it if they are not those that were packed."""
        number = self.shard_of(row)
        offset, size, _, crc = self.rows[row].item()
        data = bytearray(size)  # a decoder takes it as it is, and bytes only copied
        try:
            found = os.preadv(self._descriptor(number, reading), [data], offset)
        except OSError as error:
            raise DataError(f"{self.name(row)} cannot be read ({error})") from None
        if found != size:
            raise DataError(f"{self.name(row)}: the shard ends after {found} of {size} bytes")
        if zlib.crc32(data) != crc:
            raise DataError(f"{self.name(row)}: its bytes have changed since they were packed")
        return data

    def _descriptor(self, number: int, reading: Reading) -> int:
        if reading.process != os.getpid():  # a fork: its parent may close what both have open
            reading.open, reading.process = OrderedDict(), os.getpid()
        descriptor = reading.open.pop(number, None)
        if descriptor is None:
            descriptor = self._open(self.manifest.shards[number].name)
            for other, opened in list(reading.open.items()):
                if os.fstat(opened).st_nlink == 0:  # evicted: the disk has its room back only now
                    os.close(reading.open.pop(other))
            if len(reading.open) >= MOST_OPEN:
                os.close(reading.open.popitem(last=False)[1])
        reading.open[number] = descriptor
        return descriptor

    def _open(self, name: str) -> int:
        for _ in range(3):  # another process may evict it from a cache before it is open
            with suppress(FileNotFoundError):
                return os.open(self._locate(name), READ)
        return os.open(self._locate(name), READ)

    def name(self, row: int) -> str:
        """Shard, sample and what the picture was called, for people."""
        number = self.shard_of(row)
        place = (
            f"{self.root / self.manifest.shards[number].name}: sample {row - self.first[number]}"
        )
        try:
            data = (self.root / NAMES).read_bytes()
        except OSError:
            return place
        if hashlib.sha256(data).hexdigest() != self.manifest.names_sha256:
            return place
        names = data.decode("utf-8", "backslashreplace").split("\n")
        return f"{place} ({names[row]})" if row < len(names) else place


@dataclass(frozen=True, eq=False)
class Shards(ImageSet):
    """Some of the samples of a folder of shards."""

    folder: ShardFolder
    rows: np.ndarray
    """[N] rows of the index."""
    labels: Tensor
    classes: tuple[str, ...]
    size: int
    channels: int
    shorter: int
    """The side to which a picture's shorter side is brought before its centre is cut."""
    max_bad: int = 0
    """How many bad samples of these another of their class may take the place of."""
    reading: Reading = field(default_factory=Reading)
    bad_files: tuple[str, ...] = ()
    bits: int | None = None
    """Of its pictures whose numbers have more than 8; None where there are none such, or where it
    is not known: such a picture is then refused."""
    account: Account = Account()

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.size, self.size

    def take(self, index: Tensor) -> "Shards":
        return replace(self, rows=self.rows[index.numpy()], labels=self.labels[index])

    def training(
        self,
        index: Tensor,
        crop: Crop,
        generator: Generator,
        part: Part = WHOLE,
        into: Tensor | None = None,
    ) -> Tensor:
        if crop.scale is None:
            squares = self.central(part.take(index))
            shifted = augment.crop_flip(squares, crop.padding, crop.flip, generator, part)
            return shifted if into is None else into.copy_(shifted)
        parts = Parts.draw(len(index), crop.scale, crop.flip, generator, part)
        own = part.take(index)
        images = self._memory(len(own), into)
        image_B = images.unbind()

        def cut(data: bytearray, i: int) -> None:
            box_of, mirror = partial(parts.box, i), parts.mirror_B[i]
            resized_part(data, image_B[i], box_of, mirror, bits=self.bits)

        self._read(own, cut)
        return images

    def central(self, index: Tensor, into: Tensor | None = None) -> Tensor:
        images = self._memory(len(index), into)
        array_NCHW = images.numpy()

        def cut(data: bytearray, i: int) -> None:
            array_NCHW[i] = central_square(
                io.BytesIO(data), self.size, self.channels, self.shorter, bits=self.bits
            )

        self._read(index, cut)
        return images

    def _memory(self, count: int, into: Tensor | None) -> Tensor:
        if into is not None:
            return into[:count]
        shape = count, *self.shape
        return torch.empty(shape, dtype=torch.uint8, memory_format=torch.channels_last)

    def digest(self) -> str:
        deep = "" if self.bits is None else f" {self.bits} bits"
        total = hashlib.sha256(f"{self.folder.manifest.digest} {self.shape}{deep}".encode())
        total.update(self.rows.astype("<i8").tobytes())
        total.update(self.labels.numpy().astype("<i8").tobytes())
        return total.hexdigest()

    def file_N(self) -> Tensor:
        return torch.from_numpy(np.searchsorted(self.folder.first, self.rows, side="right") - 1)

    def replaced(self) -> list[str]:
        fresh = [*self.reading.fresh]
        self.reading.fresh.clear()
        return fresh

    # --- One picture after the other -------------------------------------------------------------

    def _read(self, index: Tensor, cut: Cut) -> None:
        """Cut each of these samples; another of its class if it is bad and that is allowed."""
        rows = self.rows[index.numpy()].tolist()
        with quiet():
            for place, row in enumerate(rows):
                wrong = self._try(row, cut, place)
                if wrong:
                    self._replace(int(index[place]), row, wrong, cut, place)

    def _replace(self, image: int, row: int, wrong: str, cut: Cut, place: int) -> None:
        """Replace a bad sample by another of its class. Which one is a function of the sample
        alone, so every rank and every resume takes it."""
        self._allow(row, wrong)
        like = self.rows[(self.labels == self.labels[image]).numpy()]
        for i in torch.randperm(len(like), generator=stream(row, "in its place")).tolist():
            other = int(like[i])
            if other == row:
                continue
            wrong = self._try(other, cut, place)
            if not wrong:
                return
            self._allow(other, wrong)
        raise DataError(
            f"{wrong}; no other sample of class {self.classes[int(self.labels[image])]} can be read"
        )

    def _try(self, row: int, cut: Cut, place: int) -> str:
        """Return what is wrong with a sample; nothing if it was cut."""
        if row in self.reading.bad:  # its name is a look into a long file
            return self.reading.bad[row]
        data = bytearray()
        try:
            data = self.folder.read(row, self.reading)
            cut(data, place)
        except (MemoryError, NotFetched):
            raise
        except DataError as error:
            return str(error)
        # Pillow raises nearly anything on broken files. Nothing is hidden: each one is named.
        except Exception as error:
            return f"{self.folder.name(row)}: {reason(error, data)}"
        return ""

    def _allow(self, row: int, wrong: str) -> None:
        bad = self.reading.bad
        if row not in bad:
            bad[row] = wrong
            self.reading.fresh.append(wrong)
        if len(bad) > self.max_bad:
            others = f" ({len(bad)} bad samples by now)" if len(bad) > 1 else ""
            raise DataError(f"{wrong}{others}; data.max_bad_files allows {self.max_bad}")


def open_shards(
    root: Path | str,
    *,
    classes: str = "all",
    size: int,
    channels: int,
    shorter: int | None = None,
    max_bad: int = 0,
    locate: Callable[[str], Path] | None = None,
) -> Shards:
    """All samples of the chosen classes (surrogate.choose) of a folder of shards."""
    folder = ShardFolder(root, locate)
    chosen = choose(classes, folder.manifest.class_ids)
    new_C = np.full(len(folder.manifest.class_ids), -1)
    new_C[chosen] = np.arange(len(chosen))
    label_N = new_C[folder.rows["label"]]
    rows = (label_N >= 0).nonzero()[0]
    names = tuple(folder.manifest.class_names[i] for i in chosen)
    labels = torch.from_numpy(label_N[rows])
    shards = Shards(folder, rows, labels, names, size, channels, shorter or size, max_bad)
    return replace(shards, bits=folder.manifest.bits, account=_account(folder.manifest))


def _account(manifest: Manifest) -> Account:
    """Return what the makers of the shards left out."""
    lost = manifest.made.get("left_out")
    if not isinstance(lost, dict) or not lost:
        return Account()
    return Account({"left out when the shards were made": tuple(map(printable, lost))})
