"""p(Γ; γ) by enumeration, away from uniform π and p = 1/2."""

import json
from dataclasses import asdict, replace

import pytest
import torch

from daas_dist.documents import checked
from daas_dist.documents.found import PolicyDocument
from daas_dist.rng import stream
from daas_dist.spaces.operations import MAGNITUDES
from daas_dist.spaces.policy import Draws, Policy, PolicyLogits, apply
from daas_dist.spaces.space import Space

PAPER = Space.whole("autoaugment")


def logits(parameters: str, slots: int = 2, space: Space = PAPER) -> PolicyLogits:
    g = stream(4, "policy", parameters)
    start = PolicyLogits.initial(slots, parameters, space)
    return replace(
        start,
        **{n: torch.randn(getattr(start, n).shape, generator=g) for n in ("pi_KO", "rho", "delta")},
    )


def every_draw_of_one_slot(space: Space = PAPER) -> Draws:
    """(o, y, m): not applied once, applied with each magnitude."""
    operations = range(len(space.operations))
    rows = [(o, y, m) for o in operations for y in (0, 1) for m in range(MAGNITUDES if y else 1)]
    table = torch.tensor(rows)
    return Draws(table[:, :1], table[:, 1:2].bool(), table[:, 2:])


@pytest.mark.parametrize("parameters", ["per_policy", "per_slot"])
def test_probabilities_sum_to_one(parameters: str) -> None:
    """Eq. (4) over all draws: exactly for one slot, and for two slots as a product of tables."""
    gamma = logits(parameters, slots=1)
    assert gamma.log_prob(every_draw_of_one_slot()).exp().sum().item() == pytest.approx(1, abs=1e-5)
    one = every_draw_of_one_slot()
    count = len(one.operation_NK)
    i, j = torch.cartesian_prod(torch.arange(count), torch.arange(count)).unbind(1)
    two = Draws(*(torch.cat([part[i], part[j]], 1) for part in one))
    assert logits(parameters).log_prob(two).exp().sum().item() == pytest.approx(1, abs=1e-4)


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
            p = getattr(choice, name)[k]
            assert ((counted / count - p).abs() < 4.5 * (p * (1 - p) / count).sqrt() + 1e-6).all()
    torch.testing.assert_close(choice.magnitude_KOM.sum(-1), choice.applied_KO)
    policy = gamma.derive(PAPER)
    torch.testing.assert_close(policy.weights(), choice.applied_KO)
    assert Policy.from_document(policy.to_document()) == policy


def test_entropy_is_that_of_the_enumerated_distribution() -> None:
    for parameters in ("per_policy", "per_slot"):
        gamma = logits(parameters, slots=1)
        log_p = gamma.log_prob(every_draw_of_one_slot())
        parts = gamma.entropy()
        applied = gamma.occurrence().applied_KO.sum()
        whole = parts["operation"] + parts["application"] + applied * parts["magnitude"]
        assert whole.item() == pytest.approx(-(log_p.exp() * log_p).sum().item(), rel=1e-4)


def test_wrong_policies_are_refused_by_name() -> None:
    policy = logits("per_slot").derive(Space.whole("dada"))
    with pytest.raises(ValueError, match="ranges 'other'"):
        replace(policy, space=Space("other", policy.space.operations))
    with pytest.raises(ValueError, match="sum to 1"):
        replace(policy, probability_KO=policy.probability_KO * 2)
    with pytest.raises(ValueError, match="at least 1 slot"):
        PolicyLogits.initial(0, "per_slot", PAPER)
    with pytest.raises(ValueError, match="per_slot"):
        PolicyLogits.initial(6, "per_policy", PAPER)


# --- Some operations alone -----------------------------------------------------------------------

SOME = Space("wide", ("rotate", "invert", "noise"))


@pytest.mark.parametrize("parameters", ["per_policy", "per_slot"])
def test_three_operations_by_enumeration(parameters: str) -> None:
    """log_prob, occurrence and entropy of two slots, over all 33² draws."""
    gamma, single = logits(parameters, space=SOME), every_draw_of_one_slot(SOME)
    count = len(single.operation_NK)
    assert count == 3 * 11
    i, j = torch.cartesian_prod(torch.arange(count), torch.arange(count)).unbind(1)
    both = Draws(*(torch.cat([part[i], part[j]], 1) for part in single))
    chance_N = gamma.log_prob(both).exp()
    assert chance_N.sum().item() == pytest.approx(1, abs=1e-5)
    choice = gamma.occurrence()
    assert choice.magnitude_KOM.shape == (2, 3, MAGNITUDES)
    for k in range(2):
        for o in range(3):
            drawn_N = both.operation_NK[:, k] == o
            applied_N = drawn_N & both.applied_NK[:, k]
            assert choice.operation_KO[k, o].item() == pytest.approx(chance_N[drawn_N].sum().item())
            assert choice.applied_KO[k, o].item() == pytest.approx(chance_N[applied_N].sum().item())
            at_4 = chance_N[applied_N & (both.magnitude_NK[:, k] == 4)].sum().item()
            assert choice.magnitude_KOM[k, o, 4].item() == pytest.approx(at_4)
    parts = gamma.entropy()
    applied = choice.applied_KO.sum() / 2
    whole = 2 * (parts["operation"] + parts["application"] + applied * parts["magnitude"])
    expected = -(chance_N * gamma.log_prob(both)).sum().item()
    assert whole.item() == pytest.approx(expected, rel=1e-4)


