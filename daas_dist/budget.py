"""A limit on the multiply-adds of what a search finds (ours, not in the paper). Pure functions.

Two parts. While the network that α and β stand for is above the limit, multiply-adds have a price:
the search adapts, and what trains and wins is what the limit allows. And what is derived in the end
is, of the architectures within the limit, the one that α and β prefer, found exactly: it holds.

Axes: K kinds of cell (normal, reduce), E edges of a cell, O operations.
Signs: a penalty is added to the loss. A price is in nats of the validation loss, for as many
multiply-adds as the limit has.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations, product
from math import inf

import torch
from torch import Tensor

from daas_dist.models.cost_table import CostTable
from daas_dist.space import (
    IN_DEGREE,
    INPUTS,
    NODES,
    OPERATIONS,
    Genotype,
    Pair,
    derive,
    edges_into,
)

PRICE_RISE = 1.0
"""Nats by which an epoch at twice the limit raises the price (ours)."""

TARGETS = range(INPUTS, INPUTS + NODES)


# --- What a distribution costs ------------------------------------------------------------------


def kept_probability(beta_E: Tensor) -> Tensor:
    """P(an edge is one of the two that Eq. (8) keeps at its node), (E,), whatever τ is.

    The two largest after Gumbel noise are a draw without replacement: an edge comes first, by the
    softmax of β, or second, by the softmax over the edges without the first.
    """
    kept_E = []
    for target in TARGETS:
        logit_E = beta_E[edges_into(target)]
        # Row i: who comes second after i. A softmax of its own, since p / (1 - p_i) is 0 / 0 where
        # β has decided.
        itself = torch.eye(target, dtype=torch.bool)
        second_EE = logit_E.expand(target, target).masked_fill(itself, -inf).softmax(-1)
        first_E = logit_E.softmax(-1)
        kept_E.append(first_E + first_E @ second_EE)
    return torch.cat(kept_E)


def expected_cost(table: CostTable, alpha_KEO: Tensor, beta_KE: Tensor) -> Tensor:
    """E[cost of z], z ~ p(z; α, β) of Eq. (7) and (8): exact, and differentiable by α and β."""
    kept_KE = torch.stack([kept_probability(beta_E) for beta_E in beta_KE])
    cost_KE = (alpha_KEO.softmax(-1) * table.cost_KEO.to(alpha_KEO.dtype)).sum(-1)
    return table.constant + (kept_KE * cost_KE).sum()


# --- The preferred architecture within a limit --------------------------------------------------


@dataclass(frozen=True)
class Choice:
    """Edges and operations of some of the nodes, and what they cost.

    score: 0 for what space.derive chooses; less by the log-odds of its choice against this one, at
    each node (which two edges, by β) and on each kept edge (which operation, by α).
    """

    cost: float
    score: float
    pairs: tuple[Pair, ...]

    def __add__(self, other: "Choice") -> "Choice":
        return Choice(self.cost + other.cost, self.score + other.score, self.pairs + other.pairs)


def derive_within(limit: float, table: CostTable, alpha_KEO: Tensor, beta_KE: Tensor) -> Genotype:
    """Of the architectures that cost at most `limit`, the one with the highest score.

    Exact, node by node: of all choices for the nodes so far, those are kept that score higher than
    all that cost no more. limit: at least table.constant, which a network of pools costs.
    """
    best = [Choice(table.constant, 0.0, ())]
    for cost_EO, alpha_EO, beta_E in zip(table.cost_KEO, alpha_KEO, beta_KE, strict=True):
        for target in TARGETS:
            own = list(_undominated(_choices(target, cost_EO, alpha_EO, beta_E), limit))
            best = list(_undominated((a + b for a in best for b in own), limit))
    pairs = best[-1].pairs
    return Genotype(pairs[: len(pairs) // 2], pairs[len(pairs) // 2 :])


def _undominated(choices: Iterable[Choice], limit: float) -> Iterator[Choice]:
    """By rising cost, and so rising score."""
    highest = -inf
    for choice in sorted(choices, key=lambda choice: (choice.cost, -choice.score)):
        if choice.cost <= limit and choice.score > highest:
            highest = choice.score
            yield choice


def _choices(target: int, cost_EO: Tensor, alpha_EO: Tensor, beta_E: Tensor) -> Iterator[Choice]:
    """Every pair of edges into a node, with every two operations."""
    edges = edges_into(target)
    cost, alpha_EO = cost_EO[edges].tolist(), alpha_EO[edges].double()
    score = (alpha_EO - alpha_EO.amax(-1, keepdim=True)).tolist()
    sources = list(combinations(range(target), IN_DEGREE))
    log_pair = [_log_kept(beta_E[edges].double(), i, j) for i, j in sources]
    for (i, j), log_kept in zip(sources, log_pair, strict=True):
        for o, p in product(range(len(OPERATIONS)), repeat=IN_DEGREE):
            pairs = (OPERATIONS[o], i), (OPERATIONS[p], j)
            total = log_kept - max(log_pair) + score[i][o] + score[j][p]
            yield Choice(cost[i][o] + cost[j][p], total, pairs)


def _log_kept(logit_E: Tensor, i: int, j: int) -> float:
    """log P(the two edges are kept) = log p_i p_j (1 / (1 - p_i) + 1 / (1 - p_j)): either first."""
    log_E = logit_E.log_softmax(-1)
    rest = [torch.cat([log_E[:k], log_E[k + 1 :]]).logsumexp(0) for k in (i, j)]
    return float(log_E[i] + log_E[j] + torch.logaddexp(-rest[0], -rest[1]))


# --- The limit of a search ----------------------------------------------------------------------


@dataclass(frozen=True)
class Budget:
    """At most `limit` multiply-adds, and at least table.constant, counted by the table."""

    limit: float
    table: CostTable

    def excess(self, genotype: Genotype) -> float:
        """How far above the limit, as a share of it; 0 within."""
        return max(0.0, self.table.of(genotype) / self.limit - 1)

    def penalty(
        self, price: float, alpha_KEO: Tensor, beta_KE: Tensor, epoch: int
    ) -> tuple[Tensor, float]:
        """(what multiply-adds cost in expectation, the price from now on); epoch: steps of one.

        Nothing while the network that α and β stand for is within the limit; above it the price
        rises. It does not fall again: a wall, which an architecture that stays within never feels.
        """
        excess = self.excess(derive(alpha_KEO.detach(), beta_KE.detach()))
        if not excess:
            return torch.zeros(()), price
        price += PRICE_RISE * excess / epoch
        return price * expected_cost(self.table, alpha_KEO, beta_KE) / self.limit, price

    def derive(self, alpha_KEO: Tensor, beta_KE: Tensor) -> Genotype:
        """space.derive's if it is within the limit (ties are then broken as there)."""
        freely = derive(alpha_KEO, beta_KE)
        if self.excess(freely):
            return derive_within(self.limit, self.table, alpha_KEO, beta_KE)
        return freely
