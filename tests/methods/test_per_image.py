"""Per-image rewards against finite differences, least squares and written-out means."""

import pytest
import torch
from small_problem import XI, linear_softmax, small_problem, train_gradient
from torch import Tensor

from daas_dist.methods import equations, passes
from daas_dist.methods.per_image import (
    RunningGradient,
    control_by_others,
    control_variate,
    per_image_rewards,
)
from daas_dist.rng import stream


def test_per_image_rewards_equal_finite_differences_and_average_to_equation_13() -> None:
    theta, views, val, _ = small_problem()
    train = views[2]
    v_P = train_gradient(theta, val)
    reward_B = per_image_rewards(linear_softmax, theta, (), train, passes.unflat(v_P, theta), XI)

    def losses(t: float) -> Tensor:
        moved = passes.unflat(passes.flat(theta) + t * v_P, theta)
        logits = linear_softmax(moved, (), train.images, None)
        return torch.nn.functional.cross_entropy(logits, train.labels, reduction="none")

    slope = (losses(1e-6) - losses(-1e-6)) / 2e-6
    torch.testing.assert_close(reward_B, XI * slope, rtol=1e-6, atol=1e-9)
    whole = equations.rewards(train_gradient(theta, train)[None], v_P, XI)
    torch.testing.assert_close(reward_B.mean(), whole[0])
    assert reward_B.std() > 1e-3


def test_a_control_variate_keeps_the_mean_and_takes_what_it_explains() -> None:
    g = stream(4, "control")
    plain = torch.randn(500, generator=g)
    own = 0.5 * torch.randn(500, generator=g)
    reward = 1.7 * plain + own + 3.0
    left = control_variate(reward, plain)
    assert float(left.mean()) == pytest.approx(float(reward.mean()), abs=1e-5)
    slope = torch.linalg.lstsq(
        torch.stack([plain, torch.ones(500)], 1), reward.unsqueeze(1)
    ).solution[0, 0]
    expected = reward - slope * (plain - plain.mean())
    assert torch.allclose(left, expected, atol=1e-4)
    assert float(left.std()) == pytest.approx(0.5, rel=0.1)
    tiny = control_variate(1e-6 * reward, 1e-6 * plain)  # of rewards in another unit, the same
    assert torch.allclose(1e6 * tiny, expected, atol=1e-4)


def test_the_other_architectures_tell_what_an_image_earns_anyway() -> None:
    """Rewards of 5 architectures: an image's own part, which each scales, and what Γ adds."""
    g = stream(5, "control")
    image_B, scale_I1 = torch.randn(2000, generator=g), torch.tensor([[1.0, 2.0, 0.5, 1.5, 3.0]]).T
    policy_IB = 0.5 * torch.randn(5, 2000, generator=g)
    reward_IB = scale_I1 * image_B + policy_IB + scale_I1
    left_IB = control_by_others(reward_IB)
    assert torch.allclose(left_IB.mean(1), reward_IB.mean(1), atol=1e-5)
    for i in range(5):
        others = torch.cat([reward_IB[:i], reward_IB[i + 1 :]]).mean(0)
        spread = torch.corrcoef(torch.stack([reward_IB[i], others]))[0, 1]
        expected = float(reward_IB[i].var() * (1 - spread**2))
        assert float(left_IB[i].var()) == pytest.approx(expected, rel=1e-3)
        assert 0.2 < expected < 0.3 + 0.4 * float(reward_IB[i].var())
        # What Γ itself did is still there, as strong as it was.
        kept = (left_IB[i] * policy_IB[i]).mean() / policy_IB[i].square().mean()
        assert float(kept) == pytest.approx(1.0, abs=0.15)


def test_a_running_gradient_is_the_decayed_mean_of_those_that_knew_a_weight() -> None:
    decay, running = 0.7, RunningGradient.empty()
    seen = [{"a": 2.0, "b": -1.0}, {"a": 5.0}, {"a": 1.0}]
    for gradient in seen:
        running = running.add({n: torch.tensor([v]) for n, v in gradient.items()}, decay)
    now = {"a": torch.tensor([4.0]), "b": torch.tensor([3.0]), "c": torch.tensor([9.0])}
    mean = running.add(now, decay).mean(now)
    a = (4 + 0.7 * 1 + 0.49 * 5 + 0.343 * 2) / (1 + 0.7 + 0.49 + 0.343)
    b = (3 - 0.343) / (1 + 0.343)
    assert [float(mean[n]) for n in "abc"] == pytest.approx([a, b, 9.0])
    only_a = {"a": now["a"]}
    assert set(running.add(only_a, decay).mean(only_a)) == {"a"}
