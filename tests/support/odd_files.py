"""Picture files that Pillow does not write: TIFF, PNG and EXIF put together byte by byte."""

import struct
import zlib
from collections.abc import Sequence

import numpy as np

SHORT, LONG = 3, 4


def tiff(
    array: np.ndarray,
    *,
    bits: int | None = None,
    width: int | None = None,
    sample_format: int = 1,
    photometric: int | None = None,
    extra: Sequence[tuple[int, int, Sequence[int]]] = (),
) -> bytes:
    """[H, W] or [H, W, C], little-endian, uncompressed. extra: (tag, SHORT or LONG, values)."""
    height, across = array.shape[:2]
    samples = 1 if array.ndim == 2 else array.shape[2]
    data = array.astype(array.dtype.newbyteorder("<")).tobytes()
    shown = (1 if samples == 1 else 2) if photometric is None else photometric
    entries = [
        (256, SHORT, [width or across]),
        (257, SHORT, [height]),
        (258, SHORT, [bits or array.dtype.itemsize * 8] * samples),
        (259, SHORT, [1]),
        (262, SHORT, [shown]),
        (273, LONG, [0]),
        (277, SHORT, [samples]),
        (278, SHORT, [height]),
        (279, LONG, [len(data)]),
        (339, SHORT, [sample_format] * samples),
        *extra,
    ]
    entries.sort(key=lambda entry: entry[0])
    after = 8 + 2 + 12 * len(entries) + 4
    more, fields = b"", []
    for tag, kind, values in entries:
        value = struct.pack(f"<{len(values)}{'H' if kind == SHORT else 'I'}", *values)
        if len(value) > 4:
            more, value = more + value, struct.pack("<I", after + len(more))
        fields.append([tag, kind, len(values), value])
    for field in fields:
        if field[0] == 273:
            field[3] = struct.pack("<I", after + len(more))
    body = b"".join(struct.pack("<HHI", *field[:3]) + field[3].ljust(4, b"\0") for field in fields)
    head = b"II*\0" + struct.pack("<IH", 8, len(entries))
    return head + body + struct.pack("<I", 0) + more + data


def chunk(kind: bytes, data: bytes) -> bytes:
    crc = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + crc


def png16(array: np.ndarray) -> bytes:
    """[H, W] or [H, W, 2 to 4] of 16 bits: grey, with alpha, RGB, RGBA."""
    height, width = array.shape[:2]
    colours = {1: 0, 2: 4, 3: 2, 4: 6}[1 if array.ndim == 2 else array.shape[2]]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    header = struct.pack(">2I5B", width, height, 16, colours, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def exif(orientation: int, *odd: tuple[int, int, int, bytes], endian: str = "<") -> bytes:
    """A TIFF header and a directory. odd: (tag, kind, count, four bytes) that stand beside."""
    entries = [(0x0112, SHORT, 1, struct.pack(f"{endian}HH", orientation, 0)), *odd]
    body = b"".join(
        struct.pack(f"{endian}HHI", tag, kind, count) + value for tag, kind, count, value in entries
    )
    start = b"II*\0" if endian == "<" else b"MM\0*"
    return start + struct.pack(f"{endian}IH", 8, len(entries)) + body + bytes(4)


def with_exif(picture: bytes, block: bytes) -> bytes:
    """A JPEG, PNG or (extended) WebP with this EXIF."""
    if picture.startswith(b"\xff\xd8"):
        block = b"Exif\0\0" + block
        segment = b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block
        return picture[:2] + segment + picture[2:]
    if picture.startswith(b"\x89PNG"):
        return picture[:33] + chunk(b"eXIf", block) + picture[33:]
    raise ValueError("neither JPEG nor PNG")
