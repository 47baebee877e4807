"""Names and counts as they are printed."""

from collections.abc import Sequence

NAMED = 20
"""In an error, before "and … more"."""


def name_some(names: Sequence[str], most: int = NAMED) -> str:
    rest = len(names) - most
    return "; ".join(names[:most]) + (f"; and {rest} more" if rest > 0 else "")


def left_out_line(reason_and_names: tuple[str, Sequence[str]]) -> str:
    """Return how many files were left out for one reason, and some of their names."""
    why, names = reason_and_names
    return f"left out: {len(names)} {why} ({name_some(names, 3)})"


def pictures(count: int) -> str:
    return "1 picture" if count == 1 else f"{count} pictures"
