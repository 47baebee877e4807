"""Trainings through the command line: dealt over ranks, stopped, killed, always the same rows."""

import math
import signal
from pathlib import Path
from typing import Any

import found_results as results
import pytest
import torch
from damage import flip_middle
from loading import load_images
from whole_runs import TWO_RANKS, column, disturb, finish, needs_fashion_mnist, read

import daas_dist
from daas_dist import cli
from daas_dist import config as configuration
from daas_dist.data import Images
from daas_dist.rng import stream
from daas_dist.runs import checkpoint
from daas_dist.runs.log import read_metrics
from daas_dist.spaces import operations as augment
from daas_dist.spaces.cells import random_genotype
from daas_dist.training.comparison import Training, run_training

pytestmark = needs_fashion_mnist


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Three rows of three epochs."""
    searched = results.save(tmp_path_factory.mktemp("searched"))
    return (
        "daas_dist", "stage=train_fashion", "preset=tiny", f"train.result={searched}",
        "train.compare=[found/found, random/none, found/trivial_augment]", "train.epochs=3",
        "train.drop_path=0.3", "data.limit=64", "data.test_limit=96",
    )  # fmt: skip


def rows(run_dir: Path) -> list[dict[str, Any]]:
    document = read(run_dir / "comparison.json")
    timed = ("seconds", "throughput")
    return [{k: v for k, v in row.items() if k not in timed} for row in document["rows"]]


def epochs(run_dir: Path) -> dict[str, list[int]]:
    """The epochs in the metrics of each training."""
    files = sorted((run_dir / "trainings").glob("*/metrics.jsonl"))
    return {file.parent.name: column(file, "epoch") for file in files}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, stage: tuple[str, ...]) -> Path:
    """All rows by one process, undisturbed."""
    run_dir = tmp_path_factory.mktemp("runs") / "alone"
    assert "random architecture, none policy" in finish(*stage, f"run_dir={run_dir}")
    return run_dir


def test_a_training_leaves_all_that_it_promises(alone: Path) -> None:
    names = {path.name for path in alone.iterdir()}
    assert names >= {"config.yaml", "provenance.json", "comparison.json", "report.html", "DONE"}
    expected = [("found", "found"), ("random", "none"), ("found", "trivial_augment")]
    assert [(row["architecture"], row["policy"]) for row in rows(alone)] == expected
    assert len({row["last"] for row in rows(alone)} | {row["best"] for row in rows(alone)}) > 1


def test_a_recipe_on_a_fixed_network_runs_at_its_rates_and_is_evaluated_as_it_says(
    tmp_path: Path,
) -> None:
    """Two steps an epoch, a warm-up of two epochs to three times the rate, by step; the numbers of
    the last epoch from the weights that it left."""
    config = configuration.load([
        "stage=train_fashion", "recipe=wide_resnet_28_10", "preset=tiny", "train.epochs=3",
        f"train.result={results.save(tmp_path)}", "train.compare=[small/found]",
        "train.warmup_epochs=2", "train.warmup_multiplier=3", "data.cutout=8",
        "data.color_jitter=[0.4,0.4,0.4,0.1]", "data.limit=64", "data.test_limit=96",
        f"run_dir={tmp_path / 'run'}",
    ])  # fmt: skip
    run_training(config)
    folder = tmp_path / "run" / "trainings" / "small-found-seed0"
    curve = 0.3 * (1 + math.cos(math.pi * 0.5 / 3)) / 2
    rates = column(folder / "metrics.jsonl", "learning_rate")
    assert rates == pytest.approx([0.1 * 1.5, 0.1 * 2.5, curve], rel=1e-12)

    data = load_images(config)
    assert isinstance(data.test, Images)
    trained = daas_dist.load(folder / "result.json")
    images = augment.normalise(data.test.central(torch.arange(96)), data.mean, data.std)
    with torch.no_grad():
        logits = trained.network()(images)
    among = (logits.topk(5).indices == data.test.labels[:, None]).any(1)
    line = read_metrics(folder)[-1]
    assert line["test_top5"] == float(among.double().mean())
    assert line["test_accuracy"] == float((logits.argmax(1) == data.test.labels).double().mean())
    loss = torch.nn.functional.cross_entropy(logits, data.test.labels)
    assert line["test_loss"] == pytest.approx(float(loss), rel=1e-5)
    (row,) = rows(tmp_path / "run")
    last = read(folder / "evaluation.json")
    assert sum(map(sum, last["confusion"])) == last["images"] == 96
    assert row["last_top5"] == line["test_top5"] and row["class_accuracy"] == last["class_accuracy"]
    assert row["calibration_error"] == line["test_calibration_error"] > 0


def test_two_ranks_train_the_same_rows(alone: Path, stage: tuple[str, ...], tmp_path: Path) -> None:
    output = finish(*TWO_RANKS, *stage, f"run_dir={tmp_path / 'two'}")
    assert rows(tmp_path / "two") == rows(alone)
    assert epochs(tmp_path / "two") == epochs(alone)
    assert output.count("random architecture, none policy") == 1  # one rank tells


def test_a_killed_and_a_stopped_training_end_with_the_same_rows(
    alone: Path, stage: tuple[str, ...], tmp_path: Path
) -> None:
    run_dir, output = tmp_path / "disturbed", ""
    for name, number, status in (
        ("found-found-seed0", signal.SIGKILL, -signal.SIGKILL),
        ("random-none-seed0", signal.SIGTERM, 0),
    ):
        when = run_dir / "trainings" / name / "metrics.jsonl"
        returned, output = disturb(number, when, *stage, f"run_dir={run_dir}")
        assert returned == status
        assert not (run_dir / "DONE").exists()
    assert f"run_dir={run_dir} goes on" in output
    assert rows(run_dir) == rows(alone)[:1]
    finish(*stage, f"run_dir={run_dir}")
    assert rows(run_dir) == rows(alone)
    assert epochs(run_dir) == epochs(alone)


def test_another_search_is_not_mixed_into_trainings_that_are_there(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = (
        "run", "stage=train_fashion", "preset=tiny", "train.compare=[found/found]",
        "train.epochs=1", "data.limit=32", "data.test_limit=32",
        f"train.result={results.save(tmp_path)}", f"run_dir={tmp_path / 'run'}",
    )  # fmt: skip
    assert cli.main(words) == 0
    results.save(tmp_path, config={"seed": 9})
    assert cli.main(words) == 0
    other = random_genotype(stream(1, "test"))
    results.save(tmp_path, genotype=results.plain(other))
    assert cli.main(words) == 2
    assert "another architecture or policy than train.result" in capfd.readouterr().err


def test_a_training_stops_inside_an_epoch_and_survives_a_bad_byte(
    alone: Path, stage: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after 3 of the 6 steps of three epochs; then the newest checkpoint is damaged, so
    that it goes on after the one before it: the end of the first epoch."""
    config = configuration.load([*stage[1:], f"run_dir={tmp_path / 'run'}"])
    step = Training.train_step

    def stopping_step(training: Training) -> None:
        step(training)
        if training.step == 3:
            signal.raise_signal(signal.SIGUSR2)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "train_step", stopping_step)
        run_training(config)
    folder = tmp_path / "run" / "trainings" / "found-found-seed0" / "checkpoints"
    assert checkpoint.steps(folder) == [2, 3]
    flip_middle(folder / "step_00000003" / "network.pt")
    with pytest.warns(UserWarning, match="step_00000003.*network.pt"):
        run_training(config)
    assert rows(tmp_path / "run") == rows(alone) and epochs(tmp_path / "run") == epochs(alone)
