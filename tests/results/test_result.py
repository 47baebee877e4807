"""A result read back: its network, and its policy as a transform in torchvision's own pipelines."""

import pickle
from pathlib import Path
from typing import Any

import found_results as results
import numpy as np
import pytest
import torch
from found_results import mixed_policy
from images import from_pil, photographs, to_pil
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import tv_tensors
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

import daas_dist
from daas_dist.models import cost
from daas_dist.results.transform import PolicyTransform
from daas_dist.spaces import operations as augment
from daas_dist.spaces.policy import Policy


def certain_policy(names: tuple[str, ...], magnitude: int, application: float) -> Policy:
    """One operation a slot."""
    shape = len(names), len(augment.NAMES)
    numbers = [augment.NAMES.index(name) for name in names]
    return Policy(
        probability_KO=torch.eye(len(augment.NAMES))[numbers],
        application=torch.full(shape, application),
        magnitude=torch.full(shape, magnitude),
        parameters="per_slot",
        ranges="autoaugment",
    )


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ---------------------------------------------------------------- files and networks


def test_a_result_gives_back_its_policy_and_the_published_network(tmp_path: Path) -> None:
    found = daas_dist.load(results.save(tmp_path))
    assert found.policy == mixed_policy()
    assert cost(found.network(), (3, 32, 32))[0] == 3_349_342  # DARTS' own classes, facts of DARTS


