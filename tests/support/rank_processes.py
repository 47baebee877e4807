"""Real gloo processes, for the tests of what ranks do together."""

import multiprocessing
import os
import pickle
import socket
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any

import pytest
import torch

from daas_dist.distributed.connect import connect
from daas_dist.distributed.mesh import Mesh, share_batches

FORK = multiprocessing.get_context("fork")
"""Importing torch once is enough."""

forks = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


def in_processes(world: int, task: Callable[[], Any]) -> list[Any]:
    """What task() returns in each of `world` processes, which find what torchrun would tell."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    receivers, processes = [], []
    for rank in range(world):
        receive, send = FORK.Pipe(duplex=False)
        told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
        told |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        process = FORK.Process(target=_process, args=(told, task, send))
        process.start()
        send.close()
        receivers.append(receive)
        processes.append(process)
    try:
        assert all(receive.poll(120) for receive in receivers)
        return [pickle.loads(receive.recv_bytes()) for receive in receivers]
    finally:
        for process in processes:
            process.join(5)
            process.kill()


def _process(told: dict[str, Any], task: Callable[[], Any], send: Connection) -> None:
    torch.set_num_threads(1)
    os.environ |= {name: str(value) for name, value in told.items()}
    send.send_bytes(pickle.dumps(task()))


def in_ranks(
    world: int, task: Callable[[Mesh], Any], patience: timedelta | None = None, data: int = 1
) -> list[Any]:
    """What task(mesh) returns on each of `world` connected processes, `data` of them to a batch."""

    def connected() -> Any:
        mesh = share_batches(connect("cpu", patience), data, patience)
        done = task(mesh)
        mesh.close()
        return done

    return in_processes(world, connected)
