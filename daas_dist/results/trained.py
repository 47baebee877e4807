"""A trained network read back: its weights, what they expect of an image, and its classes.

A training writes result.json and, beside it, weights.safetensors for each network that it trains.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from PIL.Image import Image as PILImage
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from daas_dist import models
from daas_dist.data import decode
from daas_dist.documents import Damaged, files, results
from daas_dist.documents.results import TrainedResult
from daas_dist.models.network import Network
from daas_dist.results.transform import PolicyTransform
from daas_dist.spaces import operations as augment
from daas_dist.spaces.cells import Genotype
from daas_dist.spaces.policy import Policy

GENOTYPE = "genotype"
"""network.name where it is no fixed network of models.build."""
MOST_WEIGHTS = 1 << 36
"""Bytes of a weights file."""


@dataclass(frozen=True)
class Input:
    """What the network takes: float32 [N, *shape], (pixel / 255 - mean) / std a channel."""

    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    test_resize: int | None
    """What the shorter side of a picture becomes before its centre is cut; None: as the square."""
    bits: int | None = None
    """How many bits were used by the training's pictures whose numbers have more than 8; None where
    there were none such."""

    @property
    def shorter(self) -> int:
        return self.test_resize or min(self.shape[1:])


class Preprocess(v2.Transform):
    """An image as the training tested it, so accuracies are those of its result.json.

    PIL images of any mode and size, uint8 tensors [C, H, W] or [N, C, H, W]: the shorter side is
    resized, the centre cut, and the pixels normalised, all by what tested, so the pixels are the
    same. A tensor is upright already; a PIL image is stood up as its EXIF says. Labels in the
    sample pass through. ValueError for what testing refuses, and for a picture of more than 8 bits
    where the training had none.
    """

    def __init__(self, expected: Input) -> None:
        super().__init__()
        self.expected = expected

    def transform(self, inpt: Any, params: dict[str, Any]) -> Tensor:
        if isinstance(inpt, PILImage):
            batch = self._square(inpt)[None]
            return self._normalised(batch)[0]
        if isinstance(inpt, tv_tensors.TVTensor) and not isinstance(inpt, tv_tensors.Image):
            raise TypeError(f"{type(inpt).__name__} in the sample: expected an image")
        image = self._checked(inpt.as_subclass(Tensor))
        batch = image.reshape(-1, *image.shape[-3:])
        squares = torch.stack([self._square(tv.to_pil_image(each)) for each in batch.cpu()])
        pixels = self._normalised(squares.to(image.device))
        return pixels.reshape(*image.shape[:-3], *pixels.shape[1:])

    def _square(self, picture: PILImage) -> Tensor:
        """uint8 [C, H, W]."""
        channels, side, _ = self.expected.shape
        with decode.quiet():
            decode.check(picture)
            try:
                square = decode.square_of(
                    picture, side, channels, self.expected.shorter, bits=self.expected.bits
                )
            except decode.UnknownDepth as error:
                raise ValueError(
                    f"the picture's numbers (up to {error.greatest}) have more than 8 bits, "
                    "those of the training had 8; turn it into one of 8 bits"
                ) from None
        return torch.from_numpy(square.copy())

    def _normalised(self, batch: Tensor) -> Tensor:
        return augment.normalise(batch, self.expected.mean, self.expected.std)

    def _checked(self, image: Tensor) -> Tensor:
        channels = self.expected.shape[0]
        if image.dtype != torch.uint8 or image.ndim not in (3, 4) or image.shape[-3] != channels:
            raise ValueError(
                f"the image is {image.dtype} {list(image.shape)}; expected a PIL image or a uint8 "
                f"tensor [{channels}, H, W] or [N, {channels}, H, W]"
            )
        return image


@dataclass(frozen=True)
class Trained:
    """A row of a training's comparison: network() with its weights, preprocess(), classes, and the
    policy that it was trained with, None where that was none of ours."""

    folder: Path
    document: TrainedResult
    genotype: Genotype | None
    policy: Policy | None
    classes: tuple[str, ...]
    expected: Input

    def network(self) -> nn.Module:
        """Return the network in evaluation mode: float32 [N, C, H, W] of preprocess() to logits
        [N, classes].

        ValueError if the weights are not those of the result.
        """
        weights = self.weights()
        if self.genotype is not None:
            # On no memory first: a result may name a network of any size, its file has one.
            with torch.device("meta"):
                self._check_fits(self.untrained(), weights)
        network = self.untrained()
        try:
            network.load_state_dict(weights)
        except RuntimeError as error:
            raise ValueError(f"{self._weights_path()} does not fit its network: {error}") from error
        return network.eval()

    def _check_fits(self, network: nn.Module, weights: dict[str, Tensor]) -> None:
        for name, value in network.state_dict().items():
            if name not in weights or weights[name].shape != value.shape:
                raise ValueError(
                    f"{self._weights_path()} does not fit its network: {name} should be of the "
                    f"shape {list(value.shape)}; copy both from the run again"
                )

    def untrained(self) -> nn.Module:
        """The network without its weights."""
        given, channels = self.document.network, self.expected.shape[0]
        if self.genotype is None:
            return models.build(given.name, classes=len(self.classes), in_channels=channels)
        return Network(
            self.genotype,
            given.channels,
            given.cells,
            len(self.classes),
            channels,
            given.stem,
            given.auxiliary,
        )

    def weights(self) -> dict[str, Tensor]:
        """The state dict."""
        path = self._weights_path()
        data = files.read(path, "copy it from the run again", MOST_WEIGHTS)
        if data is None:
            raise ValueError(f"no file {path}; the weights lie beside their result.json")
        found, expected = hashlib.sha256(data).hexdigest(), self.document.weights.sha256
        if found != expected:
            raise ValueError(
                f"{path} is not the file of this result: its sha256 is {found}, expected "
                f"{expected:.80}; copy both from the run again"
            )
        try:
            return safetensors.torch.load(data)
        except safetensors.SafetensorError as error:
            raise ValueError(f"{path} is no safetensors file: {error}") from error

    def preprocess(self) -> Preprocess:
        """Return the transform from a picture to what network() takes."""
        return Preprocess(self.expected)

    def transform(self, generator: torch.Generator | None = None) -> PolicyTransform:
        """The policy that it was trained with, as a torchvision v2 transform."""
        if self.policy is None:
            raise ValueError("this network was trained without a policy of a search")
        return PolicyTransform(self.policy, generator)

    def _weights_path(self) -> Path:
        return self.folder / self.document.weights.file


def load(path: Path | str) -> Trained:
    """The network of a training's result.json. Its weights are read when they are asked for."""
    path = Path(path)
    document = results.read(path)
    if not isinstance(document, TrainedResult):
        raise ValueError(f"{path} is not the result.json of a trained network")
    try:
        return _trained(path.parent, document)
    except ValueError as error:
        raise Damaged(path, str(error), results.REMEDY) from error


