"""Whole trainings in which all ranks train every row: stopped, killed, resumed; what they leave."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from damage import flip_middle
from loading import load_images
from rank_processes import forks, in_processes
from safetensors.torch import load_file
from torture import _same_bits as same_bits  # pyright: ignore[reportPrivateUsage]
from whole_runs import ENVIRONMENT, column, needs_fashion_mnist, read

from daas_dist import config as configuration
from daas_dist.config.rules import ConfigError
from daas_dist.data import Images
from daas_dist.documents import checked
from daas_dist.documents.found import GenotypeDocument
from daas_dist.models.network import Network
from daas_dist.runs import checkpoint
from daas_dist.spaces import operations as augment
from daas_dist.spaces.cells import Genotype
from daas_dist.training.comparison import run_training
from daas_dist.training.loop import Training

pytestmark = [needs_fashion_mnist, forks]
STAGE = (
    "stage=train_fashion", "preset=tiny", "data.limit=64", "data.test_limit=60", "train.epochs=3",
    "train.compare=[random/trivial_augment, small/none]", "engine=ddp", "train.micro_batch=8",
    "train.ema_decay=0.5",
)  # fmt: skip
"""Two rows of three epochs of two steps of four micro-batches."""
CELLS = ("train.drop_path=0.3", "train.auxiliary_weight=0")
SMALL = "train.compare=[small/none]"
ROW = "random-trivial_augment-seed0"


def words(*overrides: str) -> list[str]:
    return [*STAGE, *(() if SMALL in overrides else CELLS), *overrides]


def run(run_dir: Path, ranks: int, *overrides: str) -> Path:
    config = configuration.load(words(f"run_dir={run_dir}", *overrides))
    assert in_processes(ranks, lambda: str(run_training(config))) == [str(run_dir)] * ranks
    return run_dir


def last(run_dir: Path, row: str = ROW) -> dict[str, Any]:
    """The state at the end of a row, without times."""
    folder = run_dir / "trainings" / row / "checkpoints"
    state = checkpoint.load(folder, checkpoint.steps(folder)[-1])
    return {key: value for key, value in state.items() if key != "measured"}


def rows(run_dir: Path) -> list[tuple[str, float, float]]:
    document = json.loads((run_dir / "comparison.json").read_text())
    return [(row["architecture"], row["last"], row["best"]) for row in document["rows"]]


@pytest.fixture(scope="module")
def peaceful(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("runs") / "two", 2)


def test_a_row_leaves_its_weights_and_what_they_are(peaceful: Path) -> None:
    """Loaded by what result.json says alone, they have the accuracy that it says."""
    assert [name for name, _, _ in rows(peaceful)] == ["random", "small"]
    folder = peaceful / "trainings" / ROW
    result = read(folder / "result.json")
    assert (result["schema"], result["kind"]) == (1, "trained")
    weights = load_file(folder / result["weights"]["file"])
    for said in (result["weights"], result["weights_best"], result["weights_ema"]):
        assert hashlib.sha256((folder / said["file"]).read_bytes()).hexdigest() == said["sha256"]
    assert all(value.dtype in (torch.float32, torch.int64) for value in weights.values())
    said = result["network"]
    genotype = Genotype.from_document(checked(GenotypeDocument, said["genotype"]))
    network = Network(
        genotype, said["channels"], said["cells"], said["classes"],
        said["in_channels"], said["stem"], said["auxiliary"],
    )  # fmt: skip
    images = load_images(configuration.load(words())).test
    assert isinstance(images, Images)
    inputs = augment.normalise(
        images.central(torch.arange(60)), result["data"]["mean"], result["data"]["std"]
    )

    def accuracy(file: str) -> float:
        network.load_state_dict(load_file(folder / file))
        with torch.no_grad():
            right = network.eval()(inputs).argmax(1) == images.labels
        return float(right.double().mean())

    assert accuracy("weights.safetensors") == pytest.approx(result["test"]["last"])
    assert accuracy("weights-best.safetensors") == pytest.approx(result["test"]["best"])
    assert accuracy("weights-ema.safetensors") == pytest.approx(result["test"]["ema"])
    assert result["test"]["images"] == 60 and result["policy_result"] is None
    assert result["throughput"]["ranks"] == 2 and result["throughput"]["engine"] == "ddp"
    assert result["throughput"]["images_per_second"] > 0 < result["throughput"]["peak_memory_mb"]
    assert read(peaceful / "trainings" / "small-none-seed0" / "result.json")["network"]["name"] == (
        "small"
    )
    assert column(folder / "metrics.jsonl", "epoch") == [1, 2, 3]


def stopping(rank: int, step: int) -> Any:
    """Training.train_step, after which one rank gets a signal in its first row."""
    train_step = Training.train_step

    def stopping_step(training: Training) -> None:
        train_step(training)
        if training.step == step and int(os.environ["RANK"]) == rank:
            signal.raise_signal(signal.SIGUSR2)

    return stopping_step


@pytest.mark.parametrize("engine", ["ddp", "deepspeed"])
def test_a_signal_to_one_rank_stops_all_at_one_step_and_they_go_on_with_the_same_bits(
    engine: str, peaceful: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of an epoch, heard by rank 1 alone."""
    if engine == "deepspeed":
        peaceful = run(tmp_path / "peaceful", 2, "engine=deepspeed")
    with monkeypatch.context() as patch:
        patch.setattr(Training, "train_step", stopping(rank=1, step=3))
        run_dir = run(tmp_path / "run", 2, f"engine={engine}")
    assert not (run_dir / "DONE").exists()
    assert checkpoint.steps(run_dir / "trainings" / ROW / "checkpoints") == [2, 3]
    run(run_dir, 2, f"engine={engine}")
    assert rows(run_dir) == rows(peaceful)
    for row in (ROW, "small-none-seed0"):
        same_bits(last(run_dir, row), last(peaceful, row), row)
    file = Path("trainings") / ROW / "weights-best.safetensors"
    assert (run_dir / file).read_bytes() == (peaceful / file).read_bytes()


