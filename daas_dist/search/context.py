"""What the loop lends a method for one step: interface.StepContext over ranks and images."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from daas_dist.data import Read
from daas_dist.distributed.deal import deal, total
from daas_dist.distributed.mesh import Mesh
from daas_dist.methods.equations import weight_gradient
from daas_dist.methods.interface import Contribution
from daas_dist.methods.passes import Batch, Forward, Weights, flat, unflat
from daas_dist.rng import stream
from daas_dist.search.finite import check_terms
from daas_dist.spaces import operations as augment
from daas_dist.spaces import policy
from daas_dist.spaces.cells import Path
from daas_dist.spaces.policy import Draws
from daas_dist.spaces.space import Space


@dataclass(frozen=True)
class Images:
    """How read images become what the network takes."""

    mean: Sequence[float]
    std: Sequence[float]
    cutout: int
    """Side of the square that is cut out of each training image, in pixels; 0 cuts none."""
    device: torch.device

    def normalised(self, images_u8: Tensor) -> Tensor:
        images = augment.normalise(images_u8.to(self.device), self.mean, self.std)
        return images.contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Network:
    """The network of a search as paths of weights."""

    forward: Forward
    theta: Weights
    active: Callable[[Path], Sequence[str]]
    """The names of a path's weights."""
    cost: Callable[[Path], float]

    def of(self, path: Path) -> Weights:
        return {name: self.theta[name] for name in self.active(path)}


@dataclass(frozen=True)
class Context:
    """One step's. Its attributes are those of interface.StepContext."""

    seed: int
    step: int
    epoch: int
    progress: float
    learning_rate: float
    read: Mapping[str, Read]
    images: Images
    network: Network
    mesh: Mesh
    exact: bool
    """Whether every rank sums gradients by θ in the order of their terms, or the backend does."""

    @property
    def forward(self) -> Forward:
        return self.network.forward

    def stream(self, purpose: str, *index: int | str) -> torch.Generator:
        return stream(self.seed, purpose, self.step, *index)

    def theta(self, path: Path) -> Weights:
        return self.network.of(path)

    # --- Images ----------------------------------------------------------------------------------

    def val(self) -> Batch:
        return self._val

    def train(self) -> Batch:
        return self._plain

    @cached_property
    def _val(self) -> Batch:
        images, labels = self._on_device("val")
        return Batch(self.images.normalised(images), labels)

    @cached_property
    def _train(self) -> Batch:
        return self._on_device("train")

    @cached_property
    def _plain(self) -> Batch:
        return Batch(self.images.normalised(self._train.images), self._train.labels)

    def augmented(
        self, draws: Draws | None, space: Space | None, purpose: str, index: int
    ) -> Batch:
        images_u8, part = self._train.images, self.mesh.part
        generator = stream(self.seed, "augment", purpose, self.step, index)
        if draws is not None:
            assert space is not None
            if len(draws.operation_NK) == 1:
                draws = policy.repeat(draws, len(images_u8))
            else:
                draws = Draws(*map(part.take, draws))
            images_u8 = policy.apply(images_u8, draws, generator, space, part)
        images, size = self.images.normalised(images_u8), self.images.cutout
        if size:
            images = augment.cutout_square(images, size, generator, part)
        return Batch(images, self._train.labels)

    def _on_device(self, split: str) -> Batch:
        device = self.images.device
        images, labels = (part.to(device, non_blocking=True) for part in self.read[split])
        return Batch(images.contiguous(), labels)

    # --- Ranks -----------------------------------------------------------------------------------

    def mean(self, own: Tensor) -> Tensor:
        return self.mesh.mean_data(own, "gradients and losses")

    def gather(self, own: Tensor) -> Tensor:
        return self.mesh.gather_data(own, "rewards")

    def averaged(self, gradient: Weights) -> Weights:
        if not self.exact or self.mesh.data == 1:
            return gradient
        return unflat(self.mean(flat(gradient)), gradient)

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
        names = [*([summed] if summed and self.exact else []), *each]
        costs = [self.network.cost(path) for path in paths]
        terms = deal(self.mesh, costs, term, like, names, lambda i: self.theta(paths[i]))
        check_terms(self.step, terms, paths, like, told)
        return terms

    def sum(self, terms: Sequence[Contribution], paths: Sequence[Path], name: str) -> Weights:
        if self.exact:
            return weight_gradient([term.by_theta[name] for term in terms])
        return total(self.mesh, terms, list(map(self.theta, paths)), name)
