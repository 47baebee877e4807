"""Limits on cost: exact expectations, the exact best within them, searches that obey."""

from collections.abc import Callable, Sequence
from itertools import combinations, permutations, product
from math import inf, log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rank_processes import forks, in_ranks
from scipy.optimize import LinearConstraint, milp
from test_search import TINY, images
from torch import Tensor
from whole_runs import column, needs_fashion_mnist, read

import daas_dist
from daas_dist import config as configuration
from daas_dist import models
from daas_dist.config import ConfigError
from daas_dist.data.dataset import DataSet
from daas_dist.distributed.mesh import Mesh
from daas_dist.methods.equations import architecture_surrogate, sample_architecture
from daas_dist.models.cost_table import CostTable, Size, costs_of
from daas_dist.models.network import Network
from daas_dist.rng import stream
from daas_dist.schedules import linear
from daas_dist.search import findings
from daas_dist.search.budget import (
    TARGETS,
    Budget,
    Limit,
    derive_within,
    expected_cost,
    kept_probability,
)
from daas_dist.search.loop import build_network, run_search
from daas_dist.search.steps import Search, SearchData
from daas_dist.spaces.cells import (
    EDGES,
    KINDS,
    OPERATIONS,
    Genotype,
    derive,
    edge_indices,
    edges_into,
    operation_indices,
)

PairScore = Callable[[int, int, tuple[int, int]], float]
"""(kind, target, the two sources) -> what it adds."""


IMAGENET = Size(48, 14, 1000, (3, 224, 224), "imagenet")
BOTH_BIND = [(9, 0.2, 0.23)]
"""(seed, share of multiply-adds, share of parameters)"""


@pytest.fixture(scope="module")
def table() -> CostTable:
    """Multiply-adds of the paper's ImageNet networks."""
    return costs_of(IMAGENET).multiply_adds


def logits(seed: int, spread: float = 1.5) -> tuple[Tensor, Tensor]:
    """α and β in float64, away from uniform."""
    shapes = (len(KINDS), len(EDGES), len(OPERATIONS)), (len(KINDS), len(EDGES))
    alpha, beta = (
        spread * torch.randn(shape, generator=stream(seed, "logits", i), dtype=torch.float64)
        for i, shape in enumerate(shapes)
    )
    return alpha, beta


def kept_pairs(beta_E: Tensor, target: int) -> dict[tuple[int, int], float]:
    """P(two edges into a node are kept), from the order in which they are drawn."""
    p = beta_E[edges_into(target)].softmax(-1).tolist()
    chance = dict.fromkeys(combinations(range(target), 2), 0.0)
    for i, j in permutations(range(target), 2):
        chance[min(i, j), max(i, j)] += p[i] * p[j] / (1 - p[i])
    return chance


# --- Expectations --------------------------------------------------------------------------------


def test_the_kept_edges_by_enumeration_of_all_draws() -> None:
    for beta_E in logits(1)[1]:
        kept_E = kept_probability(beta_E)
        for target in TARGETS:
            chance = kept_pairs(beta_E, target)
            for source in range(target):
                expected = sum(p for pair, p in chance.items() if source in pair)
                found = float(kept_E[edges_into(target)][source])
                assert found == pytest.approx(expected, rel=1e-12)


def test_decided_edges_are_kept_for_sure_and_leave_a_gradient() -> None:
    """Where one minus a probability is 0 in floating point."""
    beta_E = torch.zeros(len(EDGES))
    beta_E[edges_into(4)] = torch.tensor([300.0, 1.0, 2.0, 0.0])
    beta_E.requires_grad_()
    kept_E = kept_probability(beta_E)
    second = torch.tensor([1.0, 2.0, 0.0]).softmax(-1)
    torch.testing.assert_close(kept_E[edges_into(4)], torch.cat([torch.ones(1), second]))
    kept_E[edges_into(4).start + 2].backward()
    assert beta_E.grad is not None and bool(beta_E.grad.isfinite().all())
    assert float(beta_E.grad[edges_into(4).start + 2]) == pytest.approx(
        float(second[1] * (1 - second[1]))
    )


