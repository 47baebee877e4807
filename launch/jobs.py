"""Looking after submitted runs by their directories: status, logs, cancel, resume, list.

What the directory says comes first, then squeue; sacct is not needed. A state is one of

    COMPLETED FAILED STALLED CANCELLED STOPPED    ended, by its files
    PENDING RUNNING …                             in Slurm's queue, as Slurm has it
    WAITING RUNNING                               in this machine's
    INTERRUPTED                                   neither; `resume` goes on
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from daas_dist import lock, slurm, stopping
from daas_dist.config import ConfigError
from daas_dist.report.markup import duration
from daas_dist.report.panels import position, seconds_left
from daas_dist.report.record import read_rows
from daas_dist.slurm import Queued, SlurmError
from launch import executors, rundir
from launch.local import log_of
from launch.plan import Plan
from launch.rundir import JOB, LOGS, Code

ENDINGS = {"DONE": "COMPLETED", "FAILED": "FAILED", "STALLED": "STALLED"}
COLOURS = {
    "COMPLETED": "green", "FAILED": "red", "STALLED": "red", "CANCELLED": "yellow",
    "STOPPED": "yellow", "INTERRUPTED": "magenta", "RUNNING": "blue",
}  # fmt: skip
REFRESH = 5.0
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
    """queue: Slurm's, None where it cannot be asked."""
    job = rundir.submitted(run_dir)
    events, _ = read_rows(run_dir / "events.jsonl")
    state, why = _state(run_dir, job, events, queue)
    rows, done, total = _progress(run_dir)
    left = seconds_left(rows) if state == "RUNNING" else None
    return Look(
        run_dir=str(run_dir),
        state=state,
        why=why,
        job=job["id"] or job["cluster"],
        starts=sum(event["event"] == "attempt" for event in events),
        done=done,
        total=total,
        last=_in_short(rows[-1]) if rows else "",
        seconds_left=left,
        log=str(_log(run_dir, job)),
    )


def _state(
    run_dir: Path,
    job: Mapping[str, Any],
    events: Sequence[Mapping[str, Any]],
    queue: Mapping[str, Queued] | None,
) -> tuple[str, str]:
    if job["cluster"] == "slurm":
        queued = (queue or {}).get(job["id"])
        if queued is not None and not (run_dir / "DONE").exists():
            return queued.state, _waits(queued)
    for file, state in ENDINGS.items():
        if (run_dir / file).exists():
            return state, (run_dir / file).read_text(encoding="utf-8", errors="replace").strip()
    told = [event for event in events if event["event"] not in ("warning", "checkpointed")]
    last = told[-1] if told else {"event": ""}
    if job["cluster"] != "slurm" and lock.held(Path(job["plan"]) / LOGS):
        if lock.held(run_dir):
            return "RUNNING", ""
        if last["event"] not in ("cancelled", "stopped"):
            return "WAITING", "for the runs before it"
    asked = job["cluster"] != "slurm" or queue is not None  # else it may still be saving
    if last["event"] == "cancelled" or (asked and (run_dir / stopping.FILE).exists()):
        return "CANCELLED", str(last.get("reason", "`resume` goes on"))
    if last["event"] == "stopped":
        return "STOPPED", str(last.get("reason", "as stop_after_minutes asked; `resume` goes on"))
    if job["cluster"] == "slurm" and queue is None:
        return "UNKNOWN", "squeue cannot be asked here"
    unmet = [Path(parent).name for parent in job["after"] if not (Path(parent) / "DONE").exists()]
    if unmet and not any(event["event"] == "attempt" for event in events):
        return "CANCELLED", f"{unmet[0]} did not finish"
    return "INTERRUPTED", rundir.code_differs(job) or "in no queue; `resume` goes on"


def _waits(queued: Queued) -> str:
    """Why a job waits and until when, or how much of its time is left."""
    if queued.state == "PENDING":
        day, _, hour = queued.starts.partition("T")
        when = f", expected {day[5:]} {hour[:5]}" if hour else ""
        return f"{queued.reason}{when}"
    return f"on {queued.reason}, {queued.left} of its time left"


def _progress(run_dir: Path) -> tuple[list[dict[str, Any]], int, int]:
    """(rows of the file written last, done, of how many)."""
    files = [run_dir / "metrics.jsonl", *sorted((run_dir / "trainings").glob("*/metrics.jsonl"))]
    files = [file for file in files if file.exists()]
    read = [rows for rows in (read_rows(file)[0] for file in files) if rows]
    places = [position(rows[-1]) for rows in read]
    newest = max(read, key=lambda rows: rows[-1]["time"], default=[])
    return newest, sum(done for done, _ in places), sum(total for _, total in places)


def _in_short(row: Mapping[str, Any]) -> str:
    accuracy = row.get("test_accuracy", row.get("val_accuracy"))
    told = "" if accuracy is None else f"{100 * accuracy:.1f}%"
    return f"{row['phase']}, val {told}" if "phase" in row else f"epoch {row['epoch']}, test {told}"


