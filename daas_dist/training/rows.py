"""The rows of a training comparison, and what each is made of: network, images, schedule."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision.transforms import v2

from daas_dist import models
from daas_dist.config import Config
from daas_dist.config.schema import ANY_SIZE, ARCHITECTURES, Data, Train
from daas_dist.data.dataset import DataSet
from daas_dist.data.inputs import ImagePolicy, Inputs, named_policy
from daas_dist.models.network import Network
from daas_dist.results.searched import load_genotype, load_policy
from daas_dist.rng import stream
from daas_dist.schedules import Schedule
from daas_dist.spaces.cells import Genotype, random_genotype

PLAIN: dict[str, Any] = {
    "crop_padding": 0, "crop_scale": None, "flip": False, "color_jitter": None, "lighting": None,
    "cutout": 0,
}  # fmt: skip
"""data.* of the policy "none"."""


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
    if row.architecture not in ARCHITECTURES:
        return None
    if row.architecture == "found":
        return load_genotype(Path(str(config.train.result)))
    return random_genotype(stream(row.seed, "random-architecture"))


def network(config: Config, data: DataSet, row: Row) -> nn.Module:
    """Build the network with the row's first weights, the same on every rank."""
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
    """Return what is drawn inside from torch's own generator are the row's first weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream(row.seed, "training-weights").initial_seed())
        yield


def policy_path(config: Config) -> Path:
    """The result.json that the policy "found" is from."""
    return Path(str(config.train.policy_result or config.train.result))


def policy(config: Config, row: Row) -> ImagePolicy:
    """Return what the row's policy adds to crop, flip and cutout."""
    found = load_policy(policy_path(config)) if row.policy == "found" else None
    natural = config.data.name in ANY_SIZE
    which = v2.AutoAugmentPolicy.IMAGENET if natural else v2.AutoAugmentPolicy.CIFAR10
    return named_policy(row.policy, found, which, per=config.train.policy_per)


def images(config: Config, row: Row) -> Data:
    """Return how the row's images are cut and changed beside its policy."""
    return replace(config.data, **PLAIN) if row.policy == "none" else config.data


def inputs(config: Config, row: Row, mean: Sequence[float], std: Sequence[float]) -> Inputs:
    data = images(config, row)
    changed = policy(config, row)
    return Inputs(changed, data.color_jitter, data.lighting, mean, std, data.cutout)


def schedule(settings: Train) -> Schedule:
    return Schedule(
        curve=settings.schedule,
        start=settings.learning_rate,
        epochs=settings.epochs,
        by_step=settings.schedule_by == "step",
        milestones=tuple(settings.milestones or ()),
        warmup_epochs=settings.warmup_epochs,
        warmup_multiplier=settings.warmup_multiplier,
    )
