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
    Path,
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
        self.kind = plan.kind
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

    def chosen(self, pairs: Sequence[tuple[int, int]]) -> list[nn.Module]:
        """Return the operation of each pair, in the path's order."""
        return [self.edges[edge].get_submodule(OPERATIONS[operation]) for edge, operation in pairs]

    def forward(
        self,
        before: Tensor,
        last: Tensor,
        pairs: Sequence[tuple[int, int]],
        gates: Sequence[Tensor] | None,
    ) -> Tensor:
        """Two rectified feature maps to the nodes concatenated, [B, 4 × channels, H', W']."""

        def weigh(k: int, result: Tensor) -> Tensor:
            return result if gates is None else result * gates[k]

        before, last = self.before(before), self.last(last)
        edges = [edge for edge, _ in pairs]
        states = ops.run_nodes(before, last, edges, self.chosen(pairs), weigh, self.kind)
        return ops.concatenate(states[INPUTS:])


class Supernet(nn.Module):
    """DARTS' search network, of which any path is run: one architecture (paper, Sec. 3.2; ROME), an
    operation an edge (GDAS), or all of it (DARTS).

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

    def active(self, path: Path) -> list[str]:
        """Names of the parameters that a path uses, in named_parameters order."""
        chosen = {
            (index, edge, OPERATIONS[operation])
            for index, kind in enumerate(self.kinds)
            for edge, operation in path[KINDS.index(kind)]
        }
        return [
            name
            for name, owner in zip(self._names, self._owners, strict=True)
            if owner is None or owner in chosen
        ]

    def cost(self, path: Path) -> float:
        """Return what a pass costs, compared with those of other paths."""
        return sum(
            COST[OPERATIONS[operation]]
            for kind in self.kinds
            for _, operation in path[KINDS.index(kind)]
        )

    def forward(self, images: Tensor, path: Path, gates: Tensor | None = None) -> Tensor:
        """[B, in_channels, H, W] to logits [B, classes].

        gates: [Q], one multiplier for each pair of the path, kind after kind, shared by all cells
        of the kind. At ones the logits do not change and gates.grad is dL/dz of the pairs. Their
        use keeps one more feature map a pair, so leave them out where dL/dz is not wanted.
        """
        lengths = [len(pairs) for pairs in path]
        if len(path) != len(KINDS):
            raise ValueError(f"supernet: a path of {len(path)} kinds of cell; expected {KINDS}")
        if gates is not None and gates.shape != (sum(lengths),):
            raise ValueError(
                f"supernet: gates of shape {list(gates.shape)}; expected [{sum(lengths)}]"
            )
        pairs_of: dict[str, Sequence[tuple[int, int]]] = dict(zip(KINDS, path, strict=True))
        gates_of: dict[str, Sequence[Tensor] | None] = dict.fromkeys(KINDS)
        if gates is not None:
            own = gates.split(lengths)
            gates_of = {kind: each.unbind() for kind, each in zip(KINDS, own, strict=True)}
        before, last = self.stem(images)
        features = last
        for kind, cell in zip(self.kinds, self.cells, strict=True):
            features = cell(before, last, pairs_of[kind], gates_of[kind])
            before, last = last, F.relu(features)
        return self.classifier(features.mean((-2, -1)))


def _owner(name: str) -> tuple[int, int, str] | None:
    """(cell, edge, operation) that a parameter belongs to; None if every architecture uses it."""
    match name.split("."):
        case ["cells", cell, "edges", edge, operation, *_]:
            return int(cell), int(edge), operation
    return None
