"""TensorBoard's own reader finds the lines of metrics.jsonl: each once, also after a resume."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from daas_dist import cli
from daas_dist.runs.log import RunLog, read_metrics

event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def line(step: int, attempt: int = 1) -> dict[str, Any]:
    return {
        "step": step,
        "epoch": step // 3,
        "phase": "joint",
        "time": 1_790_000_000.5 + 60 * step,
        "train_loss": 2.5 / step + attempt,
        "reward_mean": None,
        "entropy": {"alpha": 1.25 + step, "beta": 0.5},
        "skip_share": {"normal": 0.125 * step},
        "genotype": {"normal": [["skip_connect", 0]], "concat": [2, 3]},
    }


def scalars(run_dir: Path) -> dict[str, list[tuple[int, float, float]]]:
    """name -> (step, time, value)."""
    accumulator = event_accumulator.EventAccumulator(str(run_dir / "tensorboard"))
    accumulator.Reload()
    return {
        name: [(e.step, e.wall_time, e.value) for e in accumulator.Scalars(name)]
        for name in accumulator.Tags()["scalars"]
    }


def expected(run_dir: Path, name: str, part: str | None = None) -> list[tuple[int, float, Any]]:
    rows = read_metrics(run_dir)
    values = [row[name] if part is None else row[name][part] for row in rows]
    return [
        (row["step"], row["time"], pytest.approx(value, rel=1e-6))  # events hold float32
        for row, value in zip(rows, values, strict=True)
    ]


def test_every_number_of_a_line_is_an_event_at_its_step_and_time(tmp_path: Path) -> None:
    log = RunLog(tmp_path, tensorboard=True)
    for step in (2, 4, 6):
        log.metric(line(step))
    found = scalars(tmp_path)
    assert found["train_loss"] == expected(tmp_path, "train_loss")
    assert found["entropy/alpha"] == expected(tmp_path, "entropy", "alpha")
    assert found["skip_share/normal"] == expected(tmp_path, "skip_share", "normal")
    assert not found.keys() & {"phase", "reward_mean", "genotype/concat"}


def test_a_resumed_run_has_every_line_once(tmp_path: Path) -> None:
    """Steps 6 and 8 were logged, but the checkpoint is of step 4: they are done again."""
    first = RunLog(tmp_path, tensorboard=True)
    for step in (2, 4, 6, 8):
        first.metric(line(step))
    watching = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    watching.Reload()
    assert len(watching.Scalars("train_loss")) == 4
    second = RunLog(tmp_path, tensorboard=True)
    second.resume(4)
    second.metric(line(6, attempt=2))
    wanted = expected(tmp_path, "train_loss")
    assert [step for step, _, _ in wanted] == [2, 4, 6]
    assert wanted[-1][2] == 2.5 / 6 + 2
    assert scalars(tmp_path)["train_loss"] == wanted
    watching.Reload()
    assert [(e.step, e.wall_time, e.value) for e in watching.Scalars("train_loss")] == wanted


def test_a_training_counts_epochs(tmp_path: Path) -> None:
    log = RunLog(tmp_path, tensorboard=True)
    for epoch in (1, 2):
        log.metric({"epoch": epoch, "time": 1_790_000_000.0, "test_accuracy": 0.25 * epoch})
    assert [(s, v) for s, _, v in scalars(tmp_path)["test_accuracy"]] == [(1, 0.25), (2, 0.5)]


def test_without_the_package_a_run_fails_at_the_door(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, package=None: None if name == "tensorboard" else find_spec(name, package),
    )
    assert cli.main(["run", "tensorboard=true", f"run_dir={tmp_path / 'none'}"]) == 2
    assert "pip install 'daas-dist[tensorboard]'" in capfd.readouterr().err
    assert not (tmp_path / "none").exists()
