"""Estimators of ∇_γ L from rewards: the paper's, and better ones that are ours (not in the paper).

Axes: I architectures of a step, J policies (or images) of each, N = I × J samples, K slots,
      O operations, M magnitudes, R policies.
An estimator maps (γ, draws, rewards, evidence) to a scalar whose gradient by γ is the estimate.

The evidence is kept whichever estimator runs: what the rewards say about each operation, about
applying it, and about each magnitude, with a standard error. p(Γ) factorises over these choices, so
their means give the gradient over *all* actions, not only over those that were drawn.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from daas_dist.methods.equations import policy_surrogate
from daas_dist.spaces import operations as augment
from daas_dist.spaces.policy import Draws, PolicyLogits

DOUBT = 1.5
"""Standard errors that an effect has to exceed before it moves a policy (ours: of 1, 1.5 and 2 on
one seed of benchmarks/planted_truth.py, 1 moved a control as far as null runs go, 2 was slow)."""


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

    def sum(self, *dims: int) -> "Table":
        """The choices of these axes thrown together."""
        return Table(*(part.sum(dims, keepdim=True) for part in self))

    def smooth(self) -> "Table":
        """Every choice with half of its two neighbours along the last axis (ours: strengths that
        are next to each other do much the same). Half a sample has a quarter of its weight²."""
        shares = [0.5, 0.25, 0.5, 0.5]
        padded = [torch.nn.functional.pad(part, (1, 1)) for part in self]
        return Table(
            *(
                part[..., 1:-1] + share * (part[..., :-2] + part[..., 2:])
                for part, share in zip(padded, shares, strict=True)
            )
        )

    def mean(self) -> Tensor:
        """Mean reward of each choice; 0 where it was never made."""
        return self.total / self.weight.clamp_min(1e-12)

    def standard_error(self) -> Tensor:
        """Return the standard error of mean(), with one variance for all choices of the table;
        infinite where never made."""
        count = self.weight**2 / self.weight_squared.clamp_min(1e-300)
        spread = (self.square - self.total * self.mean()).sum() / self.weight.sum().clamp_min(1e-12)
        return torch.where(self.weight > 0, (spread / count.clamp_min(1e-12)).sqrt(), torch.inf)


@dataclass(frozen=True)
class Evidence:
    """What the rewards have said so far, as normal scores: in standard deviations of a reward."""

    operation_KO: Table
    applied_KO2: Table
    magnitude_KOM: Table

    @staticmethod
    def empty(slots: int, operations: int) -> "Evidence":
        magnitudes = augment.MAGNITUDES
        return Evidence(
            Table.empty(slots, operations),
            Table.empty(slots, operations, 2),
            Table.empty(slots, operations, magnitudes),
        )

    def add(self, draws: Draws, score_N: Tensor, decay: float) -> "Evidence":
        """One step's draws and their scores, which have a mean of 0."""
        slot_NK = torch.arange(draws.operation_NK.shape[1]).expand_as(draws.operation_NK)
        cell_NK = slot_NK * self.operation_KO.weight.shape[1] + draws.operation_NK
        score_NK = score_N.double().unsqueeze(-1).expand_as(cell_NK)
        applied_NK = draws.applied_NK
        magnitude_NK = cell_NK * augment.MAGNITUDES + draws.magnitude_NK
        return Evidence(
            self.operation_KO.add(cell_NK.flatten(), score_NK.flatten(), decay),
            self.applied_KO2.add((cell_NK * 2 + applied_NK).flatten(), score_NK.flatten(), decay),
            self.magnitude_KOM.add(magnitude_NK[applied_NK], score_NK[applied_NK], decay),
        )

    def operation(self) -> tuple[Tensor, Tensor]:
        """Mean advantage of each operation over the mean of its slot, and standard error. (K, O)"""
        mean_KO = self.operation_KO.mean()
        return mean_KO - mean_KO.mean(-1, keepdim=True), self.operation_KO.standard_error()

    def applied(self) -> tuple[Tensor, Tensor]:
        """Mean score where applied, minus where a slot was left out, and standard error. (K, O)

        A slot left out does the same whatever its operation, so all of them are one yardstick.
        """
        left_out = self.applied_KO2.sum(1)
        mean_KO = self.applied_KO2.mean()[..., 1] - left_out.mean()[..., 0]
        errors = self.applied_KO2.standard_error()[..., 1], left_out.standard_error()[..., 0]
        return mean_KO, (errors[0].square() + errors[1].square()).sqrt()

    def magnitude(self) -> tuple[Tensor, Tensor]:
        """Mean advantage of each magnitude over the mean of its operation, and standard error.
        (K, O, M)"""
        smooth_KOM = self.magnitude_KOM.smooth()
        mean_KOM, weight_KOM = smooth_KOM.mean(), self.magnitude_KOM.weight
        mean_KO1 = self.magnitude_KOM.sum(-1).mean()
        return torch.where(weight_KOM > 0, mean_KOM - mean_KO1, 0.0), smooth_KOM.standard_error()

    def tensors(self) -> list[Tensor]:
        tables = (self.operation_KO, self.applied_KO2, self.magnitude_KOM)
        return [part for table in tables for part in table]

    @staticmethod
    def from_tensors(tensors: list[Tensor]) -> "Evidence":
        return Evidence(Table(*tensors[:4]), Table(*tensors[4:8]), Table(*tensors[8:]))


