"""One picture file as pixels: upright, grey or RGB, whatever it was stored as.

A picture whose numbers have more than 8 bits (grey of 16 or 32 bits, colours of 16) says nowhere
how many of them are used: 12 bits of a camera in 16 would come out nearly black. So `bits` is a
property of the whole data set, the fewest that hold its greatest number, and everything that reads
its pictures is told: training, testing, shards and a trained network's preprocess().
"""

import io
import struct
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from daas_dist.data.formats import FORMATS, FULL, READ, ending, unread

MAX_PIXELS = 89_478_485
"""A quarter of a GiB of RGB, Pillow's limit. A larger picture is refused before it is decoded."""

SIZES, EXIF, SCAN = range(0xFFC0, 0xFFC3), 0xFFE1, 0xFFDA
"""JPEG segments: of the size (baseline, extended, progressive), of EXIF or XMP data, and where the
pixels begin."""

ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What stands a picture up, by EXIF's orientation."""

KIND, PHOTOMETRIC, SUB_IFDS, SAMPLE_FORMAT, DNG_VERSION = 254, 262, 330, 339, 50706
"""TIFF tags."""
REDUCED, WHITE_IS_ZERO, SIGNED = 1, 0, 2
"""A value of KIND, of PHOTOMETRIC, of SAMPLE_FORMAT."""

_segment = struct.Struct(">HH").unpack_from
"""Kind and length."""
_height_width = struct.Struct(">HH").unpack_from

_resize_into = torch.ops.aten._upsample_bilinear2d_aa.out
"""What interpolate(mode="bilinear", antialias=True) calls. It alone writes where it is told to, and
saves a copy of each picture."""

BoxOf = Callable[[int, int], tuple[int, int, int, int]]
"""(width, height) of a picture -> (left, top, width, height) of the part that is wanted."""


class UnknownDepth(ValueError):
    """A picture whose numbers have more than 8 bits, where nobody said how many are used."""

    def __init__(self, greatest: int) -> None:
        super().__init__(
            f"its numbers have more than 8 bits (they go up to {greatest}), and how many of them "
            "the whole set uses is not known; `daas shards build` and `index` find out, or save it "
            "with 8 bits"
        )
        self.greatest = greatest


@contextmanager
def opened(file: Path | BinaryIO) -> Generator[Image.Image]:
    """Open a picture without decoding it. ValueError for one that is not read as it should be."""
    with Image.open(file, formats=FORMATS) as picture:
        check(picture)
        yield picture


def check(picture: Image.Image) -> None:
    """ValueError for a picture that is too large, or that Pillow would read as something else."""
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width} x {height} pixels, more than {MAX_PIXELS}")
    tags = getattr(picture, "tag_v2", None)
    if picture.format != "TIFF" or tags is None:
        return
    if DNG_VERSION in tags or (tags.get(KIND, 0) & REDUCED and SUB_IFDS in tags):
        raise ValueError(
            f"a raw camera picture, of which only the preview would be read; expected {READ}"
        )
    if SIGNED in tags.get(SAMPLE_FORMAT, ()) and picture.mode == "L":
        raise ValueError("pixels are signed; save it with 8 or 16 bits without a sign")
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO and picture.mode.startswith("I"):
        raise ValueError("0 is white in it, and it has more than 8 bits; save it with 0 as black")


def several_frames(picture: Image.Image) -> bool:
    """Tell whether it is an animation, or has several pages: only the first is read."""
    # The second picture in a telephone's JPEG is no frame but a depth map or the like.
    if picture.format in ("JPEG", "MPO"):
        return False
    try:
        return bool(getattr(picture, "is_animated", False))
    except Exception:  # Pillow raises nearly anything where what follows is broken, but it is there
        return True


def central_square(
    file: Path | BinaryIO,
    size: int,
    channels: int,
    shorter: int | None = None,
    *,
    bits: int | None = None,
) -> np.ndarray:
    """[C, size, size] uint8: the central square, once the shorter side is `shorter` (size)."""
    with opened(file) as picture:
        return square_of(picture, size, channels, shorter or size, bits=bits)


def square_of(
    picture: Image.Image, size: int, channels: int, shorter: int, *, bits: int | None = None
) -> np.ndarray:
    """central_square of a picture that is open. All of it is decoded, though JPEG could be at an
    eighth of its size, as whoever has the pixels only (preprocess) is to get the same square."""
    upright = upright_of(picture, channels, bits)
    square = _square_box(*upright.size, size, shorter)
    upright = upright.resize((size, size), Image.Resampling.BILINEAR, box=square)
    array = np.asarray(upright)
    return array[None] if channels == 1 else array.transpose(2, 0, 1)


def upright_of(picture: Image.Image, channels: int, bits: int | None) -> Image.Image:
    """Grey (L) or RGB as it is to be seen. UnknownDepth if it has more than 8 bits, bits is None.

    What else EXIF holds is not touched: much of it Pillow reads but cannot write again.
    """
    plain = _to_channels(picture, channels, bits)
    turn = TURNS.get(_orientation(picture))
    return plain if turn is None else plain.transpose(turn)


def _orientation(picture: Image.Image) -> Any:
    """EXIF's, or XMP's; upright where they cannot be read, as viewers have it."""
    try:
        return picture.getexif().get(ORIENTATION, 1)
    except (SyntaxError, ValueError, OSError, struct.error, KeyError, TypeError, IndexError):
        return 1


