"""What methods of α alone share: how α starts, and the policy that θ trains under."""

from typing import Any

import pytest
import torch
from found_results import mixed_policy
from plain_context import PlainContext
from small_problem import linear_softmax, small_problem

from daas_dist.methods.one_path import OfAlpha, batch_under
from daas_dist.methods.passes import Batch
from daas_dist.rng import stream
from daas_dist.spaces.policy import Draws


def test_alpha_starts_at_a_thousandth_of_a_standard_normal_and_has_none_beside() -> None:
    made = [OfAlpha(warmup_epochs=0).logits(stream(n, "start"))["alpha"] for n in range(20)]
    values = torch.stack(made)
    assert values.shape[1:] == (2, 14, 7 + 1)
    spread = 4 / (2 * values.numel()) ** 0.5  # four standard errors of a standard deviation
    assert float(values.std()) == pytest.approx(1e-3, rel=spread)


def test_a_batch_is_under_one_draw_of_a_fixed_policy_the_same_in_both_halves() -> None:
    theta, views, val, _ = small_problem()
    policy, seen = mixed_policy(), []

    class Context(PlainContext):
        def augmented(self, draws: Draws | None, ranges: str, purpose: str, index: int) -> Batch:
            seen.append((draws, ranges))
            return super().augmented(draws, ranges, purpose, index)

    context: Any = Context(linear_softmax, theta, views[0], val)
    for _ in range(2):
        batch_under(policy, context)
    (first, ranges), (again, _) = seen
    assert first.operation_NK.shape == (1, policy.slots) and ranges == policy.ranges
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert context.asked == [("weights-policy", 0), ("augmented", "weights", 0)] * 2
