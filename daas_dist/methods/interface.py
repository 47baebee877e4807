"""Define what a search method is, and what the loop lends it (docs/adding_a_method.md).

θ is the network's weights. What else a method learns is its logits, by name: those whose name
begins with "gamma." move by search.policy_optimizer, all others by search.architecture. What it
only remembers is its memory: tensors, numbers and names in lists and dicts, saved as they are.

A step of the search is two halves:

    update = method.search(logits, memory, context)   the logits; θ too if update.by_theta is given
    update = method.train(logits, memory, context)    θ, if it was not

A method never sees ranks, files, configurations or other generators than those of its context.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from daas_dist.documents.results import Learned
from daas_dist.methods.passes import Batch, Forward, Weights
from daas_dist.spaces.cells import Genotype, Path
from daas_dist.spaces.policy import Draws, Policy, PolicyLogits

Logits = dict[str, Tensor]
Memory = dict[str, Any]
POLICY = "gamma."
"""Begins the names of a policy's logits."""


class Contribution(NamedTuple):
    """Holds what one path adds to a step."""

    small: Mapping[str, Tensor]
    """On the CPU, gathered from all ranks in the order of the paths: gates' gradients, rewards,
    losses. Each must be finite: the loop looks."""
    by_theta: Mapping[str, Weights] = {}
    """Gradients by the weights of the path, by name."""


@dataclass(frozen=True)
class Update:
    """Holds what half a step changes, to be applied whole or not at all."""

    by_logits: Mapping[str, Tensor] = field(default_factory=dict)
    """Gradients; a logit without one gets no step."""
    by_theta: Weights | None = None
    """A gradient by those weights that a path used; the others get no step, momentum or decay."""
    memory: Memory | None = None
    """None keeps it as it was."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Means over the step, by the names of metrics.jsonl (documents/metrics.py)."""


class StepContext(Protocol):
    """Lends a method what it may use in one step."""

    @property
    def step(self) -> int: ...

    @property
    def epoch(self) -> int:
        """Return the epoch, from 0."""
        ...

    @property
    def progress(self) -> float:
        """Return 0 in the first epoch, 1 in the last: schedules move once an epoch."""
        ...

    @property
    def learning_rate(self) -> float:
        """Return that of θ."""
        ...

    @property
    def forward(self) -> Forward: ...

    def stream(self, purpose: str, *index: int | str) -> torch.Generator:
        """Return the generator of this step at an address: the same on every rank."""
        ...

    def val(self) -> Batch:
        """Return this step's validation images, as the network takes them."""
        ...

    def train(self) -> Batch:
        """Return this step's training images as they are, under no policy and no cutout."""
        ...

    def augmented(self, draws: Draws | None, ranges: str, purpose: str, index: int) -> Batch:
        """Return the training images under draws of a policy (one for all, or one for each), then
        cutout. ranges: of the magnitudes. purpose, index: the address of signs and places."""
        ...

    def theta(self, path: Path) -> Weights:
        """Return the weights of a path."""
        ...

    def mean(self, own: Tensor) -> Tensor:
        """Return the mean over the ranks that hold a part of the batch each."""
        ...

    def gather(self, own: Tensor) -> Tensor:
        """Return a tensor of all images, of which each of these ranks has its part."""
        ...

    def averaged(self, gradient: Weights) -> Weights:
        """Return `mean` of a gradient by θ, where `sum` does not take it anyway."""
        ...

    def map(
        self,
        term: Callable[[int], Contribution],
        paths: Sequence[Path],
        like: Mapping[str, Sequence[int]],
        *,
        summed: str = "",
        each: Sequence[str] = (),
        told: Callable[[str, int, int], str] | None = None,
    ) -> list[Contribution]:
        """Return term(i) of every path, each computed by one rank, on every rank, in order.

        like: the shapes of what a term's `small` has, in the order in which they are checked.
        summed, each: names in its by_theta, one that `sum` is called for, others that every rank
        needs. told(name, i, k): of what the k-th number of a name is, as " of policy 3 (…)".
        FloatingPointError, on every rank, where a number is not finite.
        """
        ...

    def sum(self, terms: Sequence[Contribution], paths: Sequence[Path], name: str) -> Weights:
        """Return the sum of the terms' gradients of that name, in their order."""
        ...


class Found(NamedTuple):
    """Holds what the logits stand for; None of what is not searched."""

    genotype: Genotype | None
    policy: Policy | None


class Method(Protocol):
    """A dataclass of its own settings, by the names of search.* and policy.*.

    Its module, whose name is that of search.method, says in TARGETS which values of search.target
    it takes, and has `method(settings)`, which returns it.
    """

    def logits(self, generator: torch.Generator) -> Logits:
        """Return what is learned, as it starts, on the CPU."""
        ...

    def memory(self) -> Memory:
        """Return what is remembered, as it starts."""
        ...

    def search(self, logits: Logits, memory: Memory, context: StepContext) -> Update: ...

    def train(self, logits: Logits, memory: Memory, context: StepContext) -> Update: ...

    def found(self, logits: Logits, memory: Memory) -> Found: ...

    def passes(self, epoch: int) -> float:
        """Return the forward-backward passes of a step of that epoch."""
        ...

    def progress(self, logits: Logits, progress: float) -> dict[str, Any]:
        """Return its part of a line of metrics.jsonl: tau, entropy, operation_share."""
        ...

    def document(self, logits: Logits, memory: Memory) -> Learned:
        """Return its part of result.json."""
        ...


M = TypeVar("M")


def chosen(kind: type[M], settings: Mapping[str, Any]) -> M:
    """Return a method with those of the settings that it has fields for."""
    own = {each.name for each in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in settings.items() if name in own})


def gradients(loss: Tensor, logits: Logits) -> Logits:
    """Return the gradient of a loss by each of the logits that it depends on."""
    if not loss.requires_grad:
        return {}
    values = list(logits.values())
    found: tuple[Any, ...] = torch.autograd.grad(loss, values, allow_unused=True)  # some None
    return {name: g for name, g in zip(logits, found, strict=True) if g is not None}


def policy_logits(logits: Logits, parameters: str) -> PolicyLogits:
    """Return γ of a method's logits."""
    pi, rho, delta = (logits[f"{POLICY}{name}"] for name in ("pi", "rho", "delta"))
    return PolicyLogits(pi, rho, delta, parameters)


def named_policy_logits(gamma: PolicyLogits) -> Logits:
    """Return γ as a method's logits."""
    return {f"{POLICY}{n}": t for n, t in zip(("pi", "rho", "delta"), gamma.tensors(), strict=True)}
