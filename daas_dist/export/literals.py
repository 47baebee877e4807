"""Values as Python source.

What a file or a person named can hold anything, so a text is never pasted between quotes: repr
writes it, with numbers for what does not print.
"""

from collections.abc import Mapping, Sequence

import numpy as np

WIDTH = 100


def assignment(name: str, value: object) -> str:
    """NAME = value; a sequence or mapping that is too long for a line has a line for each part."""
    line = f"{name} = {value!r}"
    if len(line) <= WIDTH or not isinstance(value, tuple | Mapping):
        return line
    opening, closing = "{}" if isinstance(value, Mapping) else "()"
    parts = (
        [f"{key!r}: {each!r}" for key, each in value.items()]
        if isinstance(value, Mapping)
        else [repr(each) for each in value]
    )
    return "\n".join([f"{name} = {opening}", *(f"    {part}," for part in parts), closing])


def number(value: float) -> str:
    """The shortest decimals that give a float32 back."""
    return repr(float(str(np.float32(value))))


def row(parts: Sequence[str]) -> str:
    return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"
