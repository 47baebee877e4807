"""Looking after submitted runs by their directories: status, logs, cancel, resume, list.

What the directory says comes first, then squeue; sacct is not needed. A state is one of

    COMPLETED FAILED STALLED CANCELLED STOPPED    ended, by its files
    PENDING RUNNING …                             in Slurm's queue, as Slurm has it
    WAITING RUNNING                               in this machine's
    INTERRUPTED                                   neither; `resume` goes on
    DAMAGED                                       a document of it cannot be read: which, and why
"""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from daas_dist.config import ConfigError
from daas_dist.documents import lines
from daas_dist.documents.escaping import output, told, visible
from daas_dist.documents.events import FILE as EVENTS
from daas_dist.documents.events import PASSING, Event, ending, newest_first, trainings
from daas_dist.documents.files import is_there, opened
from daas_dist.documents.metrics import FILE as METRICS
from daas_dist.documents.metrics import MetricsRow, SearchRow, TrainingRow
from daas_dist.documents.redact import redacted
from daas_dist.documents.run import SubmittedJob
from daas_dist.report.markup import duration, percent
from daas_dist.report.panels import RECENT, seconds_left
from daas_dist.runs import lock, stopping
from daas_dist.system import slurm
from daas_dist.system.slurm import Queued, SlurmError
from launch import executors, rundir
from launch.local import log_of
from launch.plan import Plan
from launch.rundir import JOB, LOGS, Code

ENDINGS = {"DONE": "COMPLETED", "FAILED": "FAILED", "STALLED": "STALLED"}
COLOURS = {
    "COMPLETED": "green", "FAILED": "red", "STALLED": "red", "CANCELLED": "yellow",
    "STOPPED": "yellow", "INTERRUPTED": "magenta", "RUNNING": "blue",
    "DAMAGED": "red",
}  # fmt: skip
DAMAGED = "DAMAGED"
WRONG = 2
REFRESH = 5.0
LOG_BYTES = 4 << 20
"""Of the end of a log."""
LIVE = ("PENDING", "RUNNING", "WAITING", "COMPLETING", "CONFIGURING", "SUSPENDED", "PREEMPTED")


@dataclass(frozen=True)
class Look:
    """A run at a glance."""

    run_dir: str
    state: str
    why: str
    """Why it waits, failed or was stopped; "" if there is nothing to say."""
    job: str
    starts: int
    """How often its ranks were started."""
    done: int
    total: int
    """Steps of a search, or epochs of all trainings."""
    last: str
    """Its last line of metrics, in short."""
    seconds_left: float | None
    log: str


def look(run_dir: Path, queue: Mapping[str, Queued] | None) -> Look:
    """queue: Slurm's, None where it cannot be asked. A run with a damaged document is DAMAGED."""
    try:
        return _look(run_dir, queue)
    except ValueError as error:
        return Look(str(run_dir), DAMAGED, told(error), "", 0, 0, 0, "", None, "")


def _look(run_dir: Path, queue: Mapping[str, Queued] | None) -> Look:
    job = rundir.submitted(run_dir)
    state, why = _state(run_dir, job, queue)
    rows, done, total = _progress(run_dir)
    left = seconds_left(rows) if state == "RUNNING" else None
    events = run_dir / EVENTS
    return Look(
        run_dir=str(run_dir),
        state=state,
        why=redacted(why),
        job=job.id or job.cluster,
        starts=lines.count(events, lambda row: row.get("event") == "attempt", b'"attempt"'),
        done=done,
        total=total,
        last=_in_short(rows[-1]) if rows else "",
        seconds_left=left,
        log=str(_log(run_dir, job)),
    )


def _state(
    run_dir: Path,
    job: SubmittedJob,
    queue: Mapping[str, Queued] | None,
) -> tuple[str, str]:
    if job.cluster == "slurm":
        queued = (queue or {}).get(job.id)
        if queued is not None and not (run_dir / "DONE").exists():
            return queued.state, _waits(queued)
    ended = ending(run_dir)
    if ended is not None:
        return ENDINGS[ended[0]], ended[1]
    moves = (event for event in newest_first(run_dir) if event.event not in PASSING)
    last = next(moves, Event(0.0, ""))
    if job.cluster != "slurm" and lock.held(Path(job.plan) / LOGS):
        if lock.held(run_dir):
            return "RUNNING", ""
        if last.event not in ("cancelled", "stopped"):
            return "WAITING", "for the runs before it"
    asked = job.cluster != "slurm" or queue is not None  # else it may still be saving
    if last.event == "cancelled" or (asked and (run_dir / stopping.FILE).exists()):
        return "CANCELLED", str(last.details.get("reason", "`resume` goes on"))
    if last.event == "stopped":
        asked_for = "as stop_after_minutes asked; `resume` goes on"
        return "STOPPED", str(last.details.get("reason", asked_for))
    if job.cluster == "slurm" and queue is None:
        return "UNKNOWN", "squeue cannot be asked here"
    unmet = [Path(parent).name for parent in job.after if not (Path(parent) / "DONE").exists()]
    if unmet and not any(event.event == "attempt" for event in newest_first(run_dir)):
        return "CANCELLED", f"{unmet[0]} did not finish"
    return "INTERRUPTED", rundir.code_differs(job) or "in no queue; `resume` goes on"


