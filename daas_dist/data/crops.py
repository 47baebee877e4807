"""How a training image is cut, before a policy sees it: a shifted square, or a random part."""

import math
from dataclasses import dataclass

import torch
from torch import Generator

from daas_dist.rng import WHOLE, Part

RATIO = (3 / 4, 4 / 3)
"""Width by height of a random part, as torchvision's RandomResizedCrop has it."""
NARROW, WIDE = (math.log(ratio) for ratio in RATIO)
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
    Lists: to look into a tensor takes ten times as long.

    The same distribution as torchvision's RandomResizedCrop: TRIES of an area and a ratio, the
    first that fits, else the largest central part whose ratio is allowed.
    """

    scale: tuple[float, float]
    draw_BT2: list[list[list[float]]]
    """Uniform in [0, 1): area and log ratio of each try."""
    place_B2: list[list[float]]
    """Uniform in [0, 1): where the part lies in the space that it leaves."""
    mirror_B: list[bool]
    """Whether each is mirrored, which half of them are if any."""

    @staticmethod
    def draw(
        batch: int,
        scale: tuple[float, float],
        flip: bool,
        generator: Generator,
        part: Part = WHOLE,
    ) -> "Parts":
        """Those of this part of a batch."""
        draws = torch.rand((batch, TRIES, 2), generator=generator, dtype=torch.float64)
        places = torch.rand((batch, 2), generator=generator, dtype=torch.float64)
        mirrored = torch.rand(batch, generator=generator) < 0.5
        own = (part.take(each).tolist() for each in (draws, places, mirrored & flip))
        return Parts(scale, *own)

    def box(self, i: int, width: int, height: int) -> tuple[int, int, int, int]:
        """(left, top, width, height) of image i of these."""
        low, high = self.scale
        for share, slope in self.draw_BT2[i]:
            area = (low + (high - low) * share) * width * height
            ratio = math.exp(NARROW + (WIDE - NARROW) * slope)
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                across, down = self.place_B2[i]
                return int(across * (width - w + 1)), int(down * (height - h + 1)), w, h
        w, h = width, height
        if width / height < RATIO[0]:
            h = round(width / RATIO[0])
        elif width / height > RATIO[1]:
            w = round(height * RATIO[1])
        return (width - w) // 2, (height - h) // 2, max(1, w), max(1, h)