@pytest.mark.parametrize("tau", [0.1, 6.0])
def test_the_expected_cost_is_the_mean_of_sampled_architectures(
    tau: float, table: CostTable
) -> None:
    alpha, beta = logits(2)
    # What is kept nearly always is dear.
    first = [edge for edge, (source, _) in enumerate(EDGES) if source == 0]
    alpha[:, first, OPERATIONS.index("sep_conv_5x5")] += 3
    beta[:, first] += 2
    sampled = [
        table.of(sample_architecture(alpha, beta, tau, stream(i, "sampled")).genotype)
        for i in range(1500)
    ]
    error = np.std(sampled) / len(sampled) ** 0.5
    expected = float(expected_cost(table, alpha, beta))
    assert abs(np.mean(sampled) - expected) < 3.5 * error < 0.02 * expected
    # What it must not be taken for: each edge by β's softmax alone, or twice that.
    by_beta = torch.cat([2 * beta[:, edges_into(t)].softmax(-1) for t in TARGETS], -1)
    wrong = table.constant + float((by_beta[..., None] * alpha.softmax(-1) * table.cost_KEO).sum())
    assert abs(np.mean(sampled) - wrong) > 5 * error


def test_the_penaltys_gradient_is_that_of_finite_differences(table: CostTable) -> None:
    alpha, beta = (value.requires_grad_() for value in logits(3))
    limit = Limit(0.8 * table.of(derive(alpha, beta)), table)
    budget = Budget((limit,))
    assert torch.autograd.gradcheck(lambda a, b: budget.penalty(0.7, a, b, 9)[0], (alpha, beta))
    penalty, price = budget.penalty(0.7, alpha, beta, 9)
    assert price == pytest.approx(0.7 + 0.25 / 9)
    torch.testing.assert_close(penalty, price * expected_cost(table, alpha, beta) / limit.most)


def test_within_the_limit_multiply_adds_are_free(table: CostTable) -> None:
    alpha, beta = logits(3)
    exactly = Limit(table.of(derive(alpha, beta)), table)
    penalty, price = Budget((exactly,)).penalty(0.7, alpha, beta, 9)
    assert float(penalty) == 0 and price == 0.7


def test_what_is_furthest_above_its_limit_is_paid_for() -> None:
    alpha, beta = logits(3)
    costs = costs_of(IMAGENET)
    counted = [
        (table, table.of(derive(alpha, beta))) for table in (costs.parameters, costs.multiply_adds)
    ]
    for shares, paid in (((0.9, 0.8), 1), ((0.7, 0.8), 0), ((1.1, 0.8), 1)):
        limits = [Limit(share * cost, t) for share, (t, cost) in zip(shares, counted, strict=True)]
        penalty, price = Budget(tuple(limits)).penalty(0.7, alpha, beta, 9)
        assert price == pytest.approx(0.7 + (1 / shares[paid] - 1) / 9)
        expected = expected_cost(limits[paid].table, alpha, beta) / limits[paid].most
        torch.testing.assert_close(penalty, price * expected)


# --- The preferred within a limit ----------------------------------------------------------------


def given_up(genotype: Genotype, alpha: Tensor, beta: Tensor) -> float:
    """The log-odds of what is preferred against the genotype's edges and operations."""
    total = 0.0
    for alpha_EO, beta_E, kind in zip(alpha, beta, KINDS, strict=True):
        pairs = genotype.cell(kind)
        p_E = alpha_EO.softmax(-1)[edge_indices(pairs)]
        chosen = p_E[torch.arange(len(pairs)), operation_indices(pairs)]
        total += float((p_E.amax(-1) / chosen).log().sum())
        for target in TARGETS:
            (_, i), (_, j) = pairs[2 * (target - 2) : 2 * (target - 1)]
            chance = kept_pairs(beta_E, target)
            total += log(max(chance.values()) / chance[i, j])
    return total


def by_integer_programming(
    limits: Sequence[Limit], score_KEO: Tensor, pair_score: PairScore
) -> float:
    """The highest sum of scores of kept edges and pairs within the limits, by scipy's branch and
    bound: one choice a node, and the costs below the limits."""
    score, node = [], []
    cost_L: list[list[float]] = [[] for _ in limits]
    for k, target in product(range(len(KINDS)), TARGETS):
        edges = edges_into(target)
        scores = score_KEO[k, edges]
        for i, j in combinations(range(target), 2):
            for cost, limit in zip(cost_L, limits, strict=True):
                costs = limit.table.cost_KEO[k, edges]
                cost += (costs[i][:, None] + costs[j]).flatten().tolist()
            pair = scores[i][:, None] + scores[j] + pair_score(k, target, (i, j))
            score += pair.flatten().tolist()
            node += [(k, target)] * pair.numel()
    nodes = sorted(set(node))
    one_each = np.array([[float(own == each) for own in node] for each in nodes])
    found = milp(
        -np.array(score),
        integrality=np.ones(len(score)),
        bounds=(0, 1),
        constraints=[
            LinearConstraint(one_each, 1, 1),
            *(
                LinearConstraint(
                    np.array([cost]) / limit.most, -inf, 1 - limit.table.constant / limit.most
                )
                for cost, limit in zip(cost_L, limits, strict=True)
            ),
        ],
        options={"mip_rel_gap": 0.0},
    )
    assert found.success
    return -found.fun


