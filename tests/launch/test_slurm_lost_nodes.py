"""Nodes that lose their power under a job of two, and ranks that die alone: the same bits."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torture
from slurm_cluster import Cluster, up
from test_slurm_jobs import completed, peaceful, words
from whole_runs import events, held, needs_fashion_mnist, wait

__all__ = ["peaceful"]
pytestmark = needs_fashion_mnist
WITHIN = 60.0
"""Seconds from the loss of a node until the ranks that are left have gone on."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = up(tmp_path_factory.mktemp("slurm") / "cluster", "--grace", "20")
    yield cluster
    cluster.devcluster("down")
    wait(lambda: not cluster.orphans(), "its last process")  # killed, and gone in a moment


@pytest.mark.parametrize("node", ["n1", pytest.param("n2", marks=pytest.mark.long)])
def test_a_lost_node_costs_no_result(
    node: str, cluster: Cluster, peaceful: Path, tmp_path: Path
) -> None:
    """n1 is that of the job's script, and of rank 0."""
    run_dir = tmp_path / "run"
    cluster.submit("--nodes", "2", *words(run_dir))
    with held(run_dir):
        cluster.devcluster("lose", node)
    comes_back(cluster, run_dir, node)
    torture.same(run_dir, peaceful)


def comes_back(cluster: Cluster, run_dir: Path, lost: str) -> None:
    """Mend the node once the job is in the queue again, or has begun on others; wait for its end.

    On a busy machine Slurm may take a node for lost once more: then there are more attempts.
    """
    wait(lambda: len(events(run_dir, "attempt")) > 1 or "PENDING" in cluster.state(run_dir))
    cluster.devcluster("mend", lost)

    def ended() -> bool:
        cluster.hurry(run_dir)
        return completed(cluster, run_dir)

    wait(ended, "its end")
    assert len(events(run_dir, "attempt")) > 1


@pytest.mark.long
def test_a_rank_that_dies_alone_costs_no_result(
    cluster: Cluster, peaceful: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    cluster.submit("--nodes", "2", *words(run_dir))
    with held(run_dir) as pid:
        os.kill(pid, signal.SIGKILL)
    wait(lambda: events(run_dir, "requeued"), "its requeue")
    assert events(run_dir, "requeued")[0]["cause"] == "died"
    cluster.let_go(run_dir)
    wait(lambda: completed(cluster, run_dir), "its end")
    torture.same(run_dir, peaceful)


@pytest.mark.long
def test_with_no_kill_the_nodes_that_are_left_go_on(
    cluster: Cluster, peaceful: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    cluster.submit("--nodes", "2", "--sbatch", "no-kill", *words(run_dir))
    with held(run_dir):
        cluster.devcluster("lose", "n2")
        lost = time.time()
    wait(lambda: events(run_dir, "resumed"), "the ranks that are left")
    cluster.devcluster("mend", "n2")
    first, second = events(run_dir, "attempt")
    assert (first["nodes"], second["nodes"]) == ("n[1-2]", "n1")
    assert (first["restart"], second["restart"]) == (0, 0)
    assert events(run_dir, "resumed")[0]["time"] - lost < WITHIN
    wait(lambda: completed(cluster, run_dir), "its end")
    assert not events(run_dir, "requeued")
    torture.same(run_dir, peaceful)


@pytest.mark.long
def test_with_no_kill_a_job_without_its_script_comes_back(
    cluster: Cluster, peaceful: Path, tmp_path: Path
) -> None:
    """Slurm would leave it running, with nobody at work in it."""
    run_dir = tmp_path / "run"
    cluster.submit("--nodes", "2", "--sbatch", "no-kill", *words(run_dir))
    with held(run_dir):
        cluster.devcluster("lose", "n1")
    comes_back(cluster, run_dir, "n1")
    torture.same(run_dir, peaceful)
