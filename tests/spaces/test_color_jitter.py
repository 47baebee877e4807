"""Colour jitter against PIL, colorsys and torchvision's own distribution."""

import colorsys
import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from scipy.stats import kstwobign
from torch import Tensor
from torchvision.transforms import v2

from daas_dist.rng import Part, stream
from daas_dist.spaces.color_jitter import EIGENVECTORS, color_jitter, lighting, shift_hue


def pictures(count: int, channels: int = 3, side: int = 12) -> Tensor:
    shape = (count, channels, side, side)
    return torch.randint(256, shape, generator=stream(3, "pictures"), dtype=torch.uint8)


def pil(image: Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).numpy())


@pytest.mark.parametrize(
    ("place", "enhancer"),
    [(0, ImageEnhance.Brightness), (1, ImageEnhance.Contrast), (2, ImageEnhance.Color)],
)
def test_a_factor_is_pils_within_its_range(place: int, enhancer: type) -> None:
    """Each image is PIL's own result for one factor of [0.6, 1.4], and not all have the same."""
    images = pictures(8)
    strengths = [0.0] * 4
    strengths[place] = 0.4
    changed = color_jitter(images, strengths, stream(0, "jitter"))
    # The draws, read again: uniform first, one row an image.
    uniform_N4 = torch.rand(8, 4, generator=stream(0, "jitter"), dtype=torch.float64)
    for n, factor in enumerate((0.6 + 0.8 * uniform_N4[:, place]).tolist()):
        expected = np.asarray(enhancer(pil(images[n])).enhance(factor))
        np.testing.assert_array_equal(changed[n].permute(1, 2, 0).numpy(), expected)


def test_hue_is_a_turn_in_hsv() -> None:
    """colorsys, pixel by pixel, for colours of every sixth, greys, black and white."""
    images = pictures(5, side=6)
    images[0, :, 0, :4] = torch.tensor([0, 255, 128, 7], dtype=torch.uint8)
    images[0, :, 1, 0], images[0, :, 1, 1] = torch.tensor([[200, 200, 30], [30, 200, 200]]).byte()
    turns = torch.tensor([0.17, -0.31, 0.5, 0.02, -0.5], dtype=torch.float64)
    turned = shift_hue(images, turns)
    for n, turn in enumerate(turns.tolist()):
        for i in range(6):
            for j in range(6):
                h, s, v = colorsys.rgb_to_hsv(*(images[n, :, i, j] / 255).tolist())
                expected = [255 * x for x in colorsys.hsv_to_rgb((h + turn) % 1, s, v)]
                assert turned[n, :, i, j].tolist() == pytest.approx(expected, abs=0.51)
    assert torch.equal(shift_hue(images[:, :1], turns), images[:, :1])


def test_a_third_of_the_circle_makes_red_of_green_of_blue() -> None:
    """However near to grey: a colour and its turns have the same three levels, in another order."""
    images = pictures(2)
    images[1] = 100 + images[1] % 2  # no two levels further apart than 1
    images[1, :, 0, :2] = torch.tensor([[101, 100], [100, 100], [101, 101]], dtype=torch.uint8)
    for turn, order in ((1 / 3, [2, 0, 1]), (-1 / 3, [1, 2, 0])):
        turned = shift_hue(images, torch.full((2,), turn, dtype=torch.float64))
        assert torch.equal(turned, images[:, order])


def test_the_four_have_torchvisions_distribution_their_random_order_included() -> None:
    """Red, green and blue of one colour under 4,000 draws of each: the same distributions."""
    colour = torch.tensor([250, 130, 10], dtype=torch.uint8)[:, None, None]
    # A second pixel, for a contrast to have an effect.
    image = torch.cat([colour, torch.tensor([30, 60, 90], dtype=torch.uint8)[:, None, None]], 2)
    strengths = (0.4, 0.4, 0.4, 0.2)
    ours = color_jitter(image.expand(4000, 3, 1, 2), strengths, stream(1, "many")).float()
    transform = v2.ColorJitter(*strengths)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        theirs = torch.stack([transform(image) for _ in range(4000)]).float()
    for channel in range(3):
        mine, yours = (each[:, channel, 0, 0].numpy() for each in (ours, theirs))
        assert chance(mine, yours) > 1e-3
    fixed = _in_one_order(image, strengths)
    # The test would see it: all four in one order is another distribution.
    assert min(chance(fixed[:, c], theirs[:, c, 0, 0].numpy()) for c in range(3)) < 1e-6


def chance(a: np.ndarray, b: np.ndarray) -> float:
    """Of as large a difference of two empirical distributions (Kolmogorov and Smirnov)."""
    values = np.unique(np.concatenate([a, b]))
    first, second = (np.searchsorted(np.sort(each), values, "right") / len(each) for each in (a, b))
    size = np.sqrt(len(a) * len(b) / (len(a) + len(b)))
    return float(kstwobign.sf(size * np.abs(first - second).max()))


def _in_one_order(image: Tensor, strengths: tuple[float, ...]) -> np.ndarray:
    images = image.expand(4000, 3, 1, 2)
    for place in range(4):
        alone = [strength if k == place else 0.0 for k, strength in enumerate(strengths)]
        images = color_jitter(images, alone, stream(2, "ordered", place))
    return images[:, :, 0, 0].float().numpy()


@pytest.mark.parametrize("of", [2, 3, 6])
def test_a_part_is_its_slice_of_the_whole(of: int) -> None:
    images, strengths = pictures(6), (0.4, 0.3, 0.5, 0.2)
    whole = color_jitter(images, strengths, stream(0, "jitter"))
    lit = lighting(whole / 255, 0.3, (0.2, 0.3, 0.4), stream(0, "light"))
    for number in range(of):
        part = Part(number, of)
        mine = color_jitter(part.take(images), strengths, stream(0, "jitter"), part)
        assert torch.equal(mine, part.take(whole))
        light = lighting(mine / 255, 0.3, (0.2, 0.3, 0.4), stream(0, "light"), part)
        assert torch.equal(light, part.take(lit))
    assert len({tuple(image.flatten().tolist()) for image in whole - images}) == 6


def test_lighting_has_the_covariance_of_its_eigenvectors() -> None:
    """E[δ δᵀ] = Σ_k (0.1 λ_k)² v_k v_kᵀ, of pixels before they are normalised; the v_k are
    orthonormal."""
    vectors = torch.tensor(EIGENVECTORS)
    torch.testing.assert_close(vectors.T @ vectors, torch.eye(3), rtol=0, atol=5e-4)
    std = (0.2, 0.25, 0.5)
    count = 40_000
    lit = lighting(torch.zeros(count, 3, 1, 1), 0.1, std, stream(0, "light"))[:, :, 0, 0]
    shift = lit * torch.tensor(std)
    expected = torch.zeros(3, 3)
    for k, eigenvalue in enumerate((0.2175, 0.0188, 0.0045)):
        v = torch.tensor([row[k] for row in EIGENVECTORS])
        expected += (0.1 * eigenvalue) ** 2 * v[:, None] * v
    found = shift.T @ shift / count
    # The draws, read again: δ = Σ_k a_k λ_k v_k.
    draw_N3 = 0.1 * torch.randn(count, 3, generator=stream(0, "light"))
    along = (shift[:, None] @ vectors)[:, 0] / torch.tensor([0.2175, 0.0188, 0.0045])
    torch.testing.assert_close(along, draw_N3, rtol=0, atol=0.02)
    torch.testing.assert_close(found, expected, rtol=8 / math.sqrt(count), atol=1e-6)
    assert expected.diag().min() > 1e-4