def _waits(queued: Queued) -> str:
    """Why a job waits and until when, or how much of its time is left."""
    if queued.state == "PENDING":
        day, _, hour = queued.starts.partition("T")
        when = f", expected {day[5:]} {hour[:5]}" if hour else ""
        return f"{queued.reason}{when}"
    return f"on {queued.reason}, {queued.left} of its time left"


def _progress(run_dir: Path) -> tuple[Sequence[MetricsRow], int, int]:
    """(the newest rows of the file written last, done, of how many)."""
    parse: dict[Path, Callable[[lines.Row], MetricsRow]] = {run_dir / METRICS: SearchRow.parse}
    parse |= {folder / METRICS: TrainingRow.parse for folder in trainings(run_dir)}
    newest = {
        file: row
        for file, each in parse.items()
        if (row := next(iter(lines.backward(file, each)), None)) is not None
    }
    if not newest:
        return [], 0, 0
    file = max(newest, key=lambda file: newest[file].time)
    rows, _ = lines.last(file, parse[file], RECENT + 1)
    places = [row.position for row in newest.values()]
    return rows, sum(done for done, _ in places), sum(total for _, total in places)


def _in_short(row: MetricsRow) -> str:
    if isinstance(row, SearchRow):
        return f"{row.phase}, val {percent(row.val_accuracy, 1)}%"
    return f"epoch {row.epoch}, test {percent(row.test_accuracy, 1)}%"


def _log(run_dir: Path, job: SubmittedJob) -> Path:
    if job.cluster == "slurm":
        return Path(job.plan) / LOGS / f"{job.id}_0_log.out"
    return log_of(job, run_dir)


# --- The commands --------------------------------------------------------------------------------


def looks(paths: Sequence[Path]) -> list[Look]:
    queue: Mapping[str, Queued] | None = None
    if slurm.available():
        try:
            queue = slurm.queue()
        except SlurmError:
            queue = None
    return [look(run_dir, queue) for run_dir in rundir.runs_in(paths)]


def status(paths: Sequence[Path], as_json: bool, follow: bool) -> int:
    """Print the looks, as JSON or as a table, which follows on a terminal if asked to. 0, or WRONG
    where one is damaged."""
    console, found = Console(), looks(paths)
    if as_json:
        print(json.dumps([asdict(each) for each in found], indent=2))
    elif not follow or not console.is_terminal:
        console.print(table(found))
    else:
        with Live(table(found), console=console, auto_refresh=False) as live:
            while any(each.state in LIVE for each in found):
                time.sleep(REFRESH)
                found = looks(paths)
                live.update(table(found), refresh=True)
    damaged = [each.why for each in found if each.state == DAMAGED]
    for why in damaged:
        print(f"submit: {why}", file=sys.stderr)
    return WRONG if damaged else 0


def table(found: Sequence[Look]) -> Table:
    shown = Table("run", "state", "done", "starts", "left", "last", "job", "")
    for each in found:
        shown.add_row(
            *(
                Text(told(cell))
                for cell in (
                    Path(each.run_dir).name,
                    each.state,
                    f"{each.done} / {each.total}" if each.total else "",
                    str(each.starts),
                    "" if each.seconds_left is None else duration(each.seconds_left),
                    each.last,
                    each.job,
                    each.why,
                )
            ),
            style=COLOURS.get(each.state, ""),
        )
    return shown


def check_idle(todo: Plan) -> None:
    """ConfigError where a run of a plan is in a queue."""
    there = [run.run_dir for run in todo.runs if is_there(run.run_dir / JOB)]
    for each in looks(there) if there else []:
        if each.state in (*LIVE, "UNKNOWN"):  # what cannot be asked may be at work
            raise ConfigError(f"{each.run_dir} is in the queue already, as job {each.job}")
        if each.state == DAMAGED:
            raise ConfigError(each.why)


