"""Whole runs in processes of their own, as a person or a cluster starts them."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from daas_dist.data import FASHION_MNIST_ROOT

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
TWO_RANKS = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m")

needs_fashion_mnist = pytest.mark.skipif(
    not FASHION_MNIST_ROOT.is_dir(), reason="needs Debian's package dataset-fashion-mnist"
)


def start(*words: str) -> "subprocess.Popen[str]":
    """python -m words…, with its output in a pipe."""
    command = [sys.executable, "-m", *words]
    return subprocess.Popen(command, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE)


def finish(*words: str) -> str:
    """What it printed; it must end well."""
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


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def column(path: Path, key: str) -> list[Any]:
    """One key of every line of a .jsonl file."""
    return [json.loads(line)[key] for line in path.read_text().splitlines()]
