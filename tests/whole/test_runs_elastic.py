"""torchrun with a range of nodes: a search goes on with those left, and takes in new ones."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torture
from whole_runs import ENVIRONMENT, events, finish, needs_fashion_mnist, steps, wait

from daas_dist.runs.log import read_metrics

pytestmark = needs_fashion_mnist
MINUTE = 60.0


def node(port: int, log: Path, *words: str) -> "subprocess.Popen[bytes]":
    """The agent of a node, with one rank."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nnodes=1:2", "--nproc-per-node=1",
        "--max-restarts=9", "--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}",
        "--rdzv-id=search", "--local-addr=127.0.0.1", "--rdzv-conf=last_call_timeout=10", "-m",
        *words,
    ]  # fmt: skip
    environment = {**ENVIRONMENT, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    with log.open("wb") as file:
        return subprocess.Popen(
            command, env=environment, stdout=file, stderr=file, start_new_session=True
        )


def together(run_dir: Path) -> bool:
    """Whether the last step was made by two ranks."""
    rows = read_metrics(run_dir)
    return bool(rows) and any(name.startswith("arch: ") for name in rows[-1]["communication"])


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def lose(agent: "subprocess.Popen[bytes]") -> None:
    """As a power cut: nothing of the node has a last word."""
    for pid in (*torture.children(agent.pid), agent.pid):
        os.kill(pid, signal.SIGKILL)
    agent.wait()


@pytest.mark.long
def test_a_node_is_lost_and_another_comes(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    run_dir, peaceful = tmp_path / "run", tmp_path / "peaceful"
    words = [*torture.words(run_dir, 9, 1)]
    agents = [node(port, tmp_path / "first.txt", *words)]
    try:
        # Of the node that has the store: who comes first.
        wait(lambda: listens(port), "its store")
        agents.append(node(port, tmp_path / "second.txt", *words))
        wait(lambda: together(run_dir) and steps(run_dir) > 2, "two ranks")
        began = time.monotonic()
        lose(agents.pop())
        wait(lambda: len(events(run_dir, "resumed")) > 0 and not together(run_dir), "one rank")
        alone = time.monotonic() - began
        began = time.monotonic()
        agents.append(node(port, tmp_path / "third.txt", *words))
        wait(lambda: len(events(run_dir, "resumed")) > 1 and together(run_dir), "two ranks again")
        taken = time.monotonic() - began
        assert [each.wait(timeout=300) for each in agents] == [0, 0]
    finally:
        for each in agents:
            if each.poll() is None:
                lose(each)
    told = [each["event"] for each in events(run_dir) if each["event"] != "read"]
    assert told == ["started", "resumed", "stopped", "resumed", "finished"]
    print(f"goes on after {alone:.0f} s, takes in after {taken:.0f} s")
    assert alone < 2 * MINUTE and taken < 2 * MINUTE  # a minute on a machine that is not busy
    finish(*torture.words(peaceful, 9, 1))
    torture.same(run_dir, peaceful)
