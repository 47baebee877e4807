"""What a search finds, in plain values: an architecture and a policy.

spaces.cells.Genotype and spaces.policy.Policy are made of them, and check what only a space knows.
"""

from dataclasses import dataclass

from daas_dist.documents.checked import Count

Pair = tuple[str, int]


@dataclass(frozen=True)
class GenotypeDocument:
    """Of each cell the (operation, source) pairs, two a node; concat: the nodes of its output."""

    normal: tuple[Pair, ...]
    reduce: tuple[Pair, ...]
    concat: tuple[int, ...]


@dataclass(frozen=True)
class Ranked:
    operation: str
    weight: float


@dataclass(frozen=True)
class PolicyDocument:
    """A policy: spaces.policy.Policy has the shapes. ranking: the strongest operation first."""

    slots: Count
    parameters: str
    ranges: str
    operations: list[str]
    probabilities: list[list[float]]
    application: list[list[float]]
    magnitudes: list[list[int]]
    ranking: list[Ranked]

    def __post_init__(self) -> None:
        for name in ("probabilities", "application", "magnitudes"):
            rows = getattr(self, name)
            if len({len(row) for row in rows} - {0}) != 1 or not all(rows):
                raise ValueError(f"{name} has rows of different lengths, or none")
        if len(self.probabilities) != self.slots:
            raise ValueError(f"slots is {self.slots}, probabilities has {len(self.probabilities)}")
