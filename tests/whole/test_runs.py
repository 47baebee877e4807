"""Whole searches through the command line: the same bits after a stop, a kill, and on two ranks."""

import signal
from pathlib import Path

import pytest
from whole_runs import TWO_RANKS, column, disturb, finish, needs_fashion_mnist, read

import daas_dist
from daas_dist import cli

pytestmark = needs_fashion_mnist
STAGE = (
    "daas_dist", "stage=search_fashion", "preset=tiny", "data.limit=128", "search.joint_epochs=1",
    "search.checkpoint_every=3",
)  # fmt: skip


def found(run_dir: Path) -> dict[str, object]:
    result = read(run_dir / "result.json")
    return {key: result[key] for key in ("genotype", "policy", "alpha", "beta", "evidence")}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("runs") / "whole"
    finish(*STAGE, f"run_dir={run_dir}")
    return run_dir


def test_a_run_leaves_all_that_it_promises(undisturbed: Path) -> None:
    names = {path.name for path in undisturbed.iterdir()}
    assert names >= {
        "config.yaml", "provenance.json", "metrics.jsonl", "events.jsonl", "checkpoints",
        "result.json", "report.html", "samples.pt", "DONE",
    }  # fmt: skip
    loaded = daas_dist.load(undisturbed / "result.json")
    assert loaded.genotype is not None and loaded.policy is not None


def test_two_ranks_find_the_same_bits(undisturbed: Path, tmp_path: Path) -> None:
    output = finish(*TWO_RANKS, *STAGE, f"run_dir={tmp_path / 'two'}")
    assert found(tmp_path / "two") == found(undisturbed)
    assert output.count("normal cell:") == 1  # one rank tells


@pytest.mark.parametrize(
    ("number", "when", "status"),
    [
        (signal.SIGTERM, "metrics.jsonl", 0),
        (signal.SIGKILL, "checkpoints/step_00000003", -signal.SIGKILL),
    ],
)
def test_a_disturbed_run_resumes_to_the_same_bits(
    undisturbed: Path, tmp_path: Path, number: int, when: str, status: int
) -> None:
    run_dir = tmp_path / "disturbed"
    words = *STAGE, f"run_dir={run_dir}"
    returned, _ = disturb(number, run_dir / when, *words)
    assert returned == status
    assert not (run_dir / "DONE").exists()
    finish(*words)
    assert found(run_dir) == found(undisturbed)
    assert "resumed" in column(run_dir / "events.jsonl", "event")
    steps = column(run_dir / "metrics.jsonl", "step")
    assert steps == column(undisturbed / "metrics.jsonl", "step")
    losses = column(run_dir / "metrics.jsonl", "train_loss")
    assert losses == column(undisturbed / "metrics.jsonl", "train_loss")


def test_a_wrong_key_fails_at_the_door(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "search.batchsize=3", f"run_dir={tmp_path / 'no'}"]) == 2
    assert "search.batch_size" in capfd.readouterr().err
    assert not (tmp_path / "no").exists()
