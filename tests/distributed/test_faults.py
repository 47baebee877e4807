"""What a rank says and returns when it hangs, or when another is gone, each in its own process."""

import subprocess
import sys
from pathlib import Path

import pytest

from daas_dist.distributed.faults import HUNG, PeerLost, waiting

HANG = """
import ctypes, sys, time
from pathlib import Path
from daas_dist.distributed.faults import Watchdog, waiting

def stuck():
    {stuck}

with Watchdog(2, 1.0, Path(sys.argv[1])) as watchdog:
    for _ in range(4):
        time.sleep(0.5)
        watchdog.beat()
    stuck()
"""


def hang(run_dir: Path, stuck: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", HANG.replace("{stuck}", stuck), str(run_dir)]
    return subprocess.run(command, text=True, capture_output=True, timeout=60)


def test_a_hung_rank_tells_where_it_stands(tmp_path: Path) -> None:
    ended = hang(tmp_path, "time.sleep(60)")
    assert ended.returncode == HUNG
    assert len(ended.stderr.splitlines()) == 1
    assert "rank 2: no step for 1 s (patience_minutes), at its own work" in ended.stderr
    assert "in stuck" in (tmp_path / "hung-rank2.txt").read_text()


def test_one_that_waits_for_others_says_for_what(tmp_path: Path) -> None:
    stuck = "with waiting(2, 'gathering results'): time.sleep(60)"
    assert "waiting for others while gathering results" in hang(tmp_path, stuck).stderr


def test_where_the_interpreter_is_stuck_the_process_ends_too(tmp_path: Path) -> None:
    ended = hang(tmp_path, "ctypes.PyDLL(None).sleep(60)")  # holds the interpreter's lock
    assert ended.returncode == 1
    assert "Timeout" in ended.stderr and "in stuck" in ended.stderr


def test_what_a_backend_says_of_a_lost_peer_becomes_one_line() -> None:
    gloo = "[../third_party/gloo/pair.cc:547] Connection closed by peer [::1]:9\nmore\nand more"
    with pytest.raises(PeerLost) as lost, waiting(1, "gathering results"):
        raise RuntimeError(gloo)
    assert str(lost.value).startswith("rank 1: another rank is gone, or late, while gathering")
    assert "Connection closed by peer" in str(lost.value) and "\n" not in str(lost.value)
