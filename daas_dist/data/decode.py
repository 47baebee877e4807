"""One picture file as a square of pixels: upright, grey or RGB, whatever it was stored as."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""Pillow's names of what is read. Formats that call other programs (EPS) are left out."""

MAX_PIXELS = 89_478_485
"""A quarter of a GiB of RGB, Pillow's limit. A larger picture is refused before it is decoded."""


def decode(path: Path, size: int, channels: int) -> np.ndarray:
    """[C, size, size] uint8: upright, the central square, in grey or RGB."""
    with Image.open(path, formats=FORMATS) as opened:
        width, height = opened.size
        if width * height > MAX_PIXELS:
            raise ValueError(f"{width} x {height} pixels, more than {MAX_PIXELS}")
        # JPEG can be decoded at 1/2, 1/4 or 1/8; twice the size wanted keeps the quality.
        opened.draft(None, (2 * size, 2 * size))
        picture = ImageOps.exif_transpose(opened)
    picture = _to_channels(picture, channels)
    square = _central_square(*picture.size, size)
    picture = picture.resize((size, size), Image.Resampling.BILINEAR, box=square)
    array = np.asarray(picture)
    return array[None] if channels == 1 else array.transpose(2, 0, 1)


def _central_square(width: int, height: int, size: int) -> tuple[float, float, float, float]:
    """The box of the original that becomes the central square once the shorter side is `size`.

    The same pixels as torchvision's Resize(size), CenterCrop(size), whose roundings these are, but
    a strip of 1 x 1,000,000 pixels is not blown up before it is cut.
    """
    shorter = min(width, height)
    scaled_width, scaled_height = int(size * width / shorter), int(size * height / shorter)
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
