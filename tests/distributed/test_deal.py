"""Terms dealt over real gloo processes: what comes out does not depend on how many there are."""

import itertools
from typing import Any

import pytest
import torch
from rank_processes import forks, in_ranks
from torch import Tensor

from daas_dist.distributed.deal import assign, deal, sums, total
from daas_dist.distributed.mesh import Mesh
from daas_dist.methods.equations import weight_gradient
from daas_dist.methods.interface import Contribution
from daas_dist.methods.passes import Weights
from daas_dist.rng import stream

THETA: Weights = {"stem": torch.zeros(4, 3), "edge": torch.zeros(2, 2, 5), "head": torch.zeros(7)}

LIKE = {"train": (2,), "val": (2,), "reward": (6,), "z_grad": (2, 8), "norm": (1,), "none": (0,)}
"""Shapes of the numbers of a term: also a table, one alone, and none."""


def active(index: int) -> Weights:
    names = [["stem", "head"], ["edge"], ["stem", "edge", "head"]][index % 3]
    return {name: THETA[name] for name in names}


def term(index: int) -> Contribution:
    generator = stream(index, "term")

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) * 10 ** (index - 2)

    small = {name: normal(*shape) for name, shape in LIKE.items()}
    by_theta = {
        gradient: {name: normal(*value.shape) for name, value in active(index).items()}
        for gradient in ("train", "val")
    }
    return Contribution(small, by_theta)


def assert_same(given: Contribution, expected: Contribution, gradients: tuple[str, ...]) -> None:
    assert given.small.keys() == expected.small.keys()
    for name, value in expected.small.items():
        assert torch.equal(given.small[name], value), name
    for name in gradients:
        given_grad, expected_grad = given.by_theta[name], expected.by_theta[name]
        assert list(given_grad) == list(expected_grad)
        for weights, value in expected_grad.items():
            assert torch.equal(given_grad[weights], value)


@forks
@pytest.mark.parametrize("gradients", [(), ("train",), ("val", "train")])
@pytest.mark.parametrize(("world", "count"), [(1, 5), (2, 5), (3, 5), (3, 2)])
def test_every_rank_gets_every_term_whoever_computed_it(
    world: int, count: int, gradients: tuple[str, ...]
) -> None:
    """5 terms on 2 and 3 ranks are dealt unevenly; of 3 ranks with 2 terms one computes none."""

    def task(mesh: Mesh) -> tuple[list[int], list[Contribution]]:
        computed = []

        def counted(index: int) -> Contribution:
            computed.append(index)
            return term(index)

        costs = [1.0 + index % 3 for index in range(count)]
        return computed, deal(mesh, costs, counted, LIKE, gradients, active)

    results = in_ranks(world, task) if world > 1 else [task(Mesh())]
    assert sorted(index for computed, _ in results for index in computed) == list(range(count))
    for _, terms in results:
        assert len(terms) == count
        for index, given in enumerate(terms):
            assert_same(given, term(index), gradients)


@forks
@pytest.mark.parametrize(("name", "told"), [("train", ()), ("val", ()), ("train", ("val",))])
@pytest.mark.parametrize("world", [2, 3])
def test_one_reduction_sums_what_the_exact_way_sums(
    world: int, name: str, told: tuple[str, ...]
) -> None:
    """`fast`: the gradients of 5 terms stay where they were computed until one sum of all, also
    beside others that all ranks get."""
    expected = weight_gradient([term(index).by_theta[name] for index in range(5)])

    def task(mesh: Mesh) -> Weights:
        terms = deal(mesh, [1.0] * 5, term, LIKE, told, active)
        return total(mesh, terms, [active(index) for index in range(5)], name)

    for given in in_ranks(world, task):
        assert given.keys() == expected.keys()
        for weights, value in expected.items():
            torch.testing.assert_close(given[weights], value)


@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [0, 1, 3, 6])
def test_no_deal_is_much_longer_than_the_best(ranks: int, count: int) -> None:
    """The longest rank of the deal against the best of all deals: at most 4/3 of it (Graham)."""
    costs = torch.rand(count, generator=stream(0, "costs")).tolist()
    dealt = max(sums(assign(costs, ranks), costs, ranks))
    every = itertools.product(range(min(ranks, 3)), repeat=count) if ranks < 7 else []
    best = min((max(sums(owner, costs, ranks)) for owner in every), default=max(costs, default=0))
    assert dealt <= (4 / 3 - 1 / (3 * ranks)) * best + 1e-9


def test_dear_paths_are_dealt_apart() -> None:
    """By count, 0 and 2 would go to one rank."""
    assert assign([9.0, 1.0, 8.0, 2.0], 2) == [0, 0, 1, 1]


@forks
def test_traffic_is_what_comes_from_the_others() -> None:
    """5 terms on 2 ranks: rank 0 has terms 0, 2 and 4; every rank sends as much as the fullest."""

    def task(mesh: Mesh) -> Any:
        deal(mesh, [1.0] * 5, term, LIKE, ("train",), active)
        taken, idle = mesh.traffic.take(), mesh.traffic.idle()
        sizes = {purpose: each["bytes"] for purpose, each in taken.items()}
        return sizes, idle, mesh.traffic.take(), mesh.traffic.idle()

    sizes = [sum(value.numel() for value in active(i).values()) for i in range(5)]
    numbers = 2 + 2 + 6 + 2 * 8 + 1 + 1  # and how long the term took
    for taken, idle, nothing, none in in_ranks(2, task):
        assert taken == {
            "arch: numbers": 4 * 3 * numbers,
            "arch: gradients by the weights": 4 * (sizes[0] + sizes[2] + sizes[4]),
        }
        assert 0 <= idle < 0.5 and nothing == {} and none is None
