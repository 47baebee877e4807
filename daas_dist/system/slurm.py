"""What Slurm says of a job and of itself, by its own commands. Needs no sacct.

Times are seconds since 1970, as elsewhere; Slurm's own are local.
"""

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

SECONDS = 30
"""How long one of Slurm's commands may take; a controller that is busy answers late."""
TRIES = 3
SLURMD_PORT = 6818
"""Slurm's default."""
ANSWERS = 5.0
"""Seconds in which a node that has power takes a connection."""


class SlurmError(RuntimeError):
    """A command of Slurm's that failed, and what it said."""


@dataclass(frozen=True)
class JobState:
    """A job as the controller knows it."""

    id: str
    state: str
    """PENDING, RUNNING, COMPLETING, …"""
    reason: str
    """Why it waits; "" if it does not."""
    restarts: int
    preempted: bool
    """Whether its present end is a preemption's."""
    limit: float | None
    """Seconds that it may run; None without a limit."""
    ran: float
    batch_host: str
    """The node of its script; "" where it has none yet."""

    @property
    def left(self) -> float:
        """Seconds of its time limit."""
        return float("inf") if self.limit is None else self.limit - self.ran


def available() -> bool:
    return shutil.which("sbatch") is not None


def job_id() -> str | None:
    """The job that this process belongs to, as Slurm's commands want it."""
    array, task = (os.environ.get(f"SLURM_ARRAY_{name}_ID") for name in ("JOB", "TASK"))
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def job(identifier: str) -> JobState | None:
    """None if the controller has forgotten it, or never knew it. SlurmError if it cannot be asked.

    Of an array the task of that number alone.
    """
    try:
        text = _ask("scontrol", "show", "job", "-o", identifier)
    except SlurmError as error:
        if "Invalid job id" in str(error):
            return None
        raise
    return parse_job(identifier, text)


def parse_job(identifier: str, line: str) -> JobState:
    """A line of `scontrol show job -o`."""
    fields = dict(re.findall(r"(\S+?)=(\S*)", line))
    reason = fields.get("Reason", "")
    return JobState(
        id=identifier,
        state=fields["JobState"],
        reason="" if reason == "None" else reason,
        restarts=int(fields.get("Restarts", 0)),
        preempted=_time(fields.get("PreemptTime", "")) is not None,
        limit=duration(fields.get("TimeLimit", "")),
        ran=duration(fields.get("RunTime", "")) or 0.0,
        batch_host=fields.get("BatchHost", ""),
    )


@dataclass(frozen=True)
class Queued:
    """A job that is in the queue, waiting or running."""

    state: str
    reason: str
    """Why it waits, or the nodes that it runs on."""
    starts: str
    """When it is expected to start, or did; N/A if nobody knows."""
    left: str
    """Of its time limit."""


def queue() -> dict[str, Queued]:
    """This user's jobs in the queue, the tasks of arrays one by one, by id. SlurmError."""
    lines = _ask("squeue", "--me", "-h", "-r", "-o", "%i|%T|%R|%S|%L").splitlines()
    rows = (line.split("|") for line in lines)
    return {row[0]: Queued(row[1], row[2].strip("()"), row[3], row[4]) for row in rows}


def settings() -> dict[str, str]:
    """`scontrol show config` by key."""
    lines = _ask("scontrol", "show", "config").splitlines()
    return {k.strip(): v.strip() for k, _, v in (line.partition("=") for line in lines) if v}


def partition(name: str | None) -> dict[str, str]:
    """`scontrol show partition` by key; of the default one if none is named. {} if it has none."""
    lines = _ask("scontrol", "show", "partition", "-o", *([name] if name else [])).splitlines()
    found = [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in lines]
    return next((each for each in found if name or each.get("Default") == "YES"), {})


def requeue(identifier: str) -> None:
    """Put a job back into the queue; Slurm ends what is left of it. SlurmError if it will not."""
    for left in reversed(range(TRIES)):
        try:
            _ask("scontrol", "requeue", identifier)
            return
        except SlurmError as error:
            if "pending" in str(error):  # somebody was faster
                return
            if not left:
                raise
            time.sleep(2)


def cancel(identifiers: Sequence[str]) -> None:
    """SIGTERM to a running job, which then has KillWait to save; a waiting one is taken away."""
    _ask("scancel", *identifiers)


def node_address(name: str) -> str:
    """Return how the controller reaches a node: an address, or a name that resolves somewhere."""
    return _node(name).get("NodeAddr", name)


def answers(name: str) -> bool:
    """Ask a node itself, as the controller may need minutes to see that it is lost. SlurmError."""
    node = _node(name)
    place = node.get("NodeAddr", name), int(node.get("Port", SLURMD_PORT))
    try:
        socket.create_connection(place, timeout=ANSWERS).close()
    except OSError:
        return False
    return True


def _node(name: str) -> dict[str, str]:
    return dict(re.findall(r"(\S+?)=(\S*)", _ask("scontrol", "show", "node", "-o", name)))


def host_names(node_list: str) -> list[str]:
    """n[1-3] -> n1, n2, n3."""
    return _ask("scontrol", "show", "hostnames", node_list).split()


def _ask(*command: str) -> str:
    try:
        done = subprocess.run(
            command,
            encoding="utf-8",
            errors="replace",
            capture_output=True,
            timeout=SECONDS,
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError as error:
        raise SlurmError(f"{command[0]} is not on PATH here") from error
    except subprocess.TimeoutExpired as error:
        raise SlurmError(f"{command[0]} did not answer in {SECONDS} s") from error
    if done.returncode:
        raise SlurmError(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def _time(text: str) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None  # Unknown, None, N/A


def duration(text: str) -> float | None:
    """[D-]HH:MM:SS in seconds; None for UNLIMITED and the like."""
    found = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d+):(\d+)", text)
    if found is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return float(((24 * days + hours) * 60 + minutes) * 60 + seconds)
