"""On the node, around the ranks: may the run start, and does it come back?

    python -m launch.attempt before RUN_DIR…          0: start; else a line why not
    python -m launch.attempt after STATUS RUN_DIR…    0: the run is finished

`before` prints when the job's time ends, where it does, in seconds since 1970.

Of several run directories, those of a job array, the task's is taken. Starts in a quarter of a
second, as a preempted job may have few left.

What they note they note under the run's lock: where another job is at work in the run directory
nothing is written, and its verdict is its own.

A run comes back after a preemption, at its time limit, and where ranks or a node died; not where it
was cancelled, nor where it failed by its own fault (FAILED), nor where it died LIVES times in a row
without a new checkpoint (STALLED).
"""

import os
import re
import signal
import sys
import time
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from daas_dist.documents import checked, lines
from daas_dist.documents.escaping import told
from daas_dist.documents.events import FILE as EVENTS
from daas_dist.documents.events import Event
from daas_dist.runs import stopping
from daas_dist.runs.lock import Lock, Occupied
from daas_dist.runs.log import RunLog
from daas_dist.system import slurm
from daas_dist.system.slurm import JobState, SlurmError

LIVES = 3
STEP = re.compile(r"step_(\d{1,18})")
MOST_EVENTS = 10_000
"""That are looked at: what matters are the last starts."""
REFUSED = 1
OVER = 2.0
"""Seconds left of a job that Slurm ended for its time, and not for somebody."""
AHEAD = 900.0
"""Seconds that may be left when Slurm sends the signal that announces it."""
OWN_RANKS = 90.0
"""Seconds in which ranks of the same job may still be leaving, or killed."""
STOPPED = 5
"""The job's exit status where it did not finish: whatever waits for its result does not start."""
HERE = 6
"""Of `after`: the ranks start anew on the nodes that are left (sbatch's option no-kill)."""
NO_KILL = "DAAS_NO_KILL"
"""The variable that says so in such a job."""


def before(run_dir: Path, identifier: str | None = None) -> int:
    """Note a start. 0, or a status with the reason on stderr. identifier: the Slurm job's."""
    if (run_dir / "DONE").exists():
        return 0  # its node was lost after its last word; the ranks see it too
    try:
        with alone(run_dir):
            return _before(run_dir, identifier)
    except Occupied as error:
        return _refuse(str(error))


def _before(run_dir: Path, identifier: str | None) -> int:
    log, position = RunLog(run_dir), progress(run_dir)
    if (run_dir / stopping.FILE).exists():
        log.event("cancelled", reason=f"the file {stopping.FILE}")
        return _refuse(f"{run_dir / stopping.FILE} is there; remove it to go on with this run")
    if deaths(_events(run_dir), position) >= LIVES:
        return _stall(log, position, "the last start left no word")
    job = _asked(identifier)
    log.event("attempt", position=position, **_where(job))
    if job is not None and job.left < float("inf"):
        print(int(time.time() + job.left))  # by this node's clock, as its ranks will look at it
    return 0


def after(run_dir: Path, status: int, identifier: str | None = None) -> str:
    """Return how an attempt ended: done | failed | stalled | cancelled | stopped | again | here |
    refused.

    "again" is a run that shall come back: its job was put back into Slurm's queue, or it is to the
    caller to start it. "here" is one that starts anew at once, in the same job, on the nodes that
    are left: the options for srun are printed. What happened stands in events.jsonl. "refused" is
    an attempt on a run that another job has, of which there is nothing to note.
    """
    try:
        with alone(run_dir):
            return _after(run_dir, status, identifier)
    except Occupied as error:
        _refuse(str(error))
        return "refused"


@contextmanager
def alone(run_dir: Path) -> Generator[None]:
    """The run's lock, once the ranks of this very job have let it go. Occupied by another job."""
    until, own = time.monotonic() + OWN_RANKS, os.environ.get("SLURM_JOB_ID")
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(Lock(run_dir))
                break
            except Occupied as error:
                if own is None or error.job != own or time.monotonic() > until:
                    raise
                time.sleep(0.5)
        yield


def _after(run_dir: Path, status: int, identifier: str | None) -> str:
    log, job = RunLog(run_dir), _asked(identifier)
    if (run_dir / "DONE").exists():
        return "done"
    if (run_dir / "FAILED").exists():
        return "failed"
    unwanted = (run_dir / stopping.FILE).exists()  # the ranks may have died before they saw it
    cause = "cancelled" if unwanted else why_ended(_events(run_dir), job)
    if cause in ("cancelled", "stopped"):
        log.event(cause)
        return cause
    if cause == "died":
        log.event("died", status=status)
        position = progress(run_dir)
        if deaths(_events(run_dir), position) >= LIVES:
            _stall(log, position, f"status {status}")
            return "stalled"
        nodes = _nodes_left() if identifier is not None and NO_KILL in os.environ else []
        if nodes:
            where = _where(job) | {"nodes": ",".join(nodes)}
            log.event("attempt", position=position, **where)
            print(*_step(nodes))
            return "here"
    if identifier is not None:  # also where Slurm did not answer about it
        try:
            slurm.requeue(identifier)
        except SlurmError as error:
            log.event("warning", message=f"not requeued ({error}); `submit.py resume {run_dir}`")
            return "stopped"
    log.event("requeued", cause=cause)
    return "again"


def _nodes_left() -> list[str]:
    """The nodes of this job that answer; none where that cannot be asked."""
    try:
        names = slurm.host_names(os.environ.get("SLURM_JOB_NODELIST", ""))
        with ThreadPoolExecutor(len(names) or 1) as asking:
            there = list(asking.map(slurm.answers, names))
    except SlurmError as error:
        print(told(error), file=sys.stderr)
        return []
    return [name for name, answers in zip(names, there, strict=True) if answers]