def _log(run_dir: Path, job: Mapping[str, Any]) -> Path:
    if job["cluster"] == "slurm":
        return Path(job["plan"]) / LOGS / f"{job['id']}_0_log.out"
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


def status(paths: Sequence[Path], as_json: bool, follow: bool) -> list[dict[str, Any]] | None:
    """The looks as values for JSON; else a table on the terminal, which follows if asked to."""
    if as_json:
        return [asdict(each) for each in looks(paths)]
    console = Console()
    if not follow or not console.is_terminal:
        console.print(table(looks(paths)))
        return None
    with Live(table(looks(paths)), console=console, auto_refresh=False) as live:
        while True:
            found = looks(paths)
            live.update(table(found), refresh=True)
            if not any(each.state in LIVE for each in found):
                return None
            time.sleep(REFRESH)


def table(found: Sequence[Look]) -> Table:
    shown = Table("run", "state", "done", "starts", "left", "last", "job", "")
    for each in found:
        shown.add_row(
            *(
                Text(cell)
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
    there = [run.run_dir for run in todo.runs if (run.run_dir / JOB).exists()]
    for each in looks(there) if there else []:
        if each.state in LIVE:
            raise ConfigError(f"{each.run_dir} is in the queue already, as job {each.job}")


def listed(root: Path) -> list[Path]:
    """Every submitted run below a folder, the newest first."""
    found = [*root.glob(f"*/{JOB}"), *root.glob(f"*/*/{JOB}")]
    return [path.parent for path in sorted(found, key=lambda path: -path.stat().st_mtime)]


def log_tail(run_dir: Path, lines: int) -> str:
    """The end of what rank 0 printed. ConfigError where it printed nothing yet."""
    path = _log(run_dir, rundir.submitted(run_dir))
    if not path.exists():
        raise ConfigError(f"{path} is not there yet: `status {run_dir}` tells why")
    text = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join([f"{path}:", *text[-lines:]])


def cancel(paths: Sequence[Path]) -> list[str]:
    """End runs: those that run save first. What was done, a line for each.

    The file STOP is left in all of them: a job that Slurm kills before it can speak was cancelled
    too, and one that was about to come back does not.
    """
    lines: list[str] = []
    ids: list[str] = []
    for each, run_dir in zip(looks(paths), rundir.runs_in(paths), strict=True):
        job = rundir.submitted(run_dir)
        if each.state not in LIVE:
            lines.append(f"{run_dir}: {each.state} already")
            continue
        (run_dir / stopping.FILE).touch()
        if job["cluster"] == "slurm":
            ids.append(job["id"])
            lines.append(f"{run_dir}: job {job['id']} cancelled")
        else:
            lines.append(f"{run_dir}: stops at its next step")
    if ids:
        slurm.cancel(ids)  # all at once: one takes those with it that wait for it
    return lines


def resume(paths: Sequence[Path]) -> list[str]:
    """Submit again what is not finished and not in a queue, as it was submitted; a line for each.

    The frozen code is used again; where the folder `code` was removed, the code as it is now.
    """
    lines: list[str] = []
    local: dict[Path, tuple[Code, Path]] = {}
    live = {Path(each.run_dir).absolute(): each.job for each in looks(paths) if each.state in LIVE}
    found = sorted(
        looks(paths), key=lambda each: len(rundir.submitted(Path(each.run_dir))["after"])
    )
    for each in found:
        run_dir = Path(each.run_dir)
        job = rundir.submitted(run_dir)
        if each.state in (*LIVE, "COMPLETED"):
            lines.append(f"{run_dir}: {each.state}, nothing to do")
            continue
        unmet = [Path(parent) for parent in job["after"] if not (Path(parent) / "DONE").exists()]
        lost = [parent for parent in unmet if parent not in live]
        if lost:
            lines.append(f"{run_dir}: needs {lost[0]}, which is not finished; `resume` that too")
            continue
        code, anew = _code_of(job)
        rundir.reopen(run_dir)
        if job["cluster"] == "slurm":
            identifier = executors.submit_again(run_dir, job, code, [live[p] for p in unmet])
            lines.append(f"{run_dir}: job {identifier}{anew}")
        else:
            local[Path(job["plan"])] = code, Path(job["cwd"])
            identifier = ""
            lines.append(f"{run_dir}: on this machine{anew}")
        live[run_dir.absolute()] = identifier
    for root, (code, cwd) in local.items():
        if not lock.held(root / LOGS):
            executors.start_local(root, code, cwd)
    return lines


def _code_of(job: Mapping[str, Any]) -> tuple[Code, str]:
    """The code that a run goes on with, and a remark where it is not what it was submitted with.

    ConfigError where somebody changed the frozen code.
    """
    root = Path(job["plan"]).absolute()
    if rundir.code_differs(job) is None:
        return Code(root / "code", job[rundir.CODE_DIGEST]), ""
    code = rundir.freeze_code(root)
    same = code.digest == job.get(rundir.CODE_DIGEST)
    return code, "" if same else ", with other code than before, as code/ was made anew"
