"""A policy by the operations of timm's auto-augment; copied into timm_policy.py.

timm's own classes choose among sub-policies evenly, so the weights are drawn here.
"""

import math
import random
from collections.abc import Callable
from typing import Any

from PIL import Image
from timm.data.auto_augment import AugmentOp

STRONGEST = 10.0
"""timm's own levels run from 0 to 10."""
SETTINGS = {"img_mean": 0, "interpolation": Image.Resampling.NEAREST, "magnitude_max": 100}
"""Black outside the image and the nearest pixel; timm's own are grey and bilinear or bicubic.
Levels above 10 count too, for what is wider than timm's ranges."""

Stages = tuple[tuple[tuple[float, tuple[tuple[str, float, float], ...]], ...], ...]
"""Of each stage (weight, ((operation, how often it is applied, value), ...)) of each choice."""


Level = Callable[[float], tuple[str, float]]
"""Value -> (timm's name, timm's level)."""


def _share(name: str, largest: float) -> Level:
    return lambda value: (name, value / largest * STRONGEST)


def _factor(name: str) -> Level:
    return lambda value: (name, (value - 0.1) / 1.8 * STRONGEST)


def _posterize(value: float) -> tuple[str, float]:
    """timm truncates a level to a whole number of bits; the half keeps it away from the edge, where
    the last digit of a float decides."""
    bits = int(value)
    name, fewest = ("Posterize", 0) if bits < 4 else ("PosterizeOriginal", 4)
    return name, min((bits - fewest + 0.5) / 4 * STRONGEST, STRONGEST)


LEVELS: dict[str, Level] = {
    "shear_x": _share("ShearX", 0.3),
    "shear_y": _share("ShearY", 0.3),
    "translate_x": _share("TranslateXRel", 0.45),
    "translate_y": _share("TranslateYRel", 0.45),
    "rotate": _share("Rotate", 30.0),
    "auto_contrast": lambda _: ("AutoContrast", 0.0),
    "invert": lambda _: ("Invert", 0.0),
    "equalize": lambda _: ("Equalize", 0.0),
    # As with bits; and a threshold has no level above the highest.
    "solarize": lambda value: ("Solarize", min((math.ceil(value) + 0.5) / 25.6, STRONGEST)),
    "posterize": _posterize,
    "contrast": _factor("Contrast"),
    "color": _factor("Color"),
    "brightness": _factor("Brightness"),
    "sharpness": _factor("Sharpness"),
}
"""By operation; timm has no other ones of ours."""


def operation(name: str, applied: float, value: float) -> AugmentOp:
    """One operation with the probability `applied`; what timm lacks is never applied."""
    if name not in LEVELS:
        return AugmentOp("Invert", prob=0.0, magnitude=0, hparams=SETTINGS)
    timm_name, level = LEVELS[name](value)
    magnitude: Any = level  # annotated as int, but any fraction works
    return AugmentOp(timm_name, prob=applied, magnitude=magnitude, hparams=SETTINGS)


class StagedPolicy:
    """PIL image (L or RGB) to PIL image; draws from Python's random, as timm does."""

    def __init__(self, stages: Stages) -> None:
        self.weights = [[weight for weight, _ in stage] for stage in stages]
        self.choices = [
            [[operation(*step) for step in steps] for _, steps in stage] for stage in stages
        ]

    def __call__(self, image: Image.Image) -> Image.Image:
        for weights, choices in zip(self.weights, self.choices, strict=True):
            (steps,) = random.choices(choices, weights)
            for step in steps:
                image = step(image)
        return image