def test_a_cifar_result_gives_the_published_imagenet_network(tmp_path: Path) -> None:
    found = daas_dist.load(results.save(tmp_path))
    network = found.network(48, 14, stem="imagenet", auxiliary=True, classes=1000)
    assert cost(network, (3, 64, 64))[0] == 4_718_752


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "training"}, "kind is 'training', expected 'search'"),
        ({"schema": 9}, "schema is 9, expected 1"),
        ({"policy": None}, "no policy"),
        ({"genotype": None}, "no architecture"),
    ],
)
def test_what_a_result_does_not_hold_is_said(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    path = results.save(tmp_path, **change)
    with pytest.raises(ValueError, match=words):
        found = daas_dist.load(path)
        found.transform()
        found.network()


# ---------------------------------------------------------------- what the transform does


@pytest.mark.parametrize("channels", [1, 3])
def test_it_is_what_pil_does(channels: int) -> None:
    """Slot after slot: magnitude 7 of 9 leaves int(8 - 7 / 9 * 4) = 4 bits, then the negative."""
    transform = PolicyTransform(certain_policy(("posterize", "invert"), 7, 1.0), seeded(0))
    for image in photographs(3, channels, 31, 23):
        expected = ImageOps.invert(ImageOps.posterize(to_pil(image), 4))
        assert torch.equal(transform(image), from_pil(expected))
        assert transform(to_pil(image)).tobytes() == expected.tobytes()


def test_each_image_of_a_batch_draws_its_own_policy() -> None:
    images = photographs(1, 3, 8, 9).repeat(600, 1, 1, 1)
    out = PolicyTransform(certain_policy(("invert",), 3, 0.3), seeded(1))(images)
    changed = (out == 255 - images).flatten(1).all(1)
    assert torch.equal(out[~changed], images[~changed])
    assert 0.3 - 4 * 0.0187 < float(changed.float().mean()) < 0.3 + 4 * 0.0187  # sqrt(pq / 600)


@pytest.mark.parametrize("channels", [1, 3])
def test_pil_and_tensors_get_the_same_bits(channels: int) -> None:
    of_pil, of_tensors = (PolicyTransform(mixed_policy(), seeded(2)) for _ in range(2))
    images = photographs(40, channels, 27, 20)
    given = [of_pil(to_pil(image)) for image in images]
    expected = torch.stack([of_tensors(image) for image in images])
    assert all(image.mode == ("L" if channels == 1 else "RGB") for image in given)
    assert torch.equal(torch.stack([from_pil(image) for image in given]), expected)
    assert (expected != images).flatten(1).any(1).sum() > 20


def test_it_stands_in_a_pipeline_between_geometry_and_normalisation() -> None:
    def pipeline() -> v2.Compose:
        return v2.Compose(
            [
                v2.ToImage(),
                v2.RandomCrop(24, padding=4),
                PolicyTransform(mixed_policy(), seeded(3)),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize([0.5], [0.25]),
            ]
        )

    image = to_pil(photographs(1, 3, 24, 24)[0])
    torch.manual_seed(4)
    given = pipeline()(image)
    torch.manual_seed(4)
    cropped = v2.RandomCrop(24, padding=4)(v2.functional.pil_to_tensor(image))
    expected = PolicyTransform(mixed_policy(), seeded(3))(cropped) / 255
    assert isinstance(given, tv_tensors.Image)
    torch.testing.assert_close(given.as_subclass(Tensor), (expected - 0.5) / 0.25)


def test_labels_pass_and_images_keep_their_type() -> None:
    transform = PolicyTransform(certain_policy(("invert",), 0, 1.0))
    image, label = photographs(1, 3, 10, 12)[0], torch.tensor([4, 7])
    out, number, vector = transform(tv_tensors.Image(image), 6, label)
    assert isinstance(out, tv_tensors.Image) and torch.equal(out.as_subclass(Tensor), 255 - image)
    assert number == 6 and vector is label
    out = transform({"picture": image, "label": label})
    assert type(out["picture"]) is Tensor and torch.equal(out["picture"], 255 - image)
    assert out["label"] is label


def test_two_images_of_one_sample_get_one_policy() -> None:
    transform = PolicyTransform(mixed_policy(), seeded(5))
    for image in photographs(20, 3, 16, 16):
        left, right = transform(tv_tensors.Image(image), tv_tensors.Image(image.clone()))
        assert torch.equal(left, right)


BOXES = tv_tensors.BoundingBoxes([[0, 0, 2, 2]], format="XYXY", canvas_size=(8, 8))  # type: ignore[call-overload]
IMAGE = torch.zeros(3, 8, 8, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("sample", "error", "words"),
    [
        (IMAGE.float(), ValueError, r"torch.float32 \[3, 8, 8\]; expected .* before v2.ToDtype"),
        (IMAGE[0], ValueError, r"torch.uint8 \[8, 8\]; expected"),
        (IMAGE[:2], ValueError, r"\[2, 8, 8\]; expected .* C = 1 or 3"),
        (IMAGE.expand(2, 2, 3, 8, 8), ValueError, r"\[2, 2, 3, 8, 8\]; expected"),
        (Image.new("RGBA", (8, 8)), ValueError, "mode RGBA; expected a PIL image of mode L or RGB"),
        (Image.new("P", (8, 8)), ValueError, "mode P; expected"),
        ((tv_tensors.Image(IMAGE), BOXES), TypeError, "BoundingBoxes in the sample"),
        (tv_tensors.Video(IMAGE[None]), TypeError, "Video in the sample"),
        ((np.zeros((8, 8, 3), np.uint8), 3), TypeError, "no image in the sample: expected"),
    ],
)
def test_what_it_cannot_take_is_refused(sample: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        PolicyTransform(mixed_policy())(sample)


# ---------------------------------------------------------------- randomness, workers


def test_a_generator_repeats_and_a_pickled_transform_goes_on_from_it() -> None:
    images = photographs(24, 3, 12, 12)
    transform = PolicyTransform(mixed_policy(), seeded(6))
    first = transform(images)
    copied = pickle.loads(pickle.dumps(transform))
    second = transform(images)
    assert torch.equal(copied(images), second)
    assert not torch.equal(first, second)
    again = PolicyTransform(mixed_policy(), seeded(6))
    assert torch.equal(again(images), first)
    assert not torch.equal(PolicyTransform(mixed_policy(), seeded(7))(images), first)


def test_without_a_generator_torchs_own_decides() -> None:
    images = photographs(24, 3, 12, 12)
    transform = PolicyTransform(mixed_policy())
    torch.manual_seed(8)
    first = transform(images)
    torch.manual_seed(8)
    assert torch.equal(transform(images), first)
    assert not torch.equal(transform(images), first)


def test_workers_and_epochs_differ_and_repeat_with_the_loaders_generator(tmp_path: Path) -> None:
    """An ordinary ImageFolder of one picture 32 times: what differs is the policy."""
    (tmp_path / "class").mkdir()
    for number in range(32):
        to_pil(photographs(1, 3, 16, 16)[0]).save(tmp_path / "class" / f"{number}.png")

    def epochs(start: str, count: int) -> list[Tensor]:
        transform = v2.Compose([PolicyTransform(mixed_policy(), seeded(9)), v2.PILToTensor()])
        loader = DataLoader(
            ImageFolder(tmp_path, transform),
            batch_size=16,
            num_workers=2,
            generator=seeded(10),
            multiprocessing_context=start,
        )
        return [torch.stack([images for images, _ in loader]) for _ in range(count)]

    first, second = epochs("fork", 2)
    assert not torch.equal(first[0], first[1])  # batch 0 is worker 0's, batch 1 worker 1's
    assert not torch.equal(first, second)
    assert torch.equal(epochs("spawn", 1)[0], first)