@pytest.mark.parametrize("share", [0.02, 0.2, 0.5, 0.8])
@pytest.mark.parametrize("seed", [4, 5])
def test_no_architecture_within_the_limit_gives_up_less(
    seed: int, share: float, table: CostTable
) -> None:
    """share: of the way from the cheapest network to the one that α and β stand for."""
    alpha, beta = logits(seed)
    limit = Limit(between(table, alpha, beta, share), table)
    within = derive_within([limit], alpha, beta)
    assert table.of(within) <= limit.most < table.of(derive(alpha, beta))
    best = best_within([limit], alpha, beta)
    assert given_up(within, alpha, beta) == pytest.approx(-best, abs=1e-6)


@pytest.mark.parametrize(("seed", "flops", "parameters"), BOTH_BIND)
def test_no_architecture_within_two_limits_gives_up_less(
    seed: int, flops: float, parameters: float
) -> None:
    """Of the ImageNet networks, by shares as above. Each limit alone would find what breaks the
    other."""
    alpha, beta = logits(seed)
    costs = costs_of(IMAGENET)
    limits = [
        Limit(between(table, alpha, beta, share), table)
        for table, share in ((costs.multiply_adds, flops), (costs.parameters, parameters))
    ]
    for alone, other in (limits, limits[::-1]):
        assert other.excess(derive_within([alone], alpha, beta)) > 0
    within = Budget(tuple(limits)).derive(alpha, beta)
    with torch.device("meta"):
        network = Network(within, 48, 14, 1000, 3, "imagenet")
    assert sum(each.numel() for each in network.parameters()) <= limits[1].most
    assert models.cost(network, IMAGENET.image)[1] <= limits[0].most
    best = best_within(limits, alpha, beta)
    assert given_up(within, alpha, beta) == pytest.approx(-best, abs=1e-6)


@pytest.mark.parametrize("seed", [0, 1])
def test_two_limits_on_costs_that_have_nothing_to_do_with_each_other(seed: int) -> None:
    """What is cheap by one table is dear by the other, as multiply-adds and parameters hardly are:
    a choice must cost no more by both to be preferred for its score."""
    (alpha, beta), g = logits(seed), stream(seed, "tables")
    tables = [CostTable(5, torch.randint(0, 4, (2, 14, 7), generator=g).double()) for _ in range(2)]
    limits = [Limit(between(each, alpha, beta, 0.35), each) for each in tables]
    within = derive_within(limits, alpha, beta)
    assert all(limit.table.of(within) <= limit.most for limit in limits)
    best = best_within(limits, alpha, beta)
    assert given_up(within, alpha, beta) == pytest.approx(-best, abs=1e-6)
    loose = Limit(inf, tables[1])  # one that is not held is enough
    assert Budget((limits[0], loose)).derive(alpha, beta) == derive_within([limits[0]], alpha, beta)


def between(table: CostTable, alpha: Tensor, beta: Tensor, share: float) -> float:
    return table.constant + share * (table.of(derive(alpha, beta)) - table.constant)


def best_within(limits: Sequence[Limit], alpha: Tensor, beta: Tensor) -> float:
    """Less the log-odds that the best gives up, by integer programming."""

    def pair_score(k: int, target: int, pair: tuple[int, int]) -> float:
        chance = kept_pairs(beta[k], target)
        return log(chance[pair] / max(chance.values()))

    against_preferred = (alpha.softmax(-1) / alpha.softmax(-1).amax(-1, keepdim=True)).log()
    return by_integer_programming(limits, against_preferred, pair_score)


