"""Searches on a real Slurm: preempted in both ways, at their time limit, on a node that is lost,
cancelled and resumed. Each ends with the bits of one that was left in peace on one process."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torture
from slurm_cluster import Cluster, checkout, up
from whole_runs import events, finish, held, needs_fashion_mnist, signalled, wait

pytestmark = needs_fashion_mnist
EPOCHS = 2
EVERYTHING = ("-N4", "--exclusive", "-p", "high", "-o/dev/null", "--wrap")
"""All nodes, in the partition that preempts the other."""


def words(run_dir: Path, *more: str) -> list[str]:
    return [*torture.words(run_dir, EPOCHS, 1)[1:], *more]


@pytest.fixture(scope="module")
def peaceful(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("runs") / "peaceful"
    finish("daas_dist", *words(run_dir))
    return run_dir


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = up(tmp_path_factory.mktemp("slurm") / "cluster", "--grace", "20")
    yield cluster
    cluster.devcluster("down")
    wait(lambda: not cluster.orphans(), "its last process")  # killed, and gone in a moment


def completed(cluster: Cluster, run_dir: Path) -> bool:
    if not any((run_dir / ending).exists() for ending in ("DONE", "FAILED", "STALLED")):
        return False  # without asking Slurm, while the run needs the cores
    state = cluster.state(run_dir)
    assert state not in ("FAILED", "STALLED", "CANCELLED"), cluster.states(run_dir)
    return state == "COMPLETED"


def test_four_nodes_a_preemption_and_an_edit_while_it_waits(
    cluster: Cluster, peaceful: Path, tmp_path: Path
) -> None:
    run_dir, mine = tmp_path / "run", checkout(tmp_path)
    before = cluster.ask("sbatch", "--parsable", *EVERYTHING, "sleep 600").strip()
    submit = [sys.executable, str(mine / "launch" / "submit.py"), "--nodes", "4", *words(run_dir)]
    assert cluster.run_in(mine, *submit).returncode == 0
    assert cluster.state(run_dir) == "PENDING"
    # Whoever edits the code or a YAML meanwhile changes other runs, not this one.
    (mine / "daas_dist" / "search" / "steps.py").write_text("raise SystemExit('edited')\n")
    (mine / "configs" / "preset" / "tiny.yaml").write_text("# @package _global_\nseed: 9\n")
    cluster.ask("scancel", before)
    with held(run_dir) as pid:
        cluster.ask("sbatch", *EVERYTHING, "sleep 1")
        wait(lambda: signalled(pid), "its signal")
    wait(lambda: events(run_dir, "requeued"), "its requeue")
    cluster.let_go(run_dir)
    wait(lambda: completed(cluster, run_dir), "its end")
    torture.same(run_dir, peaceful)
    told = [(each["event"], each.get("cause")) for each in events(run_dir)]
    assert ("requeued", "preempted") in told and told[-1] == ("finished", None)
    assert [each["restart"] for each in events(run_dir, "attempt")] == [0, 1]
    assert events(run_dir, "attempt")[0]["nodes"] == "n[1-4]"
    assert events(run_dir, "stopped")[0]["reason"] == "SIGUSR2"


@pytest.mark.long
def test_scancel_saves_and_resume_goes_on(cluster: Cluster, peaceful: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    cluster.submit("--nodes", "1", *words(run_dir))
    with held(run_dir) as pid:
        cluster.submit("cancel", str(run_dir))
        wait(lambda: signalled(pid), "its signal")
    wait(lambda: cluster.state(run_dir) == "CANCELLED", "its cancellation")
    assert events(run_dir, "stopped")[-1]["reason"] == "SIGTERM"
    assert not events(run_dir, "requeued") and not cluster.ask("squeue", "-h")
    assert "job" in cluster.submit("resume", str(run_dir))
    wait(lambda: completed(cluster, run_dir), "its end")
    torture.same(run_dir, peaceful)


@pytest.mark.long
def test_a_time_limit_is_a_pause(cluster: Cluster, peaceful: Path, tmp_path: Path) -> None:
    """Limit one minute, told 40 s before: several lives, none of them counted as a death."""
    run_dir = tmp_path / "run"
    cluster.submit("--time", "1", "--signal-seconds", "40", *words(run_dir))
    wait(lambda: events(run_dir, "started", "requeued"), "its start")
    if not events(run_dir, "started"):  # Slurm may tell half a minute early: before Python listens
        cluster.let_go(run_dir)
        wait(lambda: events(run_dir, "started"), "its start")
    with held(run_dir, 0) as pid:
        wait(lambda: signalled(pid), "its signal")
    wait(lambda: events(run_dir, "stopped"), "its stop")
    wait(lambda: events(run_dir)[-1]["event"] == "requeued", "its requeue")
    assert events(run_dir, "requeued")[-1]["cause"] == "time limit"
    job = cluster.states(run_dir)[0]["job"]
    cluster.let_go(run_dir)
    cluster.ask("scontrol", "update", f"jobid={job}", "TimeLimit=30")
    wait(lambda: completed(cluster, run_dir), "its end")
    torture.same(run_dir, peaceful)
    born = events(run_dir, "started")[0]["time"]
    assert not [each for each in events(run_dir, "died") if each["time"] > born]


@pytest.mark.long
def test_a_plain_script_is_the_twin(cluster: Cluster, peaceful: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    command = cluster.submit("--prepare", "--nodes", "1", *words(run_dir)).splitlines()[-1]
    assert command.startswith("sbatch --nodes=1") and sys.executable in command
    job = cluster.ask("bash", "-c", command).split()[-1]
    wait(lambda: (run_dir / "DONE").exists(), "its end")
    wait(lambda: not cluster.ask("squeue", "-h"), "an empty queue")
    assert "JobState=COMPLETED" in cluster.ask("scontrol", "show", "job", job)
    torture.same(run_dir, peaceful)


@pytest.mark.long
def test_a_preemption_by_sigterm_alone(peaceful: Path, tmp_path: Path) -> None:
    cluster = up(tmp_path / "cluster", "--grace", "20", "--no-user-signal")
    try:
        run_dir = tmp_path / "run"
        cluster.submit("--nodes", "1", *words(run_dir))
        with held(run_dir) as pid:
            cluster.ask("sbatch", *EVERYTHING, "sleep 1")
            wait(lambda: signalled(pid), "its signal")
        wait(lambda: events(run_dir, "requeued"), "its requeue")
        assert events(run_dir, "stopped")[0]["reason"] == "SIGTERM"
        assert events(run_dir, "requeued")[0]["cause"] == "preempted"
        cluster.let_go(run_dir)
        wait(lambda: completed(cluster, run_dir), "its end")
        torture.same(run_dir, peaceful)
    finally:
        cluster.devcluster("down")
    wait(lambda: not cluster.orphans(), "its last process")  # killed, and gone in a moment
