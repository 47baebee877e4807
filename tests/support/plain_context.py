"""A StepContext without ranks, images of a data set or a network's modules."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from daas_dist.methods.equations import weight_gradient
from daas_dist.methods.interface import Contribution
from daas_dist.methods.passes import Batch, Forward, Weights
from daas_dist.rng import stream
from daas_dist.spaces.cells import Path
from daas_dist.spaces.policy import Draws
from daas_dist.spaces.space import Space


@dataclass
class PlainContext:
    forward: Forward
    weights: Weights
    train_batch: Batch
    val_batch: Batch
    step: int = 3
    epoch: int = 1
    progress: float = 0.4
    learning_rate: float = 0.2
    active: Callable[[Path], Sequence[str]] | None = None
    """The names of a path's weights; None is all of them."""
    asked: list[tuple[object, ...]] = field(default_factory=list)
    """The addresses of the streams and views that were asked for."""

    def stream(self, purpose: str, *index: int | str) -> torch.Generator:
        self.asked.append((purpose, *index))
        return stream(5, purpose, self.step, *index)

    def val(self) -> Batch:
        return self.val_batch

    def train(self) -> Batch:
        return self.train_batch

    def augmented(
        self, draws: Draws | None, space: Space | None, purpose: str, index: int
    ) -> Batch:
        self.asked.append(("augmented", purpose, index))
        return self.train_batch

    def theta(self, path: Path) -> Weights:
        names = self.weights if self.active is None else self.active(path)
        return {name: self.weights[name] for name in names}

    def mean(self, own: Tensor) -> Tensor:
        return own

    def gather(self, own: Tensor) -> Tensor:
        return own

    def averaged(self, gradient: Weights) -> Weights:
        return gradient

    def map(
        self,
        term: Callable[[int], Contribution],
        paths: Sequence[Path],
        like: Mapping[str, Sequence[int]],
        *,
        summed: str = "",
        each: Sequence[str] = (),
        told: Callable[[str, int, int], str] | None = None,
    ) -> list[Contribution]:
        terms = [term(i) for i in range(len(paths))]
        for found in terms:
            assert {name: tuple(v.shape) for name, v in found.small.items()} == dict(like)
        return terms

    def sum(self, terms: Sequence[Contribution], paths: Sequence[Path], name: str) -> Weights:
        return weight_gradient([term.by_theta[name] for term in terms])
