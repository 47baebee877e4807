"""Networks without an architecture to search: for a search of the policy alone, and for tests."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from daas_dist.spaces.cells import Path


class SmallConvNet(nn.Module):
    """Two 3×3 convolutions (stride 2) with ReLU; 7×7 places; linear, ReLU, linear (ours).

    As old networks are, so that a policy can be seen in it: no batch norm, which would undo a
    change of brightness that a whole batch shares and let images share their losses; no global
    average, which would not see a shift.
    """

    PLACES = 7

    def __init__(self, channels: int = 16, classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, channels, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(self.PLACES),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(2 * channels * self.PLACES**2, 4 * channels),
            nn.ReLU(),
            nn.Linear(4 * channels, classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        """[B, in_channels, H, W] to logits [B, classes]."""
        return self.classifier(self.features(images))


class FixedNetwork(nn.Module):
    """A copy of any classification module behind the supernet's interface.

    Every batch norm of the copy uses the batch's statistics, in evaluation too, and keeps no
    buffers: a functional forward then has no side effect and forward-mode AD sees the statistics.
    The copy is in evaluation, where dropout, drop-path, Shake-Shake and ShakeDrop are at their
    expectations (ours): a policy's reward must not depend on noise that is not its own.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        # A copy, because the replacement drops the running statistics in place, and the caller's
        # module may be one that still has to be evaluated.
        self.module = torch.func.replace_all_batch_norm_modules_(copy.deepcopy(module).eval())

    def active(self, path: Path = ()) -> list[str]:
        """Names of all parameters."""
        _refuse("path", path)
        return [name for name, _ in self.named_parameters()]

    def cost(self, path: Path = ()) -> float:
        """Return the cost as Supernet.cost does: every pass costs the same."""
        _refuse("path", path)
        return 1.0

    def forward(self, images: Tensor, path: Path = (), gates: Tensor | None = None) -> Tensor:
        """[B, C, H, W] to logits [B, classes]. It has no path and no gates."""
        _refuse("path", path)
        _refuse("gates", () if gates is None else [gates])
        return self.module(images)


def _refuse(name: str, value: Sequence[object]) -> None:
    if value:
        raise ValueError(f"a fixed network has no architecture, so no {name}: leave it out")
