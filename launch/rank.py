"""What each rank of a job does. It is given the run directory, and nothing else: the configuration
is the frozen one, and the state is what the newest whole checkpoint has.

    python -m launch.rank RUN_DIR…    under srun or torchrun, or as one process

Of several run directories, those of a job array, the task's is taken.
"""

import fcntl
import os
import random
import signal
import socket
import struct
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from daas_dist import cli, config
from daas_dist.distributed.faults import PEER_LOST, PeerLost
from daas_dist.documents.run import Rendezvous, rendezvous
from daas_dist.documents.whole import Document
from daas_dist.runs import stopping
from daas_dist.runs.lock import Lock, Occupied
from daas_dist.runs.log import write_text
from daas_dist.system import slurm
from daas_dist.system.slurm import SlurmError
from launch.attempt import NO_KILL, own

CONFIG = "config.yaml"
TRIES = 4
"""Of a rank that asks Slurm to requeue its job: it may be gone, or busy, for some seconds."""
PORTS = range(15_000, 32_000)
"""Below Linux' ephemeral range: no outgoing connection takes one."""


@dataclass(frozen=True)
class Rank:
    """What submitit calls on every rank."""

    run_dir: str

    def __call__(self) -> None:
        status = work(Path(self.run_dir))
        if status:
            sys.exit(status)

    def checkpoint(self) -> "object":
        """Return the same again, for a signal that comes before `work` listens."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def work(run_dir: Path) -> int:
    """Run it to the end or until it is stopped. The exit status of cli.py."""
    if (run_dir / "DONE").exists():
        return 0
    # From now on a signal waits until the run listens (stopping.Stop), and is not lost.
    signal.pthread_sigmask(signal.SIG_BLOCK, stopping.SIGNALS)

    def task() -> None:
        settings = config.load_frozen(run_dir / CONFIG)
        join(run_dir, 60 * settings.patience_minutes)
        cli.run(settings)

    status, why = cli.attempt("run", task)
    # Told to stop before it began: no fault of its own.
    refused = status == cli.WRONG and (run_dir / stopping.FILE).exists()
    if status in (cli.FAILED, cli.WRONG) and why and not refused:
        # A full disk is what it may be about, and the run may be another job's by now.
        with suppress(OSError, Occupied), Lock(run_dir):
            if not (run_dir / "DONE").exists() and not (run_dir / "FAILED").exists():
                write_text(run_dir / "FAILED", f"{why}\n")
    if status == PEER_LOST and NO_KILL in os.environ:
        come_back()
    return 0 if (run_dir / "DONE").exists() else status


def come_back() -> None:
    """Put a job back into the queue that lost the node of its script, which would do it else."""
    identifier = slurm.job_id()
    for attempt in range(TRIES):
        with suppress(SlurmError):  # another rank was faster, or Slurm is busy with the loss itself
            job = None if identifier is None else slurm.job(identifier)
            if job is not None and job.batch_host and not slurm.answers(job.batch_host):
                slurm.requeue(job.id)
            return
        time.sleep(2**attempt)


# --- Who is where --------------------------------------------------------------------------------


def join(run_dir: Path, patience: float) -> None:
    """Give the ranks that srun started what torchrun gives its own: RANK, MASTER_ADDR, …

    Rank 0 chooses a free port, another after each restart, and writes its address to the run
    directory, which all nodes see. PeerLost where it does not come in so many seconds.
    """
    world = int(_of_step("NUM_TASKS", "NTASKS") or 1)
    if "RANK" in os.environ or world == 1:
        return
    rank, nodes = int(os.environ["SLURM_PROCID"]), int(_of_step("NUM_NODES", "NNODES") or 1)
    start = "-".join(
        [_job(), *(os.environ.get(f"SLURM_{name}", "0") for name in ("RESTART_COUNT", "STEP_ID"))]
    )
    folder, meeting = run_dir / "rendezvous", rendezvous(start)
    if rank == 0:
        folder.mkdir(exist_ok=True)
        for old in folder.glob(f"{_job()}-*.json"):  # others may be another job's
            old.unlink(missing_ok=True)
        address = own_address(nodes)
        meeting.write(folder, Rendezvous(address, free_port(address)))
    told = _wait_for(meeting, folder, rank, patience)
    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": str(world),
        "LOCAL_RANK": os.environ["SLURM_LOCALID"],
        "LOCAL_WORLD_SIZE": str(world // nodes),
        "MASTER_ADDR": told.address,
        "MASTER_PORT": str(told.port),
    }
    _choose_interface(told.address)


def _of_step(name: str, of_job: str) -> str | None:
    """Return what Slurm says of these ranks; of a job that lost a node it says how many it had."""
    return os.environ.get(f"SLURM_STEP_{name}", os.environ.get(f"SLURM_{of_job}"))


def _job() -> str:
    return os.environ.get("SLURM_JOB_ID", "0")


def own_address(nodes: int) -> str:
    """This host's address on the way to the job's other nodes, which need to resolve no name."""
    if nodes == 1:
        return "127.0.0.1"
    try:
        names = slurm.host_names(_of_step("NODELIST", "JOB_NODELIST") or "")
        other = next(name for name in names if name != os.environ.get("SLURMD_NODENAME"))
        return source_address(slurm.node_address(other))
    except (SlurmError, OSError, KeyError, StopIteration):
        return source_address("192.0.2.1")  # of no host (RFC 5737): the way of the default route


def source_address(peer: str) -> str:
    """Return which of this host's addresses the kernel would reach a peer from. Nothing is sent."""
    family, _, _, _, target = socket.getaddrinfo(peer, 9, socket.AF_INET, socket.SOCK_DGRAM)[0]
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(target)
        return str(probe.getsockname()[0])


def free_port(address: str) -> int:
    """A port that nobody has; where to begin is random, so that jobs do not meet."""
    candidates = list(PORTS)
    random.SystemRandom().shuffle(candidates)  # no result depends on it
    for port in candidates:
        try:
            with socket.create_server((address, port)):
                return port
        except OSError:
            continue
    raise OSError(f"no free port from {PORTS[0]} to {PORTS[-1]} on {address}")


def _wait_for(
    meeting: Document[Rendezvous], folder: Path, rank: int, patience: float
) -> Rendezvous:
    until = time.monotonic() + patience
    while time.monotonic() < until:
        told = meeting.read(folder)
        if told is not None:
            return told
        time.sleep(0.1)
    raise PeerLost(
        f"rank {rank} on {os.uname().nodename}: rank 0 wrote no {folder / meeting.file} in "
        f"{patience:g} s (patience_minutes); is the run directory on a disk that all nodes share?"
    )


def _choose_interface(master: str) -> None:
    """Gloo listens where the host's own name leads, and on loopback where it leads nowhere."""
    try:
        resolved = socket.gethostbyname(socket.gethostname())
    except OSError:
        resolved = "127.0.0.1"
    if resolved.startswith("127.") and "GLOO_SOCKET_IFNAME" not in os.environ:
        name = interface_of(source_address(master))
        if name is not None:
            os.environ["GLOO_SOCKET_IFNAME"] = name


def interface_of(address: str) -> str | None:
    """The network interface that has an IPv4 address."""
    siocgifaddr = 0x8915
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            try:
                answer = fcntl.ioctl(probe.fileno(), siocgifaddr, request)
            except OSError:
                continue  # it has none
            if socket.inet_ntoa(answer[20:24]) == address:
                return name
    return None


if __name__ == "__main__":
    sys.exit(work(own(sys.argv[1:])))
