"""What a network draws in training, by address: drop-path, Shake-Shake, ShakeDrop.

Every draw is made on the CPU for the whole batch and for all layers at once, and a rank takes its
part of it: neither the device nor the number of ranks changes what is drawn.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from daas_dist.rng import WHOLE, Part


@dataclass(frozen=True)
class Noise:
    """Where the following forwards draw from, in order."""

    drop_path: float
    """Probability that, in training, an image loses what an edge computes; in [0, 1)."""
    generator: torch.Generator | None
    part: Part
    """Which part of the batch a forward sees."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.drop_path < 1.0:
            raise ValueError(f"drop_path {self.drop_path}: expected a probability in [0, 1)")

    def uniform(self, shape: Sequence[int], images: Tensor) -> Tensor:
        """[*shape, B] in [0, 1), float32, for this part of the batch, on the images' device."""
        if self.generator is None:
            raise ValueError(
                "this network draws in training and needs a generator: "
                "call models.set_noise(network, share, generator) before each forward"
            )
        batch = len(images) * self.part.of
        whole = torch.rand((*shape, batch), generator=self.generator)
        own = self.part.take(whole.movedim(-1, 0)).movedim(0, -1)
        return own.to(images.device, non_blocking=True)


class Noisy(nn.Module):
    """A network that draws in training: from self.noise, and from nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.noise = Noise(0.0, None, WHOLE)

    def set_noise(
        self, share: float, generator: torch.Generator | None, part: Part = WHOLE
    ) -> None:
        """share: the drop-path of the following forwards; ignored where a network has none."""
        self.noise = Noise(float(share), generator, part)


def set_noise(
    network: nn.Module, share: float, generator: torch.Generator | None, part: Part = WHOLE
) -> None:
    """Noisy.set_noise of the network, also inside a wrapper; others draw nothing.

    part: of the batch, where several ranks see one each.
    """
    for module in network.modules():
        if isinstance(module, Noisy):
            module.set_noise(share, generator, part)


def scale(features: Tensor, forward_B: Tensor, backward_B: Tensor) -> Tensor:
    """features [B, C, H, W] times forward_B, whose gradient is taken as if times backward_B."""
    shape = (-1, 1, 1, 1)
    factors = (each.to(features.dtype).view(shape) for each in (forward_B, backward_B))
    return _Scale.apply(features, *factors)  # type: ignore[no-any-return]


class _Scale(torch.autograd.Function):
    """Keeps the factors for the backward pass, and no feature map."""

    @staticmethod
    def forward(features: Tensor, forward_factor: Tensor, backward_factor: Tensor) -> Tensor:
        return features * forward_factor

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[2])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (backward_factor,) = ctx.saved_tensors
        return gradients[0] * backward_factor, None, None
