"""The ranks that srun starts find each other; a signal that comes early is not lost."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest
from whole_runs import ENVIRONMENT

from daas_dist import cli
from daas_dist import config as configuration
from daas_dist.distributed.faults import PeerLost
from daas_dist.runs.lock import Lock, Occupied
from daas_dist.system import slurm
from launch import attempt, rank

MEET = """
import os, sys
from pathlib import Path
from launch import rank
from daas_dist.distributed.connect import connect
import torch
rank.join(Path(sys.argv[1]), 60)
mesh = connect("cpu")
print(mesh.rank, mesh.world, mesh.local_rank, int(mesh.total(torch.tensor(mesh.rank + 1.0), "x")),
      os.environ["LOCAL_WORLD_SIZE"], os.environ["MASTER_PORT"])
mesh.close()
"""


def ranks(run_dir: Path, restart: int) -> list[list[str]]:
    """Three tasks on one node, as srun would start them; what each prints."""
    started = []
    for number in range(3):
        slurm = {
            "SLURM_NTASKS": "3", "SLURM_PROCID": str(number), "SLURM_LOCALID": str(number),
            "SLURM_NNODES": "1", "SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": str(restart),
        }  # fmt: skip
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", MEET, str(run_dir)], env=ENVIRONMENT | slurm, text=True,
                stdout=subprocess.PIPE,
            )
        )  # fmt: skip
    return [process.communicate(timeout=120)[0].split() for process in started]


def test_ranks_meet_by_a_file_and_after_a_restart_at_another(tmp_path: Path) -> None:
    first, second = ranks(tmp_path, 0), ranks(tmp_path, 1)
    assert [line[:5] for line in first] == [[str(r), "3", str(r), "6", "3"] for r in range(3)]
    assert second[0][:5] == first[0][:5] and second[0][5] != first[0][5]
    [file] = (tmp_path / "rendezvous").glob("*.json")
    assert file.name == "7-1-0.json" and json.loads(file.read_text())["address"] == "127.0.0.1"


def test_one_task_and_torchrun_s_ranks_need_none_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "1")
    rank.join(tmp_path, 0.3)
    monkeypatch.setenv("SLURM_NTASKS", "2")
    monkeypatch.setenv("RANK", "0")
    rank.join(tmp_path, 0.3)
    assert not (tmp_path / "rendezvous").exists()


def test_where_rank_0_does_not_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("SLURM_NTASKS", "2"), ("SLURM_PROCID", "1"), ("SLURM_LOCALID", "0")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(PeerLost, match="rank 1 on .*on a disk that all nodes share"):
        rank.join(tmp_path, 0.3)


def test_a_run_that_shall_stop_before_it_begins_has_not_failed(tmp_path: Path) -> None:
    config = configuration.load(["stage=search_fashion", "preset=tiny", f"run_dir={tmp_path}"])
    (tmp_path / rank.CONFIG).write_text(configuration.to_yaml(config))
    held_back = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    (tmp_path / "STOP").touch()
    try:
        assert rank.work(tmp_path) == cli.WRONG
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held_back)
    assert not (tmp_path / "FAILED").exists()


def test_a_run_that_another_job_has_is_left_alone(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """By the ranks and by what is around them, in whatever order they come."""
    config = configuration.load(["stage=search_fashion", "preset=tiny", f"run_dir={tmp_path}"])
    (tmp_path / rank.CONFIG).write_text(configuration.to_yaml(config))
    (tmp_path / "events.jsonl").write_text('{"time": 1, "event": "started"}\n{"time": 2, "ev')
    held_back = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with Lock(tmp_path):
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        try:
            assert rank.work(tmp_path) == cli.WRONG
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, held_back)
        assert attempt.main(["before", str(tmp_path)]) == attempt.REFUSED
        assert attempt.main(["after", "2", str(tmp_path)]) == attempt.REFUSED
        assert attempt.after(tmp_path, 2) == "refused"
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert capfd.readouterr().err.count(f"{tmp_path} is in use by process {os.getpid()}") == 4
    assert attempt.main(["before", str(tmp_path)]) == 0


def test_the_ranks_of_the_same_job_may_take_a_while_to_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    with ExitStack() as ranks:
        ranks.enter_context(Lock(tmp_path))
        threading.Timer(1.0, ranks.close).start()
        with attempt.alone(tmp_path):
            pass
    monkeypatch.setattr(attempt, "OWN_RANKS", 0.2)
    with Lock(tmp_path), pytest.raises(Occupied), attempt.alone(tmp_path):
        pass


def test_the_address_and_the_interface_of_a_route() -> None:
    assert rank.source_address("127.0.0.1") == "127.0.0.1"
    assert rank.interface_of("127.0.0.1") == "lo"
    assert rank.interface_of("203.0.113.9") is None


def test_a_port_that_is_taken_is_not_given() -> None:
    port = rank.free_port("127.0.0.1")
    assert port in rank.PORTS
    with socket.create_server(("127.0.0.1", port)):
        taken = range(port, port + 1)
        old, rank.PORTS = rank.PORTS, taken
        try:
            with pytest.raises(OSError, match="no free port"):
                rank.free_port("127.0.0.1")
        finally:
            rank.PORTS = old


EARLY = """
import os, signal, sys, time
from daas_dist.runs import stopping
signal.pthread_sigmask(signal.SIG_BLOCK, stopping.SIGNALS)
os.kill(os.getpid(), int(sys.argv[1]))
time.sleep(0.1)
with stopping.Stop() as stop:
    print(stopping.REASONS[stop.asked()])
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_a_signal_before_the_run_listens_is_kept(number: signal.Signals) -> None:
    command = [sys.executable, "-c", EARLY, str(int(number))]
    done = subprocess.run(command, env=os.environ, text=True, capture_output=True)
    assert done.stdout.strip() == number.name


@pytest.mark.parametrize("silent", [0, 1, 3])
def test_a_rank_that_is_left_asks_again_where_slurm_is_busy(
    silent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slurm may not answer while it deals with the node that is lost: nobody else requeues."""
    asked: list[str] = []

    def job(identifier: str) -> object:
        asked.append("job")
        if len(asked) <= silent:
            raise slurm.SlurmError("scontrol did not answer")
        return SimpleNamespace(id=identifier, batch_host="n1")

    monkeypatch.setattr(slurm, "job_id", lambda: "7")
    monkeypatch.setattr(slurm, "job", job)
    monkeypatch.setattr(slurm, "answers", lambda name: name != "n1")
    monkeypatch.setattr(slurm, "requeue", lambda identifier: asked.append(f"requeue {identifier}"))
    monkeypatch.setattr(rank.time, "sleep", lambda seconds: None)
    rank.come_back()
    assert asked == ["job"] * (silent + 1) + ["requeue 7"]
