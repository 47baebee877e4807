"""Shake-Shake-26 (Gastaldi, 2017): residual blocks of two branches, mixed by chance.

As in the paper and its author's code. DADA and Fast AutoAugment leave out the norm after the first
convolution, whose bias they keep, and shift the shortcut's second path the other way.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from daas_dist.models.initial import he_normal
from daas_dist.models.noise import Noisy, scale

STEM = 16
BLOCKS_PER_STAGE = 4
"""Depth 26: 3 stages of 4 blocks of 2 convolutions, the first convolution and the classifier."""


def branch(channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
    """ReLU, 3×3 convolution, norm, twice."""
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
        nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
    )


class ShiftedShortcut(nn.Module):
    """ReLU; every stride-th pixel through a 1×1 convolution, and of the image moved by one pixel
    right and down through another; norm of the two together."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.straight = nn.Conv2d(channels_in, channels_out // 2, 1, bias=False)
        self.shifted = nn.Conv2d(channels_in, channels_out // 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels_out)

    def forward(self, images: Tensor) -> Tensor:
        active, step = F.relu(images), self.stride
        moved = F.pad(active[:, :, :-1, :-1], (1, 0, 1, 0))
        paths = (
            self.straight(active[:, :, ::step, ::step]),
            self.shifted(moved[:, :, ::step, ::step]),
        )
        return self.norm(torch.cat(paths, dim=1))


class ShakeBlock(nn.Module):
    """The shortcut, and α of the left branch and 1 - α of the right one."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.left = branch(channels_in, channels_out, stride)
        self.right = branch(channels_in, channels_out, stride)
        self.shortcut = (
            ShiftedShortcut(channels_in, channels_out, stride)
            if channels_in != channels_out
            else nn.Identity()
        )

    def forward(self, images: Tensor, uniform_2B: Tensor | None) -> Tensor:
        """uniform_2B: α, and the β by which the gradient goes in its place; None is ½ for both."""
        left, right, shortcut = self.left(images), self.right(images), self.shortcut(images)
        if uniform_2B is None:
            return shortcut + (left + right) / 2
        (alpha_B, beta_B), (rest_B, beta_rest_B) = uniform_2B, 1 - uniform_2B
        return shortcut + scale(left, alpha_B, beta_B) + scale(right, rest_B, beta_rest_B)


class ShakeShake(Noisy):
    """Shake-Shake-26 2×{width}d: stages of width, 2 width and 4 width channels.

    Every image draws its own α and β in every block ("Shake-Shake-Image"), uniform and independent;
    in evaluation both are ½.
    """

    def __init__(self, width: int, classes: int, in_channels: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, STEM, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(STEM)
        blocks, channels = list[ShakeBlock](), STEM
        for stage in range(3):
            for index in range(BLOCKS_PER_STAGE):
                stride = 2 if stage > 0 and index == 0 else 1
                blocks.append(ShakeBlock(channels, width * 2**stage, stride))
                channels = width * 2**stage
        self.blocks = nn.ModuleList(blocks)
        self.classifier = nn.Linear(channels, classes)
        he_normal(self)

    def forward(self, images: Tensor) -> Tensor:
        """[B, in_channels, H, W] to logits [B, classes]."""
        features = self.stem_norm(self.stem(images))
        uniform_K2B = self.noise.uniform((len(self.blocks), 2), images) if self.training else None
        for k, block in enumerate(self.blocks):
            features = block(features, None if uniform_K2B is None else uniform_K2B[k])
        return self.classifier(F.relu(features).mean((-2, -1)))
