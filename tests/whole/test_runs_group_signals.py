"""A signal to every process of a run at once, as scancel, Ctrl-C, a terminal that is closed and
service managers send it: the run saves at its next step, whoever reads its images."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import make_imagenet
import pytest
from torture import same
from whole_runs import (
    ENVIRONMENT,
    TWO_RANKS,
    column,
    events,
    finish,
    held,
    needs_fashion_mnist,
    wait,
)

from daas_dist import cli
from daas_dist.runs import checkpoint

pytestmark = needs_fashion_mnist
SAVED = ("search.checkpoint_every=1000", "search.log_every=1")
"""Whatever a run has when it ends, the signal made it save."""


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pictures = make_imagenet.make(tmp_path_factory.mktemp("pictures"), 6, 20, 4, side=0.15)
    out = pictures.train.with_name("shards")
    words = ["--folder", str(pictures.train), "--val-folder", str(pictures.train.with_name("val"))]
    assert cli.main(["shards", "build", str(out), *words, "--per-shard", "30"]) == 0
    return out


def on_shards(shards: Path, *more: str) -> list[str]:
    return [
        f"data.root={shards}", "data.classes=all", "data.size=32", "data.test_resize=36",
        "data.limit=null", "data.test_limit=null", *more,
    ]  # fmt: skip


def search(kind: str, shards: Path) -> list[str]:
    """A search of 12 steps on images that other processes read."""
    words = ["daas_dist", "preset=tiny", "search.joint_epochs=3", "data.workers=2", *SAVED]
    if kind == "shards":
        return [*words, "stage=search_imagenet", *on_shards(shards)]
    return [
        *words, "stage=search_imagenet", "data=stream", f"data.root={_tars(shards / 'train')}",
        f"data.val_root={_tars(shards / 'val')}", "data.classes=6", "data.size=32",
        "data.test_resize=36", "data.limit=96", "data.test_limit=24",
    ]  # fmt: skip


def _tars(folder: Path) -> Path:
    """Its tar files alone, without an index."""
    alone = folder.with_name(f"tars-{folder.name}")
    alone.mkdir(exist_ok=True)
    for tar in folder.glob("*.tar"):
        shutil.copy(tar, alone)
    return alone


def signal_all(number: int, run_dir: Path, ready: Callable[[], object], *words: str) -> int:
    """Start in a session of its own, as a job step is; signal all of it; its exit status."""
    process = subprocess.Popen(
        [sys.executable, "-m", *words], env=ENVIRONMENT, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait(lambda: ready() or process.poll() is not None, "its steps")
    with held(run_dir, 0):  # or it could be over before the signal arrives
        os.killpg(process.pid, number)
    _, told = process.communicate(timeout=120)
    assert "Traceback" not in told or words[0] == TWO_RANKS[0], told  # torchrun's own
    _none_left(process.pid)
    return process.returncode


def _none_left(group: int) -> None:
    """Readers see that their parent is gone when they next look, within seconds."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.2)
    raise AssertionError("a process of the run is still there")


def lines(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.mark.parametrize(
    ("kind", "number", "ranks"),
    [
        ("shards", signal.SIGTERM, 1),
        pytest.param("shards", signal.SIGINT, 2, marks=pytest.mark.long),
        ("stream", signal.SIGHUP, 1),
    ],
)
def test_a_search_saves(
    kind: str,
    number: signal.Signals,
    ranks: int,
    shards: Path,
    tmp_path: Path,
) -> None:
    run_dir, peaceful = tmp_path / "run", tmp_path / "peaceful"
    words = search(kind, shards)
    launcher = TWO_RANKS if ranks > 1 else ()
    status = signal_all(
        number,
        run_dir,
        lambda: lines(run_dir / "metrics.jsonl") >= 4,
        *launcher, *words, f"run_dir={run_dir}",
    )  # fmt: skip
    assert (status == 0) == (ranks == 1)  # torchrun's is never 0 where it was signalled
    assert events(run_dir)[-1]["event"] == "stopped"
    assert events(run_dir)[-1]["reason"] == number.name
    logged = column(run_dir / "metrics.jsonl", "step")[-1]
    assert checkpoint.steps(run_dir / "checkpoints")[-1] == logged  # no step was lost
    finish(*words, f"run_dir={run_dir}")
    assert (run_dir / "DONE").exists()
    if kind != "stream":
        finish(*words, f"run_dir={peaceful}")
        same(run_dir, peaceful)


def training(shards: Path, run_dir: Path) -> list[str]:
    return [
        "daas_dist", "stage=train_imagenet", "preset=tiny", "data=shards",
        *on_shards(shards, "data.workers=2"), "train.compare=[random/none]",
        "train.epochs=3", "train.batch_size=8", "train.micro_batch=4", "model.stem=cifar",
        "train.auxiliary_weight=0", f"run_dir={run_dir}",
    ]  # fmt: skip


ROW = "trainings/random-none-seed0"


@pytest.fixture(scope="module")
def trained(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("trained") / "peaceful"
    finish(*training(shards, run_dir))
    return run_dir


@pytest.mark.parametrize(
    ("engine", "number"),
    [
        ("alone", signal.SIGUSR1),
        pytest.param("deepspeed", signal.SIGQUIT, marks=pytest.mark.long),
    ],
)
def test_a_training_saves(
    engine: str, number: signal.Signals, shards: Path, trained: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    launcher = () if engine == "alone" else TWO_RANKS
    words = [*training(shards, run_dir), f"engine={engine}"]
    ready = lambda: lines(run_dir / ROW / "metrics.jsonl") >= 1  # noqa: E731
    signal_all(number, run_dir, ready, *launcher, *words)
    assert events(run_dir)[-1]["event"] == "stopped", events(run_dir)
    assert not (run_dir / "DONE").exists() and not (run_dir / "FAILED").exists()
    kept = checkpoint.steps(run_dir / ROW / "checkpoints")
    assert kept[-1] >= 15 * lines(run_dir / ROW / "metrics.jsonl")
    if launcher:
        finish(*launcher, *words)
    else:
        finish(*words)
    ours, theirs = (
        checkpoint.load(each / ROW / "checkpoints", 45)["network"] for each in (run_dir, trained)
    )
    assert all(bool((ours[name] == theirs[name]).all()) for name in theirs)
