"""Our own operations against PIL, torchvision and closed forms, and what they depend on."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from images import from_pil, photographs, to_pil
from PIL import Image, ImageFilter
from test_augment import draws
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from daas_dist.rng import Part, stream
from daas_dist.spaces import operations as augment
from daas_dist.spaces import wide
from daas_dist.spaces.policy import Draws, apply
from daas_dist.spaces.space import Space

OURS = ("scale", "blur", "noise", "perspective", "pixelate")
SIZES = [(3, 32, 32), (1, 28, 28), (3, 31, 45), (1, 37, 26)]
BILINEAR = Image.Resampling.BILINEAR


def one(
    name: str, images: Tensor, value: float, centre: tuple[float, float] = (0.3, 0.8)
) -> Tensor:
    count = len(images)
    values = torch.full((count,), value, dtype=torch.float64)
    centres = torch.tensor(centre, dtype=torch.float64).expand(count, 2)
    return getattr(wide, name)(images, values, centres)


def by_pil(images: Tensor, change: Callable[[Image.Image], Image.Image]) -> Tensor:
    return torch.stack([from_pil(change(to_pil(image))) for image in images])


def furthest(one: Tensor, other: Tensor) -> int:
    return int((one.int() - other.int()).abs().max())


def test_only_the_wide_ranges_have_operations_of_ours() -> None:
    assert augment.names("wide")[:15] == augment.names("dada") == augment.names("autoaugment")
    assert augment.names("wide")[15:] == OURS
    with pytest.raises(ValueError, match="noise has no ranges 'dada'; set policy.ranges to wide"):
        augment.describe("noise", 3, "dada")
    words = [augment.describe(name, 6, "wide") for name in OURS]
    assert words == [
        "scale ×0.60 or ×1.20", "blur by 4.1% of the width", "noise by 24 levels",
        "perspective 0.27", "pixelate to 53% of the pixels a side",
    ]  # fmt: skip


def test_wide_ranges_reach_what_the_others_reach() -> None:
    for row in augment.TABLE[:15]:
        narrow, wider = row.ranges["autoaugment"], row.ranges["wide"]
        if narrow is None or wider is None:
            assert narrow is wider
            continue
        assert min(wider) <= min(narrow) and max(narrow) <= max(wider), row.name


# --- Moved pixels --------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("value", [1.0, 0.37, -0.5, -1.0])
def test_scale_is_pils_affine_but_for_rounding(value: float, shape: tuple[int, int, int]) -> None:
    images, (_, h, w) = photographs(4, *shape), shape
    step = 1 + value if value > 0 else 1 + value / 4
    matrix = (step, 0, w / 2 * (1 - step), 0, step, h / 2 * (1 - step))
    expected = by_pil(
        images, lambda x: x.transform(x.size, Image.Transform.AFFINE, matrix, BILINEAR)
    )
    assert furthest(one("scale", images, value), expected) <= 2
    assert furthest(one("scale", images, value), images) > 40


def test_a_square_shrinks_and_grows_by_the_magnitudes_share() -> None:
    images = torch.zeros(1, 1, 48, 48, dtype=torch.uint8)
    images[:, :, 16:32, 16:32] = 200
    half = torch.zeros_like(images)
    half[:, :, 20:28, 20:28] = 200
    assert torch.equal(one("scale", images, 1.0), half)
    grown = one("scale", images, -1.0)[0, 0] >= 100
    assert grown.any(0).sum() == grown.any(1).sum() in (21, 22)  # of 16 · 4 / 3


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("centre", [(0.9, 0.2), (0.5, 0.1), (0.02, 0.4)])
def test_perspective_is_pils_but_for_rounding(
    centre: tuple[float, float], shape: tuple[int, int, int]
) -> None:
    """PIL's eight coefficients, of x' = w/2 (1 + u / (1 - p u - q v)), u = 2 x / w - 1."""
    images, (_, h, w), value = photographs(4, *shape), shape, 0.36
    lean = np.array([2 * centre[0] - 1, 2 * centre[1] - 1])
    p, q = lean / np.abs(lean).sum() * value
    whole = 1 + p + q
    g, k = -2 * p / (w * whole), -2 * q / (h * whole)
    columns = (w / 2 * (g + 2 / (w * whole)), w / 2 * k, w / 2 * (1 - 1 / whole))
    rows = (h / 2 * g, h / 2 * (k + 2 / (h * whole)), h / 2 * (1 - 1 / whole))
    method = Image.Transform.PERSPECTIVE
    expected = by_pil(
        images, lambda x: x.transform(x.size, method, (*columns, *rows, g, k), BILINEAR)
    )
    found = one("perspective", images, value, centre)
    off = (found.int() - expected.int()).abs()
    assert int(off.max()) <= 3 or (off > 3).float().mean() < 0.002  # at the border a digit decides
    assert furthest(found, images) > 40


@pytest.mark.parametrize("side", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_a_corner_recedes_to_where_it_should(side: tuple[int, int]) -> None:
    """Straight to a corner: it goes to 1 / (1 + v) of its distance from the centre."""
    x, y = side
    white = torch.full((1, 3, 81, 81), 255, dtype=torch.uint8)
    found = one("perspective", white, 0.4, (0.999 * x, 0.999 * y))[0, 0] > 127
    found = found.flip([axis for axis, far in ((0, y), (1, x)) if not far])
    assert found.diagonal().sum() == round(81 * (1 + 1 / 1.4) / 2)
    assert found[:41, :41].all()


# --- Lost detail ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("value", [0.016, 0.03, 0.05])
def test_blur_is_torchvisions_and_near_to_pils(value: float, shape: tuple[int, int, int]) -> None:
    images, (_, _, w) = photographs(4, *shape), shape
    sigma, reach = value * w, 12
    padded = torch.nn.functional.pad(images.float(), [reach] * 4, mode="replicate")
    blurred = tv.gaussian_blur(padded, [2 * reach + 1] * 2, [sigma] * 2)
    expected = blurred[..., reach:-reach, reach:-reach].round().to(torch.uint8)
    found = one("blur", images, value**2)
    assert furthest(found, expected) <= 1
    pil = by_pil(images, lambda x: x.filter(ImageFilter.GaussianBlur(sigma)))
    assert float((found.float() - pil.float()).abs().mean()) < 2  # three boxes, as Gaussian as that
    assert furthest(found, images) > 5


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("value", [0.12, 0.5, 0.7])
def test_pixelate_is_the_mean_of_each_part(value: float, shape: tuple[int, int, int]) -> None:
    """Every pixel repeated so often that the parts are whole numbers of them."""
    images = photographs(3, *shape)
    expected = images.double()
    for axis, size in ((2, shape[1]), (3, shape[2])):
        count = round(size * (1 - value))
        many = expected.repeat_interleave(count, axis)
        part = many.unflatten(axis, (count, size)).mean(axis + 1)
        nearest = ((torch.arange(size) + 0.5) * count / size).long()
        expected = part.index_select(axis, nearest)
    found = one("pixelate", images, value)
    assert furthest(found, expected.round().to(torch.uint8)) <= 1
    assert furthest(found, images) > 10


def test_pixels_of_halves_are_pils_boxes() -> None:
    images = photographs(4, 3, 32, 48)
    box = Image.Resampling.BOX
    pil = by_pil(images, lambda x: x.resize((24, 16), box).resize((48, 32), box))
    assert furthest(one("pixelate", images, 0.5), pil) <= 1


@pytest.mark.parametrize("name", ["blur", "pixelate"])
def test_an_even_image_keeps_its_level(name: str) -> None:
    for level in (0, 1, 128, 255):
        images = torch.full((1, 3, 19, 33), level, dtype=torch.uint8)
        assert torch.equal(one(name, images, 0.05), images)


# --- Noise ---------------------------------------------------------------------------------------


def test_noise_has_its_mean_its_deviation_and_no_pattern() -> None:
    images = torch.full((60, 3, 40, 50), 128, dtype=torch.uint8)
    centres = torch.rand(60, 2, generator=stream(0, "centres")).double()
    values = torch.full((60,), 24.0, dtype=torch.float64)
    added = wide.noise(images, values, centres).double() - 128
    count = added.numel()
    assert abs(float(added.mean())) < 4 * 24 / count**0.5
    assert float(added.std()) == pytest.approx((24**2 + 1 / 12) ** 0.5, rel=4 / (2 * count) ** 0.5)
    assert float((added / 24).pow(4).mean()) == pytest.approx(2.85, abs=0.05)  # of 3
    pairs = {
        "columns": (added[..., 1:], added[..., :-1]),
        "rows": (added[:, :, 1:], added[:, :, :-1]),
        "channels": (added[:, 1:], added[:, :-1]),
        "images": (added[1:], added[:-1]),
    }
    for what, (one, other) in pairs.items():
        correlation = float((one * other).mean()) / 24**2
        assert abs(correlation) < 4 / one.numel() ** 0.5, what


def test_an_images_noise_is_that_of_its_own_draw() -> None:
    images = photographs(1, 3, 20, 24).expand(4, -1, -1, -1)
    centres = torch.tensor([[0.25, 0.5], [0.5, 0.25], [0.25, 0.5], [0.25, 0.5 + 2**-24]])
    values = torch.full((4,), 12.0, dtype=torch.float64)
    found = wide.noise(images, values, centres.double())
    assert torch.equal(found[0], found[2])
    assert all(furthest(found[0], found[n]) > 10 for n in (1, 3))


# --- All -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("shape", SIZES)
def test_magnitude_0_changes_nothing_and_each_next_one_changes_more(
    name: str, shape: tuple[int, int, int]
) -> None:
    images, row = photographs(8, *shape), augment.TABLE[augment.NAMES.index(name)]
    for sign in (1, -1) if row.signed else (1,):
        off = [
            float((one(name, images, sign * row.value(m, "wide")) - images.float()).abs().mean())
            for m in range(augment.MAGNITUDES)
        ]
        assert off[0] == 0 and off[1] > 0.2
        assert off[9] > 1.2 * off[3] > 1.2 * off[1]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_mixed_batch_is_its_images_one_by_one(channels: int) -> None:
    images = photographs(300, channels, 21, 30)
    operation, magnitude, sign, centre = draws(300, "wide", channels, operations=20)
    assert len(operation.unique()) == 21
    before = images.clone()
    found = augment.apply(images, operation, magnitude, sign, centre, "wide")
    assert torch.equal(images, before)
    for n, image in enumerate(images):
        o, m, s, c = (draw[n : n + 1] for draw in (operation, magnitude, sign, centre))
        assert torch.equal(found[n : n + 1], augment.apply(image[None], o, m, s, c, "wide"))


def test_a_rank_makes_its_part_of_what_one_would_make() -> None:
    space = Space("wide", ("rotate", "noise", "perspective"))
    images, generator = photographs(12, 3, 16, 16), stream(0, "drawn")
    operation = torch.randint(3, (12, 2), generator=generator)
    drawn = Draws(operation, operation >= 0, torch.randint(3, 10, (12, 2), generator=generator))
    whole = apply(images, drawn, stream(1, "signs"), space)
    for of in (2, 3):
        parts = [Part(number, of) for number in range(of)]
        made = [
            apply(part.take(images), Draws(*map(part.take, drawn)), stream(1, "signs"), space, part)
            for part in parts
        ]
        assert torch.equal(torch.cat(made), whole)


def test_the_hash_gives_splitmix64s_published_numbers() -> None:
    """The first five of the seed 1234567, as the generator's public implementations print them."""
    published = (
        6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431,
        16408922859458223821,
    )  # fmt: skip
    state = 1234567 + torch.arange(1, 6) * wide.GOLDEN
    found = wide._mixed(state).tolist()  # pyright: ignore[reportPrivateUsage]
    assert [number % 2**64 for number in found] == list(published)


