"""Forward-backward passes of a network on a path, and the names of what they take and return.

Axes: B images, P weights of a path, flattened, Q pairs of a path.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy
from torch.nn.utils import get_total_norm

from daas_dist.spaces.cells import Path

JVP = 0.8
"""What a forward-mode pass counts for, in forward-backward passes. Measured on one CPU core: 0.6 to
1.0 of one (supernets of 4 to 16 channels and 3 cells, images of 14 and 28 pixels, batch 64); 0.8 to
1.2 of those with models/depthwise.py (8 cells of 16 channels, batch 16)."""

FORWARD = 1 / 3
"""What a pass without a gradient counts for: backward makes two products for each of forward."""

Weights = dict[str, Tensor]

Forward = Callable[[Weights, Path, Tensor, Tensor | None], Tensor]
"""forward(weights of the path, path, images, gates) -> logits (B, classes). gates: a factor for
each pair of the path, (Q,)."""


def functional(network: nn.Module) -> Forward:
    """Return a network as a function of the weights of a path."""

    def forward(theta: Weights, path: Path, images: Tensor, gates: Tensor | None) -> Tensor:
        # No weights are tied; to look for some takes a quarter of a small step.
        return functional_call(network, theta, (images, path, gates), tie_weights=False)

    return forward


class Batch(NamedTuple):
    images: Tensor
    labels: Tensor


Mean = Callable[[Tensor], Tensor]
"""The mean over the ranks that hold a part of the batch each; of a whole batch, itself."""


def whole(value: Tensor) -> Tensor:
    """The Mean of a batch in one piece."""
    return value


class Pass(NamedTuple):
    """A forward-backward pass: of the whole batch the loss, the accuracy and the gradient by the
    gates, if wanted; of this rank's part of it the gradient by θ (and its norm, or a mean of
    them)."""

    loss: Tensor
    accuracy: Tensor
    norm: Tensor
    theta_grad: Weights
    gate_grad_Q: Tensor | None


def forward_backward(
    forward: Forward,
    theta: Weights,
    path: Path,
    batch: Batch,
    gates_Q: Tensor | None = None,
    mean: Mean = whole,
) -> Pass:
    """Compute the mean cross-entropy of a batch on a path, and its gradients.

    gates_Q: differentiated by if they require it, else only applied.
    """
    leaves = {name: value.detach().requires_grad_() for name, value in theta.items()}
    logits = forward(leaves, path, batch.images, gates_Q)
    loss = cross_entropy(logits, batch.labels)
    by_gates = gates_Q is not None and gates_Q.requires_grad
    wanted = [*leaves.values(), *([gates_Q] if gates_Q is not None and by_gates else [])]
    # Without an effect where all that would read them was drawn as nothing.
    gradients = torch.autograd.grad(loss, wanted, materialize_grads=True)
    accuracy = (logits.argmax(-1) == batch.labels).float().mean()
    theta_grad = dict(zip(leaves, gradients, strict=False))
    small = [loss.detach(), accuracy, get_total_norm(list(theta_grad.values()))]
    numbers = mean(torch.cat([torch.stack(small), *gradients[len(leaves) :]]))
    gate_grad_Q = numbers[3:] if by_gates else None
    return Pass(numbers[0], numbers[1], numbers[2], theta_grad, gate_grad_Q)


def flat(values: Weights) -> Tensor:
    """(P,), in the order of the dictionary."""
    return torch.cat([value.reshape(-1) for value in values.values()])


def unflat(flat_P: Tensor, like: Weights) -> Weights:
    parts = flat_P.split([value.numel() for value in like.values()])
    return {
        name: part.view(value.shape)
        for (name, value), part in zip(like.items(), parts, strict=True)
    }


def unit_gates(path: Path, like: Tensor) -> Tensor | None:
    """Return a gate of 1 for every pair of a path, to be differentiated by; none if it has none."""
    count = sum(map(len, path))
    if not count:
        return None
    return torch.ones(count, device=like.device, dtype=like.dtype, requires_grad=True)


def loss_accuracy(passes: Sequence[Pass]) -> Tensor:
    """Return the mean loss and accuracy of passes, (2,), on the CPU."""
    rows = torch.stack([torch.stack([p.loss, p.accuracy]) for p in passes])
    return rows.mean(0).float().cpu()


def total_norm(passes: Sequence[Pass]) -> Tensor:
    """Return the sum of the gradients' norms, (1,): finite if all of them are."""
    return sum((p.norm for p in passes), torch.zeros(())).float().cpu().reshape(1)
