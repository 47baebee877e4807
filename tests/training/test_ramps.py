"""What moves over a training: the optimiser's rate and drop path, as a step takes them."""

from unittest.mock import patch

import pytest
from small_trainings import load, start, steps
from whole_runs import needs_fashion_mnist

from daas_dist import models
from daas_dist.config import load as configured
from daas_dist.distributed.mesh import Mesh

GIVEN = {"train_imagenet": ["data.root=/shards"], "train_folder": ["data.root=/images"]}
DROP_PATH = {
    "train_cifar10": (600, 0.2), "train_cifar100": (600, 0.2), "train_folder": (600, 0.2),
    "train_imagenet": (250, 0.0), "train_fashion": (4, 0.0),
}  # fmt: skip


@pytest.mark.parametrize("stage", DROP_PATH)
def test_drop_path_ends_where_the_peers_does(stage: str) -> None:
    train = configured([f"stage={stage}", "train.result=r.json", *GIVEN.get(stage, [])]).train
    assert (train.epochs, train.drop_path) == DROP_PATH[stage]


@needs_fashion_mnist
def test_drop_path_rises_in_a_line_and_the_rate_falls_in_a_cosine() -> None:
    """DARTS train.py: drop_path · e / E, and CosineAnnealingLR to 0; both once an epoch."""
    config, data = load("train.epochs=600", "train.drop_path=0.2", "train.learning_rate=0.025")
    training, inside = start(config, data, Mesh()), models.set_noise
    told: list[float] = []

    def set_noise(network: object, share: float, *rest: object) -> None:
        told.append(share)
        inside(network, share, *rest)  # type: ignore[arg-type]

    for epoch, share, rate in (
        (0, 0.0, 0.025),
        (150, 0.05, 0.0213388348),
        (300, 0.1, 0.0125),
        (599, 0.1996667, 1.713469e-7),
    ):
        training.epoch, training.step = epoch, 3 * epoch
        with patch.object(models, "set_noise", set_noise):
            steps(training, 2)
        assert told == pytest.approx([share] * 2, rel=1e-6)
        assert training.optimiser.param_groups[0]["lr"] == pytest.approx(rate, rel=1e-5)
        told.clear()
