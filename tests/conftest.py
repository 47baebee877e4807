"""Which files begin; and small shards, for the tests of what can happen to them, imported late, as
others need none."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from make_imagenet import SmallImageNet


MINUTES = (
    "test_slurm_jobs", "test_runs_stop", "test_runs_ranks", "test_runs", "test_runs_torture",
    "test_runs_imagenet", "test_launch_local", "test_slurm_docs", "test_slurm_chain",
    "test_slurm_sites", "test_slurm_lost_nodes", "test_multi_node", "test_utf8",
    "test_runs_group_signals", "test_engines", "test_budget", "test_documents_fuzz",
    "test_runs_engines", "test_runs_train", "test_runs_targets", "test_report", "test_reads",
)  # fmt: skip
"""Files of whole runs: no core shall wait for the last of them in the end. One Slurm after another,
as far as two workers go."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: place for place, name in enumerate(MINUTES)}
    items.sort(key=lambda item: order.get(item.path.stem, len(MINUTES)))


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> "SmallImageNet":
    import make_imagenet
    from spoil import CLASSES, TRAIN, VAL

    return make_imagenet.make(tmp_path_factory.mktemp("imagenet"), CLASSES, TRAIN, VAL, side=0.1)


@pytest.fixture(scope="module")
def whole(imagenet: "SmallImageNet", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of it."""
    from spoil import RECIPE

    from daas_dist.data.sharding import build, sources

    out = tmp_path_factory.mktemp("whole") / "shards"
    build.build(sources.from_folder(imagenet.train), out, RECIPE)
    return out


@pytest.fixture
def root(whole: Path, tmp_path: Path) -> Path:
    """A copy of these, to be damaged."""
    return Path(shutil.copytree(whole, tmp_path / "in" / "shards"))
