"""A policy by the transforms of albumentations 2.0; copied into albumentations_policy.py.

Images are numpy arrays, [H, W, 3] or [H, W] uint8. OneOf draws its parts by their p and passes over
the p of a single transform, so a probability of application is always that of a Sequential.
"""

import math
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import albumentations as A
import cv2
import numpy as np

Fill = float | tuple[float, float, float]
"""What cutout paints: a number for images of one channel."""

Stages = tuple[tuple[tuple[float, tuple[tuple[str, float, float], ...]], ...], ...]
"""Of each stage (weight, ((operation, how often it is applied, value), ...)) of each choice."""


def _affine(**moves: Any) -> A.Affine:
    settings = {"interpolation": cv2.INTER_NEAREST, "border_mode": cv2.BORDER_CONSTANT, "p": 1}
    return A.Affine(**{**settings, **moves})


def _shear(axis: str, value: float) -> A.Affine:
    """albumentations shears about the centre; the shift brings the first row or column back."""
    other = "y" if axis == "x" else "x"
    degrees, back = math.degrees(math.atan(value)), -value / 2
    return _affine(
        shear={axis: (degrees, degrees), other: (0, 0)},
        translate_percent={axis: (back, back), other: (0, 0)},
    )


def _translate(axis: str, value: float) -> A.Affine:
    other = "y" if axis == "x" else "x"
    return _affine(translate_percent={axis: (-value, -value), other: (0, 0)})


def _jitter(part: str, factor: float) -> A.ColorJitter:
    still = {"brightness": (1, 1), "contrast": (1, 1), "saturation": (1, 1), "hue": (0, 0)}
    return A.ColorJitter(**{**still, part: (factor, factor)}, p=1)


def _solarize(value: float) -> A.BasicTransform:
    if value > 255:
        return A.NoOp(p=1)
    threshold = max(0.0, (math.ceil(value) - 0.5) / 255)  # between two whole numbers
    return A.Solarize(threshold_range=(threshold, threshold), p=1)


def _posterize(value: float) -> A.BasicTransform:
    return A.NoOp(p=1) if value >= 8 else A.Posterize(num_bits=int(value), p=1)


def _sharpness(factor: float) -> A.BasicTransform:
    """Above 1 the kernel of PIL's is Sharpen's at this alpha. Below it there is a blur alone, whose
    spread is that of PIL's kernel."""
    if factor >= 1:
        alpha = (factor - 1) / 13
        return A.Sharpen(alpha=(alpha, alpha), lightness=(1, 1), method="kernel", p=1)
    side = 3 * (1 - factor) / 13
    sigma = math.sqrt(-1 / (2 * math.log(side / (1 - 2 * side))))
    return A.GaussianBlur(blur_limit=3, sigma_limit=(sigma, sigma), p=1)


def _cutout(value: float, fill: Fill) -> A.BasicTransform:
    if value == 0:
        return A.NoOp(p=1)
    return A.CoarseDropout(
        num_holes_range=(1, 1),
        hole_height_range=(value, value),
        hole_width_range=(value, value),
        fill=fill,
        p=1,
    )


def _scale(value: float) -> A.Affine:
    zoom = 1 / (1 + (value if value > 0 else value / 4))
    return _affine(scale=(zoom, zoom), interpolation=cv2.INTER_LINEAR)


def _blurred(image: Any, share: float, **_: Any) -> Any:
    sigma = share * image.shape[1]
    blurred = cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    return blurred.reshape(image.shape)


def _blur(value: float) -> A.BasicTransform:
    """OpenCV's, as A.GaussianBlur takes pixels and this is a share of the width."""
    if value == 0:
        return A.NoOp(p=1)
    return A.Lambda(image=partial(_blurred, share=math.sqrt(value)), name="blur", p=1)


def _noise(value: float) -> A.GaussNoise:
    return A.GaussNoise(std_range=(value / 255, value / 255), mean_range=(0, 0), p=1)


def _perspective(value: float) -> A.BasicTransform:
    if value == 0:
        return A.NoOp(p=1)
    return A.Perspective(scale=(value / 4, value / 4), border_mode=cv2.BORDER_CONSTANT, p=1)


def _coarse(image: Any, share: float, **_: Any) -> Any:
    rows, columns = (max(1, round(side * share)) for side in image.shape[:2])
    small = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA)
    whole = cv2.resize(small, image.shape[1::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    return whole.reshape(image.shape)


def _pixelate(value: float) -> A.BasicTransform:
    """OpenCV's, as A.Downscale truncates a size that is rounded here."""
    if value == 0:
        return A.NoOp(p=1)
    return A.Lambda(image=partial(_coarse, share=1 - value), name="pixelate", p=1)


OPERATIONS: dict[str, Callable[[float], A.BasicTransform]] = {
    "shear_x": lambda value: _shear("x", value),
    "shear_y": lambda value: _shear("y", value),
    "translate_x": lambda value: _translate("x", value),
    "translate_y": lambda value: _translate("y", value),
    "rotate": lambda value: _affine(rotate=(value, value)),
    "auto_contrast": lambda _: A.AutoContrast(cutoff=0, method="pil", p=1),
    "invert": lambda _: A.InvertImg(p=1),
    "equalize": lambda _: A.Equalize(mode="pil", p=1),
    "solarize": _solarize,
    "posterize": _posterize,
    "contrast": lambda factor: _jitter("contrast", factor),
    "color": lambda factor: _jitter("saturation", factor),
    "brightness": lambda factor: _jitter("brightness", factor),
    "sharpness": _sharpness,
    "scale": _scale,
    "blur": _blur,
    "noise": _noise,
    "perspective": _perspective,
    "pixelate": _pixelate,
}
"""Operation -> value -> transform that is always applied; all but cutout, which has a colour."""
SIGNED = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate", "scale")
"""Their sign is drawn."""


def operation(name: str, applied: float, value: float, fill: Fill) -> A.Sequential:
    """One operation with the probability `applied`."""
    if name == "cutout":
        return A.Sequential([_cutout(value, fill)], p=applied)
    make = OPERATIONS[name]
    values = [value, -value] if name in SIGNED and value else [value]
    return A.Sequential([A.OneOf([make(each) for each in values], p=1)], p=applied)


def composed(stages: Stages, fill: Fill, seed: int | None = None) -> A.Compose:
    """The policy, for composed(...)(image=array)["image"]."""
    policy = A.Compose(
        [
            A.OneOf(
                [
                    A.Sequential([operation(*step, fill) for step in steps], p=weight)
                    for weight, steps in stage
                ],
                p=1,
            )
            for stage in stages
        ]
    )
    if seed is not None:
        # Compose(seed=) gives each part a generator of the same seed (2.0.8), so slots would not be
        # drawn independently; here they share one.
        policy.set_random_state(np.random.default_rng(seed), random.Random(seed))
    return policy