def normal_scores(value_IJ: Tensor) -> Tensor:
    """Return what a standard normal would show at each one's rank among the J: no outlier leads.
    (I, J)

    Van der Waerden's scores, Φ⁻¹(rank / (J + 1)); values that are equal share their mean rank.
    """
    below = (value_IJ.unsqueeze(-1) > value_IJ.unsqueeze(-2)).sum(-1)
    equal = (value_IJ.unsqueeze(-1) == value_IJ.unsqueeze(-2)).sum(-1)
    rank_IJ = below.double() + (equal.double() + 1) / 2
    return torch.special.ndtri(rank_IJ / (value_IJ.shape[-1] + 1))


def leave_one_out(reward_IJ: Tensor) -> Tensor:
    """Each reward minus the mean of its architecture's others: same expectation, less variance."""
    count = reward_IJ.shape[1]
    if count < 2:
        raise ValueError(
            f"leave-one-out needs at least 2 policies an architecture, got {count}; raise "
            "search.policies_per_architecture"
        )
    return (count * reward_IJ - reward_IJ.sum(1, keepdim=True)) / (count - 1)


def shrink(mean: Tensor, error: Tensor) -> Tensor:
    """Return what to believe of many noisy means: each times τ² / (τ² + its standard error²).

    Empirical Bayes (James & Stein 1961; Efron & Morris 1973): if the true means spread normally
    about 0 with variance τ², this is their posterior mean; τ² is what the means scatter beyond
    their errors, and 0, so no step at all, where they scatter no more than chance. An infinite
    error (never drawn) gives 0.
    """
    known = error.isfinite()
    precision = torch.where(known, error.clamp_min(1e-12) ** -2, 0.0)
    beyond = torch.where(known, mean.square() - error.square(), 0.0)
    variance = (precision**2 * beyond).sum() / (precision**2).sum().clamp_min(1e-300)
    variance = variance.clamp_min(0.0)
    return torch.where(known, mean * variance / (variance + error.square()).clamp_min(1e-300), 0.0)


def significant(mean: Tensor, error: Tensor) -> Tensor:
    """Return what of each mean is beyond DOUBT standard errors, 0 where nothing is or none was
    drawn.

    Soft thresholding (Donoho & Johnstone 1994): few operations matter, the others shall not move.
    """
    known = error.isfinite()
    beyond = (mean.abs() - DOUBT * error).clamp_min(0.0)
    return torch.where(known, mean.sign() * beyond, 0.0)


# --- The estimators ------------------------------------------------------------------------------


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


def natural(gamma: PolicyLogits, _draws: Draws, _reward: Tensor, evidence: Evidence) -> Tensor:
    """The natural gradient, of advantages shrunk to what the evidence supports.

    Preconditioned by its own Fisher information, the gradient by a softmax's logits is the vector
    of advantages itself, and by a sigmoid's logit the difference of its two outcomes (Kakade 2001):
    an operation that is seldom drawn moves as readily as one that leads, and a step is as long as
    its evidence is strong, which Adam would undo. So take it with plain steps (sgd).

    An operation is worth what its better use gains: applied or left out, hence never less than
    nothing. One that harms loses its application, not its place; so where nothing helps, no
    operation rises only because others fall.
    """
    with torch.no_grad():
        applied_KO = significant(*evidence.applied()).float()
        worth_KO = applied_KO.clamp_min(0.0)
        worth_KO -= (gamma.pi_KO.softmax(-1) * worth_KO).sum(-1, keepdim=True)
        magnitude_KOM = shrink(*evidence.magnitude()).float()
        rho_advantage, delta_advantage = gamma.by_entry(applied_KO), gamma.by_entry(magnitude_KOM)
    return -(
        (gamma.pi_KO * worth_KO).sum()
        + (gamma.rho * rho_advantage).sum()
        + (gamma.delta * delta_advantage).sum()
    )


@dataclass(frozen=True)
class Estimator:
    """per_image: each image of the batch draws its own Γ, rewards come from forward-mode passes."""

    per_image: bool
    surrogate: Callable[[PolicyLogits, Draws, Tensor, Evidence], Tensor]


ESTIMATORS = {
    "paper": Estimator(per_image=False, surrogate=paper),
    "leave_one_out": Estimator(per_image=False, surrogate=paper_leave_one_out),
    "per_image": Estimator(per_image=True, surrogate=paper_leave_one_out),
    "running_means": Estimator(per_image=True, surrogate=running_means),
    "natural": Estimator(per_image=True, surrogate=natural),
}