@pytest.mark.parametrize("level", [0, 255])
def test_noise_stops_at_black_and_at_white(level: int) -> None:
    """Half of the pixels would go beyond: they stay at the end, and none comes out at the other."""
    flat = torch.full((8, 3, 64, 64), level, dtype=torch.uint8)
    found = one("noise", flat, 36.0).int()
    assert 0.48 < float((found == level).float().mean()) < 0.53
    assert int((found - level).abs().max()) < 36 * 6


def test_noise_has_no_mean() -> None:
    """To a twelfth of a level: one more in the sum of eight bytes were a sixth."""
    grey = torch.full((128, 3, 64, 64), 128, dtype=torch.uint8)
    centres = torch.rand(128, 2, generator=stream(0, "centres"), dtype=torch.float64)
    found = wide.noise(grey, torch.full((128,), 36.0, dtype=torch.float64), centres)
    assert abs(float(found.double().mean()) - 128) < 0.085


def test_a_mean_of_two_levels_is_rounded_up_and_one_block_is_one_mean() -> None:
    columns = torch.tensor([10, 11, 20, 21], dtype=torch.uint8).repeat(4, 1)[None, None]
    assert one("pixelate", columns, 0.5)[0, 0, 0].tolist() == [11, 11, 21, 21]
    tiny = torch.arange(9, dtype=torch.uint8).view(1, 1, 3, 3)
    assert torch.equal(one("pixelate", tiny, 0.7), torch.full_like(tiny, 4))


def test_what_is_read_at_the_border_itself_is_inside_at_its_start_alone() -> None:
    """Of 10 pixels under twice the step the third is read at 0 and the eighth at 10, where PIL has
    the first border's pixel, and nothing."""
    white = torch.full((1, 1, 10, 10), 255, dtype=torch.uint8)
    found = one("scale", white, 1.0)[0, 0]
    matrix = (2, 0, -5, 0, 2, -5)
    expected = to_pil(white[0]).transform((10, 10), Image.Transform.AFFINE, matrix, BILINEAR)
    assert torch.equal(found, from_pil(expected)[0])
    assert found[5].nonzero()[:, 0].tolist() == found[:, 5].nonzero()[:, 0].tolist()