def test_without_a_limit_it_is_what_alpha_and_beta_alone_derive(
    table: CostTable,
) -> None:
    for seed in range(5):
        alpha, beta = logits(seed, spread=0.4)
        assert derive_within([Limit(inf, table)], alpha, beta) == derive(alpha, beta)
        exactly = Limit(table.of(derive(alpha, beta)), table)
        assert Budget((exactly,)).derive(alpha, beta) == derive(alpha, beta)
        less = Limit(exactly.most - 1, table)
        held = Budget((less,)).derive(alpha, beta)
        assert held != derive(alpha, beta)
        assert less.excess(derive(alpha, beta)) == pytest.approx(1 / less.most)
        assert less.excess(held) == 0


def test_the_cheapest_network_is_found_where_nothing_else_is_allowed(table: CostTable) -> None:
    alpha, beta = logits(6)
    cheapest = Limit(table.constant, table)
    assert table.of(derive_within([cheapest], alpha, beta)) == table.constant


# --- Searches under a limit ----------------------------------------------------------------------


def search(*overrides: str, mesh: Mesh | None = None) -> Search:
    config = configuration.load([*TINY, "search.target=architecture", *overrides])
    data = SearchData(images(32, 1), images(32, 2), [0.0], [1.0])
    network = build_network(config, 3)
    return Search(config, data, network, mesh or Mesh(), torch.device("cpu"))


def worth(values_KEO: Tensor, genotype: Genotype) -> Tensor:
    """(2, 8): what each kept edge is worth."""
    rows = []
    for values_EO, kind in zip(values_KEO, KINDS, strict=True):
        pairs = genotype.cell(kind)
        rows.append(values_EO[edge_indices(pairs), operation_indices(pairs)])
    return torch.stack(rows)


def planted(values_KEO: Tensor, budget: Budget | None, seed: int) -> tuple[Tensor, Tensor, float]:
    """(α, β, price) after 500 steps of Eq. (9) on a loss that has no network: what the kept edges
    and their operations are worth, negated."""
    alpha = (1e-3 * torch.randn(values_KEO.shape, generator=stream(seed, "alpha"))).requires_grad_()
    beta = torch.zeros(len(KINDS), len(EDGES), requires_grad=True)
    optimiser, price = torch.optim.Adam([alpha, beta], lr=0.02, betas=(0.5, 0.999)), 0.0
    for step in range(500):
        tau = linear(10.0, 0.1, step / 500)
        sampled = [
            sample_architecture(alpha, beta, tau, stream(seed, "planted", step, i))
            for i in range(2)
        ]
        gradients = [-worth(values_KEO, z.genotype) for z in sampled]
        loss = architecture_surrogate(sampled, torch.stack(gradients))
        if budget is not None:
            penalty, price = budget.penalty(price, alpha, beta, epoch=50)
            loss = loss + penalty
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return alpha.detach(), beta.detach(), price


@pytest.mark.long
def test_a_search_that_wants_dear_operations_ends_with_the_best_within_the_limit(
    table: CostTable,
) -> None:
    """On every edge the dearest operation is worth most, and one of less than half its cost nearly
    as much: the best within the limit has many of these."""
    values = torch.zeros(len(KINDS), len(EDGES), len(OPERATIONS))
    values[..., OPERATIONS.index("sep_conv_5x5")] = 0.1
    values[..., OPERATIONS.index("dil_conv_3x3")] = 0.08
    for seed in (0, 2):
        free = table.of(derive(*planted(values, None, seed)[:2]))
        limit = Limit(table.constant + 0.5 * (free - table.constant), table)
        budget = Budget((limit,))
        alpha, beta, price = planted(values, budget, seed)
        adapted, held = derive(alpha, beta), budget.derive(alpha, beta)
        assert free > 1.25 * limit.most and table.of(held) <= limit.most and price > 0
        assert table.of(adapted) < 1.1 * limit.most, "it adapted, and was not only cut at the end"
        best = by_integer_programming([limit], values, lambda *_: 0.0)
        assert 0.94 * best < float(worth(values, held).sum()) < best + 1e-6


def bits(run: Search) -> list[Any]:
    state = run.state
    weights = [value.detach() for value in run.theta.values()]
    return [
        state.logits["alpha"].detach(),
        state.logits["beta"].detach(),
        *weights,
        torch.tensor(state.price),
    ]


