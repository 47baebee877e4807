"""Limits on multiply-adds and parameters of what a search finds (ours, not in the paper). Pure
functions.

Two parts. While the network that α and β stand for is above a limit, what it limits has a price:
the search adapts, and what trains and wins is what the limits allow. And what is derived in the end
is, of the architectures within all limits, the one that α and β prefer, found exactly: they hold.

Axes: L limits, K kinds of cell (normal, reduce), E edges of a cell, O operations.
Signs: a penalty is added to the loss. A price is in nats of the validation loss, for as many
multiply-adds, or parameters, as the limit has.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from math import inf
from operator import add

import torch
from torch import Tensor

from daas_dist.config import schema
from daas_dist.config.rules import refuse
from daas_dist.models.cost_table import Costs, CostTable
from daas_dist.spaces.cells import (
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


# --- The preferred architecture within limits ---------------------------------------------------


@dataclass(frozen=True)
class Limit:
    """At most `most`, and at least table.constant, counted by the table."""

    most: float
    table: CostTable

    def excess(self, genotype: Genotype) -> float:
        """Return how far above the limit, as a share of it; 0 within."""
        return max(0.0, self.table.of(genotype) / self.most - 1)


@dataclass(frozen=True)
class Choice:
    """Edges and operations of some of the nodes, and what they cost, by each limit's table.

    score: 0 for what space.derive chooses; less by the log-odds of its choice against this one, at
    each node (which two edges, by β) and on each kept edge (which operation, by α).
    """

    cost_L: tuple[float, ...]
    score: float
    pairs: tuple[Pair, ...]

    def __add__(self, other: "Choice") -> "Choice":
        cost_L = tuple(map(add, self.cost_L, other.cost_L))
        return Choice(cost_L, self.score + other.score, self.pairs + other.pairs)


def derive_within(limits: Sequence[Limit], alpha_KEO: Tensor, beta_KE: Tensor) -> Genotype:
    """Find, of the architectures within all limits, the one with the highest score.

    Exact, node by node: of all choices for the nodes so far, those are kept that score higher than
    all that cost no more by any table. There is one, as a network of pools is within each limit.
    """
    cost_KLEO = torch.stack([limit.table.cost_KEO for limit in limits], dim=1)
    best = [Choice(tuple(float(limit.table.constant) for limit in limits), 0.0, ())]
    for cost_LEO, alpha_EO, beta_E in zip(cost_KLEO, alpha_KEO, beta_KE, strict=True):
        for target in TARGETS:
            own = _undominated(_choices(target, cost_LEO, alpha_EO, beta_E), limits)
            best = _undominated((a + b for a in best for b in own), limits)
    pairs = max(best, key=lambda choice: choice.score).pairs
    return Genotype(pairs[: len(pairs) // 2], pairs[len(pairs) // 2 :])


def _undominated(choices: Iterable[Choice], limits: Sequence[Limit]) -> list[Choice]:
    """Those within the limits that score higher than all that cost no more; some tens."""
    kept: list[Choice] = []
    # What could dominate a choice comes before it.
    for choice in sorted(choices, key=lambda choice: (choice.cost_L, -choice.score)):
        if all(cost <= limit.most for cost, limit in zip(choice.cost_L, limits, strict=True)):
            cheaper = (other for other in kept if _no_dearer(other, choice))
            if all(other.score < choice.score for other in cheaper):
                kept.append(choice)
    return kept


def _no_dearer(one: Choice, other: Choice) -> bool:
    return all(a <= b for a, b in zip(one.cost_L, other.cost_L, strict=True))


def _choices(target: int, cost_LEO: Tensor, alpha_EO: Tensor, beta_E: Tensor) -> Iterator[Choice]:
    """Every pair of edges into a node, with every two operations."""
    edges = edges_into(target)
    cost_EOL, alpha_EO = cost_LEO[:, edges].permute(1, 2, 0).tolist(), alpha_EO[edges].double()
    score = (alpha_EO - alpha_EO.amax(-1, keepdim=True)).tolist()
    sources = list(combinations(range(target), IN_DEGREE))
    log_pair = [_log_kept(beta_E[edges].double(), i, j) for i, j in sources]
    for (i, j), log_kept in zip(sources, log_pair, strict=True):
        for o, p in product(range(len(OPERATIONS)), repeat=IN_DEGREE):
            pairs = (OPERATIONS[o], i), (OPERATIONS[p], j)
            total = log_kept - max(log_pair) + score[i][o] + score[j][p]
            yield Choice(tuple(map(add, cost_EOL[i][o], cost_EOL[j][p])), total, pairs)


def _log_kept(logit_E: Tensor, i: int, j: int) -> float:
    """log P(the two edges are kept) = log p_i p_j (1 / (1 - p_i) + 1 / (1 - p_j)): either first."""
    log_E = logit_E.log_softmax(-1)
    rest = [torch.cat([log_E[:k], log_E[k + 1 :]]).logsumexp(0) for k in (i, j)]
    return float(log_E[i] + log_E[j] + torch.logaddexp(-rest[0], -rest[1]))


# --- The limits of a search ---------------------------------------------------------------------


@dataclass(frozen=True)
class Budget:
    """One limit or more, which hold together."""

    limits: tuple[Limit, ...]

    @staticmethod
    def of(settings: schema.Search, costs: Costs) -> "Budget":
        """Make the budget of search.max_flops and search.max_parameters, where they are set.
        ConfigError where no network is within."""
        asked = (
            ("max_flops", settings.max_flops, costs.multiply_adds),
            ("max_parameters", settings.max_parameters, costs.parameters),
        )
        limits = [
            _limit(settings.derived, f"search.{name}", most, table)
            for name, most, table in asked
            if most is not None
        ]
        return Budget(tuple(limits))

    def penalty(
        self, price: float, alpha_KEO: Tensor, beta_KE: Tensor, epoch: int
    ) -> tuple[Tensor, float]:
        """(what is to be paid in expectation, the price from now on); epoch: steps of one.

        Nothing while the network that α and β stand for is within the limits; above one the price
        rises. It does not fall again: a wall, which an architecture that stays within never feels.
        Paid for is what is furthest above its limit.
        """
        preferred = derive(alpha_KEO.detach(), beta_KE.detach())
        limit = max(self.limits, key=lambda limit: limit.excess(preferred))
        excess = limit.excess(preferred)
        if not excess:
            return torch.zeros(()), price
        price += PRICE_RISE * excess / epoch
        return price * expected_cost(limit.table, alpha_KEO, beta_KE) / limit.most, price

    def derive(self, alpha_KEO: Tensor, beta_KE: Tensor) -> Genotype:
        """space.derive's if it is within the limits (ties are then broken as there)."""
        freely = derive(alpha_KEO, beta_KE)
        if any(limit.excess(freely) for limit in self.limits):
            return derive_within(self.limits, alpha_KEO, beta_KE)
        return freely


def _limit(derived: schema.Derived, key: str, most: float, table: CostTable) -> Limit:
    if most < table.constant:
        which = f"{derived.cells} cells of {derived.channels} channels, all pools"
        wanted = f"at least {table.constant}, which the cheapest network has ({which})"
        refuse(key, most, wanted)
    return Limit(most, table)
