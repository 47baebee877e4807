"""The search network: all seven operations on all 14 edges have weights, one path is computed."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from daas_dist.models import ops
from daas_dist.spaces.cells import (
    EDGES,
    INPUTS,
    KINDS,
    NODES,
    OPERATIONS,
    PAIRS,
    Genotype,
    Pair,
    edge_indices,
)

COST = {
    "max_pool_3x3": 1.4,
    "avg_pool_3x3": 0.6,
    "skip_connect": 0.2,
    "sep_conv_3x3": 2.0,
    "sep_conv_5x5": 2.2,
    "dil_conv_3x3": 1.8,
    "dil_conv_5x5": 3.0,
}
"""Time of an operation, forward and backward, in hundredths of a mean path's. Measured on one CPU
core: least squares over 24 random paths (8 cells of 16 channels, batch 8, 32×32)."""


class SearchCell(nn.Module):
    """A cell with every operation on every edge; edges are numbered as in space.EDGES."""

    def __init__(self, plan: ops.CellPlan) -> None:
        super().__init__()
        self.before, self.last = ops.preprocessings(plan, affine=False, running=False)
        self.edges = nn.ModuleList(
            nn.ModuleDict(
                {
                    name: ops.build(
                        name,
                        plan.channels,
                        ops.edge_stride(plan.kind, source),
                        affine=False,
                        running=False,
                        pool_norm=True,
                    )
                    for name in OPERATIONS
                }
            )
            for source, _ in EDGES
        )

    def chosen(self, pairs: Sequence[Pair]) -> list[nn.Module]:
        """The operation of each pair, in the genotype's order."""
        return [
            self.edges[edge].get_submodule(name)
            for edge, (name, _) in zip(edge_indices(pairs), pairs, strict=True)
        ]

    def forward(
        self,
        before: Tensor,
        last: Tensor,
        pairs: Sequence[Pair],
        gates: Sequence[Tensor] | None,
    ) -> Tensor:
        """Two rectified feature maps to the nodes concatenated, [B, 4 × channels, H', W']."""

        def weigh(k: int, result: Tensor) -> Tensor:
            return result if gates is None else result * gates[k]

        before, last = self.before(before), self.last(last)
        states = ops.run_nodes(before, last, pairs, self.chosen(pairs), weigh)
        return ops.concatenate(states[INPUTS:])


class Supernet(nn.Module):
    """DARTS' search network run one architecture at a time (paper, Sec. 3.2; ROME).

    Norms use the batch's statistics in training and evaluation alike and keep no buffers, so a
    forward has no side effect: it can be repeated, run by torch.func.functional_call (a dict of the
    active weights suffices) and differentiated in either mode. Weights start at torch's default.

    cells: 8 and channels: 16 are DARTS'. stem: "cifar" or "imagenet" (an eighth of the side).
    """

    def __init__(
        self,
        channels: int = 16,
        cells: int = 8,
        classes: int = 10,
        in_channels: int = 3,
        stem: str = "cifar",
    ) -> None:
        super().__init__()
        self.stem = ops.build_stem(stem, in_channels, channels, running=False)
        plans = list(ops.plan_cells(cells, channels, self.stem, multiplier=NODES))
        self.kinds = tuple(plan.kind for plan in plans)
        self.cells = nn.ModuleList(SearchCell(plan) for plan in plans)
        self.classifier = nn.Linear(NODES * plans[-1].channels, classes)
        self._names = tuple(name for name, _ in self.named_parameters())
        self._owners = tuple(_owner(name) for name in self._names)

    def active(self, genotype: Genotype) -> list[str]:
        """Names of the parameters that this architecture uses, in named_parameters order."""
        chosen = {
            (index, edge, operation)
            for index, kind in enumerate(self.kinds)
            for edge, (operation, _) in zip(
                edge_indices(genotype.cell(kind)), genotype.cell(kind), strict=True
            )
        }
        return [
            name
            for name, owner in zip(self._names, self._owners, strict=True)
            if owner is None or owner in chosen
        ]

    def cost(self, genotype: Genotype) -> float:
        """Return what a pass costs, compared with those of other architectures."""
        return sum(COST[name] for kind in self.kinds for name, _ in genotype.cell(kind))

    def forward(self, images: Tensor, genotype: Genotype, gates: Tensor | None = None) -> Tensor:
        """[B, in_channels, H, W] to logits [B, classes].

        gates: [2, 8], one multiplier for each kind and pair, shared by all cells of the kind. At
        ones the logits do not change and gates.grad is dL/dz of the sampled entries. Their use
        keeps one more feature map an edge, so leave them out where dL/dz is not wanted.
        """
        if genotype.concat != tuple(range(INPUTS, INPUTS + NODES)):
            raise ValueError(
                f"supernet: concat {list(genotype.concat)}; its cells concatenate all {NODES} nodes"
            )
        if gates is not None and gates.shape != (len(KINDS), PAIRS):
            raise ValueError(
                f"supernet: gates of shape {list(gates.shape)}; expected [{len(KINDS)}, {PAIRS}]"
            )
        gates_of = {
            kind: None if gates is None else gates[row].unbind() for row, kind in enumerate(KINDS)
        }
        before, last = self.stem(images)
        features = last
        for kind, cell in zip(self.kinds, self.cells, strict=True):
            features = cell(before, last, genotype.cell(kind), gates_of[kind])
            before, last = last, F.relu(features)
        return self.classifier(features.mean((-2, -1)))


def _owner(name: str) -> tuple[int, int, str] | None:
    """(cell, edge, operation) that a parameter belongs to; None if every architecture uses it."""
    match name.split("."):
        case ["cells", cell, "edges", edge, operation, *_]:
            return int(cell), int(edge), operation
    return None
