"""Networks without an architecture to search: for a search of the policy alone, and for tests."""

import copy

import torch
from torch import Tensor, nn

from daas_dist.models import ops
from daas_dist.space import Genotype


class SmallConvNet(nn.Module):
    """Three blocks of 3×3 convolution (stride 2), norm, ReLU; global average; linear (ours).

    Widths: channels, 2 × channels, 4 × channels. Norms use the batch's statistics, always.
    """

    def __init__(self, channels: int = 16, classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        widths = (in_channels, channels, 2 * channels, 4 * channels)
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(c_in, c_out, 3, stride=2, padding=1, bias=False),
                    ops.norm(c_out, affine=True, running=False),
                    nn.ReLU(),
                )
                for c_in, c_out in zip(widths, widths[1:], strict=False)
            )
        )
        self.classifier = nn.Linear(widths[-1], classes)

    def forward(self, images: Tensor) -> Tensor:
        """[B, in_channels, H, W] to logits [B, classes]."""
        return self.classifier(self.blocks(images).mean((-2, -1)))


class FixedNetwork(nn.Module):
    """A copy of any classification module behind the supernet's interface.

    Every batch norm of the copy uses the batch's statistics, in evaluation too, and keeps no
    buffers: a functional forward then has no side effect and forward-mode AD sees the statistics.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        # A copy, because the replacement drops the running statistics in place, and the caller's
        # module may be one that still has to be evaluated.
        self.module = torch.func.replace_all_batch_norm_modules_(copy.deepcopy(module))

    def active(self, genotype: Genotype | None = None) -> list[str]:
        """Names of all parameters."""
        _refuse("genotype", genotype)
        return [name for name, _ in self.named_parameters()]

    def forward(
        self, images: Tensor, genotype: Genotype | None = None, gates: Tensor | None = None
    ) -> Tensor:
        """[B, C, H, W] to logits [B, classes]. The other two arguments must be None."""
        _refuse("genotype", genotype)
        _refuse("gates", gates)
        return self.module(images)


def _refuse(name: str, value: object) -> None:
    if value is not None:
        raise ValueError(f"a fixed network has no architecture, so no {name}: pass None")
