"""How the ranks of a run find each other: from the environment that a launcher gives each of them.

What is wrong with it, and who does not come, each rank says in one line within its patience.
"""

import os
import socket
import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from threading import Thread

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from daas_dist.distributed.faults import NotConnected, PeerLost, waiting
from daas_dist.distributed.mesh import Mesh

LOCAL_RANKS = ("SLURM_LOCALID", "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "PMI_LOCAL_RANK")
"""What other launchers call LOCAL_RANK."""
GRACE = 5.0
"""Seconds after its own limit in which torch says who did not come."""


def connect(
    device: str, patience: timedelta | None = None, arrival: timedelta | None = None
) -> Mesh:
    """Connect all ranks of this run, along arch; return this one's place: alone, or one of those
    that torchrun or whoever sets its variables has started.

    patience: how long a rank waits for another before it fails; None is torch's own limit.
    arrival: the same for the first meeting. NotConnected where a variable is missing or wrong, or
    a port is taken; PeerLost where another does not come.
    """
    told = _told()
    if told is None:
        return Mesh()
    rank, world, local_rank = told
    backend = "nccl" if device == "cuda" else "gloo"
    if device == "cuda":
        # A cluster may show every rank a GPU of its own, and no other.
        local_rank %= torch.cuda.device_count()
        torch.cuda.set_device(local_rank)
    store = _meet(rank, arrival or patience or timedelta(minutes=30))
    with waiting(rank, "connecting"):
        dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=patience)
    return Mesh(rank, world, local_rank)


def _told() -> tuple[int, int, int] | None:
    """(rank, ranks, rank on this host) by the environment; None for a process alone."""
    if "RANK" not in os.environ:
        _check_alone()
        return None
    world, rank = _number("WORLD_SIZE", 1), _number("RANK", 0)
    if rank >= world:
        raise NotConnected(f"RANK={rank} is not possible: expected below WORLD_SIZE={world}")
    local = _number("LOCAL_RANK", 0, _local_rank(world))
    here = _number("LOCAL_WORLD_SIZE", 1, world)
    if torch.cuda.is_available() and 1 < torch.cuda.device_count() < here:
        raise NotConnected(
            f"{here} ranks on this host and {torch.cuda.device_count()} GPUs: start one rank a GPU"
        )
    if not os.environ.get("MASTER_ADDR"):
        raise NotConnected("RANK without MASTER_ADDR: set it to rank 0's host on every rank")
    if not 0 < _number("MASTER_PORT", 0) < 2**16:
        raise NotConnected(f"MASTER_PORT={os.environ['MASTER_PORT']} is no port: 1 to 65535")
    return rank, world, local


def _check_alone() -> None:
    world = os.environ.get("WORLD_SIZE", "1")
    if world not in ("", "1"):
        raise NotConnected(f"WORLD_SIZE={world} without RANK: set RANK, or unset WORLD_SIZE")
    tasks = os.environ.get("SLURM_STEP_NUM_TASKS", "1")
    if tasks != "1" and "SLURM_PROCID" in os.environ:
        raise NotConnected(
            f"srun started {tasks} processes, which know nothing of each other: submit by "
            "launch/submit.py, or srun … python -m launch.rank RUN_DIR, as slurm/run.sbatch does"
        )


def _number(name: str, least: int, default: int | None = None) -> int:
    """A variable of the environment that is a whole number."""
    text = os.environ.get(name)
    if text is None and default is not None:
        return default
    if text is None or not text.isdecimal() or int(text) < least:
        given = "is missing" if text is None else f"={text} is not possible"
        joint = " " if text is None else ""
        raise NotConnected(f"{name}{joint}{given}: expected a whole number of at least {least}")
    return int(text)


def _local_rank(world: int) -> int | None:
    """A rank's number on its host where LOCAL_RANK does not say it: whoever starts one process in
    each container (Kubernetes' PyTorchJob) leaves it out. None where it would be a guess."""
    for name in LOCAL_RANKS:
        if os.environ.get(name, "").isdecimal():
            return int(os.environ[name])
    one_gpu = not torch.cuda.is_available() or torch.cuda.device_count() == 1
    return 0 if world == 1 or one_gpu else None


def _meet(rank: int, arrival: timedelta) -> Store:
    """Return where the ranks find each other, once all are there."""
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    until = time.monotonic() + arrival.total_seconds()
    while not _resolves(host):  # a container's name may be known only when it runs
        _wait(until, NotConnected(f"rank {rank}: MASTER_ADDR={host} does not resolve here"))
    late = (
        f"rank {rank}: not all ranks came to {host}:{port} within {arrival.total_seconds():g} s "
        "(patience_minutes), or something else listens there"
    )
    agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if rank == 0 and not agent:
        _check_free(rank, port)
    else:
        # By ourselves: torch's own attempts would tell each of theirs, with its stack.
        while not _listens(host, port):
            _wait(until, PeerLost(late))
    found = _bounded(lambda: next(rendezvous("env://", timeout=arrival))[0], arrival)
    if isinstance(found, Exception):
        said = str(found).partition("\n")[0][:200]
        raise PeerLost(f"{late} ({said})") from found
    store = found and _generation(found, rank, until)
    if store is None:
        raise PeerLost(late)
    return store


def _generation(store: Store, rank: int, until: float) -> Store | None:
    """The part of a store that these ranks have to themselves; None where not all come in time.

    An agent of torchrun keeps its store from one start of the ranks to the next, and what the
    ranks before have written. So rank 0 thinks of a name, and tells it to each rank by a name that
    this one has thought of.
    """
    own = uuid.uuid4().hex
    others = set(range(1, int(os.environ["WORLD_SIZE"]))) if rank == 0 else {rank}
    store.set(f"daas/want/{rank}", own)
    while others:
        if time.monotonic() > until:
            return None
        time.sleep(0.02)
        if rank:
            if store.check([f"daas/told/{own}"]):
                own = store.get(f"daas/told/{own}").decode()
                store.set(f"daas/heard/{own}/{rank}", "")
                break
            continue
        for other in list(others):
            if store.check([f"daas/heard/{own}/{other}"]):
                others.remove(other)
            elif store.check([f"daas/want/{other}"]):
                store.set(f"daas/told/{store.get(f'daas/want/{other}').decode()}", own)
    return PrefixStore(f"daas/{own}", store)


def _bounded(task: Callable[[], Store], limit: timedelta) -> Store | Exception | None:
    """Return what a task returns or raises, None if it does neither in time: torch waits for ever
    for a server that takes its connection and says nothing."""
    done: list[Store | Exception] = []

    def run() -> None:
        try:
            done.append(task())
        except (RuntimeError, ValueError) as error:
            done.append(error)

    thread = Thread(target=run, name="rendezvous", daemon=True)
    thread.start()
    thread.join(limit.total_seconds() + GRACE)
    return done[0] if done else None


def _wait(until: float, otherwise: Exception) -> None:
    if time.monotonic() > until:
        raise otherwise
    time.sleep(0.1)


def _check_free(rank: int, port: int) -> None:
    try:
        socket.create_server(("", port)).close()
    except OSError as error:
        raise NotConnected(
            f"rank {rank}: MASTER_PORT={port} cannot be listened on ({error.strerror}); set "
            "another on every rank"
        ) from error


def _resolves(host: str) -> bool:
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        return False
    return True


def _listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError:
        return False
    return True
