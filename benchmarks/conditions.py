"""Shifts of several parts: what happens to pictures between a clean training set and the field.

Each takes uint8 images [N, C, H, W], a generator and a severity from 0 to 1, and returns as many
uint8 images. No shift is one operation of a policy; four of them move, hide or shrink what is to be
seen (MOVES). All draws are an image's own.
"""

import io
import math
from collections.abc import Callable

import numpy as np
import torch
import torchvision.transforms.v2.functional as tv
from PIL import Image
from torch import Generator, Tensor

Shift = Callable[[Tensor, Generator, float], Tensor]
BILINEAR = tv.InterpolationMode.BILINEAR


def phone(images: Tensor, generator: Generator, severity: float) -> Tensor:
    """A hand-held phone indoors: seen from the side, turned, dim, slightly blurred and noisy."""
    images = _perspective(images, generator, 0.1 + 0.3 * severity)
    images = _affine(images, generator, degrees=25 * severity)
    images = _brightness(images, _uniform(generator, len(images), 0.35, 0.7))
    images = _blur(images, _uniform(generator, len(images), 0.3, 0.6 + 0.3 * severity))
    return _noise(images, 0.02 + 0.03 * severity, generator)


def negative(images: Tensor, generator: Generator, severity: float) -> Tensor:
    """A scanned negative: inverted, faded, turned, with a grey base."""
    images = _affine(255 - images, generator, degrees=20 * severity)
    images = _contrast(images, _uniform(generator, len(images), 0.3, 0.6))
    return _pixels(images.float() + 20)


def glare(images: Tensor, generator: Generator, severity: float) -> Tensor:
    """Hard light: too bright, hard contrast, speckle."""
    images = _brightness(images, _uniform(generator, len(images), 1.2, 1.2 + severity))
    images = _contrast(images, _uniform(generator, len(images), 1.2, 1.2 + severity))
    speckle = torch.randn(images.shape, generator=generator) * (0.15 + 0.2 * severity)
    return _pixels(images.float() * (1 + speckle))


def night(images: Tensor, generator: Generator, severity: float) -> Tensor:
    """Night: dark, out of focus, noisy."""
    images = _brightness(images, _uniform(generator, len(images), 0.15, 0.45))
    images = _blur(images, _uniform(generator, len(images), 0.4, 0.5 + 0.6 * severity))
    return _noise(images, 0.03 + 0.05 * severity, generator)


def occluded(images: Tensor, generator: Generator, severity: float) -> Tensor:
    """Something stands in front: a grey square hides a part of it, moved and sheared."""
    images = _affine(images, generator, shift=0.15 * severity, shear=15 * severity)
    count, _, height, width = images.shape
    for n in range(count):
        share = float(_uniform(generator, 1, 0.7, 1)) * (0.3 + 0.2 * severity)
        side = int(min(height, width) * share)
        top = int(torch.randint(0, height - side + 1, (), generator=generator))
        left = int(torch.randint(0, width - side + 1, (), generator=generator))
        grey = int(torch.randint(0, 256, (), generator=generator))
        images[n, :, top : top + side, left : left + side] = grey
    return images


def far(images: Tensor, generator: Generator, severity: float) -> Tensor:
    """Far away, compressed: shrunk, moved, with JPEG's blocks."""
    images = _affine(images, generator, scale=(0.9 - 0.45 * severity, 0.9), shift=0.18 * severity)
    return _jpeg(images, generator, int(30 - 20 * severity), 40)


def side(images: Tensor, generator: Generator, severity: float) -> Tensor:
    """From the side, in half shadow: sheared, in perspective, darker towards one edge."""
    images = _affine(images, generator, shear=20 * severity, scale=(0.8, 1.0))
    images = _perspective(images, generator, 0.1 + 0.4 * severity)
    angle = _uniform(generator, len(images), 0, 2 * math.pi).view(-1, 1, 1)
    y, x = _places(images, math.sqrt(0.5))
    towards = (x * angle.cos() + y * angle.sin() + 1) / 2
    least = 0.5 - 0.3 * severity
    return _pixels(images.float() * (least + (1 - least) * towards).unsqueeze(1))


def fog(images: Tensor, generator: Generator, severity: float) -> Tensor:
    """Fog: little contrast, a bright veil, blur, a little noise."""
    images = _contrast(images, _uniform(generator, len(images), 0.25, 0.5))
    images = _pixels(images.float() + 40 + 60 * severity)
    images = _blur(images, _uniform(generator, len(images), 0.4, 0.6 + 0.6 * severity))
    return _noise(images, 0.02, generator)


