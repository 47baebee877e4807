"""The DARTS architecture space: cells, the seven operations, and one architecture of it.

A cell has two inputs (nodes 0 and 1) and four intermediate nodes (2 to 5). Node j may read every
earlier node, so a cell has 2 + 3 + 4 + 5 = 14 edges; an architecture keeps two of them a node and
one operation an edge. There is no "none" operation: the in-degree is exactly two (paper, Sec. 3.2).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from daas_dist.documents.found import GenotypeDocument

KINDS = ("normal", "reduce")
OPERATIONS = (
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
INPUTS = 2
NODES = 4
IN_DEGREE = 2
EDGES = tuple((i, j) for j in range(INPUTS, INPUTS + NODES) for i in range(j))
"""(source, target) of every edge, by target, then by source."""
PAIRS = IN_DEGREE * NODES
"""Edges that an architecture keeps in a cell."""

Pair = tuple[str, int]

Path = tuple[tuple[tuple[int, int], ...], ...]
"""What of a supernet runs: of each kind of cell, the (edge, operation) pairs, as indices of EDGES
and OPERATIONS, by target. A genotype's has two edges a node; all pairs are DARTS' mixture; () is
that of a fixed network."""

EVERYTHING: Path = (
    tuple((edge, operation) for edge in range(len(EDGES)) for operation in range(len(OPERATIONS))),
) * len(KINDS)
"""Every operation on every edge."""


def edges_into(target: int) -> slice:
    """Return where in EDGES the edges into a node stand."""
    start = sum(range(INPUTS, target))
    return slice(start, start + target)


@dataclass(frozen=True)
class Genotype:
    """One architecture: for each intermediate node, in order, two (operation, source) pairs.

    Raises ValueError at construction if an operation is unknown, a node has not exactly two
    different earlier sources, or the concatenation names a node that is not intermediate.
    """

    normal: tuple[Pair, ...]
    reduce: tuple[Pair, ...]
    concat: tuple[int, ...] = tuple(range(INPUTS, INPUTS + NODES))

    def __post_init__(self) -> None:
        for kind in KINDS:
            _check_cell(kind, self.cell(kind))
        intermediate = range(INPUTS, INPUTS + NODES)
        known = self.concat and all(node in intermediate for node in self.concat)
        if not known or len(set(self.concat)) < len(self.concat):
            raise ValueError(
                f"genotype: concat {list(self.concat)!a:.80} must name nodes of "
                f"{list(intermediate)}, one or more, none of them twice"
            )

    def cell(self, kind: str) -> tuple[Pair, ...]:
        return {"normal": self.normal, "reduce": self.reduce}[kind]

    def in_words(self, kind: str) -> str:
        """ "sep_conv_3x3 from 0, skip_connect from 1, …", two for each node."""
        return ", ".join(f"{operation} from {source}" for operation, source in self.cell(kind))

    def to_document(self) -> GenotypeDocument:
        return GenotypeDocument(self.normal, self.reduce, self.concat)

    @staticmethod
    def from_document(document: GenotypeDocument) -> "Genotype":
        return Genotype(document.normal, document.reduce, document.concat)


def _check_cell(kind: str, pairs: Sequence[Pair]) -> None:
    if len(pairs) != PAIRS:
        raise ValueError(
            f"genotype: {kind} has {len(pairs)} edges; {NODES} nodes of in-degree {IN_DEGREE} "
            f"need {PAIRS}"
        )
    for node in range(NODES):
        target = INPUTS + node
        chosen = pairs[IN_DEGREE * node : IN_DEGREE * (node + 1)]
        for operation, source in chosen:
            if operation not in OPERATIONS:
                raise ValueError(
                    f"genotype: {kind} node {target} names the unknown operation "
                    f"{operation!a:.60}; known: {', '.join(OPERATIONS)}"
                )
            if not 0 <= source < target:
                allowed = f"it may read 0 to {target - 1}"
                raise ValueError(f"genotype: {kind} node {target} reads {source}; {allowed}")
        if len({source for _, source in chosen}) != IN_DEGREE:
            raise ValueError(
                f"genotype: {kind} node {target} reads {[s for _, s in chosen]}; in-degree "
                f"{IN_DEGREE} needs different sources"
            )


def path_of(genotype: Genotype) -> Path:
    """Return what of a supernet a genotype runs, in its own order of pairs.

    ValueError where it does not concatenate all nodes, as a supernet's cells do.
    """
    if genotype.concat != tuple(range(INPUTS, INPUTS + NODES)):
        raise ValueError(
            f"supernet: concat {list(genotype.concat)}; its cells concatenate all {NODES} nodes"
        )
    cells = (genotype.cell(kind) for kind in KINDS)
    return tuple(
        tuple(zip(edge_indices(pairs), operation_indices(pairs), strict=True)) for pairs in cells
    )


def in_words(path: Path) -> str:
    """Return "normal: sep_conv_3x3 from 0, …; reduce: …"; nothing of a path that has many pairs."""
    if any(len(pairs) > len(EDGES) for pairs in path):
        return ""
    cells = (
        ", ".join(f"{OPERATIONS[operation]} from {EDGES[edge][0]}" for edge, operation in pairs)
        for pairs in path
    )
    return "; ".join(f"{kind}: {cell}" for kind, cell in zip(KINDS, cells, strict=False))


def cell_from_choice(kept_E: Tensor, operation_E: Tensor) -> tuple[Pair, ...]:
    """The pairs of a cell, from the kept edges (bool, 14) and the operation of every edge (14)."""
    return tuple(
        (OPERATIONS[int(operation_E[e])], EDGES[e][0])
        for e in torch.nonzero(kept_E).flatten().tolist()
    )


def edge_indices(pairs: Sequence[Pair]) -> list[int]:
    """Return, for each pair of a cell, the position of its edge in EDGES."""
    return [EDGES.index((source, INPUTS + k // IN_DEGREE)) for k, (_, source) in enumerate(pairs)]


def operation_indices(pairs: Sequence[Pair]) -> list[int]:
    return [OPERATIONS.index(operation) for operation, _ in pairs]


def derive(alpha_KEO: Tensor, beta_KE: Tensor) -> Genotype:
    """Two edges a node by β, one operation an edge by α (paper, Sec. 4.3; not DARTS' α·β rank)."""
    normal, reduce = map(cell_from_choice, map(_two_a_node, beta_KE), alpha_KEO.argmax(-1))
    return Genotype(normal, reduce)


def derive_strongest(strength_KEO: Tensor) -> Genotype:
    """Two edges a node and an operation an edge by the strength of the edge's best operation (peer:
    DARTS, whose `none` is not among OPERATIONS)."""
    best = strength_KEO.max(-1)
    kept_KE = map(_two_a_node, best.values)
    normal, reduce = map(cell_from_choice, kept_KE, best.indices)
    return Genotype(normal, reduce)


def _two_a_node(score_E: Tensor) -> Tensor:
    """Return which edges are kept, the two with the highest score into each node."""
    kept_E = torch.zeros(len(EDGES), dtype=torch.bool)
    for target in range(INPUTS, INPUTS + NODES):
        edges = edges_into(target)
        kept_E[edges.start + score_E[edges].topk(IN_DEGREE).indices] = True
    return kept_E


def random_genotype(generator: torch.Generator) -> Genotype:
    """Uniform over the space: a pair of edges a node, an operation an edge (the baseline)."""
    cells = []
    for _ in KINDS:
        kept_E = torch.zeros(len(EDGES), dtype=torch.bool)
        for target in range(INPUTS, INPUTS + NODES):
            pairs = list(combinations(range(target), IN_DEGREE))
            chosen = pairs[int(torch.randint(len(pairs), (), generator=generator))]
            kept_E[[edges_into(target).start + source for source in chosen]] = True
        operation_E = torch.randint(len(OPERATIONS), (len(EDGES),), generator=generator)
        cells.append(cell_from_choice(kept_E, operation_E))
    return Genotype(normal=cells[0], reduce=cells[1])


DARTS_V2 = Genotype(
    normal=(
        ("sep_conv_3x3", 0), ("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("sep_conv_3x3", 1),
        ("skip_connect", 0), ("sep_conv_3x3", 1), ("skip_connect", 0), ("dil_conv_3x3", 2),
    ),
    reduce=(
        ("max_pool_3x3", 0), ("max_pool_3x3", 1), ("max_pool_3x3", 1), ("skip_connect", 2),
        ("max_pool_3x3", 0), ("skip_connect", 2), ("max_pool_3x3", 1), ("skip_connect", 2),
    ),
)  # fmt: skip
"""DARTS' second-order result on CIFAR-10 (peer): a published count to check networks against."""