def test_a_space_is_some_of_its_ranges_operations_in_their_order() -> None:
    for ranges, operations in (("dada", ("noise",)), ("wide", ()), ("wide", ("invert", "rotate"))):
        with pytest.raises(
            ValueError, match=r"operations are \[.*expected one or more of .*shear_x"
        ):
            Space(ranges, operations)
    with pytest.raises(ValueError, match="2 operations, expected 3"):
        Policy(torch.full((1, 2), 0.5), torch.zeros(1, 2), torch.zeros(1, 2), "per_slot", SOME)
    assert Space.whole("wide").operations[-1] == "pixelate"


def test_draws_of_a_space_apply_its_own_operations() -> None:
    """Place 1 is invert here, place 6 of the table."""
    images = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).view(2, 3, 4, 4)
    one = torch.ones(2, 1, dtype=torch.long)
    draws = Draws(one, one.bool(), 3 * one)
    assert torch.equal(apply(images, draws, stream(0, "signs"), SOME), 255 - images)
    assert draws.in_words(0, SOME) == "invert 3"


# --- Drawn magnitudes (ours) ---------------------------------------------------------------------


@pytest.mark.parametrize("parameters", ["per_policy", "per_slot"])
def test_a_policy_draws_its_magnitudes_as_often_as_the_search_did(parameters: str) -> None:
    gamma, count = logits(parameters, space=SOME), 60_000
    policy = gamma.derive_drawn(SOME)
    assert policy.draws_magnitudes and torch.equal(policy.magnitude, gamma.delta.argmax(-1))
    draws = policy.draw(count, stream(0, "drawn"))
    expected_KOM = gamma.occurrence().magnitude_KOM
    for k in range(2):
        cell_N = draws.operation_NK[:, k] * MAGNITUDES + draws.magnitude_NK[:, k]
        counted = torch.bincount(cell_N[draws.applied_NK[:, k]], minlength=30) / count
        p = expected_KOM[k].flatten().detach()
        assert ((counted - p).abs() < 4.5 * (p * (1 - p) / count).sqrt() + 1e-6).all()


@pytest.mark.parametrize("parameters", ["per_policy", "per_slot"])
def test_a_policy_of_certain_magnitudes_draws_none(parameters: str) -> None:
    """Two numbers a slot, so that what is drawn after them is what it was."""
    policy, generator = logits(parameters).derive(PAPER), stream(0, "drawn")
    draws = policy.draw(50, generator)
    assert not policy.draws_magnitudes
    if parameters == "per_policy":
        own = policy.magnitude[draws.operation_NK[:, 0] * 15 + draws.operation_NK[:, 1]]
    else:
        own = policy.magnitude[torch.arange(2), draws.operation_NK]
    assert torch.equal(draws.magnitude_NK, own)
    other = stream(0, "drawn")
    torch.rand(2, 50, 2, generator=other, dtype=torch.float64)
    assert torch.equal(generator.get_state(), other.get_state())


@pytest.mark.parametrize("parameters", ["per_policy", "per_slot"])
@pytest.mark.parametrize("space", [SOME, Space.whole("wide"), Space("dada", ("cutout",))])
def test_policies_of_every_space_return_from_json(parameters: str, space: Space) -> None:
    gamma = logits(parameters, space=space)
    for policy in (gamma.derive(space), gamma.derive_drawn(space)):
        read = checked(PolicyDocument, json.loads(json.dumps(asdict(policy.to_document()))))
        assert (read.magnitude_probabilities is not None) == policy.draws_magnitudes
        assert tuple(read.operations) == space.operations
        assert Policy.from_document(read) == policy


def test_wrong_probabilities_of_magnitudes_are_refused() -> None:
    policy = logits("per_slot", space=SOME).derive_drawn(SOME)
    with pytest.raises(ValueError, match="probabilities of magnitudes must be >= 0 and sum to 1"):
        replace(policy, magnitudes=policy.magnitudes * 0.9)
    with pytest.raises(
        ValueError, match=r"magnitudes has the shape \(2, 3\), expected \(2, 3, 10\)"
    ):
        replace(policy, magnitudes=policy.magnitude)
    document = asdict(policy.to_document())
    document["magnitude_probabilities"][1][2].pop()
    with pytest.raises(ValueError, match="magnitude_probabilities has rows of different lengths"):
        checked(PolicyDocument, document)
    other = logits("per_slot", space=SOME).derive(SOME).to_document()
    other.magnitudes[0][0] = 10
    with pytest.raises(ValueError, match=r"magnitudes must lie in 0..9"):
        Policy.from_document(other)
