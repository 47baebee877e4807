"""The image operations of the policies and their magnitudes; the default crop, flip and cutout.

The paper's 15 operations give PIL's own result, bit for bit, but on a batch: `apply` groups the
images by operation, and inside a group each image has its own parameters. Magnitude m of 0..9 is
the level m / 9 between the two ends of a range. The first two sets of ranges are there because the
paper refers to AutoAugment and uses the operations of DADA, the third is ours:

- "autoaugment": strength rises with m. The five geometric operations run over [0, max], and a
  random sign makes ten distinct strengths. Solarize and posterize run downwards: AutoAugment takes
  256 - level and 4 - level (augmentation_transforms.py), torchvision 255 -> 0 and 8 -> 4 too.
- "dada": DADA's search_relax/operation.py. **A trap**: the five geometric operations run over
  [-max, max] *and* have a random sign, so m and 9 - m are the same operation in distribution: five
  strengths, the strongest at both ends. Solarize and posterize weaken as m rises.
- "wide" (not in the paper): as "autoaugment", with cutout to half a side and five operations more
  (wide.py). TrivialAugment's strengths were tried first: a uniform policy trained worse on them.

Axes: N images, C channels (1 or 3), H rows, W columns. Sign: +1 or -1 multiplies the value of the
geometric operations and of no other. Which pixel is read is decided in int64 from float64 values
on the CPU, so that every device reads the same one.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Generator, Tensor
from torchvision.transforms.v2 import functional as tv

from daas_dist.rng import WHOLE, Part
from daas_dist.spaces import wide

MAGNITUDES = 10
RANGES = ("autoaugment", "dada", "wide")
CUTOUT_FILL = (125, 123, 114)
"""DADA's grey, close to the mean of ImageNet; images of one channel get its mean, 121."""

Range = tuple[float, float]
Function = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(uint8 images [N,C,H,W], values [N], centres [N,2]) -> uint8 [N,C,H,W].
Values and centres are float64 on the CPU; the images may be elsewhere."""


# Geometry: nearest neighbour, black outside, as PIL's Image.transform(AFFINE).


def _pick(images: Tensor, column: Tensor, row: Tensor) -> Tensor:
    """out[n,c,i,j] = images[n, c, row[n,i,j], column[n,i,j]], 0 if that is outside the image."""
    n, c, h, w = images.shape
    column, row = column.to(images.device), row.to(images.device)
    inside = (column >= 0) & (column < w) & (row >= 0) & (row < h)
    flat = (row.clamp(0, h - 1) * w + column.clamp(0, w - 1)).expand(n, h, w).reshape(n, 1, h * w)
    picked = images.flatten(2).gather(2, flat.expand(n, c, h * w)).view(n, c, h, w)
    return picked.masked_fill(~inside.expand(n, h, w)[:, None], 0)


def _affine(images: Tensor, matrix_N23: Tensor) -> Tensor:
    """PIL's affine_fixed: (column, row) = matrix (j, i, 1) at pixel centres, in 16.16 integers."""
    h, w = images.shape[2:]
    j = torch.arange(w, device=images.device)
    i = torch.arange(h, device=images.device)[:, None]
    a, b, c = matrix_N23.unbind(2)
    centred = torch.stack((a, b, c + a * 0.5 + b * 0.5))[..., None, None]
    a, b, c = (centred * 65536 + 0.5).floor().long().to(images.device)
    column, row = ((c + a * j + b * i) >> 16).unbind(1)
    return _pick(images, column, row)


def _shear(images: Tensor, value_N: Tensor, axis: int) -> Tensor:
    matrix_N23 = torch.eye(2, 3, dtype=torch.float64).repeat(len(images), 1, 1)
    matrix_N23[:, axis, 1 - axis] = value_N
    return _affine(images, matrix_N23)


def shear_x(images: Tensor, value_N: Tensor, _: Tensor) -> Tensor:
    return _shear(images, value_N, axis=0)


def shear_y(images: Tensor, value_N: Tensor, _: Tensor) -> Tensor:
    return _shear(images, value_N, axis=1)


