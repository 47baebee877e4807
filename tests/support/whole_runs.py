"""Whole runs, as a person or a cluster starts them."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from daas_dist import cli
from daas_dist.data import FASHION_MNIST_ROOT
from daas_dist.report.record import read_rows

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
PATIENCE = 300.0
TWO_RANKS = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m")

needs_fashion_mnist = pytest.mark.skipif(
    not FASHION_MNIST_ROOT.is_dir(), reason="needs Debian's package dataset-fashion-mnist"
)


def start(*words: str) -> "subprocess.Popen[str]":
    """python -m words…, with its output in a pipe."""
    command = [sys.executable, "-m", *words]
    return subprocess.Popen(command, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE)


def finish(*words: str) -> str:
    """What it printed; it must end well. One rank alone runs in this process: a start takes as long
    as a small run."""
    if words[0] == "daas_dist":
        told, threads = io.StringIO(), torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with redirect_stdout(told):
                assert cli.main(["run", *words[1:]]) == 0
        finally:
            torch.set_num_threads(threads)
        return told.getvalue()
    process = start(*words)
    output, _ = process.communicate()
    assert process.returncode == 0
    return output


def disturb(signal_number: int, when: Path, *words: str) -> tuple[int, str]:
    """Start, and signal once the file `when` is there: the exit status and what it printed."""
    process, until = start(*words), time.monotonic() + 60
    while not when.exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal_number)
    output, _ = process.communicate()
    return process.returncode, output


def wait(condition: Callable[[], object], what: str = "it") -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, f"waited {PATIENCE:g} s for {what}"
        time.sleep(0.2)


@contextmanager
def held(run_dir: Path, at: int = 6) -> Generator[int]:
    """From some step on a run waits in its tracks, so that it cannot be over before what a test
    does to it arrives. The process of its first rank."""
    wait(lambda: (run_dir / "lock").exists() and steps(run_dir) >= at, f"{at} steps")
    pid = int(json.loads((run_dir / "lock").read_text())["pid"])
    os.kill(pid, signal.SIGSTOP)
    wait(lambda: "T" in _status(pid)["State"], "its halt")
    try:
        yield pid
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def signalled(pid: int) -> bool:
    """Whether a signal waits for a held process; or Slurm itself has let it go on, as it does
    before SIGTERM."""
    try:
        status = _status(pid)
    except (FileNotFoundError, ProcessLookupError):
        return True  # it went on, to its end
    waiting = int(status["SigPnd"], 16) | int(status["ShdPnd"], 16)
    return waiting != 0 or "T" not in status["State"]


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":", 1) for line in lines)


def events(run_dir: Path, *names: str) -> list[dict[str, Any]]:
    rows, _ = read_rows(run_dir / "events.jsonl")
    return [row for row in rows if not names or row["event"] in names]


def steps(run_dir: Path) -> int:
    rows, _ = read_rows(run_dir / "metrics.jsonl")
    return len(rows)


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def column(path: Path, key: str) -> list[Any]:
    """One key of every line of a .jsonl file."""
    return [json.loads(line)[key] for line in path.read_text().splitlines()]