def resized_part(
    data: bytes | bytearray,
    into_CHW: Tensor,
    box_of: BoxOf,
    mirror: bool,
    *,
    bits: int | None = None,
) -> None:
    """Write a part of an encoded picture into uint8 memory, resized (bilinear with antialias).

    The same as torchvision's resized_crop of the picture as Pillow decodes it.
    """
    channels, *size = into_CHW.shape
    pixels_CHW = _jpeg(data) if channels == 3 and _is_plain_jpeg(data) else None
    if pixels_CHW is None:
        with opened(io.BytesIO(data)) as picture:
            array = np.array(upright_of(picture, channels, bits))
        pixels_CHW = torch.from_numpy(array.reshape(*array.shape[:2], -1)).permute(2, 0, 1)
    left, top, width, height = box_of(pixels_CHW.shape[2], pixels_CHW.shape[1])
    cut_1CHW = pixels_CHW[None, :, top : top + height, left : left + width]
    _resize_into(cut_1CHW, size, False, None, None, out=into_CHW[None])
    if mirror:
        into_CHW.copy_(into_CHW.flip(-1))


def _is_plain_jpeg(data: bytes | bytearray) -> bool:
    """Tell whether it is a JPEG without EXIF data, which may say that it lies on its side, and of a
    size that is not refused. Pillow's own look at the header takes a twentieth of all decoding."""
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
    """Silence what Pillow and torchvision warn of, in this thread's process."""
    with warnings.catch_warnings():
        # The pixels of a picture with odd metadata are still its pixels.
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
        # check refuses what this warns of.
        warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", "The image decoding", DeprecationWarning)
        yield


def reason(error: Exception, data: bytes | bytearray, name: str = "") -> str:
    """Why a picture cannot be decoded; the same words in every process. data: how it begins."""
    if isinstance(error, UnidentifiedImageError):  # its own words are where in memory it lies
        return unread(data, name)
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read ({error.strerror})"
    return f"{type(error).__name__}: {error}"


def shrink(picture: Image.Image, side: int) -> Image.Image:
    """Upright in RGB, its shorter side `side` pixels (bilinear with antialias)."""
    upright = upright_of(picture, 3, None)
    width, height = upright.size
    shorter = min(width, height)
    return upright.resize(
        (max(1, int(side * width / shorter)), max(1, int(side * height / shorter))),
        Image.Resampling.BILINEAR,
    )


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


def _to_channels(picture: Image.Image, channels: int, bits: int | None) -> Image.Image:
    """Any mode to L or RGB. Transparent parts show white, as most viewers show them."""
    mode = "L" if channels == 1 else "RGB"
    deep = _has_deep_colours(picture)
    if not isinstance(picture.info.get("xmp", b""), bytes):
        del picture.info["xmp"]  # a TIFF's that is no text: Pillow would not decode its pixels
    picture.load()
    if picture.mode == "F":
        raise ValueError(
            "pixels are floating-point numbers of unknown range; save it with 8 or 16 bits"
        )
    if picture.mode.startswith("I"):
        picture = _grey_of(picture, bits)
    elif deep and bits != FULL:
        _refuse_colours(picture, bits)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return picture if picture.mode == mode else picture.convert(mode)


def _grey_of(picture: Image.Image, bits: int | None) -> Image.Image:
    """The upper 8 of so many bits. Pillow's own conversion clips at 255 in some versions."""
    values = np.asarray(picture).astype(np.int64)
    least, greatest = int(values.min()), int(values.max())
    if least < 0:
        raise ValueError(
            f"pixels run from {least} to {greatest}, expected 0 or more; save it without a sign"
        )
    if bits is None:
        raise UnknownDepth(greatest)
    if greatest >> bits:
        raise ValueError(f"its numbers go up to {greatest}, those of the data set have {bits} bits")
    return Image.fromarray((values >> (bits - 8)).astype(np.uint8))


class Depth(NamedTuple):
    """Of a picture whose numbers have more than 8 bits."""

    greatest: int
    """1 or more; 0 says that the numbers have 8 bits, as nearly all do."""
    colours: bool
    """Whether it has several numbers a pixel, of which Pillow gives the upper 8 bits."""


PLAIN = Depth(0, False)


def depth_of(data: bytes | bytearray) -> Depth:
    """Look whether an encoded picture has more than 8 bits, and if so, for its greatest number.

    PLAIN for one that cannot be decoded, which is told when it is read.
    """
    kind = ending(data)
    if kind not in ("png", "tif", "pgm") or (kind == "png" and data[24:25] != b"\x10"):
        return PLAIN
    colours = False
    try:
        with quiet(), opened(io.BytesIO(data)) as picture:
            colours = _has_deep_colours(picture)
            if colours or picture.mode.startswith("I"):
                upright_of(picture, 1, None)
    except UnknownDepth as error:
        return Depth(max(1, error.greatest), colours)
    except MemoryError:
        raise
    except Exception:  # Pillow raises nearly anything on broken files
        return PLAIN
    return PLAIN


def _has_deep_colours(picture: Image.Image) -> bool:
    """Tell whether it has colours (or grey and transparency) of 16 bits and is not decoded yet:
    Pillow gives the upper 8 of them only."""
    if picture.mode.startswith(("I", "F")):
        return False
    for tile in getattr(picture, "tile", ()):
        given = tile[3] if len(tile) > 3 else ""
        raw = given[0] if isinstance(given, tuple) and given else given
        if isinstance(raw, str) and ";16" in raw:
            return True
    return False


def _refuse_colours(picture: Image.Image, bits: int | None) -> None:
    bands = [i for i, band in enumerate(picture.getbands()) if band not in "Aa"]
    values = np.asarray(picture)[..., bands]
    if bits is None:
        raise UnknownDepth((int(values.max()) << 8) + 255)
    raise ValueError(
        f"it has 16 bits a colour, but the numbers of the data set have {bits} bits, so of those "
        "that Pillow gives nearly all would be lost; save it with 8 bits a colour"
    )
