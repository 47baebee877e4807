"""What a method tells of what it has learned: numbers for metrics.jsonl and result.json."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from daas_dist.documents.results import EvidenceTables, Gains
from daas_dist.methods.estimators import Evidence
from daas_dist.methods.interface import POLICY, Contribution, Logits, policy_logits
from daas_dist.spaces.cells import INPUTS, KINDS, NODES, OPERATIONS, edges_into

CHOICES = ("alpha", "beta", "pi", "application", "magnitude")


def metrics_of(terms: Sequence[Contribution], split: str) -> dict[str, float]:
    """Return the mean loss and accuracy of terms on a split, by their names in metrics.jsonl."""
    loss, accuracy = torch.stack([term.small[split] for term in terms]).mean(0).tolist()
    return {f"{split}_loss": loss, f"{split}_accuracy": accuracy}


@torch.no_grad()
def entropies(logits: Logits, parameters: str) -> dict[str, float | None]:
    """Return the mean nats of a choice, by the name of its logits; None of what is not searched."""
    found: dict[str, float | None] = dict.fromkeys(CHOICES)
    if "alpha" in logits:
        found["alpha"] = _mean_entropy(logits["alpha"][..., : len(OPERATIONS)])  # `none` apart
    if "beta" in logits:
        found["beta"] = _edge_entropy(logits["beta"])
    if f"{POLICY}pi" in logits:
        policy = policy_logits(logits, parameters).entropy()
        for name, choice in (("pi", "operation"), *((n, n) for n in ("application", "magnitude"))):
            found[name] = float(policy[choice])
    return found


@torch.no_grad()
def operation_share(logits: Logits) -> dict[str, dict[str, float]] | None:
    """Return the expected share of each operation over the edges that β would keep on average, each
    into a node as likely without β; None where no architecture is searched.

    α may have a `none` beside the operations, whose share is what is missing to 1.
    """
    if "alpha" not in logits:
        return None
    shares = {}
    alpha_KEO = logits["alpha"]
    beta_KE = logits.get("beta", torch.zeros(alpha_KEO.shape[:2]))
    for kind, alpha_EO, beta_E in zip(KINDS, alpha_KEO, beta_KE, strict=True):
        weight_E = edge_probability(beta_E)
        share_O = (weight_E.unsqueeze(-1) * alpha_EO.softmax(-1)).sum(0) / weight_E.sum()
        share_O = share_O[: len(OPERATIONS)]
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


def evidence_tables(evidence: Evidence) -> EvidenceTables:
    """Return mean advantage and standard error, None where a choice was never drawn."""

    def finite(value: Tensor) -> Any:
        if value.ndim:
            return [finite(part) for part in value]
        return float(value) if bool(value.isfinite()) else None

    operation, applied, magnitude = (
        Gains(*map(finite, table))
        for table in (evidence.operation(), evidence.applied(), evidence.magnitude())
    )
    return EvidenceTables(operation, applied, magnitude)


def of_architecture(logits: Logits, tau: float | None) -> dict[str, Any]:
    """Return the part of a line of metrics of a method that learns α alone."""
    return {
        "tau": tau,
        "entropy": entropies(logits, ""),
        "operation_share": operation_share(logits),
    }
