"""Your own pictures: one folder a class, of any size, as squares in memory."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from daas_dist.data import decode, layout
from daas_dist.data.formats import READ, TO_TELL, bits_for
from daas_dist.data.images import Images, too_dark
from daas_dist.data.layout import DATA, DATA_TEST
from daas_dist.data.listing import NO_CLASS, Found, list_classes
from daas_dist.data.source import Account
from daas_dist.data.strata import put_aside
from daas_dist.data.words import name_some, pictures
from daas_dist.documents.escaping import printable
from daas_dist.runs.progress import Report, silent

TOLD = 3
"""Names in a remark."""


def folder(
    root: Path | str,
    val_root: Path | str | None = None,
    *,
    size: int,
    channels: int = 3,
    max_bad_files: int = 0,
    seed: int = 0,
    memory: int | None = None,
    report: Report = silent,
) -> tuple[Images, Images]:
    """(train, test): pictures of any size, one folder a class, as squares of `size` pixels.

    The shorter side is resized to `size` (bilinear with antialias), the central square is kept.
    Without val_root, a fifth of each class becomes the test set, by (seed, file names), independent
    of which files turn out bad; or the root holds two folders, as train and val. At most
    `max_bad_files` unreadable files are left out, each named in bad_files; more are a ValueError.
    memory: bytes that may be used (None: half of what is free). What else was left out, and what is
    odd, is in train.account.
    """
    if channels not in (1, 3):
        raise ValueError(f"{channels} channels; set data.channels to 1 (grey) or 3 (RGB)")
    if size < 1:
        raise ValueError(f"pictures of {size} pixels; set data.size to 1 or more")
    given_test = None if val_root is None else Path(val_root)
    train_root, test_root, said = layout.parts(Path(root), given_test)
    listed = _list(train_root, test_root, seed, report)
    _check_memory(len(listed.files), channels, size, memory)
    read = _decode_all(listed.files, size, channels, report)
    bad = dict(sorted((row, f"{printable(listed.files[row])}: {why}") for row, why in read.reasons))
    named = [*(f"{path}: {why}" for path, why in listed.bad.items()), *bad.values()]
    if len(named) > max_bad_files:
        raise ValueError(
            f"{len(named)} of {len(listed.files) + len(listed.bad)} files could not be read, "
            f"data.max_bad_files allows {max_bad_files}: {name_some(named)}; {_remedy(listed)}"
        )
    every = Images(read.images, listed.labels, listed.classes, bits=read.bits)
    good = torch.ones(len(listed.files), dtype=torch.bool)
    good[list(bad)] = False
    remarks = [*filter(None, [said]), *listed.remarks, *_odd(read, listed, good)]
    account = Account(listed.left_out, tuple(remarks))
    train = _part(every, range(listed.trains), good, bad, "train")
    test = _part(every, range(listed.trains, len(listed.files)), good, bad, "test")
    lost = tuple(f"{path}: {why}" for path, why in listed.bad.items())
    return train.told(account, (*lost, *train.bad_files)), test


def _remedy(listed: "_Listed") -> str:
    said = f"mend them, take them away or turn them into one of {READ}"
    if NO_CLASS in listed.bad.values():
        said += "; if data.root is the folder of one class, set it to the folder of all"
    return said


# --- Which files ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Listed:
    """The files of training, then those of testing."""

    files: list[Path]
    labels: Tensor
    trains: int
    classes: tuple[str, ...]
    bad: dict[str, str]
    left_out: dict[str, tuple[str, ...]]
    remarks: tuple[str, ...]


def _list(root: Path, test_root: Path | None, seed: int, report: Report) -> _Listed:
    found = list_classes(root, DATA, lambda count: report("listing pictures", count, None))
    if test_root is None:
        in_train = put_aside(found.labels, found.classes, seed, "folder", "data.val_root")
        order = torch.cat([in_train.nonzero().flatten(), (~in_train).nonzero().flatten()])
        files, labels = [found.files[i] for i in order.tolist()], found.labels[order]
        return _listed([found], files, labels, int(in_train.sum()))
    tests = list_classes(test_root, DATA_TEST, lambda n: report("listing test pictures", n, None))
    if tests.classes != found.classes:
        differing = sorted(set(found.classes) ^ set(tests.classes))
        raise ValueError(
            f"{printable(root)} and {printable(test_root)} do not hold the same classes: only one "
            f"of them has {name_some(differing)}; set data.root and data.val_root"
        )
    labels = torch.cat([found.labels, tests.labels])
    return _listed([found, tests], found.files + tests.files, labels, len(found.files))


def _listed(roots: Sequence[Found], files: list[Path], labels: Tensor, trains: int) -> _Listed:
    left_out: dict[str, tuple[str, ...]] = {}
    for found in roots:
        for why, names in found.left_out.items():
            left_out[why] = (*left_out.get(why, ()), *names)
    bad = {path: why for found in roots for path, why in found.bad.items()}
    remarks = tuple(dict.fromkeys(remark for found in roots for remark in found.remarks))
    return _Listed(files, labels, trains, roots[0].classes, bad, left_out, remarks)


def _part(every: Images, rows: range, good: Tensor, bad: dict[int, str], part: str) -> Images:
    """The rows of one part; a view where nothing is bad."""
    images, labels = every.images[rows.start : rows.stop], every.labels[rows.start : rows.stop]
    named = tuple(bad[row] for row in rows if row in bad)
    if named:
        kept = good[rows.start : rows.stop]
        images, labels = images[kept], labels[kept]
    count_C = torch.bincount(labels, minlength=len(every.classes))
    empty = [every.classes[i] for i in (count_C == 0).nonzero().flatten().tolist()]
    if empty:
        raise ValueError(
            f"no readable picture for {part} in {name_some(empty)}; "
            "add pictures, or set data.root and data.val_root"
        )
    return Images(images, labels, every.classes, named, every.bits)


def _check_memory(count: int, channels: int, size: int, memory: int | None) -> None:
    needed = count * channels * size * size
    allowed = _free_memory() // 2 if memory is None else memory
    if needed > allowed:
        fitting = int((allowed / (count * channels)) ** 0.5)
        raise ValueError(
            f"{count} pictures of {channels} x {size} x {size} need {needed / 2**30:.2f} GiB of "
            f"memory, {allowed / 2**30:.2f} GiB may be used; set data.size to {fitting} or less"
        )


def _free_memory() -> int:
    """Bytes that this process may still take: of the machine, or of the job's control group."""
    free = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        # Counts the page cache, which gives way.
        lines = dict(
            line.split(":", 1) for line in meminfo.read_text(encoding="utf-8").splitlines()
        )
        free = [int(lines["MemAvailable"].split()[0]) * 1024]
    for used, most in (
        ("memory.current", "memory.max"),
        ("memory/memory.usage_in_bytes", "memory/memory.limit_in_bytes"),
    ):
        group = Path("/sys/fs/cgroup")
        if (group / used).is_file() and (group / most).is_file():
            bound = (group / most).read_text(encoding="utf-8").strip()
            if bound != "max":
                free.append(max(0, int(bound) - int((group / used).read_text(encoding="utf-8"))))
    return min(free)


