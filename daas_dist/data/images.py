"""What a run reads: an ImageSet. Here are what they share, their parts, and the one in memory.

Shapes: images [N, C, H, W] uint8, labels [N] int64.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

import torch
from torch import Generator, Tensor

from daas_dist.data.crops import Crop
from daas_dist.data.words import pictures
from daas_dist.rng import WHOLE, Part, stream
from daas_dist.spaces import operations as augment

AnyImages = TypeVar("AnyImages", bound="ImageSet")


TEST_SHARE = 0.2
"""Of each class, where there is no folder of test pictures: ours."""


DARK = 64
"""Of 255: where no pixel of any picture is as bright, most screens show nothing."""


@dataclass(frozen=True)
class Account:
    """What a look at a data set left out, and what is odd about it."""

    left_out: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Why -> names, of what is no picture."""
    remarks: tuple[str, ...] = ()
    """A sentence each."""


class ImageSet(Protocol):
    """Pictures with labels, in memory (Images) or on a disk (shards.Shards)."""

    @property
    def labels(self) -> Tensor:
        """[N] int64, numbers into classes."""
        ...

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def bad_files(self) -> tuple[str, ...]:
        """ "name: reason" of each file that was left out."""
        ...

    @property
    def bits(self) -> int | None:
        """Return how many bits are used by its pictures whose numbers have more than 8; None if
        there are none such."""
        ...

    @property
    def account(self) -> Account: ...

    @property
    def shape(self) -> tuple[int, int, int]:
        """[C, H, W] of what is read."""
        ...

    def __len__(self) -> int: ...

    def take(self: AnyImages, index: Tensor) -> AnyImages:
        """The images at these indices, or where a mask is true, in this order."""
        ...

    def training(
        self,
        index: Tensor,
        crop: Crop,
        generator: Generator,
        part: Part,
        into: Tensor | None = None,
    ) -> Tensor:
        """uint8 [B / part.of, C, H, W]: this part of a batch, cut at random. The draws are the
        whole batch's, each image's own. into: memory for them, else new."""
        ...

    def central(self, index: Tensor, into: Tensor | None = None) -> Tensor:
        """uint8 [B, C, H, W]: as they are tested. into: memory for as many or more, else new."""
        ...

    def digest(self) -> str:
        """sha256 (hex) of what it holds: what a run says it was trained on."""
        ...


@dataclass(frozen=True, eq=False)
class Images:
    """A data set in memory."""

    images: Tensor  # uint8 [N, C, H, W]
    labels: Tensor  # int64 [N], an index into classes
    classes: tuple[str, ...]
    bad_files: tuple[str, ...] = ()  # "path: reason" of each file that was left out
    bits: int | None = None
    account: Account = Account()

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

    def __len__(self) -> int:
        return len(self.labels)

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

    def digest(self) -> str:
        """sha256 (hex) of the shape, the pixels and the labels."""
        total = hashlib.sha256(repr(tuple(self.images.shape)).encode())
        total.update(self.images.contiguous().numpy().data)
        total.update(self.labels.contiguous().numpy().astype("<i8").data)
        return total.hexdigest()


def split(images: AnyImages, share: float, seed: int) -> tuple[AnyImages, AnyImages]:
    """(train, val): `share` of the images to train, as much of every class as whole images allow.

    Drawn by stream(seed, "split"); both parts keep the order of the data set.
    """
    if not 0 < share < 1:
        raise ValueError(f"a share of {share} for training; set data.val_share between 0 and 1")
    total = round(share * len(images))
    most, classes = len(images) - len(images.classes), len(images.classes)
    if min(count_classes(images)) > 1 and not classes <= total <= most:
        raise ValueError(
            f"{total} of {len(images)} images for training cannot leave every one of {classes} "
            f"classes an image on both sides; change data.val_share, or add images"
        )
    in_train = stratified(images.labels, total, images.classes, seed, "split", both=True)
    return images.take(in_train), images.take(~in_train)