def rotate(images: Tensor, value_N: Tensor, _: Tensor) -> Tensor:
    """Counter-clockwise about the centre, in degrees, by the matrix of PIL's Image.rotate."""
    x, y = images.shape[3] / 2, images.shape[2] / 2
    angle = -torch.deg2rad(value_N % 360)
    cos, sin = angle.cos().round(decimals=15), angle.sin().round(decimals=15)
    to_x = cos, sin, cos * -x + sin * -y + x
    to_y = -sin, cos, -sin * -x + cos * -y + y
    return _affine(images, torch.stack((*to_x, *to_y), 1).view(-1, 2, 3))


def _walk(offset_N: Tensor, size: int) -> Tensor:
    """[N, size] source indices of a shift. PIL adds 1 again and again to offset + 0.5, in doubles;
    where the offset is a half, the rounding of these steps decides, so they are taken too."""
    steps = torch.ones(len(offset_N), size, dtype=torch.float64)
    steps[:, 0] = offset_N + 0.5
    return steps.cumsum(1).floor().long()


def translate_x(images: Tensor, value_N: Tensor, _: Tensor) -> Tensor:
    h, w = images.shape[2:]
    return _pick(images, _walk(value_N * w, w)[:, None, :], torch.arange(h)[:, None])


def translate_y(images: Tensor, value_N: Tensor, _: Tensor) -> Tensor:
    h, w = images.shape[2:]
    return _pick(images, torch.arange(w), _walk(value_N * h, h)[:, :, None])


def _per_image(value_N: Tensor, images: Tensor) -> Tensor:
    return value_N.to(images.device)[:, None, None, None]


def auto_contrast(images: Tensor, _: Tensor, __: Tensor) -> Tensor:
    """Not torchvision's, whose float32 division truncates some levels to one less than PIL's."""
    low, high = (f(images, dim=(2, 3), keepdim=True).double() for f in (torch.amin, torch.amax))
    # A tensor over a tensor: torch takes 255 / tensor as 255 * reciprocal, which rounds twice.
    scale = torch.full_like(low, 255) / (high - low).clamp(min=1)
    stretched = (images * scale + -low * scale).clamp(0, 255).to(torch.uint8)
    return torch.where(high > low, stretched, images)


def invert(images: Tensor, _: Tensor, __: Tensor) -> Tensor:
    return tv.invert(images)


def equalize(images: Tensor, _: Tensor, __: Tensor) -> Tensor:
    """torchvision's follows PIL's integer arithmetic, batched."""
    return tv.equalize(images)


def solarize(images: Tensor, value_N: Tensor, _: Tensor) -> Tensor:
    """Inverts from the threshold up. An integer is below v if and only if it is below ceil(v)."""
    threshold = _per_image(value_N.ceil().short(), images)
    return torch.where(images < threshold, images, 255 - images)


def posterize(images: Tensor, value_N: Tensor, _: Tensor) -> Tensor:
    """Keeps the first int(value) bits."""
    dropped = 8 - value_N.long()
    return images & _per_image((256 - 2**dropped).to(torch.uint8), images)


# Enhancement: PIL's Image.blend(degenerate, image, factor), in float32 and truncated, as in C.


def _blend(degenerate: Tensor, images: Tensor, factor_N: Tensor) -> Tensor:
    start = degenerate.float()
    mixed = start + _per_image(factor_N.float(), images) * (images.float() - start)
    return mixed.clamp(0, 255).to(torch.uint8)


def _luma(images: Tensor) -> Tensor:
    """[N,1,H,W] by PIL's fixed-point weights, rounded. torchvision's are floats, truncated."""
    if images.shape[1] == 1:
        return images
    r, g, b = images.int().unbind(1)
    return ((19595 * r + 38470 * g + 7471 * b + 0x8000) >> 16)[:, None].to(torch.uint8)


