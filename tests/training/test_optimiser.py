"""Which weights decay, against a step written out."""

import pytest
import torch
from torch import nn

from daas_dist.training.optimiser import sgd


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


@pytest.mark.parametrize("decay_norms", [True, False])
def test_two_nesterov_steps_are_the_formula_and_norms_decay_or_not(
    decay_norms: bool,
) -> None:
    """v ← 0.9 v + g + λθ; θ ← θ − η (g + λθ + 0.9 v), with λ = 0 for norms that are spared."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = network().double()
        gradients = [[torch.randn_like(p) for p in made.parameters()] for _ in range(2)]
    optimiser = sgd(
        made, 0.1, momentum=0.9, nesterov=True, weight_decay=0.03, decay_norms=decay_norms
    )
    expected, velocity = [p.detach().clone() for p in made.parameters()], [torch.zeros(())] * 6
    for step in gradients:
        for p, gradient in zip(made.parameters(), step, strict=True):
            p.grad = gradient.clone()
        optimiser.step()
        for i, (name, _) in enumerate(made.named_parameters()):
            decay = 0.0 if name.startswith("1.") and not decay_norms else 0.03
            full = step[i] + decay * expected[i]
            velocity[i] = 0.9 * velocity[i] + full
            expected[i] = expected[i] - 0.1 * (full + 0.9 * velocity[i])
    for p, value in zip(made.parameters(), expected, strict=True):
        torch.testing.assert_close(p.detach(), value, rtol=1e-12, atol=0)
