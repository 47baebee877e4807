"""How ranks find each other, and what each says, in time, where they do not."""

import os
import socket
import time
from collections.abc import Callable
from datetime import timedelta

import pytest
from rank_processes import forks, in_processes

from daas_dist.distributed.connect import connect
from daas_dist.distributed.faults import NotConnected, PeerLost

pytestmark = forks
ARRIVAL = timedelta(seconds=1)
TWO = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}


def said(environment: dict[str, str | None]) -> tuple[str, str, float]:
    """What a rank with this environment says: the kind of its error, its words, its seconds."""

    def task() -> tuple[str, str, float]:
        for name, value in environment.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        began = time.monotonic()
        try:
            connect("cpu", ARRIVAL, ARRIVAL).close()
        except (NotConnected, PeerLost) as error:
            return type(error).__name__, str(error), time.monotonic() - began
        return "", "", time.monotonic() - began

    return in_processes(1, task)[0]


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"WORLD_SIZE": None}, "WORLD_SIZE is missing: expected a whole number of at least 1"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE=two is not possible"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK=-1 is not possible"),
        ({"RANK": "3", "WORLD_SIZE": "3"}, "RANK=3 is not possible: expected below WORLD_SIZE=3"),
        ({"LOCAL_RANK": "first"}, "LOCAL_RANK=first is not possible"),
        ({"MASTER_ADDR": None}, "RANK without MASTER_ADDR"),
        ({"MASTER_PORT": "70000"}, "MASTER_PORT=70000 is no port"),
        ({"MASTER_PORT": None}, "MASTER_PORT is missing"),
        ({"RANK": None, "WORLD_SIZE": "2"}, "WORLD_SIZE=2 without RANK"),
        (
            {"RANK": None, "WORLD_SIZE": None, "SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "4"},
            "srun started 4 processes, which know nothing of each other",
        ),
        ({"WORLD_SIZE": "2", "MASTER_ADDR": "no.such.host.invalid"}, "does not resolve"),
    ],
)
def test_a_wrong_environment_is_told(environment: dict[str, str | None], words: str) -> None:
    kind, told, seconds = said(environment)
    assert kind == "NotConnected" and words in told and seconds < 5


def test_a_rank_that_never_comes_is_waited_for_no_longer_than_patience() -> None:
    """By rank 0, which listens; by rank 1, which finds nobody, or somebody else."""
    for rank in ("0", "1"):
        kind, told, seconds = said({**TWO, "RANK": rank})
        assert kind == "PeerLost" and f"rank {rank}: not all ranks came to 127.0.0.1:" in told
        assert 0.9 < seconds < 6
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and says nothing
        port = str(silent.getsockname()[1])
        kind, told, seconds = said({**TWO, "RANK": "1", "MASTER_PORT": port})
        assert kind == "PeerLost" and "something else listens there" in told and seconds < 20


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        kind, told, _ = said({**TWO, "MASTER_PORT": str(port)})
    assert kind == "NotConnected" and f"MASTER_PORT={port} cannot be listened on" in told


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (lambda rank: {}, 0),  # one process a container, as Kubernetes' PyTorchJob has it
        (lambda rank: {"SLURM_LOCALID": rank}, None),
        (lambda rank: {"OMPI_COMM_WORLD_LOCAL_RANK": rank}, None),
    ],
)
def test_without_a_local_rank(told: Callable[[str], dict[str, str]], expected: int | None) -> None:
    def task() -> tuple[int, int, int]:
        del os.environ["LOCAL_RANK"]
        os.environ.update(told(os.environ["RANK"]))
        mesh = connect("cpu", timedelta(seconds=60))
        own = mesh.rank, mesh.world, mesh.local_rank
        mesh.close()
        return own

    found = in_processes(2, task)
    assert found == [(rank, 2, rank if expected is None else expected) for rank in (0, 1)]