def listed(root: Path) -> list[Path]:
    """Every submitted run below a folder, the newest first."""
    found = [*root.glob(f"*/{JOB}"), *root.glob(f"*/*/{JOB}")]
    return [path.parent for path in sorted(found, key=lambda path: -path.lstat().st_mtime)]


def log_tail(run_dir: Path, count: int) -> str:
    """The last lines of what rank 0 printed, made harmless. ConfigError where it printed nothing
    yet."""
    path = _log(run_dir, rundir.submitted(run_dir))
    file = opened(path, "remove it")
    if file is None:
        raise ConfigError(f"{path} is not there yet: `status {run_dir}` tells why")
    with file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(0, size - LOG_BYTES))
        text = output(file.read(LOG_BYTES).decode(errors="replace"))
    cut = [] if size <= LOG_BYTES else [f"({size - LOG_BYTES} bytes before these are not shown)"]
    end = text.splitlines()[-count:]
    return "\n".join([f"{visible(path)}:", *(cut if len(end) < count else []), *end])


def cancel(paths: Sequence[Path]) -> list[str]:
    """End runs: those that run save first. What was done, a line for each.

    The file STOP is left in all of them: a job that Slurm kills before it can speak was cancelled
    too, and one that was about to come back does not.
    """
    said: list[str] = []
    ids: list[str] = []
    for each in looks(paths):
        run_dir = Path(each.run_dir)
        if each.state not in (*LIVE, DAMAGED):
            said.append(f"{run_dir}: {each.state} already")
            continue
        (run_dir / stopping.FILE).touch()
        try:
            job = rundir.submitted(run_dir)
        except ValueError as error:
            said.append(f"{run_dir}: stops at its next step, if it runs ({error})")
            continue
        if job.cluster == "slurm":
            ids.append(job.id)
            said.append(f"{run_dir}: job {job.id} cancelled")
        else:
            said.append(f"{run_dir}: stops at its next step")
    if ids:
        slurm.cancel(ids)  # all at once: one takes those with it that wait for it
    return said


def resume(paths: Sequence[Path]) -> list[str]:
    """Submit again what is not finished and not in a queue, as it was submitted; a line for each.

    The frozen code is used again; where the folder `code` was removed, the code as it is now.
    Occupied where another submission is at it.
    """
    roots = {Path(rundir.submitted(run_dir).plan) for run_dir in rundir.runs_in(paths)}
    with ExitStack() as held:
        for root in sorted(roots):
            held.enter_context(rundir.submitting(root))
        return _resume(paths)


def _resume(paths: Sequence[Path]) -> list[str]:
    said: list[str] = []
    local: dict[Path, tuple[Code, Path]] = {}
    found = looks(paths)
    damaged = [each.why for each in found if each.state == DAMAGED]
    if damaged:
        raise ConfigError(damaged[0])
    live = {Path(each.run_dir).absolute(): each.job for each in found if each.state in LIVE}
    jobs = [(each, rundir.submitted(Path(each.run_dir))) for each in found]
    for each, job in sorted(jobs, key=lambda pair: len(pair[1].after)):
        run_dir = Path(each.run_dir)
        if each.state in (*LIVE, "COMPLETED"):
            said.append(f"{run_dir}: {each.state}, nothing to do")
            continue
        if each.state == "UNKNOWN":
            said.append(f"{run_dir}: may be at work, as {each.why}")
            continue
        unmet = [Path(parent) for parent in job.after if not (Path(parent) / "DONE").exists()]
        lost = [parent for parent in unmet if parent not in live]
        if lost:
            said.append(f"{run_dir}: needs {lost[0]}, which is not finished; `resume` that too")
            continue
        code, anew = _code_of(job)
        rundir.reopen(run_dir)
        if job.cluster == "slurm":
            identifier = executors.submit_again(run_dir, job, code, [live[p] for p in unmet])
            said.append(f"{run_dir}: job {identifier}{anew}")
        else:
            local[Path(job.plan)] = code, Path(job.cwd)
            identifier = ""
            said.append(f"{run_dir}: on this machine{anew}")
        live[run_dir.absolute()] = identifier
    for root, (code, cwd) in local.items():
        if not lock.held(root / LOGS):
            executors.start_local(root, code, cwd)
    return said


def _code_of(job: SubmittedJob) -> tuple[Code, str]:
    """The code that a run goes on with, and a remark where it is not what it was submitted with.

    ConfigError where somebody changed the frozen code.
    """
    root = Path(job.plan).absolute()
    if rundir.code_differs(job) is None:
        return Code(root / "code", job.code_sha256), ""
    code = rundir.freeze_code(root)
    same = code.digest == job.code_sha256
    return code, "" if same else ", with other code than before, as code/ was made anew"
