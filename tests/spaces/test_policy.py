"""p(Γ; γ) by enumeration, away from uniform π and p = 1/2."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from daas_dist.rng import stream
from daas_dist.spaces.operations import MAGNITUDES, NAMES
from daas_dist.spaces.policy import Draws, Policy, PolicyLogits


def logits(parameters: str, slots: int = 2) -> PolicyLogits:
    g = stream(4, "policy", parameters)
    start = PolicyLogits.initial(slots, parameters)
    return replace(
        start,
        **{n: torch.randn(getattr(start, n).shape, generator=g) for n in ("pi_KO", "rho", "delta")},
    )


def every_draw_of_one_slot() -> Draws:
    """(o, y, m): not applied once, applied with each magnitude."""
    rows = [
        (o, y, m) for o in range(len(NAMES)) for y in (0, 1) for m in range(MAGNITUDES if y else 1)
    ]
    table = torch.tensor(rows)
    return Draws(table[:, :1], table[:, 1:2].bool(), table[:, 2:])


def every_draw_of_two_slots() -> Draws:
    one = every_draw_of_one_slot()
    count = len(one.operation_NK)
    i, j = torch.cartesian_prod(torch.arange(count), torch.arange(count)).unbind(1)
    return Draws(*(torch.cat([part[i], part[j]], 1) for part in one))


@pytest.mark.parametrize("parameters", ["per_policy", "per_slot"])
def test_probabilities_sum_to_one(parameters: str) -> None:
    """Eq. (4) over all draws: exactly for one slot, and for two slots as a product of tables."""
    gamma = logits(parameters, slots=1)
    assert gamma.log_prob(every_draw_of_one_slot()).exp().sum().item() == pytest.approx(1, abs=1e-5)
    two = every_draw_of_two_slots()
    assert logits(parameters).log_prob(two).exp().sum().item() == pytest.approx(1, abs=1e-4)


def near(counted: Tensor, p: Tensor, count: int) -> bool:
    """Whether shares are within 4.5 standard deviations of their probabilities."""
    return bool(((counted / count - p).abs() < 4.5 * (p * (1 - p) / count).sqrt() + 1e-6).all())


@pytest.mark.parametrize("parameters", ["per_policy", "per_slot"])
def test_a_found_policy_draws_by_its_probabilities_and_applies_by_its_own(parameters: str) -> None:
    policy, count = logits(parameters).derive("dada"), 60_000
    drawn = policy.draw(count, stream(1, "drawn"))
    for k in range(2):
        operation_N, applied_N = drawn.operation_NK[:, k], drawn.applied_NK[:, k]
        assert near(torch.bincount(operation_N, minlength=15), policy.probability_KO[k], count)
        used = torch.bincount(operation_N[applied_N], minlength=15)
        assert near(used, policy.weights()[k], count)
    first, second = drawn.operation_NK.unbind(1)
    if parameters == "per_slot":
        expected = policy.magnitude[0, first], policy.magnitude[1, second]
    else:
        expected = policy.magnitude[15 * first + second].unbind(1)
    assert torch.equal(drawn.magnitude_NK, torch.stack(expected, 1))


def test_a_slot_whose_probabilities_miss_1_by_rounding_draws_no_operation_beyond_the_last() -> None:
    short = one_slot({"rotate": 0.6, "cutout": 0.39991})
    drawn = short.draw(200_000, stream(2, "short")).operation_NK
    names, counts = drawn.unique(return_counts=True)
    assert [NAMES[i] for i in names.tolist()] == ["rotate", "cutout"]
    assert near(counts, torch.tensor([0.6, 0.39991]) / 0.99991, 200_000)


def one_slot(probabilities: dict[str, float]) -> Policy:
    """Operations that are always applied, at magnitude 9."""
    given = torch.zeros(1, 15)
    for name, probability in probabilities.items():
        given[0, NAMES.index(name)] = probability
    ones = torch.ones(1, 15)
    return Policy(given, ones, (9 * ones).long(), "per_slot", "autoaugment")


def test_one_policy_of_an_iteration_is_that_of_all_its_images() -> None:
    images = torch.randint(256, (5, 3, 6, 6), generator=stream(3, "images"), dtype=torch.uint8)
    policy, seen = one_slot({"invert": 0.3, "auto_contrast": 0.7}), set()
    for seed in range(12):
        found = policy.apply_one(images, stream(seed, "one"))
        inverted = [bool((a == 255 - b).all()) for a, b in zip(found, images, strict=True)]
        assert len(set(inverted)) == 1
        seen.add(inverted[0])
    assert seen == {True, False}
    each = policy.apply(images.repeat(20, 1, 1, 1), stream(0, "each"))
    inverted_N = (each == 255 - images.repeat(20, 1, 1, 1)).flatten(1).all(1)
    assert near(inverted_N.sum(), torch.tensor(0.3), 100)


def test_operations_are_ranked_by_probability_times_application_over_the_slots() -> None:
    policy = logits("per_slot").derive("dada")
    probability_KO, application = torch.zeros(2, 15), torch.zeros(2, 15)
    for k, name, probability, applied in (
        (0, "invert", 0.9, 0.2), (0, "color", 0.1, 0.5), (1, "color", 0.4, 0.75),
        (1, "rotate", 0.6, 0.1),
    ):  # fmt: skip
        probability_KO[k, NAMES.index(name)] = probability
        application[k, NAMES.index(name)] = applied
    given = replace(policy, probability_KO=probability_KO, application=application)
    names, weights = zip(*given.ranking(), strict=True)
    assert names[:3] == ("color", "invert", "rotate")
    assert names[3:] == tuple(n for n in NAMES if n not in names[:3])  # equals, in their order
    assert weights[:4] == pytest.approx((0.05 + 0.3, 0.18, 0.06, 0.0))


@pytest.mark.parametrize("parameters", ["per_policy", "per_slot"])
def test_draws_occurrence_and_derived_weights_agree(parameters: str) -> None:
    gamma = logits(parameters)
    count = 60_000
    draws = gamma.sample(count, stream(0, "draws"))
    choice = gamma.occurrence()
    for k in range(2):
        shares = {
            "operation_KO": torch.bincount(draws.operation_NK[:, k], minlength=15),
            "applied_KO": torch.bincount(
                draws.operation_NK[draws.applied_NK[:, k], k], minlength=15
            ),
        }
        for name, counted in shares.items():
            assert near(counted, getattr(choice, name)[k], count)
        # A magnitude is drawn apart from whether it is applied.
        applied_N = draws.applied_NK[:, k]
        place_N = draws.operation_NK[:, k] * MAGNITUDES + draws.magnitude_NK[:, k]
        counted = torch.bincount(place_N[applied_N], minlength=15 * MAGNITUDES)
        assert near(counted.view(15, MAGNITUDES), choice.magnitude_KOM[k], count)
    torch.testing.assert_close(choice.magnitude_KOM.sum(-1), choice.applied_KO)
    policy = gamma.derive("autoaugment")
    torch.testing.assert_close(policy.weights(), choice.applied_KO)
    most = gamma.delta.amax(-1, keepdim=True)
    assert torch.equal(gamma.delta.gather(-1, policy.magnitude.unsqueeze(-1)), most)
    assert Policy.from_document(policy.to_document()) == policy


def test_entropy_is_that_of_the_enumerated_distribution() -> None:
    for parameters in ("per_policy", "per_slot"):
        for slots, draws in ((1, every_draw_of_one_slot()), (2, every_draw_of_two_slots())):
            gamma = logits(parameters, slots)
            log_p = gamma.log_prob(draws)
            parts = gamma.entropy()
            applied = gamma.occurrence().applied_KO.sum() / slots
            a_slot = parts["operation"] + parts["application"] + applied * parts["magnitude"]
            whole = -(log_p.exp() * log_p).sum().item()
            assert slots * a_slot.item() == pytest.approx(whole, rel=1e-4)


def with_one(values: Tensor, value: float) -> Tensor:
    """A copy in which one number is another."""
    changed = values.clone()
    changed[1, 4] = value
    return changed


def test_the_ends_of_every_range_are_a_policys() -> None:
    policy = one_slot({"invert": 1.0})  # fourteen probabilities of 0, applications of 1
    never = replace(policy, application=torch.zeros(1, 15), magnitude=torch.zeros(1, 15).long())
    assert not never.draw(50, stream(0, "never")).applied_NK.any()
    assert policy.draw(50, stream(0, "always")).applied_NK.all()


def test_policies_that_differ_in_anything_are_not_equal() -> None:
    policy = logits("per_slot").derive("dada")
    assert policy == replace(policy, magnitude=policy.magnitude.clone())
    for change in (
        {"probability_KO": policy.probability_KO.roll(1, 1)},
        {"application": with_one(policy.application, 0.123)},
        {"magnitude": (policy.magnitude + 1) % 10},
        {"ranges": "autoaugment"},
    ):
        assert policy != replace(policy, **change)
    assert policy != "dada"


def test_wrong_policies_are_refused_by_name() -> None:
    policy = logits("per_slot").derive("dada")
    with pytest.raises(ValueError, match="ranges 'other'"):
        replace(policy, ranges="other")
    off = torch.ones(15)
    off[2] = 1.01
    negative = policy.probability_KO.clone()
    negative[1, :2] = torch.tensor([-0.01, negative[1, :2].sum() + 0.01])
    for wrong in (policy.probability_KO * 2, policy.probability_KO * torch.stack([off / off, off])):
        with pytest.raises(ValueError, match="sum to 1"):
            replace(policy, probability_KO=wrong)
    with pytest.raises(ValueError, match=">= 0 and sum to 1"):
        replace(policy, probability_KO=negative)
    for value in (-0.01, 1.01, float("nan")):
        with pytest.raises(ValueError, match=r"application probabilities must lie in \[0, 1\]"):
            replace(policy, application=with_one(policy.application, value))
    for value in (-1, 10):
        with pytest.raises(ValueError, match=r"magnitudes must lie in 0\.\.9"):
            replace(policy, magnitude=with_one(policy.magnitude, value))
    with pytest.raises(ValueError, match="at least 1 slot"):
        PolicyLogits.initial(0, "per_slot")
    with pytest.raises(ValueError, match="per_slot"):
        PolicyLogits.initial(6, "per_policy")
