"""p(Γ; γ) by enumeration, away from uniform π and p = 1/2."""

from dataclasses import replace

import pytest
import torch

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
    policy = gamma.derive("autoaugment")
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
    policy = logits("per_slot").derive("dada")
    with pytest.raises(ValueError, match="ranges 'other'"):
        replace(policy, ranges="other")
    with pytest.raises(ValueError, match="sum to 1"):
        replace(policy, probability_KO=policy.probability_KO * 2)
    with pytest.raises(ValueError, match="at least 1 slot"):
        PolicyLogits.initial(0, "per_slot")
    with pytest.raises(ValueError, match="per_slot"):
        PolicyLogits.initial(6, "per_policy")
