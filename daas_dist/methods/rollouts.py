"""Policies judged by rollouts: how low the validation loss is after some steps under each (ours).

Eq. (13) asks how a training gradient agrees with the validation gradient now, one step ahead, and
is linear in the policy: its best policy is a single operation. Here C candidates, policies a little
to either side of p(Γ; γ), each train a copy of the network for some steps on the same batches, from
the same weights, with rates that fall to 0. Then all meet the same validation images. Regression of
their losses on the logarithms of their weights says what more of an operation gains among the
others, and γ moves along it. The network itself goes on under p(Γ; γ).

Axes: C candidates, O operations, K slots. All slots have the same weights: where an operation
stands was not seen to matter.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils import get_total_norm

from daas_dist.documents.results import Learned
from daas_dist.methods import shown
from daas_dist.methods.interface import (
    POLICY,
    Contribution,
    Found,
    Logits,
    Memory,
    StepContext,
    Update,
    chosen,
    named_policy_logits,
    policy_logits,
)
from daas_dist.methods.one_path import train_with
from daas_dist.methods.passes import (
    FORWARD,
    Batch,
    Weights,
    flat,
    forward_backward,
    loss_accuracy,
    unflat,
)
from daas_dist.spaces.policy import PolicyLogits
from daas_dist.spaces.space import Space

TARGETS = ("policy",)
PARAMETERS = "per_slot"

APPLIED = 0.7
"""Probability with which a slot is applied (ours: 2.1 of three slots)."""
SPREAD = 0.8
"""Nats by which a candidate's logits lie to either side of γ (ours)."""
JUDGED = 0.25
"""Share of a rollout's steps that judge it, without training (ours)."""
FORGET = 0.8
"""What a rollout says counts this much less with each later one, as the network changes (ours)."""
FLOOR = 0.02
"""Nats of validation loss by a nat of log-weight: a gain of as much moves γ by one rate, a larger
one no further (ours)."""
VARIANCES = tuple(10 ** (n / 2) for n in range(-12, -3))
"""Of gains, and of losses about them, in nats²: from 1e-6 to 1e-2 in half decades. Taken is the
pair that explains the losses best (empirical Bayes, ours)."""


class WeightSettings(Protocol):
    learning_rate: float
    momentum: float
    weight_decay: float
    clip: float


class Design(NamedTuple):
    """Holds what rollouts have said: decayed sums over candidates, each centred in its rollout."""

    degrees: float
    """Of freedom."""
    xx_OO: Tensor
    xy_O: Tensor
    yy: float

    @staticmethod
    def empty(operations: int) -> "Design":
        zeros = torch.zeros(operations, operations + 1, dtype=torch.float64)
        return Design(0.0, zeros[:, 1:], zeros[:, 0], 0.0)

    def add(self, x_CO: Tensor, gain_C: Tensor, keep: float) -> "Design":
        x, y = (part.double() - part.double().mean(0) for part in (x_CO, gain_C))
        return Design(
            keep * self.degrees + len(x) - 1,
            keep * self.xx_OO + x.T @ x,
            keep * self.xy_O + x.T @ y,
            keep * self.yy + float(y @ y),
        )

    def gains(self) -> tuple[Tensor, Tensor]:
        """Return the posterior mean and standard error of each operation's gain. (O,)

        Gains are normal about 0; their variance and the noise's are those of VARIANCES under
        which what was seen is likeliest (MacKay 1992).
        """
        found = (self._posterior(prior, noise) for prior in VARIANCES for noise in VARIANCES)
        _, mean_O, precision_OO = max(found, key=lambda each: each[0])
        return mean_O, torch.linalg.inv(precision_OO).diagonal().sqrt()

    def _posterior(self, prior: float, noise: float) -> tuple[float, Tensor, Tensor]:
        """Return the log-likelihood under these variances, but for a constant, and the posterior's
        mean and precision."""
        eye = torch.eye(len(self.xy_O), dtype=torch.float64)
        precision_OO = self.xx_OO / noise + eye / prior
        mean_O = torch.linalg.solve(precision_OO, self.xy_O / noise)
        fit = (self.yy - float(self.xy_O @ mean_O)) / noise
        size = self.degrees * math.log(noise) + len(eye) * math.log(prior)
        return -0.5 * (fit + size + float(torch.logdet(precision_OO))), mean_O, precision_OO


