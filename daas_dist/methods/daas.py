"""Algorithm 1, DAAS, as a method: α, β by Eq. (9), γ by Eq. (13), then θ by Eq. (14).

Of a batch all images are under one policy here, as in the paper; ours.py has each draw its own.
What is searched may be the architecture alone (then under a given policy), or the policy alone
(then on a fixed network, whose path is empty).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from daas_dist.documents.results import Learned
from daas_dist.methods import shown
from daas_dist.methods.equations import (
    SampledArchitecture,
    architecture_surrogate,
    architecture_term,
    sample_architecture,
    search_term,
    weight_term,
)
from daas_dist.methods.estimators import ESTIMATORS, Evidence, normal_scores
from daas_dist.methods.interface import (
    Contribution,
    Found,
    Logits,
    Memory,
    StepContext,
    Update,
    chosen,
    gradients,
    named_policy_logits,
    policy_logits,
)
from daas_dist.methods.passes import Batch, Weights
from daas_dist.methods.shown import metrics_of
from daas_dist.schedules import linear
from daas_dist.spaces.cells import EDGES, KINDS, OPERATIONS, PAIRS, Path, derive
from daas_dist.spaces.policy import Draws, Policy, PolicyLogits
from daas_dist.spaces.space import Space

SMALL_START = 1e-3
"""α and β start at 1e-3 × a standard normal (peer: DARTS, PC-DARTS)."""

TARGETS = ("joint", "architecture", "policy")


class Span(Protocol):
    start: float
    end: float


class EvidenceSettings(Protocol):
    decay: float
    validation_decay: float
    control: str


@dataclass(frozen=True, kw_only=True)
class Daas:
    """Settings by the names of search.* and policy.*; configs/config.yaml has the paper's."""

    target: str
    warmup_epochs: int
    warmup_policy: str
    batch_size: int
    architectures: int
    policies_per_architecture: int
    policies_per_image: int
    weight_architectures: int
    xi: float | None
    architecture_gradient_at: str
    weight_gradient: str
    reuse_gradients: bool
    tau: Span
    evidence: EvidenceSettings
    permute_rewards: bool
    slots: int
    parameters: str
    space: Space
    """What a policy that is searched is made of."""
    fixed: Policy | None = None
    """The policy of a search of the architecture alone; None is crop and flip."""
    estimator: str
    """One of estimators.ESTIMATORS."""

    # --- What is searched ------------------------------------------------------------------------

    @property
    def searches_architecture(self) -> bool:
        return self.target != "policy"

    @property
    def searches_policy(self) -> bool:
        return self.target != "architecture"

    def joint(self, epoch: int) -> bool:
        """Tell whether γ moves in that epoch."""
        return self.searches_policy and epoch >= self.warmup_epochs

    def logits(self, generator: torch.Generator) -> Logits:
        alpha = SMALL_START * torch.randn(
            len(KINDS), len(EDGES), len(OPERATIONS), generator=generator
        )
        beta = SMALL_START * torch.randn(len(KINDS), len(EDGES), generator=generator)
        found: Logits = {}
        if self.searches_architecture:
            found |= {"alpha": alpha, "beta": beta}
        if self.searches_policy:
            found |= named_policy_logits(
                PolicyLogits.initial(self.slots, self.parameters, self.space)
            )
        return found

    def memory(self) -> Memory:
        if not self.searches_policy:
            return {}
        return {"evidence": Evidence.empty(self.slots, len(self.space.operations)).tensors()}

    def found(self, logits: Logits, memory: Memory) -> Found:
        """Sec. 4.3."""
        genotype = derive(logits["alpha"], logits["beta"]) if self.searches_architecture else None
        if not self.searches_policy:
            return Found(genotype, self.fixed)
        return Found(genotype, policy_logits(logits, self.parameters).derive(self.space))

    # --- Lines 1 to 3: α, β and γ ----------------------------------------------------------------

    def search(self, logits: Logits, memory: Memory, context: StepContext) -> Update:
        sampled_I = self.sample(logits, context, "arch", self.architectures)
        if not self.joint(context.epoch):
            return self._warm_up(sampled_I, logits, context)
        terms = self._terms(sampled_I, logits, memory, context)
        metrics = metrics_of(terms, "val") | reward_metrics(terms)
        by_logits = self._by_architecture(sampled_I, logits, terms)
        by_policy, memory = self._by_policy(logits, memory, terms, context)
        by_theta = None
        if self.reuse_gradients:
            by_theta = self._summed(sampled_I, terms, context)
            metrics |= metrics_of(terms, "train")
        return Update(by_logits | by_policy, by_theta, memory, metrics)

    def _warm_up(
        self, sampled_I: Sequence[SampledArchitecture | None], logits: Logits, context: StepContext
    ) -> Update:
        """α and β alone; nothing on a fixed network."""
        if not self.searches_architecture:
            return Update()
        paths, val = list(map(path, sampled_I)), context.val()

        def term(i: int) -> Contribution:
            theta = context.theta(paths[i])
            return architecture_term(context.forward, theta, paths[i], val, context.mean)

        terms = context.map(term, paths, {"val": (2,), "z_grad": (len(KINDS) * PAIRS,)})
        by_logits = self._by_architecture(sampled_I, logits, terms)
        return Update(by_logits, metrics=metrics_of(terms, "val"))

    def _terms(
        self,
        sampled_I: Sequence[SampledArchitecture | None],
        logits: Logits,
        memory: Memory,
        context: StepContext,
    ) -> list[Contribution]:
        """Eq. (9)'s and (13)'s part of every architecture."""
        paths, val = list(map(path, sampled_I)), context.val()

        def term(i: int) -> Contribution:
            views = self._views(logits, context, i)
            theta = context.theta(paths[i])
            return self._term(paths[i], theta, views, val, memory, context)

        def told(name: str, i: int, k: int) -> str:
            if name != "reward":
                return ""
            drawn = self.policies(logits, context, i).in_words(k, self.drawn_space)
            return f" of policy {k} ({drawn})"

        z_grad = {"z_grad": (len(KINDS) * PAIRS,)} if self.searches_architecture else {}
        like = {
            "train": (2,), "val": (2,), "reward": (self.rewards,), **z_grad,
            "train_norm": (1,), "val_norm": (1,),
        }  # fmt: skip
        summed = "train" if self.reuse_gradients else ""
        return context.map(term, paths, like, summed=summed, each=self._each, told=told)

    _each: ClassVar[tuple[str, ...]] = ()
    """Gradients by θ that every rank remembers something of."""

    def _term(
        self,
        z: Path,
        theta: Weights,
        views: Sequence[Batch],
        val: Batch,
        memory: Memory,
        context: StepContext,
    ) -> Contribution:
        return search_term(
            context.forward, theta, z, views, val, self.look_ahead_rate(context),
            at_theta=self.at_theta, mean=context.mean,
        )  # fmt: skip

    @property
    def at_theta(self) -> bool:
        return self.architecture_gradient_at == "theta"

    def look_ahead_rate(self, context: StepContext) -> float:
        """Return ξ of Eq. (10): the learning rate of θ, unless one was set."""
        return context.learning_rate if self.xi is None else self.xi

    def _by_architecture(
        self,
        sampled_I: Sequence[SampledArchitecture | None],
        logits: Logits,
        terms: Sequence[Contribution],
    ) -> Logits:
        """Eq. (9)."""
        if not self.searches_architecture:
            return {}
        z_grad_ICS = torch.stack([term.small["z_grad"].view(len(KINDS), PAIRS) for term in terms])
        surrogate = architecture_surrogate([z for z in sampled_I if z is not None], z_grad_ICS)
        return gradients(surrogate, {name: logits[name] for name in ("alpha", "beta")})

    def _by_policy(
        self,
        logits: Logits,
        memory: Memory,
        terms: Sequence[Contribution],
        context: StepContext,
    ) -> tuple[Logits, Memory]:
        """Eq. (13), and what the rewards say of each operation."""
        reward_IJ = self._compared(torch.stack([term.small["reward"] for term in terms]))
        parts = [self.policies(logits, context, i) for i in range(len(terms))]
        draws = Draws(*(torch.cat(part) for part in zip(*parts, strict=True)))
        if self.permute_rewards:
            order = torch.randperm(reward_IJ.numel(), generator=context.stream("null"))
            reward_IJ = reward_IJ.flatten()[order].view_as(reward_IJ)
        scores = normal_scores(self._ranked(reward_IJ)).flatten()
        evidence = Evidence.from_tensors(memory["evidence"])
        evidence = evidence.add(draws, scores, self.evidence.decay)
        surrogate = ESTIMATORS[self.estimator].surrogate
        loss = surrogate(policy_logits(logits, self.parameters), draws, reward_IJ, evidence)
        return gradients(loss, logits), memory | {"evidence": evidence.tensors()}

    def _compared(self, reward_IJ: Tensor) -> Tensor:
        return reward_IJ

    def _ranked(self, reward_IJ: Tensor) -> Tensor:
        """Two rewards an architecture, as in the paper, are too few to rank: all together."""
        return reward_IJ.view(1, -1)

    # --- Line 4: θ -------------------------------------------------------------------------------

    def train(self, logits: Logits, memory: Memory, context: StepContext) -> Update:
        """One augmented batch, n_w fresh architectures."""
        count = self.weight_architectures if self.searches_architecture else 1
        paths = list(map(path, self.sample(logits, context, "weights-arch", count)))
        draws = None
        if self._augments(context.epoch):
            draws = self.draw(logits, context, "weights-policy", 0, self.drawn)
        batch = context.augmented(draws, self.drawn_space, "weights", 0)

        def term(i: int) -> Contribution:
            theta = context.theta(paths[i])
            own = weight_term(context.forward, theta, paths[i], batch, context.mean)
            return own._replace(by_theta={"train": context.averaged(own.by_theta["train"])})

        terms = context.map(term, paths, {"train": (2,), "train_norm": (1,)}, summed="train")
        by_theta = self._scaled(context.sum(terms, paths, "train"), count)
        return Update(by_theta=by_theta, metrics=metrics_of(terms, "train"))

    def _augments(self, epoch: int) -> bool:
        """Tell whether θ trains under a policy, beyond crop, flip and cutout."""
        if not self.searches_policy:
            return self.fixed is not None
        # γ has not moved in the warm-up: every operation is as likely as any other.
        return self.joint(epoch) or self.warmup_policy == "uniform"

    def _summed(
        self,
        sampled_I: Sequence[SampledArchitecture | None],
        terms: Sequence[Contribution],
        context: StepContext,
    ) -> Weights:
        """Eq. (14) of the training gradients of Eq. (13) (not in the paper)."""
        total = context.sum(terms, list(map(path, sampled_I)), "train")
        return self._scaled(total, len(terms))

    def _scaled(self, total: Weights, count: int) -> Weights:
        if self.weight_gradient == "sum":
            return total
        return {name: value / count for name, value in total.items()}

    # --- Draws -----------------------------------------------------------------------------------

    def sample(
        self, logits: Logits, context: StepContext, purpose: str, count: int
    ) -> list[SampledArchitecture | None]:
        """Draw z ~ p(z; α, β); none on a fixed network."""
        if not self.searches_architecture:
            return [None] * count
        tau = linear(self.tau.start, self.tau.end, context.progress)
        return [
            sample_architecture(logits["alpha"], logits["beta"], tau, context.stream(purpose, i))
            for i in range(count)
        ]

    @property
    def drawn(self) -> int:
        """Return how many Γ a batch gets: one for all."""
        return 1

    @property
    def rewards(self) -> int:
        """Return how many rewards an architecture has: one a policy."""
        return self.policies_per_architecture

    @property
    def drawn_space(self) -> Space:
        """Return the space of the draws: a fixed policy has its own."""
        return self.space if self.fixed is None else self.fixed.space

    def draw(
        self, logits: Logits, context: StepContext, purpose: str, index: int, count: int
    ) -> Draws:
        generator = context.stream(purpose, index)
        if self.fixed is not None:
            return self.fixed.draw(count, generator)
        return policy_logits(logits, self.parameters).sample(count, generator)

    def policies(self, logits: Logits, context: StepContext, i: int) -> Draws:
        """Draw the policies behind the rewards of architecture i."""
        return self.draw(logits, context, "policy", i, self.rewards)

    def _views(self, logits: Logits, context: StepContext, i: int) -> list[Batch]:
        """The training batch under each Γ^(i,j), of the batch or each image's own."""
        parts = [part.split(self.drawn) for part in self.policies(logits, context, i)]
        return [
            context.augmented(Draws(*each), self.drawn_space, f"policy-{i}", j)
            for j, each in enumerate(zip(*parts, strict=True))
        ]

    # --- What is told ----------------------------------------------------------------------------

    def passes(self, epoch: int) -> float:
        weights = self.weight_architectures if self.searches_architecture else 1
        if not self.joint(epoch):
            return float(weights + (self.architectures if self.searches_architecture else 0))
        each = self._train_passes + 1 + self.at_theta
        return self.architectures * each + (0 if self.reuse_gradients else weights)

    @property
    def _train_passes(self) -> float:
        return self.policies_per_architecture

    def progress(self, logits: Logits, progress: float) -> dict[str, Any]:
        return {
            "tau": linear(self.tau.start, self.tau.end, progress),
            "entropy": shown.entropies(logits, self.parameters),
            "operation_share": shown.operation_share(logits),
        }

    def document(self, logits: Logits, memory: Memory) -> Learned:
        evidence = alpha = beta = None
        if self.searches_policy:
            evidence = shown.evidence_tables(Evidence.from_tensors(memory["evidence"]))
        if self.searches_architecture:
            alpha = logits["alpha"].softmax(-1).tolist()
            beta = [shown.edge_probability(b).tolist() for b in logits["beta"]]
        return Learned(evidence, alpha, beta)


def path(sampled: SampledArchitecture | None) -> Path:
    """Return what runs of a sampled architecture; () on a fixed network."""
    return () if sampled is None else sampled.path


def reward_metrics(terms: Sequence[Contribution]) -> dict[str, float]:
    rewards = torch.cat([term.small["reward"] for term in terms])
    return {
        "reward_mean": float(rewards.mean()),
        "reward_std": float(rewards.std(correction=0)),
    }


def method(settings: Mapping[str, Any]) -> Daas:
    """Return Algorithm 1 with rewards of batches, or of each image's own policy."""
    from daas_dist.methods.ours import OfEachImage  # which builds on this module

    if settings["xi"] == 0 and settings["target"] != "architecture":
        raise ValueError("search.xi=0 is not possible: expected above 0, as rewards are times ξ")
    each = ESTIMATORS[settings["estimator"]].per_image
    return chosen(OfEachImage if each else Daas, settings)
