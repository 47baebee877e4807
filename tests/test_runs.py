"""Whole runs through the command line: the same bits after a stop, and on two ranks."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import daas_dist
from daas_dist.data import FASHION_MNIST_ROOT

pytestmark = pytest.mark.skipif(
    not FASHION_MNIST_ROOT.is_dir(), reason="needs Debian's package dataset-fashion-mnist"
)
STAGE = ["stage=search_fashion", "preset=tiny", "data.limit=128", "search.joint_epochs=1"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def start(*words: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-m", *words], env=ENVIRONMENT)


def found(run_dir: Path) -> dict[str, object]:
    result = json.loads((run_dir / "result.json").read_text())
    return {key: result[key] for key in ("genotype", "policy", "alpha", "beta", "evidence")}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("runs") / "whole"
    assert start("daas_dist", *STAGE, f"run_dir={run_dir}").wait() == 0
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
    words = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "daas_dist"]
    assert start(*words, *STAGE, f"run_dir={tmp_path / 'two'}").wait() == 0
    assert found(tmp_path / "two") == found(undisturbed)


def test_a_stopped_run_resumes_to_the_same_bits(undisturbed: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "stopped"
    words = ["daas_dist", *STAGE, f"run_dir={run_dir}"]
    process = start(*words)
    until = time.monotonic() + 60
    while not (run_dir / "metrics.jsonl").exists() and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 0
    assert not (run_dir / "DONE").exists()
    assert start(*words).wait() == 0
    assert found(run_dir) == found(undisturbed)
    steps = [
        json.loads(line)["step"] for line in (run_dir / "metrics.jsonl").read_text().splitlines()
    ]
    whole = (undisturbed / "metrics.jsonl").read_text().splitlines()
    assert steps == [json.loads(line)["step"] for line in whole]


def test_a_wrong_key_fails_at_the_door(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "daas_dist", "search.batchsize=3", f"run_dir={tmp_path / 'no'}"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 2 and "search.batch_size" in done.stderr
    assert not (tmp_path / "no").exists()
