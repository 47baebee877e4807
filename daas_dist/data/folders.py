"""Your own pictures: one folder a class, of any size, as squares in memory."""

import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from daas_dist.data.decode import central_square, quiet
from daas_dist.data.images import Images, stratified

NOT_IMAGES = frozenset({"Thumbs.db", "desktop.ini"})
"""What file managers leave behind; ignored, as are hidden files."""

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""Characters that are no text, and all that end a line."""

TEST_SHARE = 0.2
"""Of each class, where there is no folder of test pictures: ours."""

NAMED_IN_ERRORS = 20


def folder(
    root: Path | str,
    val_root: Path | str | None = None,
    *,
    size: int,
    channels: int = 3,
    max_bad_files: int = 0,
    seed: int = 0,
    memory: int | None = None,
) -> tuple[Images, Images]:
    """(train, test): pictures of any size, one folder a class, as squares of `size` pixels.

    The shorter side is resized to `size` (bilinear with antialias), the central square is kept.
    Without val_root, TEST_SHARE of each class becomes the test set, by (seed, file names):
    independent of which files turn out bad. At most `max_bad_files` unreadable files are left out,
    each named in bad_files; more are a ValueError. memory: bytes that may be used (None: half of
    what is free).
    """
    if channels not in (1, 3):
        raise ValueError(f"{channels} channels; set data.channels to 1 (grey) or 3 (RGB)")
    if size < 1:
        raise ValueError(f"pictures of {size} pixels; set data.size to 1 or more")
    classes, files, labels = list_classes(Path(root), "data.root")
    if val_root is None:
        trains = round((1 - TEST_SHARE) * len(labels))
        in_train = stratified(labels, trains, classes, seed, "folder", both=True)
        order = torch.cat([in_train.nonzero().flatten(), (~in_train).nonzero().flatten()])
        files, labels = [files[i] for i in order.tolist()], labels[order]
    else:
        trains = len(files)
        val_classes, val_files, val_labels = list_classes(Path(val_root), "data.val_root")
        if val_classes != classes:
            differing = sorted(set(classes) ^ set(val_classes))
            raise ValueError(
                f"{root} and {val_root} do not hold the same classes: only one of them has "
                f"{_name_some(differing)}; set data.root and data.val_root"
            )
        files, labels = files + val_files, torch.cat([labels, val_labels])
    _check_memory(len(files), channels, size, memory)
    images, reasons = _decode_all(files, size, channels)
    bad = {row: f"{printable(files[row])}: {reasons[row]}" for row in sorted(reasons)}
    if len(bad) > max_bad_files:
        raise ValueError(
            f"{len(bad)} of {len(files)} files could not be read, data.max_bad_files allows "
            f"{max_bad_files}: {_name_some(list(bad.values()))}"
        )
    every = Images(images, labels, classes)
    train = _without_bad(every, range(trains), bad, "train")
    return train, _without_bad(every, range(trains, len(files)), bad, "test")


def _without_bad(every: Images, rows: range, bad: dict[int, str], part: str) -> Images:
    """The rows of one part; a view where nothing is bad."""
    images, labels = every.images[rows.start : rows.stop], every.labels[rows.start : rows.stop]
    named = tuple(bad[row] for row in rows if row in bad)
    if named:
        good = torch.tensor([row not in bad for row in rows])
        images, labels = images[good], labels[good]
    count_C = torch.bincount(labels, minlength=len(every.classes))
    empty = [every.classes[i] for i in (count_C == 0).nonzero().flatten().tolist()]
    if empty:
        raise ValueError(
            f"no readable picture for {part} in {_name_some(empty)}; "
            "add pictures, or set data.root and data.val_root"
        )
    return Images(images, labels, every.classes, named)


def _name_some(names: list[str]) -> str:
    rest = len(names) - NAMED_IN_ERRORS
    return "; ".join(names[:NAMED_IN_ERRORS]) + (f"; and {rest} more" if rest > 0 else "")


def list_classes(root: Path, key: str) -> tuple[tuple[str, ...], list[Path], Tensor]:
    """Class names (sorted), every picture file below them (sorted), and its label [N]."""
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {root}; set {key} to a folder with one folder a class")
    names = sorted(
        entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")
    )
    if len(names) < 2:
        raise ValueError(
            f"{root} holds {len(names)} class folders, expected 2 or more "
            f"(root/cat/1.jpg, root/dog/2.jpg); set {key}"
        )
    files_C = [sorted(_walk(root / name)) for name in names]
    empty = [name for name, files in zip(names, files_C, strict=True) if not files]
    if empty:
        raise ValueError(f"class folders without a file in {root}: {_name_some(empty)}; see {key}")
    labels = torch.repeat_interleave(torch.tensor([len(files) for files in files_C]))
    return tuple(map(printable, names)), [path for files in files_C for path in files], labels


def _walk(top: Path) -> Iterator[Path]:
    """Files below a folder, links followed, each folder once (links may form a ring)."""
    seen: set[str] = set()
    for here, folders, files in os.walk(top, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        wanted = (name for name in files if not name.startswith(".") and name not in NOT_IMAGES)
        yield from (Path(here) / name for name in wanted)


def printable(name: Path | str) -> str:
    """A file name may hold bytes that are no text, a new line or what a terminal obeys; printing it
    must not fail."""
    text = str(name).encode("utf-8", "backslashreplace").decode()
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


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


def _decode_all(files: list[Path], size: int, channels: int) -> tuple[Tensor, dict[int, str]]:
    """(images [N, C, size, size] uint8, why row n could not be read); bad rows are undefined."""
    images = torch.empty(len(files), channels, size, size, dtype=torch.uint8)
    array_NCHW = images.numpy()  # shares the memory; threads fill their own rows
    reasons: dict[int, str] = {}

    def decode_into(row: int) -> None:
        try:
            array_NCHW[row] = central_square(files[row], size, channels)
        except MemoryError:
            raise
        # Pillow raises nearly anything on broken files. Nothing is hidden: each one is named.
        except Exception as error:
            reasons[row] = f"{type(error).__name__}: {error}"

    Image.init()  # loads the plugins here, as two threads that do it at once find some lacking
    # Threads suffice: Pillow decodes and resizes without holding the interpreter's lock.
    with quiet(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        list(pool.map(decode_into, range(len(files))))
    return images, reasons
