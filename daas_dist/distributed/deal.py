"""Who computes which architecture of a step, and how what they contribute comes together.

The terms come back in the order of the architectures, bit for bit as one rank computes them all:
so they may be dealt in any way, and are dealt by what their paths cost.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from math import prod

import torch
from torch import Tensor

from daas_dist.distributed.mesh import Mesh
from daas_dist.methods.equations import weight_gradient
from daas_dist.methods.interface import Contribution
from daas_dist.methods.passes import Weights, flat, unflat


def assign(costs: Sequence[float], ranks: int) -> list[int]:
    """The rank of every architecture: the dearest first, each to who has least to do so far."""
    load, owner = [0.0] * ranks, [0] * len(costs)
    for i in sorted(range(len(costs)), key=lambda i: -costs[i]):
        owner[i] = min(range(ranks), key=load.__getitem__)
        load[owner[i]] += costs[i]
    return owner


def sums(owner: Sequence[int], costs: Sequence[float], ranks: int) -> list[float]:
    """Return what the architectures of every rank cost together."""
    load = [0.0] * ranks
    for rank, cost in zip(owner, costs, strict=True):
        load[rank] += cost
    return load


def deal(
    mesh: Mesh,
    costs: Sequence[float],
    term: Callable[[int], Contribution],
    like: Mapping[str, Sequence[int]],
    gradients: Sequence[str],
    active: Callable[[int], Weights],
) -> list[Contribution]:
    """term(i) of every architecture, each computed along arch once, in the order of i.

    Returns, on every rank and bit for bit whatever mesh.arch, the small numbers of every term,
    whose shapes `like` has, and of its gradients by θ those that `gradients` names. active(i): the
    weights of term i, for the shapes of their gradients.
    """
    owner, done, seconds = assign(costs, mesh.arch), {}, {}
    for i, rank in enumerate(owner):
        if rank == mesh.arch_rank:
            began = time.monotonic()
            done[i] = term(i)
            shapes = {name: tuple(value.shape) for name, value in done[i].small.items()}
            assert shapes == {name: tuple(shape) for name, shape in like.items()}
            seconds[i] = time.monotonic() - began
    if mesh.arch == 1:
        return list(done.values())
    sizes = [prod(shape) for shape in like.values()]
    length = [sum(sizes) + 1] * len(costs)
    mine = {
        i: torch.cat([*(c.small[n].reshape(-1) for n in like), torch.tensor([seconds[i]])])
        for i, c in done.items()
    }
    rows = [row.cpu() for row in _exchange(mesh, "numbers", owner, mine, length)]
    mesh.traffic.work(sums(owner, [float(row[-1]) for row in rows], mesh.arch))
    # What only this rank has of its own terms (by_theta) stays, for `total`.
    terms = []
    for i, row in enumerate(rows):
        parts = zip(like.items(), row[:-1].split(sizes), strict=True)
        small = {name: part.view(tuple(shape)) for (name, shape), part in parts}
        terms.append(Contribution(small, done[i].by_theta if i in done else {}))
    if not gradients:
        return terms
    likes = [active(i) for i in range(len(costs))]
    length = [len(gradients) * sum(v.numel() for v in theta.values()) for theta in likes]
    mine = {i: torch.cat([flat(c.by_theta[g]) for g in gradients]) for i, c in done.items()}
    rows = _exchange(mesh, "gradients by the weights", owner, mine, length)
    for i, (row, shape) in enumerate(zip(rows, likes, strict=True)):
        parts = zip(gradients, row.chunk(len(gradients)), strict=True)
        told = {name: unflat(part, shape) for name, part in parts}
        terms[i] = terms[i]._replace(by_theta={**terms[i].by_theta, **told})
    return terms


def total(
    mesh: Mesh, terms: Sequence[Contribution], likes: Sequence[Weights], name: str
) -> Weights:
    """Sum a gradient by θ over all terms by one reduction, of those that each rank has computed.

    likes: the active weights of every term. What is summed is the union of them.
    """
    own = weight_gradient([term.by_theta.get(name, {}) for term in terms])
    union: Weights = {key: value for like in likes for key, value in like.items()}
    summed = mesh.total(
        flat({key: own.get(key, torch.zeros_like(value)) for key, value in union.items()}),
        "gradients by the weights",
    )
    return unflat(summed / mesh.data, union)


def _exchange(
    mesh: Mesh, what: str, owner: Sequence[int], mine: dict[int, Tensor], length: Sequence[int]
) -> list[Tensor]:
    """A row for every index, from whichever rank has it, by one collective call."""
    sizes: list[list[int]] = [[] for _ in range(mesh.arch)]
    for rank, size in zip(owner, length, strict=True):
        sizes[rank].append(size)
    own = torch.zeros(max(map(sum, sizes)), device=mesh.device)
    if mine:
        joined = torch.cat([mine[i] for i in sorted(mine)])
        own[: len(joined)] = joined
    everyone = mesh.gather_arch(own, what)
    rows = [
        iter(part.split([*each, len(part) - sum(each)]))
        for part, each in zip(everyone, sizes, strict=True)
    ]
    return [next(rows[rank]) for rank in owner]
