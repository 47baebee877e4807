"""Bytes of a file in whose place anything may stand; reading it never waits.

A pipe without a writer would hold a reader for ever, a device has no end, a folder has no bytes.
"""

import errno
import os
import stat
from pathlib import Path
from typing import IO

MOST = 64 << 20
"""Bytes of a document. The largest that is written, a policy of 100,000 sequences, has 10 MB."""

UNREADABLE = (
    errno.EIO, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENXIO,
    errno.ENAMETOOLONG, errno.EINVAL,
)  # fmt: skip
"""What a disk says of a file that it does not give. Other errors (too many open files, a server
that is away) say nothing of the file."""

NAMES = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class Damaged(ValueError):
    """One sentence: the document (and its line), what is wrong with it, and what to do."""

    def __init__(self, path: Path | str, wrong: str, remedy: str, line: int | None = None) -> None:
        where = "" if line is None else f", line {line}"
        super().__init__(f"{path}{where}: {wrong}; {remedy}")


def read(path: Path, remedy: str, most: int = MOST) -> bytes | None:
    """All bytes of a file, None if nothing is there. Damaged if it is no file, or has too many."""
    file = opened(path, remedy)
    if file is None:
        return None
    with file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise Damaged(path, f"has {size} bytes, expected at most {most}", remedy)
        try:
            return file.read(size)
        except OSError as error:
            raise unreadable(path, error, remedy) from None


def opened(path: Path, remedy: str) -> IO[bytes] | None:
    """A file to be read, None if nothing is there. Damaged if it is no file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        if path.is_symlink():
            raise Damaged(path, "is a link to nowhere, expected a file", remedy) from error
        return None
    except OSError as error:
        raise unreadable(path, error, remedy) from None
    return os.fdopen(_regular(descriptor, path, remedy), "rb")


def opened_to_append(path: Path) -> IO[bytes]:
    """A file at whose end is written, made if nothing is there. Damaged if it is no file."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    remedy = "remove it"
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        raise unreadable(path, error, remedy) from None
    return os.fdopen(_regular(descriptor, path, remedy), "ab")


def _regular(descriptor: int, path: Path, remedy: str) -> int:
    kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
    if kind == stat.S_IFREG:
        return descriptor
    os.close(descriptor)
    raise Damaged(path, f"is {NAMES.get(kind, 'no file')}, expected a file", remedy)


def unreadable(path: Path, error: OSError, remedy: str) -> Exception:
    """The error to raise for what a disk says."""
    if error.errno not in UNREADABLE:
        return error
    if error.errno == errno.ENXIO:
        return Damaged(path, "is a pipe or a socket, expected a file", remedy)
    if error.errno == errno.EISDIR:
        return Damaged(path, "is a folder, expected a file", remedy)
    return Damaged(path, f"cannot be read ({error.strerror})", remedy)


def is_there(path: Path) -> bool:
    """Tell whether anything is in its place, a link to nowhere too."""
    return os.path.lexists(path)
