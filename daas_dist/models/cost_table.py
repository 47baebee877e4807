"""What the network of every architecture costs: a constant, and a term for each kept edge.

Derived networks of one size differ in the operations on their edges alone, and cells of one kind
have the same: an operation on an edge costs what it does in all cells of the kind together.

Axes: K kinds of cell (normal, reduce), E edges of a cell, O operations.
"""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from daas_dist.models import cost, ops
from daas_dist.models.network import Network
from daas_dist.spaces.cells import (
    EDGES,
    INPUTS,
    KINDS,
    NODES,
    OPERATIONS,
    Genotype,
    edge_indices,
    operation_indices,
)

# One whose edges cost nothing. In a derived network pools have no norm.
_POOLS = (("max_pool_3x3", 0), ("max_pool_3x3", 1)) * NODES


@dataclass(frozen=True)
class Size:
    """What a derived network takes beside its architecture. image: (C, H, W)."""

    channels: int
    cells: int
    classes: int
    image: tuple[int, int, int]
    stem: str


@dataclass(frozen=True)
class CostTable:
    """Parameters, or multiply-adds of an image, as models.cost counts them."""

    constant: int
    cost_KEO: Tensor
    """Whole numbers in float64, which holds them up to 2**53."""

    def of(self, genotype: Genotype) -> int:
        """genotype: with the concat of a search, all four nodes."""
        total = self.constant
        for cost_EO, kind in zip(self.cost_KEO, KINDS, strict=True):
            pairs = genotype.cell(kind)
            total += int(cost_EO[edge_indices(pairs), operation_indices(pairs)].sum())
        return total


@dataclass(frozen=True)
class Costs:
    """Of every network of a size."""

    size: Size
    parameters: CostTable
    multiply_adds: CostTable


def costs_of(size: Size) -> Costs:
    """Computes no image and makes no weight. Constant are stem, preprocessings and classifier."""
    with torch.device("meta"):
        network = Network(
            Genotype(_POOLS, _POOLS),
            size.channels,
            size.cells,
            size.classes,
            size.image[0],
            size.stem,
        ).eval()
        before, last = network.stem(torch.zeros(1, *size.image))
    constants = cost(network, size.image)
    cost_QKEO = torch.zeros(2, len(KINDS), len(EDGES), len(OPERATIONS), dtype=torch.float64)
    plans = ops.plan_cells(size.cells, size.channels, network.stem, multiplier=NODES)
    for plan, cell in zip(plans, network.cells, strict=True):
        newer = cell.get_submodule("last")(last)
        before, last = last, cell(before, last, None)  # rectified or not, it costs the same
        for edge, (source, _) in enumerate(EDGES):
            height, width = (newer if source < INPUTS else last).shape[-2:]
            stride = ops.edge_stride(plan.kind, source)
            costs_QO = _operation_costs(plan.channels, stride, height, width)
            cost_QKEO[:, KINDS.index(plan.kind), edge] += costs_QO
    return Costs(size, *map(CostTable, constants, cost_QKEO))


@cache
def _operation_costs(channels: int, stride: int, height: int, width: int) -> Tensor:
    """(2, O): parameters and multiply-adds of each operation on a feature map."""
    with torch.device("meta"):
        built = [
            ops.build(name, channels, stride, affine=True, running=True, pool_norm=False)
            for name in OPERATIONS
        ]
        costs = [cost(operation, (channels, height, width)) for operation in built]
    return torch.tensor(costs, dtype=torch.float64).T
