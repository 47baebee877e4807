"""DAAS with rewards of every image's own policy (ours, not in the paper; per_image.py).

A batch is under as many policies as it has images, and one forward-mode pass gives all their
rewards. They gather in the evidence, which the estimators of estimators.py follow.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from daas_dist.methods.daas import Daas
from daas_dist.methods.equations import search_term
from daas_dist.methods.interface import Contribution, Logits, Memory, StepContext
from daas_dist.methods.passes import JVP, Batch, Weights
from daas_dist.methods.per_image import PerImage, RunningGradient, control_by_others
from daas_dist.spaces.cells import Path


@dataclass(frozen=True, kw_only=True)
class OfEachImage(Daas):
    """evidence.control: what a reward is compared with, its image's under no policy (plain) or
    those of the step's other architectures (others)."""

    _each: ClassVar[tuple[str, ...]] = ("val",)

    @property
    def drawn(self) -> int:
        return self.batch_size

    @property
    def rewards(self) -> int:
        return self.batch_size * self.policies_per_image

    @property
    def plain(self) -> bool:
        return self.evidence.control == "plain"

    @property
    def _train_passes(self) -> float:
        return 1 + (self.policies_per_image + self.plain) * JVP

    def memory(self) -> Memory:
        own = {"val_grad": RunningGradient.empty().save()} if self.searches_policy else {}
        return super().memory() | own

    def _term(
        self,
        z: Path,
        theta: Weights,
        views: Sequence[Batch],
        val: Batch,
        memory: Memory,
        context: StepContext,
    ) -> Contribution:
        xi = self.look_ahead_rate(context)
        per_image = PerImage(
            context.train() if self.plain else None,
            RunningGradient.load(memory["val_grad"], val.images.device),
            self.evidence.validation_decay,
            context.gather,
        )

        def reward(val_grad: Weights) -> Tensor:
            return per_image.rewards(context.forward, theta, z, views, val_grad, xi)

        return search_term(
            context.forward, theta, z, views[:1], val, xi,
            at_theta=self.at_theta, reward=reward, mean=context.mean,
        )  # fmt: skip

    def _by_policy(
        self,
        logits: Logits,
        memory: Memory,
        terms: Sequence[Contribution],
        context: StepContext,
    ) -> tuple[Logits, Memory]:
        """As Algorithm 1's; and later rewards are taken along a mean of validation gradients."""
        found, memory = super()._by_policy(logits, memory, terms, context)
        device = next(iter(terms[0].by_theta["val"].values())).device
        running = RunningGradient.load(memory["val_grad"], device)
        for term in terms:
            running = running.add(term.by_theta["val"], self.evidence.validation_decay)
        return found, memory | {"val_grad": running.save()}

    def _compared(self, reward_IJ: Tensor) -> Tensor:
        if self.plain:
            return reward_IJ
        return control_by_others(reward_IJ.view(-1, self.batch_size)).view_as(reward_IJ)

    def _ranked(self, reward_IJ: Tensor) -> Tensor:
        """Each among its architecture's."""
        return reward_IJ