def _trained(folder: Path, document: TrainedResult) -> Trained:
    """ValueError says which parts contradict each other."""
    network, data = document.network, document.data
    channels, height, width = data.shape
    if height != width:
        raise ValueError(f"data.shape is {data.shape}, expected a square")
    if {len(data.mean), len(data.std)} - {1, channels} or len(data.mean) != len(data.std):
        raise ValueError(
            f"data.mean and data.std have {len(data.mean)} and {len(data.std)} numbers"
        )
    if not all(std > 0 for std in data.std):
        raise ValueError(f"data.std is {data.std}, expected numbers above 0")
    if (network.name == GENOTYPE) != (network.genotype is not None):
        raise ValueError(f"network.name is {network.name!a:.60}, which its genotype contradicts")
    if (network.classes, network.in_channels) != (len(data.classes), channels):
        raise ValueError(
            f"the network has {network.classes} classes and {network.in_channels} channels, "
            f"its data {len(data.classes)} and {channels}"
        )
    policy = document.policy_result
    return Trained(
        folder=folder,
        document=document,
        genotype=None if network.genotype is None else Genotype.from_document(network.genotype),
        policy=None if policy is None else Policy.from_document(policy),
        classes=tuple(data.classes),
        expected=Input(
            (channels, height, width),
            tuple(data.mean),
            tuple(data.std),
            data.test_resize,
            data.bits,
        ),
    )
