"""Estimators of ∇_γ L from rewards: the paper's, and better ones that are ours (not in the paper).

Axes: I architectures of a step, J policies (or images) of each, K slots, O operations, M magnitudes.
An estimator maps (γ, draws, rewards, evidence) to a scalar whose gradient by γ is the estimate.

The evidence is kept whichever estimator runs: what the rewards say about each operation, about
applying it, and about each magnitude, with a standard error. p(Γ) factorises over these choices, so
their means give the expected gradient over *all* actions, not only over those that were drawn.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from daas_dist import augment
from daas_dist.daas import policy_surrogate
from daas_dist.policy import Draws, PolicyLogits


class Table(NamedTuple):
    """Decayed sums over the samples that made one choice; every part has the choices' shape."""

    weight: Tensor
    weight_squared: Tensor
    total: Tensor
    square: Tensor

    @staticmethod
    def empty(*shape: int) -> "Table":
        return Table(*torch.zeros(4, *shape, dtype=torch.float64))

    def add(self, index: Tensor, reward: Tensor, decay: float) -> "Table":
        """Multiply the past by `decay` and add rewards (n,) at flat indices (n,)."""
        new = [torch.ones_like(reward), torch.ones_like(reward), reward, reward**2]
        decays = [decay, decay**2, decay, decay]
        return Table(
            *(
                (past * d).flatten().index_add(0, index, value).view(past.shape)
                for past, d, value in zip(self, decays, new, strict=True)
            )
        )

    def mean(self) -> Tensor:
        """Mean reward of each choice; 0 where it was never made."""
        return self.total / self.weight.clamp_min(1e-12)

    def standard_error(self) -> Tensor:
        """Of mean(), with one variance for all choices of the table; infinite where never made."""
        count = self.weight**2 / self.weight_squared.clamp_min(1e-300)
        spread = (self.square - self.total * self.mean()).sum() / self.weight.sum().clamp_min(1e-12)
        return torch.where(self.weight > 0, (spread / count.clamp_min(1e-12)).sqrt(), torch.inf)


@dataclass(frozen=True)
class Evidence:
    """What the rewards have said so far, in standard deviations of the reward within its step."""

    operation_KO: Table
    applied_KO2: Table
    magnitude_KOM: Table

    @staticmethod
    def empty(slots: int) -> "Evidence":
        operations, magnitudes = len(augment.NAMES), augment.MAGNITUDES
        return Evidence(
            Table.empty(slots, operations),
            Table.empty(slots, operations, 2),
            Table.empty(slots, operations, magnitudes),
        )

    def add(self, draws: Draws, reward_N: Tensor, decay: float) -> "Evidence":
        """One step's draws and rewards, centred and scaled within the step."""
        scaled_N = standardise(reward_N.double())
        slot_NK = torch.arange(draws.operation_NK.shape[1]).expand_as(draws.operation_NK)
        cell_NK = slot_NK * len(augment.NAMES) + draws.operation_NK
        reward_NK = scaled_N.unsqueeze(-1).expand_as(cell_NK)
        applied_NK = draws.applied_NK
        magnitude_NK = cell_NK * augment.MAGNITUDES + draws.magnitude_NK
        return Evidence(
            self.operation_KO.add(cell_NK.flatten(), reward_NK.flatten(), decay),
            self.applied_KO2.add((cell_NK * 2 + applied_NK).flatten(), reward_NK.flatten(), decay),
            self.magnitude_KOM.add(magnitude_NK[applied_NK], reward_NK[applied_NK], decay),
        )

    def operation(self) -> tuple[Tensor, Tensor]:
        """Mean advantage of each operation over the mean of its slot, and standard error. (K, O)"""
        mean_KO = self.operation_KO.mean()
        return mean_KO - mean_KO.mean(-1, keepdim=True), self.operation_KO.standard_error()

    def applied(self) -> tuple[Tensor, Tensor]:
        """Mean reward where applied minus where not, and standard error. (K, O)"""
        mean_KO2, error_KO2 = self.applied_KO2.mean(), self.applied_KO2.standard_error()
        return mean_KO2[..., 1] - mean_KO2[..., 0], error_KO2.square().sum(-1).sqrt()

    def magnitude(self) -> tuple[Tensor, Tensor]:
        """Mean advantage of each magnitude over the others of its operation. (K, O, M)"""
        mean_KOM = self.magnitude_KOM.mean()
        return mean_KOM - mean_KOM.mean(-1, keepdim=True), self.magnitude_KOM.standard_error()

    def tensors(self) -> list[Tensor]:
        return [
            part
            for table in (self.operation_KO, self.applied_KO2, self.magnitude_KOM)
            for part in table
        ]

    @staticmethod
    def from_tensors(tensors: list[Tensor]) -> "Evidence":
        return Evidence(Table(*tensors[:4]), Table(*tensors[4:8]), Table(*tensors[8:]))


def standardise(reward_N: Tensor) -> Tensor:
    """Centred, and divided by the standard deviation (by nothing where all are equal)."""
    centred_N = reward_N - reward_N.mean()
    return centred_N / centred_N.square().mean().sqrt().clamp_min(1e-30)


def leave_one_out(reward_IJ: Tensor) -> Tensor:
    """Each reward minus the mean of its architecture's others: same expectation, less variance."""
    count = reward_IJ.shape[1]
    if count < 2:
        raise ValueError(
            f"leave-one-out needs at least 2 policies an architecture, got {count}; raise "
            "search.policies_per_architecture"
        )
    return (count * reward_IJ - reward_IJ.sum(1, keepdim=True)) / (count - 1)


def paper(gamma: PolicyLogits, draws: Draws, reward_IJ: Tensor, _: Evidence) -> Tensor:
    """Eq. (13), no baseline."""
    return policy_surrogate(gamma.log_prob(draws).view_as(reward_IJ), reward_IJ)


def paper_leave_one_out(
    gamma: PolicyLogits, draws: Draws, reward_IJ: Tensor, _: Evidence
) -> Tensor:
    """Eq. (13) with a leave-one-out baseline."""
    return policy_surrogate(gamma.log_prob(draws).view_as(reward_IJ), leave_one_out(reward_IJ))


def running_means(
    gamma: PolicyLogits, _draws: Draws, _reward: Tensor, evidence: Evidence
) -> Tensor:
    """The expected gradient over all actions, of the running mean advantages."""
    return expected_surrogate(
        gamma, evidence.operation()[0], evidence.applied()[0], evidence.magnitude()[0]
    )


def expected_surrogate(
    gamma: PolicyLogits, operation_KO: Tensor, applied_KO: Tensor, magnitude_KOM: Tensor
) -> Tensor:
    """Minus the expected advantage under p(Γ; γ), each choice credited with its own part only."""
    choice = gamma.occurrence()
    inside = gamma.without_operation_gradient().occurrence()
    return -(
        (choice.operation_KO * operation_KO).sum()
        + (inside.applied_KO * applied_KO).sum()
        + (inside.magnitude_KOM * magnitude_KOM).sum()
    )


@dataclass(frozen=True)
class Estimator:
    """per_image: every image of the batch draws its own Γ, rewards come from a forward-mode pass."""

    per_image: bool
    surrogate: Callable[[PolicyLogits, Draws, Tensor, Evidence], Tensor]


ESTIMATORS = {
    "paper": Estimator(per_image=False, surrogate=paper),
    "leave_one_out": Estimator(per_image=False, surrogate=paper_leave_one_out),
    "per_image": Estimator(per_image=True, surrogate=paper_leave_one_out),
    "running_means": Estimator(per_image=True, surrogate=running_means),
}
