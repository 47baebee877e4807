"""Values as Python source. What a file or a person named can hold anything, so it is never pasted
between quotes: repr writes it, and of what cannot be printed its number."""

from collections.abc import Mapping, Sequence
from pprint import pformat
from typing import Any

import numpy as np

WIDTH = 100


def assignment(name: str, value: Any) -> str:
    """ "NAME = value", over several lines if it is long."""
    text = f"{name} = {value!a}"
    if len(text) > WIDTH:
        text = f"{name} = " + pformat(_plain(value), width=WIDTH, sort_dicts=False)
    return text if text.isascii() else f"{name} = {value!a}"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return tuple(map(_plain, value)) if isinstance(value, list | tuple) else value


def number(value: float) -> str:
    """The shortest decimals that give a float32 back."""
    return repr(float(str(np.float32(value))))


def row(parts: Sequence[str]) -> str:
    return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"
