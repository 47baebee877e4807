"""The batched operations against PIL itself, image by image, and the default augmentations."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from images import fashion, from_pil, photographs, to_pil
from PIL import Image, ImageDraw, ImageEnhance, ImageOps
from torch import Tensor

from daas_dist.rng import stream
from daas_dist.spaces import operations as augment

GEOMETRIC = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
NEAREST = Image.Resampling.NEAREST
Centre = tuple[float, float]


def affine(*matrix: float) -> Callable[[Image.Image], Image.Image]:
    return lambda image: image.transform(image.size, Image.Transform.AFFINE, matrix, NEAREST)


def draw_square(image: Image.Image, share: float, centre: Centre) -> Image.Image:
    if share == 0:
        return image
    (w, h), side = image.size, share * image.size[0]
    x, y = (int(max(0, c * size - side / 2)) for c, size in zip(centre, (w, h), strict=True))
    result = image.copy()
    box = (x, y, min(w, x + side), min(h, y + side))
    fill = (125, 123, 114) if image.mode == "RGB" else 121
    ImageDraw.Draw(result).rectangle(box, fill)
    return result


PIL_OPERATIONS: dict[str, Callable[[Image.Image, float, Centre], Image.Image]] = {
    "shear_x": lambda image, v, _: affine(1, v, 0, 0, 1, 0)(image),
    "shear_y": lambda image, v, _: affine(1, 0, 0, v, 1, 0)(image),
    "translate_x": lambda image, v, _: affine(1, 0, v * image.size[0], 0, 1, 0)(image),
    "translate_y": lambda image, v, _: affine(1, 0, 0, 0, 1, v * image.size[1])(image),
    "rotate": lambda image, v, _: image.rotate(v),
    "auto_contrast": lambda image, v, _: ImageOps.autocontrast(image),
    "invert": lambda image, v, _: ImageOps.invert(image),
    "equalize": lambda image, v, _: ImageOps.equalize(image),
    "solarize": lambda image, v, _: ImageOps.solarize(image, v),  # pyright: ignore[reportArgumentType]
    "posterize": lambda image, v, _: ImageOps.posterize(image, int(v)),
    "contrast": lambda image, v, _: ImageEnhance.Contrast(image).enhance(v),
    "color": lambda image, v, _: ImageEnhance.Color(image).enhance(v),
    "brightness": lambda image, v, _: ImageEnhance.Brightness(image).enhance(v),
    "sharpness": lambda image, v, _: ImageEnhance.Sharpness(image).enhance(v),
    "cutout": draw_square,
}


def noise(count: int, channels: int, height: int, width: int) -> Tensor:
    """Noise of all contrasts: each channel of each image spans its own range of levels."""
    generator = stream(0, "noise", count, channels, height, width)
    low = torch.randint(0, 200, (count, channels, 1, 1), generator=generator)
    span = torch.randint(1, 256, (count, channels, 1, 1), generator=generator)
    image = torch.rand(count, channels, height, width, generator=generator)
    return (low + (image * span).long()).clamp(max=255).to(torch.uint8)


def flat_and_two_level() -> Tensor:
    images = torch.full((3, 3, 20, 20), 77, dtype=torch.uint8)
    images[1, :, 3:9, 5:] = 80
    images[2, 1, :, 4:] = 255
    return images


BATCHES: dict[str, Callable[[], Tensor]] = {
    "photographs 32x32": lambda: photographs(4, 3, 32, 32),
    "photographs 31x45": lambda: photographs(3, 3, 31, 45),
    "grey photographs 50x30": lambda: photographs(3, 1, 50, 30),
    "a larger photograph": lambda: photographs(1, 3, 160, 224),
    "fashion": lambda: fashion(6, 1),
    "fashion in three channels": lambda: fashion(4, 3),
    "noise": lambda: noise(16, 3, 24, 25),
    "flat and two levels": flat_and_two_level,
    "tiny": lambda: noise(2, 3, 2, 5),
    "one row": lambda: noise(2, 1, 1, 7),
}


def draws(count: int, *address: Any, operations: int = 15) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = stream(0, *address)
    operation = torch.randint(-1, operations, (count,), generator=generator)
    magnitude = torch.randint(augment.MAGNITUDES, (count,), generator=generator)
    sign = 1 - 2 * torch.randint(2, (count,), generator=generator)
    return operation, magnitude, sign, torch.rand(count, 2, generator=generator)


def apply_one(
    images: Tensor, name: str, magnitude: int, sign: int, ranges: str, centre: Centre = (0.5, 0.5)
) -> Tensor:
    n, number = len(images), augment.NAMES.index(name)
    operation_N, magnitude_N, sign_N = torch.tensor([[number], [magnitude], [sign]]).expand(3, n)
    centre_N2 = torch.tensor(centre).expand(n, 2)
    return augment.apply(images, operation_N, magnitude_N, sign_N, centre_N2, ranges)


def pil_one(image: Tensor, name: str, value: float, centre: Centre) -> Tensor:
    return from_pil(PIL_OPERATIONS[name](to_pil(image), value, centre))


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name", PIL_OPERATIONS)
def test_every_magnitude_and_sign_is_pil_bit_for_bit(name: str, batch: str) -> None:
    images = BATCHES[batch]()
    row = augment.TABLE[augment.NAMES.index(name)]
    centres = torch.rand(augment.MAGNITUDES, 2, generator=stream(1, name)).tolist()
    for ranges in augment.RANGES:
        for m in range(augment.MAGNITUDES):
            for sign in (1, -1):
                value = row.value(m, ranges) * (sign if name in GEOMETRIC else 1)
                found = apply_one(images, name, m, sign, ranges, centres[m])
                centre = centres[m]
                expected = torch.stack([pil_one(image, name, value, centre) for image in images])
                assert torch.equal(found, expected), (
                    f"{ranges} {m} {sign}: {(found != expected).sum()} of {found.numel()} pixels, "
                    f"at most by {(found.int() - expected.int()).abs().max()}"
                )


def test_a_luma_half_way_between_two_levels_is_rounded_as_pils() -> None:
    """Of the colours whose weighted sum is nearest to a half, below and above."""
    levels = torch.arange(256)
    total = 19595 * levels[:, None, None] + 38470 * levels[:, None] + 7471 * levels
    for remainder in (32767, 32768):
        colours = (total % 65536 == remainder).nonzero()[:200].to(torch.uint8)
        images = colours.T.reshape(1, 3, 10, -1).contiguous()
        assert images.shape[3] == 20
        found = apply_one(images, "color", 0, 1, "autoaugment")
        assert torch.equal(found[0], pil_one(images[0], "color", 0.1, (0.5, 0.5)))


@pytest.mark.parametrize("ranges", augment.RANGES)
def test_a_mixed_batch_is_pil_and_is_its_images_one_by_one(ranges: str) -> None:
    images = photographs(300, 3, 32, 45)
    operation, magnitude, sign, centre = draws(300, "mixed", ranges)
    assert len(operation.unique()) == 15 + 1
    found = augment.apply(images, operation, magnitude, sign, centre, ranges)
    for n, image in enumerate(images):
        o, m, s, c = (draw[n : n + 1] for draw in (operation, magnitude, sign, centre))
        assert torch.equal(found[n : n + 1], augment.apply(image[None], o, m, s, c, ranges))
        if o.item() == -1:
            assert torch.equal(found[n], image)
            continue
        row = augment.TABLE[int(o)]
        value = row.value(int(m), ranges) * (int(s) if row.name in GEOMETRIC else 1)
        assert torch.equal(found[n], pil_one(image, row.name, value, tuple(c[0].tolist())))


@pytest.mark.parametrize("name", (*PIL_OPERATIONS, None))
def test_the_input_is_left_alone_and_shares_no_memory(name: str | None) -> None:
    images = photographs(3, 3, 20, 26)
    before = images.clone()
    number = -1 if name is None else augment.NAMES.index(name)
    operation = torch.tensor([number, -1, number])
    magnitude, sign = torch.tensor([7, 2, 8]), torch.tensor([1, -1, -1])
    centre = torch.full((3, 2), 0.4)
    found = augment.apply(images, operation, magnitude, sign, centre, "autoaugment")
    assert torch.equal(found[1], images[1])
    found.fill_(9)
    assert torch.equal(images, before)


@pytest.mark.parametrize("name", GEOMETRIC)
def test_dada_magnitudes_i_and_9_minus_i_are_one_operation_in_distribution(name: str) -> None:
    images = photographs(2, 3, 64, 64)
    count = 400
    sign = 1 - 2 * torch.randint(2, (count,), generator=stream(2, name))

    def outcomes(magnitude: int) -> Counter[bytes]:
        drawn = [apply_one(images, name, magnitude, s, "dada") for s in (1, -1)]
        return Counter(drawn[0 if s == 1 else 1].numpy().tobytes() for s in sign.tolist())

    strengths = []
    for m in range(5):
        one, other = outcomes(m), outcomes(9 - m)
        assert one.keys() == other.keys() and len(one) == 2
        assert all(abs(seen - count / 2) < 4 * (count / 4) ** 0.5 for seen in one.values())
        strengths.append(frozenset(one))
    assert len(set(strengths)) == 5


@pytest.mark.parametrize("name", GEOMETRIC)
def test_autoaugment_magnitudes_are_ten_strengths(name: str) -> None:
    images = photographs(2, 3, 64, 64)
    found = [apply_one(images, name, m, s, "autoaugment") for m in range(10) for s in (1, -1)]
    assert torch.equal(found[0], images) and torch.equal(found[1], images)
    assert len({image.numpy().tobytes() for image in found}) == 19


@pytest.mark.parametrize(
    ("name", "ranges", "start", "end"),
    [
        ("shear_x", "autoaugment", 0, 0.3),
        ("shear_x", "dada", -0.3, 0.3),
        ("shear_y", "autoaugment", 0, 0.3),
        ("shear_y", "dada", -0.3, 0.3),
        ("translate_x", "autoaugment", 0, 0.45),
        ("translate_x", "dada", -0.45, 0.45),
        ("translate_y", "autoaugment", 0, 0.45),
        ("translate_y", "dada", -0.45, 0.45),
        ("rotate", "autoaugment", 0, 30),
        ("rotate", "dada", -30, 30),
        ("solarize", "autoaugment", 256, 0),
        ("solarize", "dada", 0, 256),
        ("posterize", "autoaugment", 8, 4),
        ("posterize", "dada", 4, 8),
        *(
            (name, ranges, 0.1, end)
            for name in ("contrast", "color", "brightness", "sharpness")
            for ranges, end in (("autoaugment", 1.9), ("dada", 1.9), ("wide", 1.9))
        ),
        ("cutout", "autoaugment", 0, 0.2),
        ("cutout", "dada", 0, 0.2),
        ("shear_x", "wide", 0, 0.3),
        ("shear_y", "wide", 0, 0.3),
        ("translate_x", "wide", 0, 0.45),
        ("translate_y", "wide", 0, 0.45),
        ("rotate", "wide", 0, 30),
        ("solarize", "wide", 256, 0),
        ("posterize", "wide", 8, 4),
        ("cutout", "wide", 0, 0.5),
        ("scale", "wide", 0, 1),
        ("blur", "wide", 0, 0.0025),
        ("noise", "wide", 0, 36),
        ("perspective", "wide", 0, 0.4),
        ("pixelate", "wide", 0, 0.7),
        *(
            (name, ranges, 0, 0)
            for name in ("auto_contrast", "invert", "equalize")
            for ranges in augment.RANGES
        ),
    ],
)
def test_magnitudes_are_evenly_spaced_over_the_range(
    name: str, ranges: str, start: float, end: float
) -> None:
    row = augment.TABLE[augment.NAMES.index(name)]
    found = [row.value(m, ranges) for m in range(10)]
    assert found == pytest.approx(torch.linspace(start, end, 10, dtype=torch.float64).tolist())


def test_the_sign_changes_geometric_operations_only() -> None:
    signed = {operation.name for operation in augment.TABLE if operation.signed}
    assert signed == {*GEOMETRIC, "scale"}
    images = photographs(1, 3, 40, 40)
    for name in PIL_OPERATIONS:
        plus, minus = (apply_one(images, name, 7, s, "autoaugment") for s in (1, -1))
        assert torch.equal(plus, minus) == (name not in GEOMETRIC)


def test_descriptions() -> None:
    assert augment.describe("rotate", 5, "autoaugment") == "rotate ±16.7°"
    assert augment.describe("rotate", 2, "dada") == "rotate ±16.7°"
    assert augment.describe("translate_y", 4, "autoaugment") == "translate y ±20% of the height"
    assert augment.describe("posterize", 4, "autoaugment") == "posterize to 6 bits"
    assert augment.describe("posterize", 8, "dada") == "posterize to 7 bits"
    assert augment.describe("color", 6, "dada") == "color ×1.3"
    assert augment.describe("invert", 3, "dada") == "invert"
    with pytest.raises(ValueError, match="spin.*shear_x, .*pixelate"):
        augment.describe("spin", 5, "dada")
    with pytest.raises(ValueError, match=r"magnitude is 10.*0 to 9"):
        augment.describe("rotate", 10, "dada")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": torch.zeros(2, 3, 8, 8)}, r"float32 \[2, 3, 8, 8\], expected uint8"),
        ({"images": torch.zeros(2, 4, 8, 8, dtype=torch.uint8)}, "1 or 3"),
        ({"operation": torch.tensor([0, 15])}, "operation is outside -1 to 14"),
        ({"magnitude": torch.tensor([0, 10])}, "magnitude is outside 0 to 9"),
        ({"magnitude": torch.tensor([3])}, r"magnitude has shape \[1\], expected \[2\]"),
        ({"sign": torch.tensor([1, 0])}, "sign is outside"),
        ({"sign": torch.tensor([1, -2])}, "sign is outside"),
        ({"centre": torch.tensor([[0.5, 1.01]] * 2)}, "centre is outside"),
        ({"centre": torch.tensor([[0.5, float("nan")]] * 2)}, "centre is outside"),
        ({"ranges": "faa"}, "'faa'.*autoaugment.*dada.*policy.ranges"),
    ],
)
def test_wrong_arguments_are_named(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {
        "images": torch.zeros(2, 3, 8, 8, dtype=torch.uint8),
        "operation": torch.tensor([0, 4]),
        "magnitude": torch.tensor([3, 9]),
        "sign": torch.tensor([1, -1]),
        "centre": torch.full((2, 2), 0.5),
        "ranges": "dada",
    } | change
    with pytest.raises(ValueError, match=message):
        augment.apply(*arguments.values())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_pixels() -> None:
    images = photographs(200, 3, 45, 45)
    for ranges in augment.RANGES:
        drawn = draws(200, "gpu", ranges, operations=len(augment.names(ranges)))
        here = augment.apply(images, *drawn, ranges)
        assert torch.equal(augment.apply(images.cuda(), *drawn, ranges).cpu(), here)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("flip", [False, True])
def test_crop_flip_is_one_of_the_padded_crops_of_each_image(channels: int, flip: bool) -> None:
    images, padding = photographs(300, channels, 12, 17).float() + 1, 2
    found = augment.crop_flip(images, padding, flip, stream(3, "crop", channels))
    seen: Counter[tuple[int, int, bool]] = Counter()
    for image, result in zip(images, found, strict=True):
        padded = torch.nn.functional.pad(image, [padding] * 4)
        matches = [
            (x, y, mirrored)
            for x in range(2 * padding + 1)
            for y in range(2 * padding + 1)
            for mirrored in (False, True)
            for crop in [padded[:, y : y + 12, x : x + 17]]
            if torch.equal(result, crop.flip(2) if mirrored else crop)
        ]
        assert len(matches) == 1
        seen.update(matches)
    shifts = Counter((x, y) for x, y, _ in seen.elements())
    assert len(shifts) == 25
    # 12 expected a shift; 300 Bernoulli draws have a standard deviation of 8.7.
    assert max(shifts.values()) < 30
    mirrored = sum(times for (_, _, mirror), times in seen.items() if mirror)
    assert (110 < mirrored < 190) if flip else mirrored == 0


@pytest.mark.parametrize("size", [5, 8])
def test_cutout_square_zeroes_a_square_about_some_pixel(size: int) -> None:
    images = photographs(200, 3, 12, 17).float() + 1
    before = images.clone()
    found = augment.cutout_square(images, size, stream(4, "cutout", size))
    assert torch.equal(images, before)
    centres = set()
    for image, result in zip(images, found, strict=True):
        zero = result == 0
        expected = []
        for y in range(12):
            for x in range(17):
                square = torch.zeros_like(zero)
                top, left = y - size // 2, x - size // 2
                square[:, max(0, top) : top + size, max(0, left) : left + size] = True
                expected += [(x, y)] * torch.equal(zero, square)
        assert len(expected) == 1
        assert torch.equal(result, image * ~zero)
        centres.update(expected)
    assert {x for x, _ in centres} == set(range(17)) and {y for _, y in centres} == set(range(12))


def test_draws_depend_on_the_generator_alone() -> None:
    images = photographs(8, 3, 16, 16)
    for operation in (
        lambda seed: augment.crop_flip(images, 4, True, stream(seed, "a")),
        lambda seed: augment.cutout_square(images.float(), 6, stream(seed, "a")),
    ):
        first = operation(0)
        torch.manual_seed(5)
        assert torch.equal(first, operation(0)) and not torch.equal(first, operation(1))


def test_normalise_by_its_formula() -> None:
    images = photographs(2, 3, 5, 7)
    mean, std = (0.49, 0.48, 0.44), (0.25, 0.24, 0.26)
    found = augment.normalise(images, mean, std)
    assert found.dtype == torch.float32
    for c in range(3):
        expected = (images[:, c].double() / 255 - mean[c]) / std[c]
        assert torch.allclose(found[:, c].double(), expected, atol=2e-6)
    with pytest.raises(ValueError, match="1 means and 3 stds for 3 channels; set data.mean"):
        augment.normalise(images, mean[:1], std)
