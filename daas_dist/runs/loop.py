"""The loop of a run: work in turns, told, saved, and stopped between two of them."""

import sys
from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol

from daas_dist.distributed.faults import Watchdog
from daas_dist.distributed.mesh import Mesh
from daas_dist.documents import escaping
from daas_dist.runs import checkpoint
from daas_dist.runs.job import Job
from daas_dist.runs.log import RunLog

Beat = Callable[[], None]
"""Says that something was done, as a turn may take longer than a watchdog waits."""
Asked = Callable[[], str]
"""Why this run is to stop, "" if nothing asks it to; all ranks call it together."""


class Work(Protocol):
    """What is done in turns: a step of a search, an epoch of a training."""

    @property
    def step(self) -> int:
        """The number of the next checkpoint."""
        ...

    @property
    def done(self) -> bool: ...

    @property
    def due(self) -> bool:
        """Whether a checkpoint is wanted after this turn."""
        ...

    @property
    def warnings(self) -> Sequence[str]:
        """All so far."""
        ...

    def turn(self, beat: Beat, asked: Asked) -> None:
        """Make a turn, or what of it there is time for once somebody has asked to stop."""
        ...

    def tell(self, log: RunLog | None) -> None:
        """Log what the turn gave. All ranks call it; log: that of the one that writes."""
        ...

    def state(self) -> dict[str, Any]: ...


def take_turns(
    work: Work,
    job: Job,
    mesh: Mesh,
    log: RunLog | None,
    *,
    milestones: Collection[int] = (),
) -> str:
    """Do all of the work, or until somebody asks to stop; returns why it stopped, "" if it is done.

    mesh: the ranks that do it together. log: its log, on the one rank that writes; the checkpoints
    are beside it. milestones: as checkpoint.save has them.
    """

    def asked() -> str:
        return job.asked(mesh)

    warned = 0
    with Watchdog(job.mesh.rank, job.patience, job.run_dir) as watchdog:
        while not work.done:
            work.turn(watchdog.beat, asked)
            watchdog.beat()
            job.check_ours()
            warned = _warn(work.warnings, warned, log)
            work.tell(log)
            reason = asked()
            if log is not None and (work.due or work.done or reason):
                folder = log.run_dir / "checkpoints"
                checkpoint.save(folder, work.step, work.state(), milestones=milestones)
            if reason and not work.done:
                return reason
    return ""


def _warn(warnings: Sequence[str], warned: int, log: RunLog | None) -> int:
    """Tell those after the first `warned`; returns how many there are by now."""
    for message in warnings[warned:]:
        print(escaping.told(message), file=sys.stderr)
        if log is not None:
            log.event("warning", message=message)
    return len(warnings)
