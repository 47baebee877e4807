"""The rows of a training comparison, and what each is made of: a network, an augmentation."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from daas_dist import models
from daas_dist.config import Config
from daas_dist.dataset import DataSet
from daas_dist.models.network import Network
from daas_dist.result import load_genotype, load_policy
from daas_dist.rng import stream
from daas_dist.schema import FIXED
from daas_dist.space import Genotype, random_genotype

Augmentation = Callable[[Tensor, torch.Generator], Tensor]
"""(uint8 images [N, C, H, W], CPU generator) -> uint8 [N, C, H, W]."""


@dataclass(frozen=True)
class Row:
    """What is trained: an "architecture/policy" of train.compare, and a seed."""

    pair: str
    seed: int

    @property
    def architecture(self) -> str:
        return self.pair.partition("/")[0]

    @property
    def policy(self) -> str:
        return self.pair.partition("/")[2]

    @property
    def name(self) -> str:
        return f"{self.architecture}-{self.policy}-seed{self.seed}"


def genotype(config: Config, row: Row) -> Genotype | None:
    """None for a fixed network."""
    if row.architecture in FIXED:
        return None
    if row.architecture == "found":
        return load_genotype(Path(str(config.train.result)))
    return random_genotype(stream(row.seed, "random-architecture"))


def network(config: Config, data: DataSet, row: Row) -> nn.Module:
    """With the row's first weights, the same on every rank."""
    settings, cells = config.train, genotype(config, row)
    classes, in_channels = len(data.train.classes), data.train.shape[0]
    with _weights_of(row):
        if cells is None:
            return models.build(row.architecture, classes=classes, in_channels=in_channels)
        return Network(
            cells,
            settings.channels,
            settings.cells,
            classes,
            in_channels,
            config.model.stem,
            auxiliary=settings.auxiliary_weight > 0,
        )


@contextmanager
def _weights_of(row: Row) -> Generator[None]:
    """What is drawn inside from torch's own generator are the row's first weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream(row.seed, "training-weights").initial_seed())
        yield


def set_noise(network: nn.Module, share: float, generator: torch.Generator) -> None:
    """What the next forward pass draws by itself: drop-path, of this probability."""
    if isinstance(network, Network):
        network.set_drop_path(share, generator)


def policy_path(config: Config) -> Path:
    """The result.json that the policy "found" is from."""
    return Path(str(config.train.policy_result or config.train.result))


def augmentation(config: Config, policy: str) -> Augmentation:
    """What a policy adds to crop, flip and cutout: nothing for "default" and "none"."""
    if policy == "found":
        return load_policy(policy_path(config)).apply
    if policy in ("default", "none"):
        return lambda images_u8, _: images_u8
    baselines = {"trivial_augment": v2.TrivialAugmentWide, "rand_augment": v2.RandAugment}
    transform = baselines[policy]()

    # torchvision's policies draw from torch's own generator, one policy a call. For 96 images that
    # is 16 ms (TrivialAugment) to 44 ms (RandAugment, 3 channels) on one CPU core, where a training
    # step of 5 cells of 8 channels takes 300 ms and one of 20 cells of 36 channels 10 s.
    def each_image(images_u8: Tensor, generator: torch.Generator) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
            return torch.stack([transform(image) for image in images_u8])

    return each_image