def same(one: list[Any], other: list[Any]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_limit_that_is_not_reached_changes_no_bit() -> None:
    off, wide, tight = (search(f"search.max_flops={limit}") for limit in ("null", "1e9", "150e3"))
    for run in (off, wide, tight):
        for _ in range(3):
            run.step()
    assert same(bits(off), bits(wide)) and off.genotype() == wide.genotype()
    assert not torch.equal(off.state.logits["alpha"], tight.state.logits["alpha"])


LIMITED = "search.max_flops=100e3", "search.architecture.learning_rate=0.0001"


def test_a_search_under_a_limit_resumes_to_the_same_bits() -> None:
    whole, first, second = (search(*LIMITED) for _ in range(3))
    for _ in range(7):
        whole.step()
    for _ in range(3):
        first.step()
    second.state.load(first.state.save())
    assert second.state.price == first.state.price > 0
    for _ in range(4):
        second.step()
    assert whole.state.price > first.state.price
    assert same(bits(whole), bits(second)) and whole.genotype() == second.genotype()


@forks
def test_ranks_hold_a_limit_with_the_same_bits() -> None:
    def task(mesh: Mesh) -> Any:
        run = search(*LIMITED, mesh=mesh)
        for _ in range(5):
            run.step()
        return bits(run), run.genotype()

    alone, genotype = task(Mesh())
    assert float(alone[-1]) > 0
    for its_bits, its_genotype in in_ranks(2, task):
        assert same(its_bits, alone) and its_genotype == genotype


def test_the_result_says_what_the_limit_changed_at_the_end() -> None:
    run = search("search.max_flops=100e3")
    alpha, beta = (value.float() for value in logits(7))
    alpha[..., OPERATIONS.index("sep_conv_5x5")] += 4
    with torch.no_grad():
        run.state.logits["alpha"].copy_(alpha)
        run.state.logits["beta"].copy_(beta)
    data = DataSet(run.data.train, run.data.val, [0.5], [0.25])
    told, freely = findings.result(run, data, 0.25, None).derived, derive(alpha, beta)
    assert told is not None and told.without_limit is not None
    assert told.without_limit.genotype == freely.to_document()
    assert told.without_limit.multiply_adds == run.costs.multiply_adds.of(freely) > 100e3
    assert told.multiply_adds <= 100e3 and told.image == [1, 12, 12]
    expected = float(expected_cost(run.costs.multiply_adds, alpha.double(), beta.double()))
    assert told.expected_multiply_adds == pytest.approx(expected)


@pytest.mark.parametrize(
    ("key", "counted"), [("max_flops", "multiply_adds"), ("max_parameters", "parameters")]
)
def test_an_impossible_limit_is_refused_with_the_cheapest_networks_cost(
    key: str, counted: str
) -> None:
    cheapest = getattr(search().costs, counted).constant
    assert search(f"search.{key}={cheapest}").budget is not None
    with pytest.raises(ConfigError) as refused:
        search(f"search.{key}={cheapest - 1}")
    assert str(refused.value) == (
        f"search.{key}={cheapest - 1}.0 is not possible: expected at least {cheapest}, "
        "which the cheapest network has (3 cells of 4 channels, all pools)"
    )


def test_what_is_found_is_counted_at_the_size_that_is_asked_for() -> None:
    own = search().costs.size
    assert own == Size(4, 3, 3, (1, 12, 12), "cifar")
    asked = ["channels=48", "cells=14", "classes=1000", "size=224", "stem=imagenet"]
    other = search(*(f"search.derived.{each}" for each in asked)).costs.size
    assert other == Size(48, 14, 1000, (1, 224, 224), "imagenet")


@needs_fashion_mnist
def test_a_whole_search_under_a_limit_says_what_it_found(tmp_path: Path) -> None:
    """Against the network itself; and without the limit it is another, above it."""
    words = ["preset=tiny", "data.limit=64", "search.target=architecture", "search.log_every=1"]
    limit = 8e5
    for name, value in (("held", str(limit)), ("free", "null")):
        given = [f"run_dir={tmp_path / name}", f"search.max_flops={value}"]
        run_search(configuration.load([*words, *given]))
    held, free = (read(tmp_path / name / "result.json")["derived"] for name in ("held", "free"))
    assert free["multiply_adds"] > limit >= held["multiply_adds"]
    assert free["max_flops"] is free["price"] is free["without_limit"] is None
    assert held["max_flops"] == limit and held["price"] > 0
    for name, told in (("held", held), ("free", free)):
        network = daas_dist.load(tmp_path / name / "result.json").network(4, 3)
        assert models.cost(network, (1, 28, 28)) == (told["parameters"], told["multiply_adds"])
    costs = column(tmp_path / "held" / "metrics.jsonl", "multiply_adds")
    assert len(costs) > 3 and max(costs) <= limit
