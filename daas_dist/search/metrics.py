"""What a search tells of itself: the numbers of metrics.jsonl and of result.json."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from daas_dist.methods.daas import Contribution
from daas_dist.methods.estimators import Evidence
from daas_dist.spaces.cells import INPUTS, KINDS, NODES, OPERATIONS, edges_into
from daas_dist.spaces.policy import PolicyLogits

NAMES = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "reward_mean", "reward_std")


@dataclass(frozen=True)
class Interval:
    """Sums over the steps since the last line of metrics: part of the state, so that a resume
    loses none. NAMES in order, then the number of steps."""

    sums: Tensor

    @staticmethod
    def empty() -> "Interval":
        return Interval(torch.zeros(len(NAMES) + 1, dtype=torch.float64))

    def add(
        self, terms: Sequence[Contribution], weight_terms: Sequence[Contribution]
    ) -> "Interval":
        """One step's search terms (validation, rewards) and weight terms (training)."""
        nothing = torch.full((2,), torch.nan)
        train = torch.stack([t.train_loss_accuracy for t in weight_terms]).mean(0)
        val = torch.stack([t.val_loss_accuracy for t in terms]).mean(0) if terms else nothing
        rewards = torch.cat([t.reward_J for t in terms]) if terms else torch.zeros(0)
        spread = (
            torch.stack([rewards.mean(), rewards.std(correction=0)]) if len(rewards) else nothing
        )
        row = torch.cat([train, val, spread, torch.ones(1)]).double()
        return Interval(self.sums + row.nan_to_num())

    def means(self) -> dict[str, float | None]:
        """None where no step of the interval was whole."""
        if not self.sums[-1]:
            return dict.fromkeys(NAMES)
        return dict(zip(NAMES, (self.sums[:-1] / self.sums[-1]).tolist(), strict=True))


@torch.no_grad()
def entropies(
    alpha_CEO: Tensor, beta_CE: Tensor, gamma: PolicyLogits, architecture: bool
) -> dict[str, float | None]:
    """Mean nats of a choice; None where no architecture is searched."""
    policy = gamma.entropy()
    return {
        "alpha": _mean_entropy(alpha_CEO) if architecture else None,
        "beta": _edge_entropy(beta_CE) if architecture else None,
        "pi": float(policy["operation"]),
        "application": float(policy["application"]),
        "magnitude": float(policy["magnitude"]),
    }


@torch.no_grad()
def operation_share(alpha_CEO: Tensor, beta_CE: Tensor) -> dict[str, dict[str, float]]:
    """Expected share of each operation over the edges that β would keep on average."""
    shares = {}
    for kind, alpha_EO, beta_E in zip(KINDS, alpha_CEO, beta_CE, strict=True):
        weight_E = edge_probability(beta_E)
        share_O = (weight_E.unsqueeze(-1) * alpha_EO.softmax(-1)).sum(0) / weight_E.sum()
        shares[kind] = dict(zip(OPERATIONS, share_O.tolist(), strict=True))
    return shares


@torch.no_grad()
def edge_probability(beta_E: Tensor) -> Tensor:
    """softmax over the edges into each node."""
    return torch.cat([beta_E[edges_into(j)].softmax(-1) for j in range(INPUTS, INPUTS + NODES)])


def _mean_entropy(logits: Tensor) -> float:
    return float(-(logits.softmax(-1) * logits.log_softmax(-1)).sum(-1).mean())


def _edge_entropy(beta_CE: Tensor) -> float:
    nodes = range(INPUTS, INPUTS + NODES)
    return sum(_mean_entropy(beta_CE[:, edges_into(j)]) for j in nodes) / NODES


def evidence_json(evidence: Evidence) -> dict[str, Any]:
    """Mean advantage and standard error, null where a choice was never drawn."""

    def finite(value: Tensor) -> Any:
        if value.ndim:
            return [finite(part) for part in value]
        return float(value) if bool(value.isfinite()) else None

    tables = {
        "operation": evidence.operation(),
        "applied": evidence.applied(),
        "magnitude": evidence.magnitude(),
    }
    return {
        name: {"mean": finite(mean), "standard_error": finite(error)}
        for name, (mean, error) in tables.items()
    }