def put_aside(labels: Tensor, classes: Sequence[str], seed: int, purpose: str, key: str) -> Tensor:
    """[N] bool: what stays for training once TEST_SHARE of each class is put aside for testing.

    key: which one gives test pictures instead, for the ValueError on a class of one.
    """
    count_C = torch.bincount(labels, minlength=len(classes))
    if int(count_C.min()) < 2:
        lacking = int(count_C.argmin())
        raise ValueError(
            f"class {classes[lacking]!r} has {pictures(int(count_C.min()))}, expected 2 or more, "
            f"as some of each class are put aside for testing; add pictures to it, or set {key} to "
            "a folder of test pictures"
        )
    total = round((1 - TEST_SHARE) * len(labels))
    total = min(max(total, len(classes)), len(labels) - len(classes))
    return stratified(labels, total, classes, seed, purpose, both=True)


def too_dark(values: Tensor) -> tuple[str, ...]:
    """A remark if not one of these values of pixels is bright, as of masks of 0 and 1."""
    brightest = int(values.max()) if values.numel() else DARK
    said = f"no pixel is brighter than {brightest} of 255: the pictures are nearly black"
    return (said,) * (brightest < DARK)


def count_classes(images: ImageSet) -> list[int]:
    """Return how many images there are of each class."""
    return torch.bincount(images.labels, minlength=len(images.classes)).tolist()


def limit(images: AnyImages, count: int, seed: int, key: str = "data.limit") -> AnyImages:
    """`count` of the images, the classes in their proportions; a smaller count gives a subset.

    Drawn by stream(seed, "limit"); the order of the data set is kept. key: what gave the count.
    """
    if not 1 <= count <= len(images):
        raise ValueError(
            f"{count} of {len(images)} images wanted; set {key} to {len(images)} or less, or null "
            "for all"
        )
    if count == len(images):
        return images
    if count < len(images.classes):
        raise ValueError(
            f"{count} of {len(images)} images cannot leave every one of {len(images.classes)} "
            f"classes an image; set {key} to {len(images.classes)} or more, or null for all"
        )
    return images.take(stratified(images.labels, count, images.classes, seed, "limit", both=False))


def stratified(
    labels: Tensor, total: int, classes: Sequence[str], seed: int, purpose: str, *, both: bool
) -> Tensor:
    """[N] bool with `total` true, stratified; `both`: no class may lack on either side."""
    count_C = torch.bincount(labels, minlength=len(classes))
    if int(count_C.min()) < (2 if both else 1):
        lacking = int(count_C.argmin())
        raise ValueError(
            f"class {classes[lacking]!r} has {pictures(int(count_C.min()))} here, too few for "
            f"{'two parts' if both else 'a part'} of the data set; add pictures to it"
        )
    quota_C = _apportion(count_C, total, both)
    order = torch.randperm(len(labels), generator=stream(seed, purpose))
    by_class = order[labels[order].argsort(stable=True)]
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for members, quota in zip(by_class.split(count_C.tolist()), quota_C.tolist(), strict=True):
        chosen[members[:quota]] = True
    return chosen


def _apportion(count_C: Tensor, total: int, both: bool) -> Tensor:
    """[C] whole numbers near total * count_C / N, summing to total (largest remainders)."""
    least_C = torch.ones_like(count_C)
    most_C = count_C - 1 if both else count_C
    if not int(least_C.sum()) <= total <= int(most_C.sum()):
        raise ValueError(
            f"{total} of {int(count_C.sum())} images cannot leave every one of {len(count_C)} "
            "classes an image; change data.limit, data.test_limit or data.val_share"
        )
    exact_C = count_C.double() * total / count_C.sum()
    quota_C = exact_C.floor().long().clamp(least_C, most_C)
    while int(quota_C.sum()) != total:
        # One at a time to the class that is furthest from its due, ties to the first.
        missing = total - int(quota_C.sum())
        due_C = (exact_C - quota_C) if missing > 0 else (quota_C - exact_C)
        movable_C = quota_C < most_C if missing > 0 else quota_C > least_C
        due_C = due_C.masked_fill(~movable_C, -torch.inf)
        quota_C[due_C.argmax()] += 1 if missing > 0 else -1
    return quota_C


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
