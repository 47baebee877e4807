"""The five image operations of the ranges "wide" that are ours: scale, blur, noise, perspective,
pixelate. The paper has none of them.

All is decided in whole numbers, or in float64 numbers that are whole, so that an image gets the
same pixels on every device and in every batch. Pixels between pixels are bilinear, black outside.

Axes: N images, C channels, H rows, W columns. Values and centres are float64 on the CPU, as in
operations.py. A centre, two uniform numbers of the image's own, is here the side that perspective
leans to, and the address of the image's noise.
"""

import math
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

UNIT = 1 << 16
"""One, in the fixed-point numbers of weights and coordinates."""


# --- Moved pixels --------------------------------------------------------------------------------


def _bilinear(images: Tensor, x_NHW: Tensor, y_NHW: Tensor) -> Tensor:
    """Return the images read at (x, y): in pixels from the upper left corner, [N or 1, H, W], so
    that the first pixel's centre is (0.5, 0.5). Between centres and border the border's pixel
    counts, as in PIL's Image.transform."""
    n, c, h, w = images.shape
    inside_NHW = (x_NHW >= 0) & (x_NHW < w) & (y_NHW >= 0) & (y_NHW < h)
    x, y = (
        ((at * UNIT + 0.5).floor().long() - UNIT // 2).to(images.device).expand(n, h, w)
        for at in (x_NHW, y_NHW)
    )
    flat_NCP = images.flatten(2).int()

    def at(row_NHW: Tensor, column_NHW: Tensor) -> Tensor:
        index_N1P = (row_NHW.clamp(0, h - 1) * w + column_NHW.clamp(0, w - 1)).view(n, 1, h * w)
        return flat_NCP.gather(2, index_N1P.expand(n, c, h * w)).view(n, c, h, w)

    # 8 bits of each weight: with those of the pixels, their product fits 24.
    right, down = (((each % UNIT) >> 8).int()[:, None] for each in (x, y))
    column, row = x >> 16, y >> 16
    above = at(row, column) * (256 - right) + at(row, column + 1) * right
    below = at(row + 1, column) * (256 - right) + at(row + 1, column + 1) * right
    mixed = (above * (256 - down) + below * down + (1 << 15)) >> 16
    inside = inside_NHW.to(images.device).expand(n, h, w)[:, None]
    return mixed.to(torch.uint8).masked_fill(~inside, 0)


def _from_centre(size: int) -> Tensor:
    """Return the distance of each pixel's centre from the image's, in half the image's size."""
    return (2 * torch.arange(size, dtype=torch.float64) + 1 - size) / size


def scale(images: Tensor, value_N: Tensor, _: Tensor) -> Tensor:
    """Shrink to 1 / (1 + v) about the centre; below 0, enlarge to 1 / (1 + v / 4)."""
    step_N11 = torch.where(value_N < 0, 1 + value_N / 4, 1 + value_N)[:, None, None]
    h, w = images.shape[2:]
    x = w / 2 * (1 + _from_centre(w) * step_N11)
    y = h / 2 * (1 + _from_centre(h)[:, None] * step_N11)
    return _bilinear(images, *torch.broadcast_tensors(x, y))


def perspective(images: Tensor, value_N: Tensor, centre_N2: Tensor) -> Tensor:
    """Turn the plane of the image in space, about its centre, which stays.

    The centre's offset from the middle says to which side. If that is straight to a corner, it
    recedes to 1 / (1 + v) of its distance, and the one across comes to 1 / (1 - v).
    """
    h, w = images.shape[2:]
    lean_N2 = 2 * centre_N2 - 1
    lean_N2 = lean_N2 / lean_N2.abs().sum(1, keepdim=True).clamp(min=1e-9) * value_N[:, None]
    across, down = lean_N2[:, :, None, None].unbind(1)
    x, y = _from_centre(w), _from_centre(h)[:, None]
    depth = 1 - across * x - down * y
    return _bilinear(images, w / 2 * (1 + x / depth), h / 2 * (1 + y / depth))


# --- Lost detail ---------------------------------------------------------------------------------


def _along_both(images: Tensor, across_WW: Tensor, down_HH: Tensor) -> Tensor:
    """Return each pixel as a weighted mean of its row, then of its column; weights are whole, and
    those of an output sum to UNIT. Exact in float64 in any order of summation, so on any device."""
    across_WW, down_HH = across_WW.to(images.device), down_HH.to(images.device)
    total = down_HH @ (images.double() @ across_WW.T)
    return ((total + UNIT**2 // 2) / UNIT**2).floor().to(torch.uint8)


def _whole(weight_OI: Tensor) -> Tensor:
    """Return weights that sum to 1 as whole numbers that sum to UNIT; the largest takes what
    rounding leaves."""
    whole_OI = (weight_OI / weight_OI.sum(1, keepdim=True) * UNIT).round()
    rest_O1 = UNIT - whole_OI.sum(1, keepdim=True)
    return whole_OI.scatter_add(1, whole_OI.argmax(1, keepdim=True), rest_O1)


@lru_cache(maxsize=64)
def _gaussian(size: int, deviation: float) -> Tensor:
    """[size, size]: the weights of a Gaussian blur; the border's pixel goes on outside."""
    if deviation == 0:
        return _whole(torch.eye(size, dtype=torch.float64))
    reach = math.ceil(4 * deviation)
    offset = torch.arange(-reach, reach + 1)
    weight = (-(offset.double() ** 2) / (2 * deviation**2)).exp()
    source = (torch.arange(size)[:, None] + offset).clamp(0, size - 1)
    empty = torch.zeros(size, size, dtype=torch.float64)
    return _whole(empty.scatter_add(1, source, weight.expand_as(source)))


@lru_cache(maxsize=64)
def _blocks(size: int, count: int) -> Tensor:
    """[size, size]: the weights of a mean over that of `count` equal parts in which the output's
    centre lies."""
    edge = torch.arange(count + 1, dtype=torch.float64) * size / count
    pixel = torch.arange(size, dtype=torch.float64)
    last = torch.minimum(edge[1:, None], pixel + 1)
    covered = (last - torch.maximum(edge[:-1, None], pixel)).clamp(min=0)
    part = (2 * torch.arange(size) + 1) * count // (2 * size)
    return _whole(covered[part])


def _by_value(images: Tensor, value_N: Tensor, weights: Callable[[float, int], Tensor]) -> Tensor:
    """Return the images mixed along both axes, by the weights of each value and size."""
    h, w = images.shape[2:]
    result = torch.empty_like(images)
    for value in value_N.unique().tolist():
        there = (value_N == value).nonzero()[:, 0].to(images.device)
        result[there] = _along_both(images[there], weights(value, w), weights(value, h))
    return result


def blur(images: Tensor, value_N: Tensor, _: Tensor) -> Tensor:
    """Gaussian, of a variance of value * W² pixels along both axes: of evenly spaced deviations the
    first would do nothing to small images."""
    width = images.shape[3]
    return _by_value(images, value_N, lambda v, size: _gaussian(size, math.sqrt(v) * width))


def pixelate(images: Tensor, value_N: Tensor, _: Tensor) -> Tensor:
    """Shrink each side to 1 - value of its pixels, each the mean of the area that it stands for,
    and enlarge it again by the nearest."""
    return _by_value(images, value_N, lambda v, size: _blocks(size, max(1, round(size * (1 - v)))))


# --- Noise ---------------------------------------------------------------------------------------


GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
"""SplitMix64's step between numbers, odd and of no pattern, as int64 has it."""


def _mixed(number: Tensor) -> Tensor:
    """Return 64 bits of a hash of int64 numbers: the output of SplitMix64 (Steele, Lea and Flood
    2014), whose products wrap. A shift of torch's drags the sign along, hence the masks."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        number = (number ^ ((number >> shift) & ((1 << (64 - shift)) - 1))) * (factor - (1 << 64))
    return number ^ ((number >> 31) & ((1 << 33) - 1))


def noise(images: Tensor, value_N: Tensor, centre_N2: Tensor) -> Tensor:
    """Add to every pixel of every channel a number of its own, of mean 0 and a standard deviation
    of value levels.

    It is a function of the image's centre and the pixel's place: so an image has its noise in any
    part of any batch. Near to Gaussian: the sum of eight uniform bytes, of mean 8 * 127.5 and
    variance 8 * (256² - 1) / 12, whose excess kurtosis is -0.15.
    """
    x_N, y_N = (centre_N2 * 2**24).long().unbind(1)  # torch.rand has 24 bits
    image_N = _mixed(_mixed(x_N) ^ y_N)
    place_P = torch.arange(1, 1 + images[0].numel(), device=images.device) * GOLDEN
    bits_NP = _mixed(image_N[:, None].to(images.device) + place_P)
    # The bytes in pairs, in four fields of 16 bits; a product then adds these up in the highest.
    pairs_NP = (bits_NP & 0x00FF00FF00FF00FF) + ((bits_NP >> 8) & 0x00FF00FF00FF00FF)
    total_NP = (pairs_NP * 0x0001000100010001) >> 48
    standard_NP = (total_NP - 1020).double() / math.sqrt(8 * (256**2 - 1) / 12)
    added = (value_N[:, None].to(images.device) * standard_NP).view_as(images)
    return (images + added).round().clamp(0, 255).to(torch.uint8)
