"""docs/cluster.md, command by command, on a real Slurm."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from slurm_cluster import ROOT, Cluster, checkout, up
from whole_runs import needs_fashion_mnist, wait

pytestmark = needs_fashion_mnist
ENDED = ("CANCELLED", "COMPLETED")
BLOCK = re.compile(r"```sh\n(.*?)```", re.DOTALL)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = up(tmp_path / "cluster")
    yield cluster
    cluster.devcluster("down")
    wait(lambda: not cluster.orphans(), "its last process")  # killed, and gone in a moment


@pytest.mark.long
def test_every_command_of_the_page(cluster: Cluster, tmp_path: Path) -> None:
    mine = checkout(tmp_path)
    runs = mine / "runs"
    page = (ROOT / "docs" / "cluster.md").read_text()
    lines = [line for block in BLOCK.findall(page) for line in block.splitlines()]
    assert len(lines) > 15
    for line in lines:
        command = shlex.split(line)
        if command[0] == "slurm/devcluster":
            command.append(str(cluster.folder))
        if "preset=tiny" in command and any(word.startswith("run_dir=") for word in command):
            command.append("search.joint_epochs=1")  # minutes
        if "logs" in command:
            wait(lambda: list((runs / "mine" / "logs").glob("*.out")), "its log")
        if "resume" in command:
            wait(lambda: cluster.state(runs / "mine") in ENDED, "its end")
        done = cluster.run_in(mine, *command)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    wait(lambda: (runs / "seeds" / "table.md").exists(), "the table")
    wait(lambda: all((runs / name / "DONE").exists() for name in ("mine", "local")), "their end")
    table = (runs / "seeds" / "table.md").read_text()
    assert "| `train` | `found / found` | 2 |" in table and "Not finished" not in table