def contrast(images: Tensor, value_N: Tensor, _: Tensor) -> Tensor:
    """The degenerate image is flat: the mean luma, rounded (torchvision's is not)."""
    pixels = images.shape[2] * images.shape[3]
    total = _luma(images).sum(dim=(1, 2, 3), keepdim=True)
    return _blend((2 * total + pixels) // (2 * pixels), images, value_N)


def color(images: Tensor, value_N: Tensor, _: Tensor) -> Tensor:
    """Towards or away from grey. An image of one channel stays as it is."""
    return _blend(_luma(images), images, value_N)


def brightness(images: Tensor, value_N: Tensor, _: Tensor) -> Tensor:
    return _blend(torch.zeros_like(images), images, value_N)


def sharpness(images: Tensor, value_N: Tensor, _: Tensor) -> Tensor:
    """The degenerate image is PIL's SMOOTH: 3x3 ones with a 5 inside, over 13; same border."""
    x = images.int()
    rows = x[:, :, :-2] + x[:, :, 1:-1] + x[:, :, 2:]
    box = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    smooth = x.clone()
    # A sum over 13 is never half way between integers: PIL's floats round as this does.
    smooth[:, :, 1:-1, 1:-1] = (2 * (box + 4 * x[:, :, 1:-1, 1:-1]) + 13) // 26
    return _blend(smooth, images, value_N)


def _square(images: Tensor, first_N2: Tensor, last_N2: Tensor) -> Tensor:
    """[N,1,H,W] bool: the pixels from the first (x, y) to the last, both included."""
    corners = (*first_N2.unbind(1), *last_N2.unbind(1))
    x0, y0, x1, y1 = (_per_image(corner_N, images) for corner_N in corners)
    x = torch.arange(images.shape[3], device=images.device)
    y = torch.arange(images.shape[2], device=images.device)[:, None]
    return (x0 <= x) & (x <= x1) & (y0 <= y) & (y <= y1)


def cutout(images: Tensor, value_N: Tensor, centre_N2: Tensor) -> Tensor:
    """DADA's CutoutAbs: a square of side value * W whose first corner is clamped into the image.
    Both ends are drawn, as ImageDraw.rectangle does. A value of 0 draws nothing."""
    _, c, h, w = images.shape
    side_N1 = value_N[:, None] * w
    first_N2 = (centre_N2 * torch.tensor([w, h]) - side_N1 / 2).clamp(min=0).floor()
    inside = _square(images, first_N2, first_N2 + side_N1) & _per_image(value_N > 0, images)
    fill = CUTOUT_FILL if c == 3 else (round(sum(CUTOUT_FILL) / 3),)
    grey = torch.tensor(fill, dtype=torch.uint8, device=images.device)[:, None, None]
    return torch.where(inside, grey, images)


@dataclass(frozen=True)
class Operation:
    """ranges: by the name of those that have the operation, (value at m = 0, value at m = 9), or
    None where the magnitude has no effect. `unit` writes an absolute value with its unit; `signed`:
    whether the random sign applies."""

    name: str
    ranges: Mapping[str, Range | None]
    unit: Callable[[float], str]
    signed: bool
    function: Function
    source: str

    def value(self, magnitude: int, ranges: str) -> float:
        """The value of a magnitude, before the sign; 0 where the magnitude has no effect."""
        if ranges not in RANGES:
            raise ValueError(f"ranges is {ranges!r}, expected one of {RANGES}; set policy.ranges")
        if ranges not in self.ranges:
            having = " or ".join(self.ranges)
            raise ValueError(f"{self.name} has no ranges {ranges!r}; set policy.ranges to {having}")
        if magnitude not in range(MAGNITUDES):
            raise ValueError(f"magnitude is {magnitude!r}, expected 0 to {MAGNITUDES - 1}")
        low, high = self.ranges[ranges] or (0.0, 0.0)
        return magnitude / (MAGNITUDES - 1) * (high - low) + low


def _mirrored(largest: float) -> Mapping[str, Range | None]:
    return {"autoaugment": (0.0, largest), "dada": (-largest, largest), "wide": (0.0, largest)}


def _turned(weakest: float, strongest: float) -> Mapping[str, Range | None]:
    up = weakest, strongest
    return {"autoaugment": up, "dada": (strongest, weakest), "wide": up}


def _rising(low: float, high: float, widest: Range | None = None) -> Mapping[str, Range | None]:
    return {"autoaugment": (low, high), "dada": (low, high), "wide": widest or (low, high)}


def _ours(strongest: float) -> Mapping[str, Range | None]:
    return {"wide": (0.0, strongest)}


_AA = "AutoAugment, Table 6"
_SHARE = f"{_AA} (150 of 331 pixels); a share in DADA"
_RISES = f"{_AA}; direction of augmentation_transforms.py"
_CUTOUT = "DADA (AutoAugment: 60 of 331 pixels)"
_OURS = "ours"

_factor, _threshold = "×{:.1f}".format, "from {:.0f} up".format
_width, _height = "±{:.0%} of the width".format, "±{:.0%} of the height".format
_bits, _side = (lambda v: f"to {int(v)} bits"), "{:.0%} of the width".format
_zoom, _pixels = (
    (lambda v: f"×{1 / (1 + v):.2f} or ×{1 / (1 - v / 4):.2f}"),
    (lambda v: f"to {1 - v:.0%} of the pixels a side"),
)
_blurred, _levels = (lambda v: f"by {math.sqrt(v):.1%} of the width"), "by {:.0f} levels".format

_shift, _shears, _turn = _mirrored(0.45), _mirrored(0.3), _mirrored(30.0)
_enhanced = _rising(0.1, 1.9)
_always: Mapping[str, Range | None] = dict.fromkeys(RANGES)

TABLE = (
    Operation("shear_x", _shears, "±{:.2f}".format, True, shear_x, _AA),
    Operation("shear_y", _shears, "±{:.2f}".format, True, shear_y, _AA),
    Operation("translate_x", _shift, _width, True, translate_x, _SHARE),
    Operation("translate_y", _shift, _height, True, translate_y, _SHARE),
    Operation("rotate", _turn, "±{:.1f}°".format, True, rotate, _AA),
    Operation("auto_contrast", _always, str, False, auto_contrast, _AA),
    Operation("invert", _always, str, False, invert, _AA),
    Operation("equalize", _always, str, False, equalize, _AA),
    Operation("solarize", _turned(256.0, 0.0), _threshold, False, solarize, _RISES),
    Operation("posterize", _turned(8.0, 4.0), _bits, False, posterize, _RISES),
    Operation("contrast", _enhanced, _factor, False, contrast, _AA),
    Operation("color", _enhanced, _factor, False, color, _AA),
    Operation("brightness", _enhanced, _factor, False, brightness, _AA),
    Operation("sharpness", _enhanced, _factor, False, sharpness, _AA),
    Operation("cutout", _rising(0.0, 0.2, (0.0, 0.5)), _side, False, cutout, _CUTOUT),
    Operation("scale", _ours(1.0), _zoom, True, wide.scale, _OURS),
    Operation("blur", _ours(0.05**2), _blurred, False, wide.blur, _OURS),
    Operation("noise", _ours(36.0), _levels, False, wide.noise, _OURS),
    Operation("perspective", _ours(0.4), "{:.2f}".format, False, wide.perspective, _OURS),
    Operation("pixelate", _ours(0.7), _pixels, False, wide.pixelate, _OURS),
)
"""Ours are last: what has no operation of ours has the table's first."""
NAMES = tuple(operation.name for operation in TABLE)


def names(ranges: str) -> tuple[str, ...]:
    """Return the operations that these ranges have, in the table's order."""
    return tuple(operation.name for operation in TABLE if ranges in operation.ranges)


@cache
def _values(ranges: str) -> Tensor:
    """[O, 10] float64: every operation of these ranges at every magnitude."""
    if ranges not in RANGES:
        raise ValueError(f"ranges is {ranges!r}, expected one of {RANGES}; set policy.ranges")
    having = TABLE[: len(names(ranges))]
    rows = [[operation.value(m, ranges) for m in range(MAGNITUDES)] for operation in having]
    return torch.tensor(rows, dtype=torch.float64)


def describe(operation: str, magnitude: int, ranges: str) -> str:
    """Write an operation for a person: "rotate ±16.7°", "posterize to 6 bits", "invert"."""
    if operation not in NAMES:
        raise ValueError(f"operation is {operation!r}, expected one of {', '.join(NAMES)}")
    row = TABLE[NAMES.index(operation)]
    value, words = row.value(magnitude, ranges), operation.replace("_", " ")
    return f"{words} {row.unit(abs(value))}" if row.ranges[ranges] else words


def apply(
    images: Tensor,
    operation_N: Tensor,
    magnitude_N: Tensor,
    sign_N: Tensor,
    centre_N2: Tensor,
    ranges: str,
) -> Tensor:
    """A new batch: image n after TABLE[operation_N[n]] at magnitude_N[n]; -1 leaves it as it is.

    images: uint8 [N,C,H,W] on any device. Magnitudes: 0 to 9. Signs: +1 or -1. Centres: (x, y) in
    [0, 1), shares of (W, H), of cutout; perspective and noise take them as draws of the image's
    own. Raises ValueError where one of these does not hold.
    """
    _check_images(images)
    # On the CPU whatever device the images are on: see the module docstring.
    draws = operation_N, magnitude_N, sign_N, centre_N2
    operation_N, magnitude_N, sign_N, centre_N2 = (draw.cpu() for draw in draws)
    n = len(images)
    values_OM = _values(ranges)
    _check_draws("operation", operation_N, (n,), -1, len(values_OM) - 1)
    _check_draws("magnitude", magnitude_N, (n,), 0, MAGNITUDES - 1)
    _check_draws("sign", sign_N.abs(), (n,), 1, 1)
    _check_draws("centre", centre_N2, (n, 2), 0, 1)
    signed = torch.tensor([operation.signed for operation in TABLE])[operation_N]
    value_N = values_OM[operation_N, magnitude_N] * torch.where(signed, sign_N, 1)
    result = images.clone()
    for number, operation in enumerate(TABLE):
        chosen = (operation_N == number).nonzero()[:, 0]
        if len(chosen):
            there, centre = chosen.to(images.device), centre_N2[chosen].double()
            result[there] = operation.function(images[there], value_N[chosen], centre)
    return result


def _check_images(images: Tensor) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
        found = f"{images.dtype} {list(images.shape)}"
        raise ValueError(f"images are {found}, expected uint8 [N, 1 or 3, H, W]")


def _check_draws(what: str, draws: Tensor, shape: tuple[int, ...], low: int, high: int) -> None:
    if draws.shape != shape:
        raise ValueError(f"{what} has shape {list(draws.shape)}, expected {list(shape)}")
    if not ((draws >= low) & (draws <= high)).all():
        raise ValueError(f"{what} is outside {low} to {high}: {draws.min()} to {draws.max()}")


def crop_flip(
    images: Tensor, padding: int, flip: bool, generator: Generator, part: Part = WHOLE
) -> Tensor:
    """Zero padding, a random crop back to [N,C,H,W], and, if `flip`, half of them mirrored.
    The draws are each image's own, from a CPU generator wherever the images are."""
    n, _, h, w = images.shape
    batch = n * part.of
    shift_N2 = part.take(torch.randint(-padding, padding + 1, (batch, 2), generator=generator))
    column = torch.arange(w).expand(n, w)
    if flip:
        flipped_N = part.take(torch.rand(batch, generator=generator) < 0.5)
        column = torch.where(flipped_N[:, None], w - 1 - column, column)
    column = column + shift_N2[:, :1]
    row = torch.arange(h) + shift_N2[:, 1:]
    return _pick(images, column[:, None, :], row[:, :, None])


def cutout_square(images: Tensor, size: int, generator: Generator, part: Part = WHOLE) -> Tensor:
    """A new [N,C,H,W], in each image a square of `size` pixels a side zeroed, after normalising.
    The centre is any pixel, so the border may cut the square (DARTS utils.py:62-73)."""
    n, _, h, w = images.shape
    centre = (torch.randint(side, (n * part.of,), generator=generator) for side in (w, h))
    first_N2 = part.take(torch.stack(tuple(centre), 1)) - size // 2
    return images.masked_fill(_square(images, first_N2, first_N2 + size - 1), 0)


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """uint8 [N,C,H,W] -> float32 (image / 255 - mean) / std, with a mean and a std a channel."""
    _check_images(images)
    if not len(mean) == len(std) == images.shape[1]:
        counts = f"{len(mean)} means and {len(std)} stds for {images.shape[1]} channels"
        raise ValueError(f"{counts}; set data.mean and data.std")
    return tv.normalize(images.float() / 255, list(mean), list(std))
