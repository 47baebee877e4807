"""One picture file as pixels: upright, grey or RGB, whatever it was stored as."""

import io
import struct
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""Pillow's names of what is read. Formats that call other programs (EPS) are left out."""

MAX_PIXELS = 89_478_485
"""A quarter of a GiB of RGB, Pillow's limit. A larger picture is refused before it is decoded."""

SIZES, EXIF, SCAN = range(0xFFC0, 0xFFC3), 0xFFE1, 0xFFDA
"""JPEG segments: of the size (baseline, extended, progressive), of EXIF or XMP data, and where the
pixels begin."""

_segment = struct.Struct(">HH").unpack_from
"""Kind and length."""
_height_width = struct.Struct(">HH").unpack_from

_resize_into = torch.ops.aten._upsample_bilinear2d_aa.out
"""What interpolate(mode="bilinear", antialias=True) calls. It alone writes where it is told to, and
saves a copy of each picture."""

BoxOf = Callable[[int, int], tuple[int, int, int, int]]
"""(width, height) of a picture -> (left, top, width, height) of the part that is wanted."""


def central_square(
    file: Path | BinaryIO, size: int, channels: int, shorter: int | None = None
) -> np.ndarray:
    """[C, size, size] uint8: the central square, once the shorter side is `shorter` (size)."""
    shorter = shorter or size
    with Image.open(file, formats=FORMATS) as opened:
        _check_size(opened)
        # JPEG can be decoded at 1/2, 1/4 or 1/8; twice the size wanted keeps the quality.
        opened.draft(None, (2 * shorter, 2 * shorter))
        return square_of(opened, size, channels, shorter)


def square_of(opened: Image.Image, size: int, channels: int, shorter: int) -> np.ndarray:
    """central_square of a picture that is open."""
    picture = _to_channels(ImageOps.exif_transpose(opened), channels)
    square = _square_box(*picture.size, size, shorter)
    picture = picture.resize((size, size), Image.Resampling.BILINEAR, box=square)
    array = np.asarray(picture)
    return array[None] if channels == 1 else array.transpose(2, 0, 1)


def resized_part(data: bytes | bytearray, into_CHW: Tensor, box_of: BoxOf, mirror: bool) -> None:
    """Write a part of an encoded picture into uint8 memory, resized (bilinear with antialias).

    The same as torchvision's resized_crop of the picture as Pillow decodes it.
    """
    channels, *size = into_CHW.shape
    pixels_CHW = _jpeg(data) if channels == 3 and _is_plain_jpeg(data) else None
    if pixels_CHW is None:
        with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            _check_size(opened)
            picture = _to_channels(ImageOps.exif_transpose(opened), channels)
        array = np.array(picture)
        pixels_CHW = torch.from_numpy(array.reshape(*array.shape[:2], -1)).permute(2, 0, 1)
    left, top, width, height = box_of(pixels_CHW.shape[2], pixels_CHW.shape[1])
    cut_1CHW = pixels_CHW[None, :, top : top + height, left : left + width]
    _resize_into(cut_1CHW, size, False, None, None, out=into_CHW[None])
    if mirror:
        into_CHW.copy_(into_CHW.flip(-1))


def _is_plain_jpeg(data: bytes | bytearray) -> bool:
    """Whether it is a JPEG without EXIF data, which may say that it lies on its side, and of a size
    that is not refused. Pillow's own look at the header takes a twentieth of all decoding."""
    at, fits = 2, False
    while len(data) >= at + 10:
        kind, length = _segment(data, at)
        if kind == EXIF or kind < 0xFF00:
            return False
        if kind == SCAN:
            return fits and data.startswith(b"\xff\xd8")
        if kind in SIZES:
            height, width = _height_width(data, at + 5)
            fits = 0 < width * height <= MAX_PIXELS
        at += 2 + length
    return False


def _jpeg(data: bytes | bytearray) -> Tensor | None:
    """[3, H, W]: Pillow's very values in two thirds of its time. None where torchvision, which says
    that it will, no longer decodes, or where it finds fault: Pillow then decodes, or says why not.
    """
    try:
        from torchvision.io import ImageReadMode, decode_jpeg  # takes a second to import
    except ImportError:
        return None
    writable = data if isinstance(data, bytearray) else bytearray(data)
    encoded = torch.frombuffer(writable, dtype=torch.uint8)
    try:
        decoded = decode_jpeg(encoded, ImageReadMode.RGB)
    except RuntimeError:
        return None
    assert isinstance(decoded, Tensor)  # a list for a list
    return decoded


@contextmanager
def quiet() -> Generator[None]:
    """Without what Pillow and torchvision warn of, in this thread's process."""
    with warnings.catch_warnings():
        # The pixels of a picture with odd metadata are still its pixels.
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
        # _check_size refuses what this warns of.
        warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", "The image decoding", DeprecationWarning)
        yield


def reason(error: Exception) -> str:
    """Why a picture in memory cannot be decoded; the same words in every process."""
    if isinstance(error, UnidentifiedImageError):  # its own words are where in memory it lies
        return f"no picture that is read ({', '.join(FORMATS)})"
    return f"{type(error).__name__}: {error}"


def shrink(opened: Image.Image, side: int) -> Image.Image:
    """Upright in RGB, its shorter side `side` pixels (bilinear with antialias)."""
    _check_size(opened)
    picture = _to_channels(ImageOps.exif_transpose(opened), 3)
    width, height = picture.size
    shorter = min(width, height)
    return picture.resize(
        (max(1, int(side * width / shorter)), max(1, int(side * height / shorter))),
        Image.Resampling.BILINEAR,
    )


def _check_size(opened: Image.Image) -> None:
    width, height = opened.size
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width} x {height} pixels, more than {MAX_PIXELS}")


def _square_box(
    width: int, height: int, size: int, shorter: int
) -> tuple[float, float, float, float]:
    """The box of the original that becomes the central square once its shorter side is `shorter`.

    The same pixels as torchvision's Resize(shorter), CenterCrop(size), whose roundings these are,
    but a strip of 1 x 1,000,000 pixels is not blown up before it is cut.
    """
    least = min(width, height)
    scaled_width, scaled_height = int(shorter * width / least), int(shorter * height / least)
    left, top = round((scaled_width - size) / 2), round((scaled_height - size) / 2)
    across, down = width / scaled_width, height / scaled_height
    return left * across, top * down, (left + size) * across, (top + size) * down


def _to_channels(picture: Image.Image, channels: int) -> Image.Image:
    """Any mode to L or RGB. Transparent parts show white, as most viewers show them."""
    mode = "L" if channels == 1 else "RGB"
    if picture.mode == "F":
        raise ValueError("pixels are floating-point numbers of unknown range")
    if picture.mode.startswith("I"):
        # 16-bit grey. Pillow's own conversion clips at 255 in some versions.
        values = np.asarray(picture).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("pixels are integers outside 0 to 65535")
        picture = Image.fromarray((values >> 8).astype(np.uint8))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return picture if picture.mode == mode else picture.convert(mode)
