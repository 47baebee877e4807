"""Whole runs on damaged checkpoints: the one before is taken, the bad file named, nothing lost."""

import itertools
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torture
from damage import flip_middle, truncate
from whole_runs import needs_fashion_mnist

from daas_dist import config as configuration
from daas_dist.runs import checkpoint
from daas_dist.runs.log import read_events
from daas_dist.search.loop import run_search
from daas_dist.search.steps import Search

pytestmark = needs_fashion_mnist
STAGE = ["stage=search_fashion", "preset=tiny", "data.limit=128", "search.joint_epochs=1"]
STAGE += ["search.log_every=1", "search.checkpoint_every=1", "device=cpu"]
LAST = 7
"""The newest checkpoint, of the last step but one."""


def search(run_dir: Path) -> Path:
    return run_search(configuration.load([*STAGE, f"run_dir={run_dir}"]))


@pytest.fixture(scope="module")
def peaceful(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return search(tmp_path_factory.mktemp("runs") / "peaceful")


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search that stopped at its last step but one, with the checkpoint before that one."""
    run_dir = tmp_path_factory.mktemp("runs") / "stopped"
    step = Search.step

    def stopping_step(run: Search) -> str:
        if run.state.step == LAST - 1:
            signal.raise_signal(signal.SIGUSR2)
        return step(run)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Search, "step", stopping_step)
        search(run_dir)
    assert checkpoint.steps(run_dir / "checkpoints")[-2:] == [LAST - 1, LAST]
    return run_dir


@pytest.mark.long
def test_whatever_file_of_a_checkpoint_is_damaged(
    stopped: Path, peaceful: Path, tmp_path: Path
) -> None:
    """Every file in turn, one of three ways; test_checkpoint.py has every way for every file."""
    damages: list[Callable[[Path], None]] = [flip_middle, truncate, Path.unlink]
    newest = f"checkpoints/step_{LAST:08d}"
    names = [path.name for path in (stopped / newest).iterdir()]
    assert len(names) > 3
    for name, damage in zip(names, itertools.cycle(damages), strict=False):
        run_dir = shutil.copytree(stopped, tmp_path / name)
        damage(run_dir / newest / name)
        search(run_dir)
        (warning,) = [e for e in read_events(run_dir) if e["event"] == "warning"]
        assert name in warning["message"] and f"step_{LAST:08d}" in warning["message"]
        assert (run_dir / f"{newest}.corrupt").is_dir()
        torture.same(run_dir, peaceful)


def test_a_checkpoint_that_is_no_folder(stopped: Path, peaceful: Path, tmp_path: Path) -> None:
    run_dir = shutil.copytree(stopped, tmp_path / "run")
    newest = run_dir / f"checkpoints/step_{LAST:08d}"
    shutil.rmtree(newest)
    newest.symlink_to("nowhere")
    search(run_dir)
    torture.same(run_dir, peaceful)
