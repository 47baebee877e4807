"""What is said of a run's cost, against what a search then counts."""

from pathlib import Path

import pytest
import torch
from whole_runs import needs_fashion_mnist

from daas_dist import config
from daas_dist.data import Images
from daas_dist.distributed.mesh import Mesh
from daas_dist.search.loop import build_network
from daas_dist.search.steps import Search, SearchData
from daas_dist.system import published
from daas_dist.training.comparison import run_training
from launch import estimate


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["search.estimator=paper", "search.reuse_gradients=false"],
        ["search.architecture_gradient_at=theta"],
        ["search.target=architecture"],
        ["search.target=policy", "model=small"],
        ["method=darts"],
        ["method=darts", "search.xi=0"],
        ["method=gdas"],
    ],
)
def test_the_passes_of_a_step_are_those_that_a_search_counts(overrides: list[str]) -> None:
    settings = config.load(
        ["stage=search_fashion", "preset=tiny", "search.warmup_epochs=0", *overrides]
    )
    images = Images(
        torch.randint(256, (32, 1, 28, 28), dtype=torch.uint8), torch.arange(32) % 10,
        tuple(map(str, range(10))),
    )  # fmt: skip
    search = Search(
        settings,
        SearchData(images, images, [0.5], [0.5]),
        build_network(settings, 10),
        Mesh(),
        torch.device("cpu"),
    )
    search.step()
    assert search.state.passes == pytest.approx(estimate.passes(settings))


def test_the_paper_s_step_is_25_passes() -> None:
    assert estimate.passes(config.load(["stage=search_cifar10"])) == 25


def test_the_disk_holds_the_checkpoints_of_a_search() -> None:
    """A supernet of 1.93 million weights (docs/ranks.md), 4 bytes each, in four checkpoints."""
    size = estimate.disk(config.load(["stage=search_cifar10"])) - estimate.LOGS_BYTES
    assert 4 * 3 * 4 * 1.93e6 <= size <= 4 * 3 * 4 * 2.3e6


def test_how_long_is_the_paper_s_word_for_the_paper_s_searches_alone(tmp_path: Path) -> None:
    def said(*words: str) -> str:
        return estimate.hours(config.load(list(words)), tmp_path)

    shards = ("stage=search_imagenet", f"data.root={tmp_path}")
    assert said(*shards).startswith("1.8 days on one 2080 Ti")
    assert said("stage=search_cifar10", "data.root=/x", "seed=4").startswith("1 day on")
    assert said(*shards, "data.images_per_class=50").startswith("not known")
    assert said("stage=search_fashion").startswith("not known")


def test_the_paper_s_pace_on_imagenet() -> None:
    """1,300 images of each of 120 classes, once in each of 50 epochs, within 1.8 days."""
    pace = published.pace("search_imagenet", 120 * 1300)
    assert pace == pytest.approx(120 * 1300 * 50 / (1.8 * 24 * 3600))


@pytest.mark.parametrize(
    ("model", "millions"),
    [
        ("model=wide_resnet_28_10", 36.5),  # Zagoruyko and Komodakis
        # torchvision's own count for 1,000 classes, less those that CIFAR-10 has not.
        ("model=torchvision model.network=regnet_y_400mf", 4.344 - 990 * 441e-6),
    ],
)
def test_the_disk_holds_the_checkpoints_of_a_fixed_network(model: str, millions: float) -> None:
    words = ["stage=search_cifar10", "search.target=policy", *model.split()]
    size = estimate.disk(config.load(words)) - estimate.LOGS_BYTES
    assert size / (4 * 3 * 4 * 1e6) == pytest.approx(millions, rel=0.03)


@needs_fashion_mnist
@pytest.mark.parametrize("mean", ["null", "0.9"])
def test_the_disk_holds_what_a_training_leaves(mean: str, tmp_path: Path) -> None:
    """Two checkpoints a row and its weights files, a quarter less than with a third checkpoint,
    which is being written."""
    words = ["stage=train_fashion", "preset=tiny", "data.limit=10", "data.test_limit=10"]
    words += ["train.compare=[wide_resnet_40_2/default,small/none]", "train.batch_size=10"]
    words += [f"train.ema_decay={mean}", f"run_dir={tmp_path}"]
    settings = config.load(words)
    run_training(settings)
    left = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert 0.73 < left / (estimate.disk(settings) - estimate.LOGS_BYTES) < 0.78
