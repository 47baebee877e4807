"""The pictures of a folder, one sub-folder a class: every file is taken, or named with the reason.

What systems and programs leave beside pictures is left out and counted (leftovers.py). What may
have been a picture and cannot be had (a link to nowhere, a pipe, a picture in no class) is a bad
file, of which data.max_bad_files are allowed. What may have been many (a folder that may not be
listed, a class that is a link to nowhere) is an error.
"""

import os
import stat
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from daas_dist.data import layout
from daas_dist.data.formats import TO_TELL, ending, is_picture_name
from daas_dist.data.layout import Keys
from daas_dist.data.leftovers import (
    ARCHIVES,
    BESIDE,
    HIDDEN,
    LINKED_TWICE,
    is_archive_name,
    why_left_out,
)
from daas_dist.data.words import name_some, pictures
from daas_dist.documents.escaping import printable

NO_CLASS = "lies in no class folder"
"""Why a picture in the root itself is bad."""

Counted = Callable[[int], None]
"""Told how many pictures were listed by now."""


@dataclass(frozen=True)
class Found:
    """What a folder holds, in a fixed order."""

    root: Path
    classes: tuple[str, ...]
    """The names of the folders, sorted; bytes that are no text are spelt out."""
    files: list[Path]
    """Of one class after the other, sorted."""
    labels: Tensor
    """[N] int64, numbers into classes."""
    bad: dict[str, str]
    """Path -> why it cannot be read, of what should have been a picture."""
    left_out: dict[str, list[str]]
    """Why -> paths of what is none."""
    remarks: tuple[str, ...]


@dataclass
class _Walk:
    """What one look at a root gathers."""

    root: Path
    key: str
    counted: Counted
    above: set[str]
    """The real paths of the root and of all folders above it."""
    bad: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    listed: int = 0

    def leave_out(self, why: str, path: str, note: str = "") -> None:
        self.left_out.setdefault(why, []).append(printable(path) + note)


def list_classes(root: Path, keys: Keys, counted: Counted = lambda count: None) -> Found:
    """List every picture below a root's class folders.

    keys: how the user names the root, for errors. ValueError if it is no folder with two class
    folders or more.
    """
    names = layout.class_folders(root, keys)
    above = {os.path.realpath(each) for each in (root, *Path(os.path.realpath(root)).parents)}
    walk = _Walk(root, keys.root, counted, above)
    _look_beside(walk)
    files_C = [sorted(_pictures(walk, root / name)) for name in names]
    empty = [name for name, files in zip(names, files_C, strict=True) if not files]
    if empty:
        said = name_some(list(map(printable, empty)))
        raise ValueError(
            f"class folders without a file that may be a picture in {printable(root)}: {said}; "
            f"fill them or take them away, or set {keys.root}"
        )
    return Found(
        root=root,
        classes=tuple(map(printable, names)),
        files=[path for files in files_C for path in files],
        labels=torch.repeat_interleave(torch.tensor([len(files) for files in files_C])),
        bad=walk.bad,
        left_out=walk.left_out,
        remarks=(*_alike(names, root), *_nested(names, root, keys)),
    )


def _look_beside(walk: _Walk) -> None:
    """Return what lies in the root beside the class folders. ValueError for a class that cannot be
    had."""
    for entry in _entries(walk.root, walk.key):
        kind = _kind(entry)
        why = why_left_out(entry.name, kind == stat.S_IFDIR)
        if why is not None:
            walk.leave_out(why, entry.path, _held(entry) if why == HIDDEN else "")
        elif kind is None and not is_picture_name(entry.name):
            raise ValueError(
                f"{printable(entry.path)} is {_nowhere(entry)}, so a class may be lost; mount or "
                f"mend what it leads to, or take it out of {walk.key}"
            )
        elif kind != stat.S_IFDIR:
            if kind == stat.S_IFREG and not _may_be_picture(entry):
                walk.leave_out(ARCHIVES if is_archive_name(entry.name) else BESIDE, entry.path)
            else:
                walk.bad[printable(entry.path)] = NO_CLASS


def _may_be_picture(entry: os.DirEntry[str]) -> bool:
    if is_picture_name(entry.name):
        return True
    try:
        with open(entry.path, "rb") as file:
            return ending(file.read(TO_TELL)) is not None
    except OSError:
        return False


def _pictures(walk: _Walk, top: Path) -> Iterator[Path]:
    """Files below a class folder, links followed, each folder once, as links may form a ring."""
    seen, todo = set[str](), [str(top)]
    while todo:
        here = todo.pop()
        real = os.path.realpath(here)
        if real in seen or real in walk.above:
            # From above the root it would bring the pictures of all classes into this one.
            walk.leave_out(LINKED_TWICE, here)
            continue
        seen.add(real)
        for entry in _entries(Path(here), walk.key):
            kind = _kind(entry)
            why = why_left_out(entry.name, kind == stat.S_IFDIR)
            if why is not None:
                walk.leave_out(why, entry.path, _held(entry) if why == HIDDEN else "")
            elif kind == stat.S_IFDIR:
                todo.append(entry.path)
            elif kind == stat.S_IFREG:
                walk.listed += 1
                walk.counted(walk.listed)
                yield Path(entry.path)
            else:
                told = _nowhere(entry) if kind is None else "a pipe, a socket or a device, no file"
                walk.bad[printable(entry.path)] = told


def _entries(folder: Path, key: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise ValueError(
            f"the folder {printable(folder)} cannot be listed ({error.strerror}), so its pictures "
            f"would be lost; make it readable, or take it out of {key}"
        ) from None


def _kind(entry: os.DirEntry[str]) -> int | None:
    """S_IFDIR, S_IFREG or another of stat's, links followed; None for a link to nowhere."""
    try:
        if entry.is_dir():
            return stat.S_IFDIR
        return stat.S_IFREG if entry.is_file() else stat.S_IFMT(entry.stat().st_mode)
    except OSError:
        return None


def _nowhere(entry: os.DirEntry[str]) -> str:
    """Return what is wrong with a link or a file that cannot be looked at."""
    try:
        target = os.readlink(entry.path)
    except OSError:
        return "not to be looked at (permission denied, or gone)"
    return f"a link to {printable(target)}, which is not there or may not be looked at"


def _held(entry: os.DirEntry[str]) -> str:
    """Return how many pictures a hidden folder holds, in words."""
    if not entry.is_dir():
        return ""
    files = (name for _, _, names in os.walk(entry.path) for name in names)
    return f" ({pictures(sum(map(is_picture_name, files)))})"


def _nested(names: list[str], root: Path, keys: Keys) -> Iterator[str]:
    inside = layout.same_inside(root, names)
    if inside:
        yield (
            f"all class folders of {printable(root)} hold the same folders "
            f"({name_some(list(map(printable, inside)), 6)}); if those are the classes, "
            f"{keys.root} is one level too high"
        )


def _alike(names: list[str], root: Path) -> tuple[str, ...]:
    """A remark where class names differ in capitals or in how an accent is written only; ValueError
    where they cannot be told apart."""
    shown: dict[str, str] = {}
    for name in names:
        if printable(name) in shown:
            raise ValueError(f"two class folders of {printable(root)} are both {printable(name)}")
        shown[printable(name)] = name
    by_look: dict[str, list[str]] = {}
    for name in shown:
        by_look.setdefault(unicodedata.normalize("NFKC", name).casefold(), []).append(name)
    return tuple(
        f"the classes {name_some(alike)} of {printable(root)} differ in capitals or in how a "
        "letter is written only; are they one?"
        for alike in by_look.values()
        if len(alike) > 1
    )
