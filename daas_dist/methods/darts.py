"""DARTS (Liu et al. 2019, arXiv 1806.09055): every operation runs, weighted by its softmax.

Axes: K kinds of cell, E edges, O operations (and `none`, the last of α, which adds nothing), P all
weights, Q all pairs of an edge and an operation. Equations are those of that paper; its code also
takes momentum and weight decay into the look-ahead of Eq. (6), the paper and this file do not.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from daas_dist.methods import shown
from daas_dist.methods.interface import (
    Contribution,
    Logits,
    Memory,
    StepContext,
    Update,
    chosen,
    gradients,
)
from daas_dist.methods.one_path import (
    OfAlpha,
    batch_under,
    train_on,
)
from daas_dist.methods.passes import (
    Batch,
    Forward,
    Mean,
    Pass,
    Weights,
    flat,
    forward_backward,
    loss_accuracy,
    total_norm,
    unflat,
    whole,
)
from daas_dist.spaces.cells import EVERYTHING, OPERATIONS

TARGETS = ("architecture",)
EPSILON = 0.01
"""ε of Eq. (8), times the norm of ∇_θ' L_val (that paper's footnote)."""
PAIRS = sum(map(len, EVERYTHING))


def mixture(alpha_KEO: Tensor) -> Tensor:
    """Eq. (2). Return the weight of every operation but `none`, (Q,)."""
    return alpha_KEO.softmax(-1)[..., : len(OPERATIONS)].flatten()


def gate_gradient(
    forward: Forward,
    theta: Weights,
    gates_Q: Tensor,
    train: Batch | None,
    val: Batch,
    xi: float,
    mean: Mean = whole,
) -> Contribution:
    """Eq. (6) to (8). Differentiate L_val(θ - ξ ∇_θ L_train) by the weights of the mixture.

    xi: 0 is the first-order approximation, which takes one pass and no training batch; else four
    are made.
    """

    def at(weights: Weights, batch: Batch) -> tuple[Pass, Tensor]:
        gates = gates_Q.detach().to(batch.images).requires_grad_()
        done = forward_backward(forward, weights, EVERYTHING, batch, gates, mean)
        assert done.gate_grad_Q is not None
        return done, done.gate_grad_Q

    theta_P, ahead = flat(theta), theta
    if xi:
        assert train is not None
        ahead = unflat(theta_P - xi * mean(flat(at(theta, train)[0].theta_grad)), theta)
    val_pass, found = at(ahead, val)
    if xi and train is not None:
        val_grad_P = mean(flat(val_pass.theta_grad))
        epsilon = EPSILON / val_grad_P.norm()
        _, above = at(unflat(theta_P + epsilon * val_grad_P, theta), train)
        _, below = at(unflat(theta_P - epsilon * val_grad_P, theta), train)
        found = found - xi * (above - below) / (2 * epsilon)
    small = {"val": loss_accuracy([val_pass]), "val_norm": total_norm([val_pass])}
    return Contribution({**small, "z_grad": found.cpu()})


@dataclass(frozen=True, kw_only=True)
class Darts(OfAlpha):
    """xi: of Eq. (6), None is θ's learning rate, 0 the first order."""

    xi: float | None

    def search(self, logits: Logits, memory: Memory, context: StepContext) -> Update:
        if context.epoch < self.warmup_epochs:
            return Update()
        xi = context.learning_rate if self.xi is None else self.xi
        gates_Q = mixture(logits["alpha"])

        def term(_: int) -> Contribution:
            theta, val = context.theta(EVERYTHING), context.val()
            train = batch_under(self.fixed, context) if xi else None
            return gate_gradient(context.forward, theta, gates_Q, train, val, xi, context.mean)

        like = {"val": (2,), "val_norm": (1,), "z_grad": (PAIRS,)}
        (found,) = context.map(term, [EVERYTHING], like)
        by_logits = gradients((found.small["z_grad"] * gates_Q).sum(), logits)
        return Update(by_logits, metrics=shown.metrics_of([found], "val"))

    def train(self, logits: Logits, memory: Memory, context: StepContext) -> Update:
        return train_on(EVERYTHING, self.fixed, context, mixture(logits["alpha"]))

    def passes(self, epoch: int) -> float:
        if epoch < self.warmup_epochs:
            return 1.0
        return 2.0 if self.xi == 0 else 5.0

    def progress(self, logits: Logits, progress: float) -> dict[str, Any]:
        return shown.of_architecture(logits, None)


def method(settings: Mapping[str, Any]) -> Darts:
    return chosen(Darts, settings)
