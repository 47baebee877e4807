"""Files of one JSON object a line, to which lines are only appended.

A power cut leaves at most a torn last line: its beginning, or zeros where bytes were to be. That is
no damage: readers leave it out, and `mend` takes it away before more is appended. Any other line
that is no object is Damaged, which names it. No function here holds a file in memory.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, Generic, TypeVar

from daas_dist.documents import strict
from daas_dist.documents.files import Damaged, opened

Row = dict[str, Any]
T = TypeVar("T")
Parse = Callable[[Row], T]
"""An object to what it stands for; ValueError says what is wrong with it."""

REMEDY = "repair or remove that line"
LONGEST = 4 << 20
"""Bytes of a line."""
COUNTED = 1 << 32
"""Bytes up to which the lines before a bad one are counted."""
PIECE = 1 << 16
"""Bytes read at once from the end."""
READ = 4 << 20
"""Bytes up to which a file is read whole where only a part of it would do."""
PLACES, RUN = 200, 5
"""Of a longer one: at how many places lines are read, and how many in a row."""


def whole(row: Row) -> Row:
    """Parse nothing: the object itself."""
    return row


def read_rows(path: Path, offset: int = 0) -> tuple[list[Row], int]:
    """The lines from a byte on, and the byte to go on from: before a last line that is not whole
    yet. No file: no rows."""
    return read(path, whole, offset)


def read(path: Path, parse: Parse[T], offset: int = 0) -> tuple[list[T], int]:
    """Read as read_rows does, but what the lines stand for."""
    rows: list[T] = []
    for start, line in _lines(path, offset):
        row = _parsed(path, start, line, parse)
        if row is not None:
            rows.append(row)
            offset = start + len(line)
    return rows, offset


def stream(path: Path, parse: Parse[T]) -> Iterator[T]:
    """One line after the other."""
    for start, line in _lines(path, 0):
        row = _parsed(path, start, line, parse)
        if row is not None:
            yield row


def backward(path: Path, parse: Parse[T], without: Sequence[bytes] = ()) -> Iterator[T]:
    """Read from the last line to the first, of which only those are read that are asked for.
    without: lines that hold any of these bytes are passed over unread."""
    for start, line in _lines_backward(path):
        if any(mark in line for mark in without):
            continue
        row = _parsed(path, start, line, parse)
        if row is not None:
            yield row


def last(path: Path, parse: Parse[T], most: int) -> tuple[list[T], bool]:
    """(the last lines in their order, at most `most` of them; whether these are all)."""
    rows: list[T] = []
    for row in backward(path, parse):
        if len(rows) == most:
            return rows[::-1], False
        rows.append(row)
    return rows[::-1], True


def end(path: Path) -> int:
    """Return where the last whole line of a file ends: the byte to read on from."""
    for start, line in _lines_backward(path):
        if _object(line) is not None:
            return start + len(line)
    return 0


def salvaged(path: Path, parse: Parse[T], most: int) -> tuple[list[T], Damaged | None]:
    """(the last lines that can be read, in their order; what is wrong with one that cannot): for
    who must go on. Damaged only if the file is none."""
    rows: list[T] = []
    wrong: Damaged | None = None
    for start, line in islice(_lines_backward(path), most):
        try:
            row = _parsed(path, start, line, parse)
        except Damaged as error:
            wrong, row = error, None
        if row is not None:
            rows.append(row)
    return rows[::-1], wrong


@dataclass(frozen=True)
class Sample(Generic[T]):
    """Lines of a file, in their order: all, or some spread evenly over it."""

    rows: list[T]
    whole: bool
    lines: int
    """Of the file: counted where they are all here, else estimated."""


def spread(path: Path, parse: Parse[T]) -> Sample[T]:
    """All lines of a file of up to READ bytes; of a larger one RUN lines at each of PLACES, and the
    last ones: so that what is drawn costs the same however much was written."""
    file = opened(path, REMEDY)
    if file is None:
        return Sample([], True, 0)
    with file:
        size = os.fstat(file.fileno()).st_size
        if size <= READ:
            rows = list(stream(path, parse))
            return Sample(rows, True, len(rows))
        taken = [
            each for place in range(PLACES) for each in _run(path, file, size * place // PLACES)
        ]
        taken += list(islice(_lines_backward(path), RUN))
    lines = sorted(dict(taken).items())  # by where they begin, none of them twice
    rows = [_parsed(path, start, line, parse) for start, line in lines]
    mean = sum(len(line) for _, line in lines) / max(1, len(lines))
    return Sample([row for row in rows if row is not None], False, round(size / max(1.0, mean)))


def _run(path: Path, file: IO[bytes], offset: int) -> Iterator[tuple[int, bytes]]:
    """The next RUN whole lines that begin at or after a byte, each with the byte it begins at."""
    file.seek(max(0, offset - 1))
    if offset and len(file.readline(LONGEST)) == LONGEST:  # the line that lies across it
        raise _damaged(path, offset, f"longer than {LONGEST} bytes")
    for _ in range(RUN):
        start = file.tell()
        line = file.readline(LONGEST)
        if not line:
            return
        yield start, line


def count(path: Path, wanted: Callable[[Row], bool], mark: bytes) -> int:
    """Return how many lines are wanted. mark: bytes that each of them has, by which most are passed
    over unread."""
    lines = (line for _, line in _lines(path, 0) if mark in line)
    rows = (_object(line) for line in lines)
    return sum(row is not None and wanted(row) for row in rows)


# --- Writing -------------------------------------------------------------------------------------


def mend(path: Path) -> None:
    """End the last line, or take it away where it is torn, so that the next one starts afresh."""
    for start, line in _lines_backward(path):
        if _object(line) is None:
            _change(path, lambda file: file.truncate(start))  # noqa: B023 (called at once)
        elif not line.endswith(b"\n"):
            _change(path, lambda file: file.write(b"\n"))
        return


def _change(path: Path, change: Callable[[IO[bytes]], object]) -> None:
    with path.open("r+b") as file:
        file.seek(0, os.SEEK_END)
        change(file)
        file.flush()
        os.fsync(file.fileno())


def cut(path: Path, keep: Callable[[Row], bool]) -> None:
    """Drop the lines at the end that are not kept, in one step that a power cut leaves done or not
    done. Up to READ bytes all lines are read, so that a damaged one is told; else the last ones."""
    if path.exists() and path.stat().st_size <= READ:
        for _ in stream(path, keep):
            pass
    size = None
    for start, line in _lines_backward(path):
        if _parsed(path, start, line, keep):
            break
        size = start
    if size is not None:
        where = size
        _change(path, lambda file: file.truncate(where))


# --- Lines ---------------------------------------------------------------------------------------


def _lines(path: Path, offset: int) -> Iterator[tuple[int, bytes]]:
    """(where it begins, the line) of every line that is not blank."""
    file = opened(path, REMEDY)
    if file is None:
        return
    with file:
        file.seek(offset)
        while line := file.readline(LONGEST):
            if len(line) == LONGEST:
                raise _damaged(path, offset, f"longer than {LONGEST} bytes")
            if line.strip():
                yield offset, line
            offset += len(line)


def _lines_backward(path: Path) -> Iterator[tuple[int, bytes]]:
    file = opened(path, REMEDY)
    if file is None:
        return
    with file:
        start = os.fstat(file.fileno()).st_size
        held, end = b"", 0  # held[:end], from the byte `start` on, is still to be given
        while True:
            at = held.rfind(b"\n", 0, max(0, end - 1))
            if at < 0 < start:
                size = min(max(PIECE, end), start)  # doubled, as a long line is held together
                start -= size
                file.seek(start)
                held = file.read(size) + held[:end]
                end = len(held)
                if end > LONGEST:
                    raise _damaged(path, start, f"longer than {LONGEST} bytes")
                continue
            if held[at + 1 : end].strip():
                yield start + at + 1, held[at + 1 : end]
            if at < 0:
                return
            end = at + 1


def _parsed(path: Path, start: int, line: bytes, parse: Parse[T]) -> T | None:
    """None of a torn last line; Damaged, with its number, of another that is no such object."""
    try:
        row = strict.parse(line)
    except ValueError as error:
        if _is_torn(path, start, line):
            return None
        raise _damaged(path, start, f"is not JSON ({error})") from error
    if not isinstance(row, dict):
        if _is_torn(path, start, line):
            return None  # no beginning of an object is one, but a number may be its end
        raise _damaged(path, start, f"is {line[:40]!a}, expected an object")
    try:
        return parse(row)
    except ValueError as error:
        raise _damaged(path, start, str(error)) from error


def _object(line: bytes) -> Row | None:
    try:
        row = strict.parse(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def _is_torn(path: Path, start: int, line: bytes) -> bool:
    """Tell whether a line is the last: none follows it, or none did when it was read."""
    if not line.endswith(b"\n"):
        return True
    with path.open("rb") as file:
        file.seek(start + len(line))
        while piece := file.read(PIECE):
            if piece.strip(b"\0 \t\r\n"):
                return False
    return True


def _damaged(path: Path, start: int, wrong: str) -> Damaged:
    if start > COUNTED:
        return Damaged(path, f"the line at byte {start} {wrong}", REMEDY)
    with path.open("rb") as file:
        number, left = 1, start
        while left > 0 and (piece := file.read(min(1 << 20, left))):
            number, left = number + piece.count(b"\n"), left - len(piece)
    return Damaged(path, wrong, REMEDY, number)
