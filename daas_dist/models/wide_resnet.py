"""Wide residual networks (Zagoruyko and Komodakis, 2016): WRN-40-2 and WRN-28-10.

As in the paper and its authors' code: no biases in convolutions, no dropout, batch norm's momentum
0.1. DADA and Fast AutoAugment have biases and a momentum of 0.9, which nearly is no average.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from daas_dist.models.initial import he_normal

STEM = 16


class WideBlock(nn.Module):
    """Norm, ReLU, 3×3 convolution, twice, beside the identity.

    Where the width changes, a 1×1 convolution of what the first ReLU returns stands in for the
    identity.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.norm_1 = nn.BatchNorm2d(channels_in)
        self.conv_1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.norm_2 = nn.BatchNorm2d(channels_out)
        self.conv_2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.shortcut = (
            nn.Conv2d(channels_in, channels_out, 1, stride, bias=False)
            if channels_in != channels_out
            else None
        )

    def forward(self, images: Tensor) -> Tensor:
        active = F.relu(self.norm_1(images))
        residual = self.conv_2(F.relu(self.norm_2(self.conv_1(active))))
        return residual + (images if self.shortcut is None else self.shortcut(active))


class WideResNet(nn.Module):
    """WRN-depth-width: three stages of (depth - 4) / 6 blocks, 16, 32 and 64 × width channels.

    depth counts convolutions, those of the shortcuts too.
    """

    def __init__(self, depth: int, width: int, classes: int, in_channels: int) -> None:
        super().__init__()
        if depth < 10 or (depth - 4) % 6:
            raise ValueError(f"WRN of depth {depth}: expected 6 n + 4, as 28 or 40")
        self.stem = nn.Conv2d(in_channels, STEM, 3, padding=1, bias=False)
        blocks, channels = list[WideBlock](), STEM
        for stage in range(3):
            for index in range((depth - 4) // 6):
                stride = 2 if stage > 0 and index == 0 else 1
                blocks.append(WideBlock(channels, STEM * width * 2**stage, stride))
                channels = STEM * width * 2**stage
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(channels)
        self.classifier = nn.Linear(channels, classes)
        he_normal(self)

    def forward(self, images: Tensor) -> Tensor:
        """[B, in_channels, H, W] to logits [B, classes]."""
        features = F.relu(self.norm(self.blocks(self.stem(images))))
        return self.classifier(features.mean((-2, -1)))
