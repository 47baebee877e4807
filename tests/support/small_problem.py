"""A problem small enough to enumerate: six policies of a batch, a smooth network, float64."""

import torch
from torch import Tensor

from daas_dist.methods import passes
from daas_dist.rng import stream

CLASSES, FEATURES, IMAGES = 3, 4, 5
POLICIES = 6
XI = 0.3


def linear_softmax(theta: passes.Weights, _path: object, images: Tensor, _gates: object) -> Tensor:
    return torch.tanh(images @ theta["first"]) @ theta["second"]


def small_problem(seed: int = 3) -> tuple[passes.Weights, list[passes.Batch], passes.Batch, Tensor]:
    """θ away from 0, γ from uniform; six fixed 'augmentations' of a batch, a validation batch."""
    g = stream(seed, "problem")
    theta = {
        "first": torch.randn(FEATURES, 6, generator=g, dtype=torch.float64),
        "second": torch.randn(6, CLASSES, generator=g, dtype=torch.float64),
    }
    images = torch.randn(IMAGES, FEATURES, generator=g, dtype=torch.float64)
    labels = torch.randint(CLASSES, (IMAGES,), generator=g)
    views = [
        passes.Batch(images * torch.randn(FEATURES, generator=g, dtype=torch.float64), labels)
        for _ in range(POLICIES)
    ]
    val = passes.Batch(
        torch.randn(IMAGES, FEATURES, generator=g, dtype=torch.float64),
        torch.randint(CLASSES, (IMAGES,), generator=g),
    )
    gamma = torch.randn(POLICIES, generator=g, dtype=torch.float64, requires_grad=True)
    return theta, views, val, gamma


def train_gradient(theta: passes.Weights, view: passes.Batch) -> Tensor:
    return passes.flat(passes.forward_backward(linear_softmax, theta, (), view).theta_grad)