def lens(images: Tensor, generator: Generator, severity: float) -> Tensor:
    """A worn lens: dark corners, blur, a little turned and moved."""
    images = _affine(images, generator, degrees=10 * severity, shift=0.08)
    images = _blur(images, _uniform(generator, len(images), 0.5, 0.7 + 0.7 * severity))
    y, x = _places(images, 1.0)
    return _pixels(images.float() * (1 - (0.6 + 0.4 * severity) * (x * x + y * y) / 2))


def nothing(images: Tensor, _: Generator, __: float) -> Tensor:
    """The control: the field is as the training set."""
    return images


SHIFTS: dict[str, Shift] = {
    each.__name__: each
    for each in (phone, negative, glare, night, occluded, far, side, fog, lens, nothing)
}
MOVES = ("phone", "occluded", "far", "side")


# --- Parts ---------------------------------------------------------------------------------------


def _uniform(generator: Generator, count: int, low: float, high: float) -> Tensor:
    return low + (high - low) * torch.rand(count, generator=generator)


def _pixels(values: Tensor) -> Tensor:
    return values.round().clamp(0, 255).byte()


def _places(images: Tensor, end: float) -> tuple[Tensor, Tensor]:
    """Return rows and columns of every pixel, from -end to end. [H, W] each"""
    height, width = images.shape[-2:]
    axes = torch.linspace(-end, end, height), torch.linspace(-end, end, width)
    y, x = torch.meshgrid(*axes, indexing="ij")
    return y, x


def _each(images: Tensor, change: Callable[[Tensor, int], Tensor]) -> Tensor:
    return torch.stack([change(image, n) for n, image in enumerate(images)])


def _brightness(images: Tensor, factor_N: Tensor) -> Tensor:
    return _pixels(images.float() * factor_N.view(-1, 1, 1, 1))


def _contrast(images: Tensor, factor_N: Tensor) -> Tensor:
    values = images.float()
    mean = values.mean((1, 2, 3), keepdim=True)
    return _pixels(mean + (values - mean) * factor_N.view(-1, 1, 1, 1))


def _noise(images: Tensor, deviation: float, generator: Generator) -> Tensor:
    return _pixels(
        images.float() + 255 * deviation * torch.randn(images.shape, generator=generator)
    )


def _blur(images: Tensor, sigma_N: Tensor) -> Tensor:
    """sigma_N: pixels of 28 across; wider images are blurred as much wider."""
    sigma_N = sigma_N * images.shape[-1] / 28
    size = 2 * math.ceil(2 * float(sigma_N.max())) + 1
    return _each(
        images, lambda image, n: tv.gaussian_blur(image, [size, size], [float(sigma_N[n])])
    )


def _affine(
    images: Tensor,
    generator: Generator,
    degrees: float = 0,
    shift: float = 0,
    scale: tuple[float, float] = (1.0, 1.0),
    shear: float = 0,
) -> Tensor:
    """Turn, move (shares of the side), scale and shear (degrees) each by up to as much."""
    count, _, height, width = images.shape
    turned = _uniform(generator, count, -degrees, degrees)
    moved = _uniform(generator, 2 * count, -shift, shift).view(count, 2)
    sized = _uniform(generator, count, *scale)
    sheared = _uniform(generator, 2 * count, -shear, shear).view(count, 2)

    def change(image: Tensor, n: int) -> Tensor:
        place = [float(moved[n, 0] * width), float(moved[n, 1] * height)]
        return tv.affine(
            image, float(turned[n]), place, float(sized[n]), sheared[n].tolist(), BILINEAR
        )

    return _each(images, change)


def _perspective(images: Tensor, generator: Generator, most: float) -> Tensor:
    """Move each corner inwards by up to half of `most` of a side."""
    count, _, height, width = images.shape
    corners = torch.tensor([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]])
    inwards = torch.tensor([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    moved = torch.rand(count, 4, 2, generator=generator) * most / 2
    ends = corners + inwards * moved * torch.tensor([width, height])
    start = corners.tolist()
    return _each(images, lambda image, n: tv.perspective(image, start, ends[n].tolist(), BILINEAR))


def _jpeg(images: Tensor, generator: Generator, worst: int, best: int) -> Tensor:
    quality = torch.randint(worst, best + 1, (len(images),), generator=generator)

    def change(image: Tensor, n: int) -> Tensor:
        file = io.BytesIO()
        grey = len(image) == 1
        tv.to_pil_image(image).save(file, "JPEG", quality=int(quality[n]))
        read = np.asarray(Image.open(file))
        return torch.from_numpy(read.copy()).view(image.shape) if grey else _channels_first(read)

    return _each(images, change)


def _channels_first(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)
