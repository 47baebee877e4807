"""docs/cluster.md, command by command, on a real Slurm."""

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from slurm_cluster import ROOT, Cluster, up, wait
from whole_runs import needs_fashion_mnist

pytestmark = needs_fashion_mnist
BLOCK = re.compile(r"```sh\n(.*?)```", re.DOTALL)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the parts that a user types at."""
    for name in ("daas_dist", "launch", "slurm", "configs"):
        shutil.copytree(ROOT / name, tmp_path / "checkout" / name)
    return tmp_path / "checkout"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = up(tmp_path / "cluster")
    yield cluster
    cluster.devcluster("down")
    assert not cluster.orphans()


def test_every_command_of_the_page(cluster: Cluster, checkout: Path) -> None:
    page = (ROOT / "docs" / "cluster.md").read_text()
    lines = [line for block in BLOCK.findall(page) for line in block.splitlines()]
    assert len(lines) > 15
    for line in lines:
        command = shlex.split(line)
        if command[0] == "slurm/devcluster":
            command.append(str(cluster.folder))
        done = cluster.run_in(checkout, *command)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        if "logs" not in line and "submit.py" in line and "runs/mine" in line:
            # What the next line wants to look at.
            wait(lambda: (checkout / "runs/mine/job.json").exists())
        if line.endswith("status --json runs/mine"):
            wait(lambda: list((checkout / "runs/mine/logs").glob("*.out")), "its log")
    runs = checkout / "runs"
    wait(lambda: (runs / "seeds" / "table.md").exists(), "the table")
    wait(lambda: all((runs / name / "DONE").exists() for name in ("mine", "local")), "their end")
    table = (runs / "seeds" / "table.md").read_text()
    assert "| train | found / found | 2 |" in table and "Not finished" not in table
