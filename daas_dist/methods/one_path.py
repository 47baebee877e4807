"""Share what methods have in common that learn α alone and run one path in a half of a step."""

from dataclasses import dataclass

import torch
from torch import Tensor

from daas_dist.documents.results import Learned
from daas_dist.methods.interface import (
    Contribution,
    Found,
    Logits,
    Memory,
    StepContext,
    Update,
)
from daas_dist.methods.passes import Batch, forward_backward, loss_accuracy, total_norm
from daas_dist.methods.shown import metrics_of
from daas_dist.spaces.cells import EDGES, KINDS, OPERATIONS, Path, derive_strongest
from daas_dist.spaces.policy import Policy

START = 1e-3
"""α starts at 1e-3 × a standard normal (peer: DARTS model_search.py)."""


@dataclass(frozen=True, kw_only=True)
class OfAlpha:
    """Learns α over OPERATIONS and, last, `none`, which adds nothing (peer: DARTS).

    warmup_epochs: without steps of α. fixed: the policy that θ trains under.
    """

    warmup_epochs: int
    fixed: Policy | None = None

    def logits(self, generator: torch.Generator) -> Logits:
        shape = len(KINDS), len(EDGES), len(OPERATIONS) + 1
        return {"alpha": START * torch.randn(shape, generator=generator)}

    def memory(self) -> Memory:
        return {}

    def found(self, logits: Logits, memory: Memory) -> Found:
        """Return the strongest operations, `none` apart (peer: DARTS)."""
        return Found(derive_strongest(strengths(logits)), self.fixed)

    def document(self, logits: Logits, memory: Memory) -> Learned:
        return Learned(alpha=strengths(logits).tolist())


def strengths(logits: Logits) -> Tensor:
    """Return softmax(α) of OPERATIONS, (K, E, O); what is missing to 1 is that of `none`."""
    return logits["alpha"].softmax(-1)[..., : len(OPERATIONS)]


def batch_under(fixed: Policy | None, context: StepContext) -> Batch:
    """Return the training images under one draw of a policy that is not searched, if there is one;
    the same in both halves of a step."""
    if fixed is None:
        return context.augmented(None, None, "weights", 0)
    draws = fixed.draw(1, context.stream("weights-policy", 0))
    return context.augmented(draws, fixed.space, "weights", 0)


def train_on(
    path: Path, fixed: Policy | None, context: StepContext, gates_Q: Tensor | None = None
) -> Update:
    """Return the gradient by θ of the training loss on a path, under a policy that is not
    searched."""
    return train_with(batch_under(fixed, context), path, context, gates_Q)


def train_with(
    batch: Batch, path: Path, context: StepContext, gates_Q: Tensor | None = None
) -> Update:
    """Return the gradient by θ of the loss of a batch on a path."""

    def term(_: int) -> Contribution:
        gates = None if gates_Q is None else gates_Q.detach().to(batch.images)
        theta = context.theta(path)
        done = forward_backward(context.forward, theta, path, batch, gates, context.mean)
        small = {"train": loss_accuracy([done]), "train_norm": total_norm([done])}
        return Contribution(small, {"train": context.averaged(done.theta_grad)})

    terms = context.map(term, [path], {"train": (2,), "train_norm": (1,)}, summed="train")
    by_theta = context.sum(terms, [path], "train")
    return Update(by_theta=by_theta, metrics=metrics_of(terms, "train"))
