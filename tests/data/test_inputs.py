"""What a training does with an image: its order, its policies, and parts of a batch."""

import itertools
from dataclasses import replace

import pytest
import torch
from found_results import mixed_policy
from torch import Tensor
from torchvision.transforms import v2

from daas_dist import config
from daas_dist.data.inputs import PER, ImagePolicy, Inputs, named_policy, unchanged
from daas_dist.rng import WHOLE, Part, stream
from daas_dist.spaces import operations as augment
from daas_dist.spaces.color_jitter import color_jitter, lighting
from daas_dist.spaces.policy import Draws, Policy, apply

CIFAR10, IMAGENET = v2.AutoAugmentPolicy.CIFAR10, v2.AutoAugmentPolicy.IMAGENET
NAMES = ("found", "default", "trivial_augment", "rand_augment", "auto_augment", "none")
JITTER = (0.4, 0.4, 0.4, 0.2)
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def pictures(count: int, channels: int = 3) -> Tensor:
    shape = (count, channels, 16, 16)
    return torch.randint(256, shape, generator=stream(5, "pictures"), dtype=torch.uint8)


def named(name: str, per: str = "image") -> ImagePolicy:
    return named_policy(name, mixed_policy(), CIFAR10, per=per)


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


@pytest.mark.parametrize(
    ("name", "per"), [*((name, "image") for name in NAMES), ("found", "iteration")]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_part_of_a_batch_is_its_slice_of_the_whole(name: str, per: str, channels: int) -> None:
    images = pictures(12, channels)
    lit = 0.1 if channels == 3 else None
    inputs = Inputs(named(name, per), JITTER, lit, MEAN[:channels], STD[:channels], cutout=6)
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


def tonal(names: tuple[str, ...] = ("invert", "solarize", "contrast", "brightness")) -> Policy:
    """Operations without a sign or a place, so that a draw alone decides what an image becomes."""
    policy = mixed_policy()
    weight_O = torch.tensor([float(name in names) for name in policy.space.operations])
    return replace(policy, probability_KO=(weight_O / weight_O.sum()).expand(2, -1))


def test_a_step_draws_one_policy_for_its_batch_and_each_step_another() -> None:
    """Twelve copies of an image stay copies within a step of policy_per=iteration, and are several
    pictures within one of image; over the steps both have many."""
    image = pictures(1).expand(12, -1, -1, -1)

    def seen(per: str, step: int) -> set[tuple[int, ...]]:
        inputs = Inputs(named_policy("found", tonal(), CIFAR10, per=per), None, None, MEAN, STD, 0)
        return {tuple(each.flatten().tolist()) for each in inputs.changed(image, 3, step)}

    steps = [seen("iteration", step) for step in range(12)]
    assert all(len(each) == 1 for each in steps) and len(set.union(*steps)) > 5
    assert all(len(seen("image", step)) > 3 for step in range(3))
    assert seen("iteration", 4) == seen("iteration", 4)


def test_one_policy_a_batch_is_drawn_as_the_search_draws_it() -> None:
    """Operations, applications and magnitudes of the first draw; signs and places each image's."""
    policy, images = mixed_policy(), pictures(9)
    generator = stream(1, "batch")
    draws = Draws(*(each.expand(9, -1) for each in policy.draw(1, generator)))
    expected = apply(images, draws, generator, policy.space)
    assert torch.equal(policy.apply_one(images, stream(1, "batch")), expected)
    copies = pictures(1).expand(40, -1, -1, -1)
    moved = replace(tonal(("translate_x",)), application=torch.ones(2, 15))
    assert len(torch.unique(moved.apply_one(copies, stream(2, "batch")), dim=0)) > 1


def test_the_schemas_words_are_those_that_draw() -> None:
    for per in PER:
        given = ["stage=train_fashion", "train.result=r.json", f"train.policy_per={per}"]
        assert config.load(given).train.policy_per == per
    with pytest.raises(config.ConfigError, match=", ".join(PER)):
        config.load(["stage=train_fashion", "train.result=r.json", "train.policy_per=epoch"])


@pytest.mark.parametrize(
    ("overrides", "per"),
    [
        ("stage=train_cifar10", "iteration"),
        ("stage=train_imagenet data.root=/s", "iteration"),
        ("stage=train_cifar100 recipe=wide_resnet_28_10", "iteration"),
        ("stage=train_fashion preset=paper", "iteration"),
        ("stage=train_fashion", "image"),
        ("stage=train_folder data.root=/p", "image"),
        ("stage=train_imagenet recipe=resnet_50 data.root=/s", "image"),
    ],
)
def test_the_papers_trainings_draw_as_the_paper(overrides: str, per: str) -> None:
    given = [*overrides.split(), "train.result=r.json"]
    assert config.load(given).train.policy_per == per


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
    return apply(image, mine, generator, policy.space, Part(n, 10))


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
        policy = named_policy("auto_augment", None, which, per="iteration")
        results.append(policy(images, stream(0, "policy"), WHOLE))
        assert torch.equal(results[-1], torch.stack(expected))
    assert not torch.equal(*results)


def test_default_and_none_change_nothing_and_what_is_missing_is_said() -> None:
    assert named("default") is named("none") is unchanged
    with pytest.raises(ValueError, match='"found" needs train.result'):
        named_policy("found", None, CIFAR10, per="image")
    with pytest.raises(ValueError, match="unknown policy 'best'; known: found, default, none, tri"):
        named("best")


def test_a_test_image_is_only_normalised() -> None:
    images = pictures(3)
    inputs = Inputs(named("found"), JITTER, 0.1, MEAN, STD, cutout=6)
    for n, c in itertools.product(range(3), range(3)):
        expected = (images[n, c].double() / 255 - MEAN[c]) / STD[c]
        torch.testing.assert_close(inputs.test(images)[n, c].double(), expected, rtol=0, atol=1e-6)
