"""How a training image is cut, before a policy sees it: a shifted square, or a random part."""

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

RATIO = (3 / 4, 4 / 3)
"""Width by height of a random part, as torchvision's RandomResizedCrop has it."""
TRIES = 10


@dataclass(frozen=True)
class Crop:
    """padding and flip: augment.crop_flip's. scale: instead of the shift, a part of so large a
    share of the picture's area, resized (Inception's random resized crop)."""

    padding: int
    flip: bool
    scale: tuple[float, float] | None = None


@dataclass(frozen=True)
class Parts:
    """The draws of a batch of random parts; which pixels they are depends on each picture's size.

    The same distribution as torchvision's RandomResizedCrop: TRIES of an area and a ratio, the
    first that fits, else the largest central part whose ratio is allowed.
    """

    scale: tuple[float, float]
    draw_BT2: Tensor
    """Uniform in [0, 1): area and log ratio of each try."""
    place_B2: Tensor
    """Uniform in [0, 1): where the part lies in the space that it leaves."""
    mirror_B: Tensor
    """Whether each is mirrored, which half of them are if any."""

    @staticmethod
    def draw(batch: int, scale: tuple[float, float], flip: bool, generator: Generator) -> "Parts":
        draws = torch.rand((batch, TRIES, 2), generator=generator, dtype=torch.float64)
        places = torch.rand((batch, 2), generator=generator, dtype=torch.float64)
        mirrored = torch.rand(batch, generator=generator) < 0.5
        return Parts(scale, draws, places, mirrored & flip)

    def mirrored(self, i: int) -> bool:
        return bool(self.mirror_B[i])

    def box(self, i: int, width: int, height: int) -> tuple[int, int, int, int]:
        """(left, top, width, height) of image i of the batch."""
        low, high = self.scale
        narrow, wide = (math.log(ratio) for ratio in RATIO)
        for share, slope in self.draw_BT2[i].tolist():
            area = (low + (high - low) * share) * width * height
            ratio = math.exp(narrow + (wide - narrow) * slope)
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                across, down = self.place_B2[i].tolist()
                return int(across * (width - w + 1)), int(down * (height - h + 1)), w, h
        w, h = width, height
        if width / height < RATIO[0]:
            h = round(width / RATIO[0])
        elif width / height > RATIO[1]:
            w = round(height * RATIO[1])
        return (width - w) // 2, (height - h) // 2, max(1, w), max(1, h)
