"""PyramidNet with bottlenecks (Han et al., 2017) and ShakeDrop (Yamada et al., 2019).

As in the papers and PyramidNet's authors' code.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from daas_dist.models.initial import he_normal
from daas_dist.models.noise import Noisy, scale

STEM = 16
EXPANSION = 4
LAST_DROP = 0.5
"""How likely the last block is disturbed; the k-th of L blocks is with k / L of it."""


def widths(blocks: int, alpha: int) -> list[int]:
    """The bottleneck's channels of block k = 1 … blocks: 16 + alpha k / blocks, rounded. A block
    returns four times as many."""
    return [
        (2 * (STEM * blocks + alpha * k) + blocks) // (2 * blocks) for k in range(1, blocks + 1)
    ]


def shake_drop(uniform_K3B: Tensor, drop_K: Tensor) -> Tensor:
    """[K, 2, B]: what each block's residual is multiplied by, image by image, and its gradient.

    b + α - b α and b + β - b β: 1 where b = 1, which has the probability 1 - drop, else α in
    [-1, 1) and β in [0, 1). Fast AutoAugment (and so DADA) draws α and β for an image, but b for
    the whole batch; here each image has its own b, too, so that it does not matter beside which
    others it is.
    """
    b_KB, alpha_KB, beta_KB = uniform_K3B.unbind(1)
    factors_K2B = torch.stack((2 * alpha_KB - 1, beta_KB), 1)
    return torch.where((b_KB >= drop_K[:, None])[:, None], 1.0, factors_K2B)


class PyramidBlock(nn.Module):
    """Norm, 1×1, norm, ReLU, 3×3, norm, ReLU, 1×1, norm; no ReLU first or last.

    The shortcut has no weights: an average of 2×2 pixels where the block halves the side, and zeros
    for the channels that it lacks.
    """

    def __init__(self, channels_in: int, channels: int, stride: int, drop: float) -> None:
        """drop: how likely ShakeDrop disturbs it."""
        super().__init__()
        self.stride, self.drop = stride, drop
        self.extra = EXPANSION * channels - channels_in
        self.residual = nn.Sequential(
            nn.BatchNorm2d(channels_in),
            nn.Conv2d(channels_in, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, EXPANSION * channels, 1, bias=False),
            nn.BatchNorm2d(EXPANSION * channels),
        )

    def forward(self, images: Tensor, factors_2B: Tensor | None) -> Tensor:
        """factors_2B: of shake_drop; None is their expectation, as α's is 0."""
        residual = self.residual(images)
        if factors_2B is None:
            residual = residual * (1 - self.drop)
        else:
            residual = scale(residual, *factors_2B.unbind())
        return residual + self._shortcut(images)

    def _shortcut(self, images: Tensor) -> Tensor:
        if self.stride == 2:
            images = F.avg_pool2d(images, 2, ceil_mode=True)
        return F.pad(images, (0, 0, 0, 0, 0, self.extra))


class PyramidNet(Noisy):
    """PyramidNet-depth, widened by alpha over three stages of (depth - 2) / 9 bottlenecks.

    In training with ShakeDrop, in evaluation with its expectation.
    """

    def __init__(self, depth: int, alpha: int, classes: int, in_channels: int) -> None:
        super().__init__()
        if depth < 11 or (depth - 2) % 9:
            raise ValueError(f"PyramidNet of depth {depth}: expected 9 n + 2, as 272")
        stage = (depth - 2) // 9
        self.stem = nn.Conv2d(in_channels, STEM, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(STEM)
        blocks, last, count = list[PyramidBlock](), STEM, 3 * stage
        for index, channels in enumerate(widths(count, alpha)):
            stride = 2 if index in (stage, 2 * stage) else 1
            blocks.append(PyramidBlock(last, channels, stride, LAST_DROP * (index + 1) / count))
            last = EXPANSION * channels
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.BatchNorm2d(last)
        self.classifier = nn.Linear(last, classes)
        he_normal(self)

    def forward(self, images: Tensor) -> Tensor:
        """[B, in_channels, H, W] to logits [B, classes]."""
        features = self.stem_norm(self.stem(images))
        factors_K2B = self._draw(images) if self.training else None
        for k, block in enumerate(self.blocks):
            features = block(features, None if factors_K2B is None else factors_K2B[k])
        return self.classifier(F.relu(self.norm(features)).mean((-2, -1)))

    def _draw(self, images: Tensor) -> Tensor:
        count = len(self.blocks)
        uniform_K3B = self.noise.uniform((count, 3), images)
        # Made on the device: a list of the blocks' own would be another copy to it.
        drop_K = LAST_DROP * torch.arange(1, count + 1, device=images.device) / count
        return shake_drop(uniform_K3B, drop_K)
