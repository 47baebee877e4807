"""JSON as it is written here, and nothing more: what passes can be shown, compared and written.

Python's own reader takes NaN, keeps the last of two equal keys, gives numbers of any length, and
fails in its own ways where brackets are nested deep.
"""

import json
import math
from typing import Any, NoReturn

DEEPEST = 32
"""Lists and tables inside each other; what is written has 8."""
LARGEST = 2**63 - 1


def parse(data: bytes) -> Any:
    """The value of a JSON text in UTF-8, with or without a byte order mark. ValueError says why
    it is none."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from error
    try:
        value = DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} at character {error.pos + 1}") from error
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    if text.count("[") + text.count("{") > DEEPEST:
        _check_depth(value)
    return value


def _check_depth(value: Any) -> None:
    """Level by level, as a recursion would itself fail."""
    level, depth = [value], 0
    while level:
        if depth > DEEPEST:
            raise ValueError("nested too deep")
        inside: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                inside += each.values()
            elif isinstance(each, list):
                inside += each
        level, depth = inside, depth + 1


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!a:.60} is there twice")
    return table


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text:.20} is too large")
    return number


def _whole(text: str) -> int:
    if len(text) > 20 or abs(int(text)) > LARGEST:
        raise ValueError(f"the number {text:.20}… is too large")
    return int(text)


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


DECODER = json.JSONDecoder(
    object_pairs_hook=_table, parse_float=_number, parse_int=_whole, parse_constant=_constant
)