def test_after_a_bad_byte_all_ranks_take_the_checkpoint_before(
    peaceful: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Training, "train_step", stopping(rank=0, step=3))
        run_dir = run(tmp_path / "run", 2)
    flip_middle(run_dir / "trainings" / ROW / "checkpoints" / "step_00000003" / "network.pt")
    with warnings.catch_warnings(action="ignore"):  # in other processes it cannot be looked for
        run(run_dir, 2)
    assert list((run_dir / "trainings" / ROW / "checkpoints").glob("step_00000003.corrupt*"))
    same_bits(last(run_dir), last(peaceful), ROW)


def test_a_run_keeps_the_micro_batch_that_it_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Begun by two ranks without train.micro_batch, it goes on by one with the same, and four
    ranks cannot share it."""
    free = ("train.micro_batch=null", SMALL, "train.epochs=2")
    with monkeypatch.context() as patch:
        patch.setattr(Training, "train_step", stopping(rank=0, step=1))
        run_dir = run(tmp_path / "run", 2, *free)
    assert read(run_dir / "cut.json") == {"micro_batch": 16}
    config = configuration.load(words(f"run_dir={run_dir}", *free))

    def refused() -> str:
        with pytest.raises(ConfigError) as caught:
            run_training(config)
        return str(caught.value)

    assert "2 micro-batches of 16, which 4 ranks cannot share" in in_processes(4, refused)[0]
    run(run_dir, 1, *free)
    whole = run(tmp_path / "whole", 2, *free)
    for name, value in last(run_dir, "small-none-seed0")["network"].items():
        assert torch.allclose(value, last(whole, "small-none-seed0")["network"][name], atol=1e-5)


def test_what_ranks_cannot_share_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    config = configuration.load(words(f"run_dir={tmp_path / 'run'}"))

    def refused() -> str:
        with pytest.raises(ConfigError) as caught:
            run_training(config)
        return str(caught.value)

    said = in_processes(3, refused)
    assert set(said) == {
        "train.batch_size=32 is 4 micro-batches of 8, which 3 ranks cannot share: expected 2 or 4 "
        "as the number of ranks, or 24 or 48 as the batch size"
    }
    assert not (tmp_path / "run").exists()


@pytest.mark.long
@pytest.mark.parametrize(
    ("engine", "number", "status", "said"),
    [
        ("ddp", signal.SIGKILL, 3, "rank 0: another rank is gone, or late, while "),
        ("deepspeed", signal.SIGSTOP, 4, "rank 0: no step for 3 s (patience_minutes), waiting for"),
    ],
)
def test_a_killed_and_a_hung_peer_are_told_in_a_line(
    engine: str, number: signal.Signals, status: int, said: str, tmp_path: Path
) -> None:
    """kill -9 and kill -STOP of rank 1: what rank 0 says, and how soon."""
    run_dir, ranks = tmp_path / "run", []
    overrides = words(f"engine={engine}", "train.epochs=999", f"run_dir={run_dir}")
    for rank in range(2):
        environment = {
            **ENVIRONMENT, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(29_100 + number),
        }  # fmt: skip
        command = [sys.executable, "-m", "daas_dist", *overrides, "patience_minutes=0.05"]
        ranks.append(
            subprocess.Popen(
                command, env=environment, text=True,
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            )
        )  # fmt: skip
    until = time.monotonic() + 90
    while not (run_dir / "trainings" / ROW / "metrics.jsonl").exists():
        assert time.monotonic() < until
        time.sleep(0.05)
    ranks[1].send_signal(number)
    _, errors = ranks[0].communicate(timeout=60)
    ranks[1].kill()
    ranks[1].communicate()
    assert ranks[0].returncode == status, errors
    assert said in errors and "Traceback" not in errors
