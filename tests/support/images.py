"""Real images for the tests: the photograph that matplotlib ships, and Fashion-MNIST."""

import gzip
from functools import cache
from pathlib import Path

import matplotlib.cbook
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

FASHION = Path("/usr/share/datasets/fashion-mnist/t10k-images-idx3-ubyte.gz")
"""Where Debian's package dataset-fashion-mnist has its test images."""


@cache
def _photograph() -> Image.Image:
    path = matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)
    return Image.open(str(path)).convert("RGB")


def photographs(count: int, channels: int, height: int, width: int) -> Tensor:
    """uint8 [count,C,H,W]: crops of one photograph at different places and scales, resized."""
    mode = "RGB" if channels == 3 else "L"
    crops = []
    for k in range(count):
        left, top, side = 37 * k % 200, 61 * k % 250, 120 + 45 * k % 190
        box = (left, top, left + side, top + side)
        crop = _photograph().crop(box).resize((width, height), Image.Resampling.BILINEAR)
        crops.append(from_pil(crop.convert(mode)))
    return torch.stack(crops)


def fashion(count: int, channels: int) -> Tensor:
    """uint8 [count,C,28,28]: garments; with three channels each channel is a different garment."""
    if not FASHION.exists():
        pytest.skip(f"{FASHION} is not there; install dataset-fashion-mnist")
    wanted = count * channels * 28 * 28
    with gzip.open(FASHION) as file:
        pixels = np.frombuffer(file.read(16 + wanted), np.uint8, offset=16)
    return torch.tensor(pixels).view(count, channels, 28, 28)


def to_pil(image: Tensor) -> Image.Image:
    array = image.permute(1, 2, 0).numpy()
    return Image.fromarray(np.ascontiguousarray(array if array.shape[2] == 3 else array[:, :, 0]))


def from_pil(image: Image.Image) -> Tensor:
    array = torch.from_numpy(np.array(image))
    return array.permute(2, 0, 1) if array.ndim == 3 else array[None]