@dataclass(frozen=True, kw_only=True)
class Rollouts:
    """candidates: even, as they come in pairs to either side. rollout_steps: of each, the last
    quarter of which judges. weights: how copies of the network train."""

    warmup_epochs: int
    batch_size: int
    candidates: int
    rollout_steps: int
    weights: WeightSettings
    slots: int
    parameters: str
    space: Space

    def __post_init__(self) -> None:
        if self.candidates % 2:
            raise ValueError(
                f"search.candidates={self.candidates} is not possible: expected an even number"
            )
        if self.rollout_steps < 2:
            raise ValueError(
                f"search.rollout_steps={self.rollout_steps} is not possible: expected at least 2, "
                "one to train and one to judge"
            )
        if self.parameters != PARAMETERS:
            raise ValueError(
                f"policy.parameters={self.parameters} is not possible: expected {PARAMETERS}, as "
                "method=rollouts"
            )

    @property
    def judged(self) -> int:
        """Return how many steps judge a rollout."""
        return max(1, round(JUDGED * self.rollout_steps))

    def logits(self, generator: torch.Generator) -> Logits:
        gamma = PolicyLogits.initial(self.slots, PARAMETERS, self.space)
        applied = torch.full_like(gamma.rho, torch.tensor(APPLIED).logit().item())
        return named_policy_logits(PolicyLogits(gamma.pi_KO, applied, gamma.delta, PARAMETERS))

    def memory(self) -> Memory:
        design = Design.empty(len(self.space.operations))
        return {"age": 0, "design": list(design), "weights": {}, "momentum": {}, "loss": None}

    # --- The candidates --------------------------------------------------------------------------

    def search(self, logits: Logits, memory: Memory, context: StepContext) -> Update:
        if context.epoch < self.warmup_epochs:
            return Update()
        memory = dict(memory) if memory["age"] else memory | self._start(context)
        age = memory["age"]
        memory["age"] = (age + 1) % self.rollout_steps
        if age < self.rollout_steps - self.judged:
            terms = self._train_each(logits, memory, context, age)
            return Update(memory=memory, metrics=shown.metrics_of(terms, "train"))
        terms = self._judge_each(memory, context)
        memory["loss"] = memory["loss"] + torch.stack([t.small["val"][0] for t in terms]).double()
        update = Update(memory=memory, metrics=shown.metrics_of(terms, "val"))
        return update if memory["age"] else self._move(logits, update)

    def _start(self, context: StepContext) -> Memory:
        """Return copies of θ, and to which side of γ each candidate lies."""
        theta, pairs = context.theta(()), self.candidates // 2
        generator = context.stream("candidates")
        sides = torch.randint(2, (pairs, len(self.space.operations)), generator=generator)
        side_CO = (2.0 * sides - 1).repeat_interleave(2, 0)
        side_CO[1::2] *= -1
        copies = {n: torch.stack([v.detach()] * self.candidates) for n, v in theta.items()}
        return {
            "sides": side_CO,
            "weights": copies,
            "momentum": {name: torch.zeros_like(value) for name, value in copies.items()},
            "loss": torch.zeros(self.candidates, dtype=torch.float64),
        }

    def _pi(self, logits: Logits, memory: Memory) -> Tensor:
        """Return the candidates' logits of operations. (C, O)"""
        return logits[f"{POLICY}pi"].detach()[0] + SPREAD * memory["sides"]

    def _copy(self, memory: Memory, i: int, context: StepContext) -> Weights:
        theta = context.theta(())
        return {name: value[i].to(theta[name]) for name, value in memory["weights"].items()}

    def _train_each(
        self, logits: Logits, memory: Memory, context: StepContext, age: int
    ) -> Sequence[Contribution]:
        """Make a step of every copy in memory. Its rate falls to 0 from θ's first one: at θ's own a
        late rollout would see nothing move."""
        pi_CO, gamma = self._pi(logits, memory), policy_logits(logits, PARAMETERS)

        def term(i: int) -> Contribution:
            batch = self._under(
                PolicyLogits(pi_CO[i].expand_as(gamma.pi_KO), gamma.rho, gamma.delta, PARAMETERS),
                context,
                "candidate",
            )
            theta = self._copy(memory, i, context)
            done = forward_backward(context.forward, theta, (), batch, mean=context.mean)
            whole = unflat(context.mean(flat(done.theta_grad)), done.theta_grad)
            return Contribution({"train": loss_accuracy([done])}, {"rollout": whole})

        paths = [()] * self.candidates
        terms = context.map(term, paths, {"train": (2,)}, each=["rollout"])
        rate = self.weights.learning_rate * (1 - age / (self.rollout_steps - self.judged))
        moved = [self._moved(memory, i, t.by_theta["rollout"], rate) for i, t in enumerate(terms)]
        for part, name in enumerate(("weights", "momentum")):
            memory[name] = {n: torch.stack([m[part][n] for m in moved]) for n in moved[0][part]}
        return terms

    def _moved(
        self, memory: Memory, i: int, gradient: Weights, rate: float
    ) -> tuple[Weights, Weights]:
        """Return weights and momentum of a copy after a step as θ's optimiser makes it."""
        settings = self.weights
        norm = get_total_norm(gradient.values())
        clipped = (settings.clip / (norm + 1e-6)).clamp(max=1.0)  # nn.utils.clip_grad_norm_
        weights, momentum = {}, {}
        for name, grad in gradient.items():
            before = memory["weights"][name][i].to(grad)
            pull = clipped * grad + settings.weight_decay * before
            momentum[name] = settings.momentum * memory["momentum"][name][i].to(grad) + pull
            weights[name] = before - rate * momentum[name]
        return weights, momentum

    def _judge_each(self, memory: Memory, context: StepContext) -> Sequence[Contribution]:
        """Return every copy's loss on the same validation images."""
        val = context.val()

        @torch.no_grad()
        def term(i: int) -> Contribution:
            said = context.forward(self._copy(memory, i, context), (), val.images, None)
            right = (said.argmax(-1) == val.labels).to(said.dtype).mean()
            both = torch.stack([cross_entropy(said, val.labels), right])
            return Contribution({"val": context.mean(both).cpu()})

        return context.map(term, [()] * self.candidates, {"val": (2,)})

    def _move(self, logits: Logits, update: Update) -> Update:
        """End a rollout: γ moves towards what gains, the more the surer it is."""
        memory = update.memory
        assert memory is not None
        x_CO = self._pi(logits, memory).log_softmax(-1)
        gain_C = -memory["loss"] / self.judged
        design = Design(*memory["design"]).add(x_CO, gain_C, FORGET)
        gain_O = design.gains()[0].float()
        step_O = gain_O / gain_O.abs().max().clamp_min(FLOOR)
        memory |= {"design": list(design), "weights": {}, "momentum": {}, "loss": None}
        by_logits = {f"{POLICY}pi": -(step_O - step_O.mean()).expand(self.slots, -1)}
        return Update(by_logits, memory=memory, metrics=update.metrics)

    # --- The network -----------------------------------------------------------------------------

    def train(self, logits: Logits, memory: Memory, context: StepContext) -> Update:
        batch = self._under(policy_logits(logits, PARAMETERS), context, "weights")
        return train_with(batch, (), context)

    def _under(self, gamma: PolicyLogits, context: StepContext, purpose: str) -> Batch:
        """Return training images, each under a draw of its own. Candidates share their uniform
        numbers, so that they differ by their policies alone."""
        draws = gamma.sample(self.batch_size, context.stream(f"{purpose}-policy"))
        return context.augmented(draws, self.space, purpose, 0)

    # --- What is told ----------------------------------------------------------------------------

    def found(self, logits: Logits, memory: Memory) -> Found:
        """Return p(Γ; γ) itself, whose magnitudes are drawn."""
        return Found(None, policy_logits(logits, PARAMETERS).derive_drawn(self.space))

    def passes(self, epoch: int) -> float:
        """Return the mean of a rollout's steps."""
        if epoch < self.warmup_epochs:
            return 1.0
        trained = self.rollout_steps - self.judged
        return 1 + self.candidates * (trained + FORWARD * self.judged) / self.rollout_steps

    def progress(self, logits: Logits, progress: float) -> dict[str, Any]:
        entropy = shown.entropies(logits, PARAMETERS)
        return {"tau": None, "entropy": entropy, "operation_share": None}

    def document(self, logits: Logits, memory: Memory) -> Learned:
        return Learned()


def method(settings: Mapping[str, Any]) -> Rollouts:
    return chosen(Rollouts, settings)
