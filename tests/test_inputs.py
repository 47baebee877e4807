"""What a training does with an image: its order, its policies, and parts of a batch."""

import itertools

import pytest
import torch
from results import mixed_policy
from torch import Tensor
from torchvision.transforms import v2

from daas_dist import augment
from daas_dist.color_jitter import color_jitter, lighting
from daas_dist.inputs import ImagePolicy, Inputs, named_policy, unchanged
from daas_dist.policy import Draws, Policy, apply
from daas_dist.rng import WHOLE, Part, stream

CIFAR10, IMAGENET = v2.AutoAugmentPolicy.CIFAR10, v2.AutoAugmentPolicy.IMAGENET
NAMES = ("found", "default", "trivial_augment", "rand_augment", "auto_augment", "none")
JITTER = (0.4, 0.4, 0.4, 0.2)
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def pictures(count: int, channels: int = 3) -> Tensor:
    shape = (count, channels, 16, 16)
    return torch.randint(256, shape, generator=stream(5, "pictures"), dtype=torch.uint8)


def named(name: str) -> ImagePolicy:
    return named_policy(name, mixed_policy(), CIFAR10)


def test_the_order_is_policy_jitter_normalise_lighting_cutout() -> None:
    """Written out with the stages themselves; any other order of them gives other pixels."""
    images, step = pictures(6), 9
    inputs = Inputs(named("found"), JITTER, 0.1, MEAN, STD, cutout=6)
    address = {name: ("training", name, step) for name in ("policy", "color-jitter", "cutout")}

    def policy(x: Tensor) -> Tensor:
        return mixed_policy().apply(x, stream(3, *address["policy"]))

    def jitter(x: Tensor) -> Tensor:
        return color_jitter(x, JITTER, stream(3, *address["color-jitter"]))

    expected = augment.normalise(jitter(policy(images)), MEAN, STD)
    expected = lighting(expected, 0.1, STD, stream(3, "training", "lighting", step))
    expected = augment.cutout_square(expected, 6, stream(3, *address["cutout"]))
    assert torch.equal(inputs(images, 3, step), expected)
    assert not torch.equal(jitter(policy(images)), policy(jitter(images)))
    # Cutout comes last: its square is 0, the mean, whatever jitter and lighting did.
    assert all((image == 0).all(0).sum() >= 9 for image in expected)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_part_of_a_batch_is_its_slice_of_the_whole(name: str, channels: int) -> None:
    images = pictures(12, channels)
    lit = 0.1 if channels == 3 else None
    inputs = Inputs(named(name), JITTER, lit, MEAN[:channels], STD[:channels], cutout=6)
    whole = inputs(images, 1, 4)
    for of in (2, 3, 12):
        parts = [inputs(part.take(images), 1, 4, part) for part in (Part(i, of) for i in range(of))]
        assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(whole, inputs(images, 1, 5))
    assert not torch.equal(whole, inputs(images, 2, 4))


@pytest.mark.parametrize("name", ["found", "trivial_augment", "rand_augment", "auto_augment"])
def test_every_image_has_a_policy_of_its_own_and_torchs_generator_is_left_alone(name: str) -> None:
    image = pictures(1).expand(24, -1, -1, -1)
    before = torch.get_rng_state()
    changed = named(name)(image, stream(0, "policy"), WHOLE)
    assert torch.equal(torch.get_rng_state(), before)
    assert len({tuple(each.flatten().tolist()) for each in changed}) > 8


def test_the_found_policy_is_drawn_by_the_product_over_its_slots_for_each_image() -> None:
    """Every image against the operations of its draw one by one; and the frequency of each pair of
    operations against the product, within 5 standard errors."""
    policy, count = mixed_policy(), 6000
    draws = policy.draw(count, stream(0, "draws"))
    assert torch.equal(draws.magnitude_NK, policy.magnitude[torch.arange(2), draws.operation_NK])
    pair_N = draws.operation_NK[:, 0] * 15 + draws.operation_NK[:, 1]
    expected = (policy.probability_KO[0][:, None] * policy.probability_KO[1]).flatten()
    found = torch.bincount(pair_N, minlength=225) / count
    error = (expected * (1 - expected) / count).sqrt()
    assert ((found - expected).abs() < 5 * error).all()

    images = pictures(10)
    generator = stream(0, "applied")
    drawn = policy.draw(10, generator)
    one_by_one = torch.cat([
        _alone(images[n : n + 1], policy, drawn, n, generator.get_state()) for n in range(10)
    ])  # fmt: skip
    assert torch.equal(policy.apply(images, stream(0, "applied")), one_by_one)


def _alone(image: Tensor, policy: Policy, drawn: Draws, n: int, state: Tensor) -> Tensor:
    generator = torch.Generator()
    generator.set_state(state)
    mine = Draws(*(each[n : n + 1] for each in drawn))
    return apply(image, mine, generator, policy.ranges, Part(n, 10))


def test_auto_augment_is_torchvisions_for_the_images_it_was_found_on() -> None:
    """Its own transform from the image's own address."""
    images = pictures(4)
    addresses = torch.randint(2**62, (4,), generator=stream(0, "policy")).tolist()
    results = []
    for which in (CIFAR10, IMAGENET):
        transform, expected = v2.AutoAugment(which), []
        with torch.random.fork_rng(devices=[]):
            for image, address in zip(images, addresses, strict=True):
                torch.manual_seed(address)
                expected.append(transform(image))
        policy = named_policy("auto_augment", None, which)
        results.append(policy(images, stream(0, "policy"), WHOLE))
        assert torch.equal(results[-1], torch.stack(expected))
    assert not torch.equal(*results)


def test_default_and_none_change_nothing_and_what_is_missing_is_said() -> None:
    assert named("default") is named("none") is unchanged
    with pytest.raises(ValueError, match='"found" needs train.result'):
        named_policy("found", None, CIFAR10)
    with pytest.raises(ValueError, match="unknown policy 'best'; known: found, default, none, tri"):
        named("best")


def test_a_test_image_is_only_normalised() -> None:
    images = pictures(3)
    inputs = Inputs(named("found"), JITTER, 0.1, MEAN, STD, cutout=6)
    for n, c in itertools.product(range(3), range(3)):
        expected = (images[n, c].double() / 255 - MEAN[c]) / STD[c]
        torch.testing.assert_close(inputs.test(images)[n, c].double(), expected, rtol=0, atol=1e-6)
