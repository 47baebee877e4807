"""Names and counts as they are printed."""

import re
from collections.abc import Sequence
from pathlib import Path

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""Characters that are no text, and all that end a line."""

NAMED = 20
"""In an error, before "and … more"."""


def printable(name: Path | str) -> str:
    """A file name may hold bytes that are no text, a new line or what a terminal obeys; printing it
    must not fail."""
    text = str(name).encode("utf-8", "backslashreplace").decode()
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def name_some(names: Sequence[str], most: int = NAMED) -> str:
    rest = len(names) - most
    return "; ".join(names[:most]) + (f"; and {rest} more" if rest > 0 else "")


def left_out_line(reason_and_names: tuple[str, Sequence[str]]) -> str:
    """Return how many files were left out for one reason, and some of their names."""
    why, names = reason_and_names
    return f"left out: {len(names)} {why} ({name_some(names, 3)})"


def pictures(count: int) -> str:
    return "1 picture" if count == 1 else f"{count} pictures"