# --- Their pixels --------------------------------------------------------------------------------


@dataclass
class _Read:
    """The squares, and what was found on the way. Threads write to their own rows."""

    images: Tensor
    """uint8 [N, C, size, size]; bad rows are undefined."""
    why: dict[int, str] = field(default_factory=dict)
    """Row -> why it cannot be read."""
    deep: dict[int, int] = field(default_factory=dict)
    """Row -> the greatest number of a picture of more than 8 bits."""
    frames: set[int] = field(default_factory=set)
    """Rows of animations, and of pictures of several pages."""
    bits: int | None = None

    @property
    def reasons(self) -> list[tuple[int, str]]:
        return sorted(self.why.items())


def _decode_all(files: list[Path], size: int, channels: int, report: Report) -> _Read:
    read = _Read(torch.empty(len(files), channels, size, size, dtype=torch.uint8))
    array_NCHW = read.images.numpy()  # shares the memory; threads fill their own rows

    def decode_into(row: int, bits: int | None) -> None:
        start = b""
        try:
            with files[row].open("rb") as file:
                start = file.read(TO_TELL)
                file.seek(0)
                with decode.opened(file) as picture:
                    array_NCHW[row] = decode.square_of(picture, size, channels, size, bits=bits)
                    if decode.several_frames(picture):
                        read.frames.add(row)
        except decode.UnknownDepth as error:
            read.deep[row] = error.greatest
        except MemoryError:
            raise
        # Pillow raises nearly anything on broken files. Nothing is hidden: each one is named.
        except Exception as error:
            read.why[row] = decode.reason(error, start, files[row].name)

    def run(rows: Sequence[int], bits: int | None, what: str) -> None:
        # Threads suffice: Pillow decodes and resizes without holding the interpreter's lock.
        with decode.quiet(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            for done, _ in enumerate(pool.map(lambda row: decode_into(row, bits), rows), 1):
                report(what, done, len(rows))

    Image.init()  # loads the plugins here, as two threads that do it at once find some lacking
    run(range(len(files)), None, "reading pictures")
    if read.deep:
        read.bits = bits_for(max(read.deep.values()))
        run(sorted(read.deep), read.bits, "reading pictures of more than 8 bits")
    return read


# --- What is odd about them ----------------------------------------------------------------------


def _odd(read: _Read, listed: _Listed, good: Tensor) -> Iterator[str]:
    if read.bits is not None:
        greatest = max(read.deep.values())
        yield (
            f"{pictures(len(read.deep))} with numbers of more than 8 bits: they go up to "
            f"{greatest}, so {read.bits} bits are used and white is {(1 << read.bits) - 1}"
        )
        dim = [row for row, most in sorted(read.deep.items()) if most < 1 << (read.bits - 4)]
        if dim:
            names = [printable(listed.files[row]) for row in dim]
            yield (
                f"{pictures(len(dim))} of these nearly black, as their numbers stay below "
                f"{1 << (read.bits - 4)}; are they of fewer bits? {name_some(names, TOLD)}"
            )
    if read.frames:
        names = [printable(listed.files[row]) for row in sorted(read.frames)]
        said = "animations or of several pages, of which the first frame is read"
        yield f"{pictures(len(names))} {said}: {name_some(names, TOLD)}"
    least_N, most_N = (each(read.images.flatten(1), 1) for each in (torch.amin, torch.amax))
    yield from too_dark(most_N[good])
    # A picture of one colour is like any other of it.
    yield from _twice(read.images, listed, good & (least_N < most_N))


def _twice(images: Tensor, listed: _Listed, among: Tensor) -> Iterator[str]:
    """Remarks on pictures that are in training and in testing, or in two classes: the same pixels
    once they are squares."""
    first: dict[bytes, int] = {}
    leaks: list[str] = []
    torn: list[str] = []
    for row in among.nonzero().flatten().tolist():
        digest = hashlib.blake2b(images[row].numpy().data, digest_size=16).digest()
        other = first.setdefault(digest, row)
        if other == row:
            continue
        pair = f"{printable(listed.files[other])} = {printable(listed.files[row])}"
        if listed.labels[other] != listed.labels[row]:
            torn.append(pair)
        if other < listed.trains <= row:
            leaks.append(pair)
    if leaks:
        yield f"{pictures(len(leaks))} of testing are in training too: {name_some(leaks, TOLD)}"
    if torn:
        yield f"{pictures(len(torn))} are in two classes: {name_some(torn, TOLD)}"
