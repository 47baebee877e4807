"""Trainings of a few steps by any engine on any number of ranks, for the tests of the engines."""

from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any
from unittest.mock import patch

import torch
from loading import load_images
from rank_processes import in_ranks
from torch import Tensor

from daas_dist import config as configuration
from daas_dist.config import Config
from daas_dist.data.dataset import DataSet
from daas_dist.distributed.cut import cut
from daas_dist.distributed.mesh import Mesh
from daas_dist.rng import Part
from daas_dist.spaces import operations as augment
from daas_dist.training import rows
from daas_dist.training.evaluation import Evaluation
from daas_dist.training.loop import Training
from daas_dist.training.rows import Row

STAGE = (
    "stage=train_fashion", "preset=tiny", "data.limit=96", "data.test_limit=50",
    "train.compare=[random/trivial_augment]", "train.batch_size=32", "train.learning_rate=0.02",
    "engine=ddp",
)  # fmt: skip
CELLS = "train.drop_path=0.3", "train.auxiliary_weight=0"
"""Of a network of cells, which `small` is not."""


@dataclass(frozen=True)
class Trained:
    """What one rank has after its steps."""

    told: list[list[float]]
    """Loss and accuracy of each step."""
    network: dict[str, Tensor]
    state: dict[str, Any]
    tested: Evaluation

    @property
    def losses(self) -> Tensor:
        return torch.tensor(self.told, dtype=torch.float64)[:, 0]


def load(*overrides: str) -> tuple[Config, DataSet]:
    fixed = any(text.startswith("train.compare=[small/") for text in overrides)
    config = configuration.load([*STAGE, *(() if fixed else CELLS), *overrides])
    return config, load_images(config)


def start(config: Config, data: DataSet, mesh: Mesh) -> Training:
    shared = cut(config.train.batch_size, config.train.micro_batch, Part(mesh.rank, mesh.world))
    row = Row(config.train.compare[0], 0)
    return Training(config, data, row, mesh, shared, torch.device("cpu"))


def steps(training: Training, count: int) -> list[list[float]]:
    """Loss and accuracy of each."""
    told = []
    training.network.train()
    for _ in range(count):
        before = training.sums
        training.train_step()
        told.append((training.sums - before).tolist())
    return told


@cache
def train(world: int, count: int, *overrides: str, double: bool = False) -> list[Trained]:
    """The ranks' trainings of `count` steps. double: in float64, where rounding has no time to
    grow."""
    config, data = load(*overrides)

    def task(mesh: Mesh) -> Trained:
        with doubled() if double else nullcontext():
            training = start(config, data, mesh)
            told = steps(training, count)
            tested = training.evaluate(training.network, lambda: None, lambda: "")
            assert tested is not None  # nobody stops it
        return Trained(told, training.network.state_dict(), training.state(), tested)

    return in_ranks(world, task)


@contextmanager
def doubled() -> Generator[None]:
    """Networks and images in float64."""
    network, normalise = rows.network, augment.normalise
    with (
        patch.object(rows, "network", lambda *given: network(*given).double()),
        patch.object(augment, "normalise", lambda *given: normalise(*given).double()),
    ):
        yield
