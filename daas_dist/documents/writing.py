"""Files that are whole whenever the power goes: written beside, synced, then renamed."""

import json
import math
import os
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


def json_line(record: Mapping[str, Any]) -> str:
    """The object as a line. ValueError names the numbers that are not finite."""
    try:
        return json.dumps(record, allow_nan=False) + "\n"
    except ValueError as error:
        odd = list(_non_finite(record, ""))
        if not odd:
            raise
        raise ValueError(
            f"{', '.join(odd)}: not finite, which JSON cannot hold; stop the run before the "
            "update, or give None where there is no value"
        ) from error


def _non_finite(value: Any, name: str) -> Iterator[str]:
    """The dotted names of the numbers that are NaN or infinite."""
    if isinstance(value, float) and not math.isfinite(value):
        yield f"{name}={value}"
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _non_finite(part, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        for index, part in enumerate(value):
            yield from _non_finite(part, f"{name}[{index}]")


def write_text(path: Path | str, text: str) -> None:
    """Write a text as write_bytes does."""
    write_bytes(path, text.encode())


def write_bytes(path: Path | str, data: bytes) -> None:
    """The file holds the old bytes or the new ones, never a part, whenever the power goes."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp-{uuid.uuid4().hex}")
    try:
        write_synced(temporary, data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_json(path: Path | str, value: Mapping[str, Any]) -> None:
    """Write JSON as write_text does. ValueError on numbers that are not finite."""
    json_line(value)  # its error names the number
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_synced(path: Path, data: bytes) -> None:
    """A new file, on the disk when this returns. FileExistsError if there is one."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """A rename is on the disk only when its folder is."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
