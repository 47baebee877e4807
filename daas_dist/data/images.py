"""Images in memory, and what their pixels are like.

Shapes: images [N, C, H, W] uint8, labels [N] int64.
"""

import hashlib
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from daas_dist.data.crops import Crop
from daas_dist.data.indexed import ImageSet
from daas_dist.data.source import Account
from daas_dist.rng import WHOLE, Part
from daas_dist.spaces import operations as augment

DARK = 64
"""Of 255: where no pixel of any picture is as bright, most screens show nothing."""


@dataclass(frozen=True, eq=False)
class Images(ImageSet):
    """A data set in memory."""

    images: Tensor  # uint8 [N, C, H, W]
    labels: Tensor  # int64 [N], an index into classes
    classes: tuple[str, ...]
    bad_files: tuple[str, ...] = ()  # "path: reason" of each file that was left out
    bits: int | None = None
    account: Account = Account()

    in_memory = True

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.dim() != 4:
            raise ValueError(
                f"images are {self.images.dtype} {list(self.images.shape)}, "
                "expected uint8 [N, C, H, W]"
            )
        if self.labels.dtype != torch.int64 or self.labels.shape != self.images.shape[:1]:
            raise ValueError(
                f"labels are {self.labels.dtype} {list(self.labels.shape)}; "
                f"expected int64 [{len(self.images)}]"
            )
        if len(self.labels) and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < len(
            self.classes
        ):
            raise ValueError(
                f"labels run from {int(self.labels.min())} to {int(self.labels.max())}, "
                f"outside the {len(self.classes)} classes"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def take(self, index: Tensor) -> "Images":
        """The images at these indices, or where a mask is true, in this order (a copy)."""
        return replace(self, images=self.images[index], labels=self.labels[index])

    def told(self, account: Account, bad_files: tuple[str, ...]) -> "Images":
        """The same images, with what is to be told of them."""
        return replace(self, account=account, bad_files=bad_files)

    def training(
        self,
        index: Tensor,
        crop: Crop,
        generator: Generator,
        part: Part = WHOLE,
        into: Tensor | None = None,
    ) -> Tensor:
        own = self.images[part.take(index)]
        cut = augment.crop_flip(own, crop.padding, crop.flip, generator, part)
        return cut if into is None else into.copy_(cut)

    def central(self, index: Tensor, into: Tensor | None = None) -> Tensor:
        own = self.images[index]
        return own if into is None else into[: len(own)].copy_(own)

    def file_N(self) -> Tensor:
        return torch.zeros(len(self), dtype=torch.int64)

    def replaced(self) -> list[str]:
        return []

    def digest(self) -> str:
        """sha256 (hex) of the shape, the pixels and the labels."""
        total = hashlib.sha256(repr(tuple(self.images.shape)).encode())
        total.update(self.images.contiguous().numpy().data)
        total.update(self.labels.contiguous().numpy().astype("<i8").data)
        return total.hexdigest()


def too_dark(values: Tensor) -> tuple[str, ...]:
    """A remark if not one of these values of pixels is bright, as of masks of 0 and 1."""
    brightest = int(values.max()) if values.numel() else DARK
    said = f"no pixel is brighter than {brightest} of 255: the pictures are nearly black"
    return (said,) * (brightest < DARK)


def measure(images: Images) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, standard deviation) of each channel, of pixels in [0, 1], over all N H W of them.

    From exact integer histograms, so the order of summation plays no part.
    """
    if not len(images):
        raise ValueError("no images to measure; raise data.limit")
    channels = images.images.shape[1]
    histogram_CV = torch.zeros(channels, 256, dtype=torch.int64)
    for part in images.images.split(2048):
        for channel in range(channels):
            values = part[:, channel].flatten().int()
            histogram_CV[channel] += torch.bincount(values, minlength=256)
    value_V = torch.arange(256, dtype=torch.float64) / 255
    share_CV = histogram_CV.double() / histogram_CV.sum(1, keepdim=True)
    mean_C = share_CV @ value_V
    std_C = (share_CV * (value_V - mean_C[:, None]) ** 2).sum(1).sqrt()
    if bool((std_C == 0).any()):
        constant = (std_C == 0).nonzero().flatten().tolist()
        raise ValueError(
            f"channels {constant} have the same value everywhere, so they cannot be normalised; "
            "check data.root and data.channels"
        )
    return tuple(mean_C.tolist()), tuple(std_C.tolist())