def _step(nodes: Sequence[str]) -> list[str]:
    """The options of srun for as many ranks on each node as before."""
    ranks = int(os.environ.get("SLURM_NTASKS_PER_NODE", "1"))
    return [
        f"--nodes={len(nodes)}", f"--ntasks={len(nodes) * ranks}", f"--ntasks-per-node={ranks}",
        f"--nodelist={','.join(nodes)}",
    ]  # fmt: skip


def why_ended(events: Sequence[dict[str, Any]], job: JobState | None) -> str:
    """preempted | time limit | signalled | cancelled | stopped | died.

    Slurm's own word first: it also knows of a job that was killed before it could speak.
    """
    reason = _stopped_by(events)
    if job is not None and job.preempted:
        return "preempted"
    left = float("inf") if job is None else job.left
    if reason == stopping.TIME_LIMIT or left <= OVER or (reason == "SIGUSR2" and left <= AHEAD):
        return "time limit"
    if reason == "SIGUSR2":
        return "signalled"
    if reason == stopping.OWN_TIME:
        return "stopped"
    if reason:
        return "cancelled"  # SIGTERM, SIGINT, the file STOP
    ending = job is not None and job.state in ("COMPLETING", "CANCELLED")
    return "cancelled" if ending else "died"


def deaths(events: Sequence[dict[str, Any]], position: int) -> int:
    """Return how many starts in a row died at this position. One that left no word, as its node was
    lost, counts; one that was preempted, stopped or met its limit neither counts nor ends the row.
    """
    count, ended = 0, ""
    for event in reversed(events):
        name = event["event"]
        if name == "submitted":
            break  # by a person, who thinks that it is worth a try
        if name in ("died", "cancelled", "stopped", "requeued"):
            # A death that is requeued is followed by that event: the earlier one is its cause.
            ended = name if name == "died" or not ended else ended
        elif name == "attempt":
            if event["position"] != position:
                break
            count += ended in ("", "died")
            ended = ""
    return count


def progress(run_dir: Path) -> int:
    """The steps that checkpoints hold, a search's or all trainings' together."""
    total = 0
    for folder in (run_dir, *(run_dir / "trainings").glob("*")):
        names = (STEP.fullmatch(path.name) for path in (folder / "checkpoints").glob("step_*"))
        total += max((int(found.group(1)) for found in names if found), default=0)
    return total


def _stopped_by(events: Sequence[dict[str, Any]]) -> str:
    """Why the ranks of the last attempt saved and left; "" if they did not say."""
    for event in reversed(events):
        if event["event"] == "attempt":
            return ""
        if event["event"] == "stopped" and "reason" in event:
            return str(event["reason"])
    return ""


def _stall(log: RunLog, position: int, last: str) -> int:
    log.finish(
        "STALLED",
        f"{LIVES} starts in a row died at step {position} without a new checkpoint; the last: "
        f"{last}. Its log tells why; `submit.py resume {log.run_dir}` tries again",
    )
    return _refuse((log.run_dir / "STALLED").read_text(encoding="utf-8").strip())


def _refuse(why: str) -> int:
    print(told(why), file=sys.stderr)
    return REFUSED


def _events(run_dir: Path) -> list[dict[str, Any]]:
    """The newest events that can be read: a bad line is told, and keeps no job from its start."""
    found, wrong = lines.salvaged(run_dir / EVENTS, _parsed, MOST_EVENTS)
    if wrong is not None:
        print(f"{told(wrong)}; left out here", file=sys.stderr)
    return found


def _parsed(row: dict[str, Any]) -> dict[str, Any]:
    """ValueError where it is no event, or a start without its position."""
    if Event.parse(row).event == "attempt":
        checked(int, row.get("position"), "position")
    return row


def _asked(identifier: str | None) -> JobState | None:
    """Return what Slurm says of a job; None where this is none, or Slurm cannot say."""
    if identifier is None:
        return None
    try:
        return slurm.job(identifier)
    except SlurmError as error:
        print(told(error), file=sys.stderr)
        return None


def _where(job: JobState | None) -> dict[str, Any]:
    place: dict[str, Any] = {"host": os.environ.get("SLURMD_NODENAME") or os.uname().nodename}
    if job is not None:
        place |= {"job": job.id, "nodes": os.environ.get("SLURM_JOB_NODELIST"),
                 "restart": job.restarts}  # fmt: skip
        if job.left < float("inf"):
            place["minutes"] = round(job.left / 60, 1)
    return place


def own(run_dirs: Sequence[str]) -> Path:
    """Return this task's of the run directories of a job array, or the only one."""
    task = os.environ.get("SLURM_ARRAY_TASK_ID")
    return Path(run_dirs[int(task) if task and len(run_dirs) > 1 else 0])


def main(arguments: Sequence[str]) -> int:
    identifier, first = slurm.job_id(), arguments[0] == "before"
    try:
        if first:
            return before(own(arguments[1:]), identifier)
        verdict = after(own(arguments[2:]), int(arguments[1]), identifier)
    except (ValueError, OSError) as error:  # no file to write events to: nothing can be promised
        print(told(error), file=sys.stderr)
        return REFUSED if first else STOPPED
    statuses = {"done": 0, "again": 0, "failed": 1, "stalled": 1, "refused": 1, "here": HERE}
    return statuses.get(verdict, STOPPED)


if __name__ == "__main__":
    # What is to be noted is noted, whoever is told to stop meanwhile.
    signal.pthread_sigmask(signal.SIG_BLOCK, stopping.SIGNALS)
    sys.exit(main(sys.argv[1:]))
