"""GDAS (Dong & Yang 2019, arXiv 1910.04465): one operation an edge, drawn by Gumbel noise, runs.

Axes: K kinds of cell, E edges, O operations (and `none`, the last of α, which adds nothing), Q
pairs of the path: an edge whose draw is `none` has none. That paper's code trains θ before α in a
step; here, as for every method, α comes first.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
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
from daas_dist.methods.one_path import OfAlpha, train_on
from daas_dist.methods.passes import forward_backward, loss_accuracy, unit_gates
from daas_dist.methods.relax import gumbel
from daas_dist.schedules import linear
from daas_dist.spaces.cells import OPERATIONS, Path

TARGETS = ("architecture",)


class Sampled(NamedTuple):
    """Holds what runs, and the relaxed choice of each of its pairs, which carries the gradient."""

    path: Path
    soft_Q: Tensor


def sample(alpha_KEO: Tensor, tau: float, generator: torch.Generator) -> Sampled:
    """Draw one_hot(argmax(log p + g)) of every edge, differentiated as softmax((log p + g) / τ)."""
    noise_KEO = gumbel(alpha_KEO.shape, generator)
    soft_KEO = ((alpha_KEO.log_softmax(-1) + noise_KEO) / tau).softmax(-1)
    path = tuple(
        tuple((e, o) for e, o in enumerate(choice_E) if o < len(OPERATIONS))
        for choice_E in soft_KEO.argmax(-1).tolist()
    )
    pairs = [soft_KEO[k, e, o] for k, cell in enumerate(path) for e, o in cell]
    return Sampled(path, torch.stack(pairs) if pairs else soft_KEO.new_zeros(0))


class Span(Protocol):
    @property
    def start(self) -> float: ...
    @property
    def end(self) -> float: ...


@dataclass(frozen=True, kw_only=True)
class Gdas(OfAlpha):
    """tau: from the first epoch to the last."""

    tau: Span

    def search(self, logits: Logits, memory: Memory, context: StepContext) -> Update:
        if context.epoch < self.warmup_epochs:
            return Update()
        drawn, val = self._sample(logits, context, "arch"), context.val()

        def term(_: int) -> Contribution:
            theta, gates_Q = context.theta(drawn.path), unit_gates(drawn.path, val.images)
            done = forward_backward(context.forward, theta, drawn.path, val, gates_Q, context.mean)
            by_gates = torch.zeros(0) if done.gate_grad_Q is None else done.gate_grad_Q.cpu()
            return Contribution({"val": loss_accuracy([done]), "z_grad": by_gates})

        like = {"val": (2,), "z_grad": (len(drawn.soft_Q),)}
        (found,) = context.map(term, [drawn.path], like)
        by_logits = gradients((found.small["z_grad"] * drawn.soft_Q).sum(), logits)
        return Update(by_logits, metrics=shown.metrics_of([found], "val"))

    def train(self, logits: Logits, memory: Memory, context: StepContext) -> Update:
        return train_on(self._sample(logits, context, "weights-arch").path, self.fixed, context)

    def _sample(self, logits: Logits, context: StepContext, purpose: str) -> Sampled:
        return sample(logits["alpha"], self._tau(context.progress), context.stream(purpose, 0))

    def _tau(self, progress: float) -> float:
        return linear(self.tau.start, self.tau.end, progress)

    def passes(self, epoch: int) -> float:
        return 1.0 if epoch < self.warmup_epochs else 2.0

    def progress(self, logits: Logits, progress: float) -> dict[str, Any]:
        return shown.of_architecture(logits, self._tau(progress))


def method(settings: Mapping[str, Any]) -> Gdas:
    return chosen(Gdas, settings)
