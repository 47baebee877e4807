"""The runs of a plan on this machine, one after the other, each under torchrun.

    python -m launch.local ROOT CODE DIGEST [--show]    --show: they print to the terminal

Each start is of the code that was submitted, or is refused (launch/snapshot.py). What is finished
is not run again, so the same command goes on after a restart of the machine. A signal stops the run
at hand (it saves) and starts no other; the file STOP in a run directory stops that one alone.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

from daas_dist.config import ConfigError
from daas_dist.documents import run as documents
from daas_dist.documents.escaping import told
from daas_dist.documents.run import LocalPlan, SubmittedJob
from daas_dist.runs.lock import Lock, Occupied
from daas_dist.runs.log import RunLog
from launch import attempt, snapshot
from launch.rundir import LOGS, Code
from launch.table import Table

SHUTDOWN = 120
"""Seconds that torchrun leaves its ranks to save."""


class Queue:
    """The runs of ROOT/plan.json."""

    def __init__(self, root: Path, code: Code, show: bool) -> None:
        self.root, self.code, self.show = root, code, show
        plan = documents.PLAN.read(root)
        if plan is None:
            raise ConfigError(f"{root} has no {documents.PLAN.file}: submit by launch/submit.py")
        self.plan: LocalPlan = plan
        self.process: subprocess.Popen[bytes] | None = None
        self.stopped = False

    def work(self) -> int:
        """0 if every run is finished."""
        directories = {run.name: Path(run.run_dir) for run in self.plan.runs}
        for run in self.plan.runs:
            missing = [name for name in run.after if not _done(directories[name])]
            if missing and not self.stopped:
                self._drop(directories[run.name], f"{missing[0]} failed")
            if not missing and not self.stopped and not _done(directories[run.name]):
                self._run(directories[run.name])
        if self.plan.table:
            Table(str(self.root))()
        return 0 if all(map(_done, directories.values())) else 1

    @staticmethod
    def _drop(run_dir: Path, why: str) -> None:
        with suppress(Occupied), attempt.alone(run_dir):
            RunLog(run_dir).event("cancelled", reason=why)

    def _run(self, run_dir: Path) -> None:
        """Until it is finished, stopped, or has no life left."""
        verdict = "again"
        while verdict == "again" and not self.stopped:
            differs = snapshot.difference(str(self.code.folder), self.code.digest)
            if differs is not None:
                print(snapshot.refusal(str(self.code.folder), differs), file=sys.stderr)
                return
            if attempt.before(run_dir):
                return
            verdict = attempt.after(run_dir, self._ranks(run_dir))

    def _ranks(self, run_dir: Path) -> int:
        """One attempt: torchrun's status, which tells little; the files tell the rest."""
        command = ranks_command(self.plan, self.code, run_dir)
        environment = {**os.environ, "PYTHONUTF8": "1", **self.plan.environment}
        if self.plan.threads:
            environment["OMP_NUM_THREADS"] = str(self.plan.threads)
        if self.show:
            self.process = subprocess.Popen(command, env=environment)
        else:
            with (self.root / LOGS / f"{run_dir.name}.log").open("ab") as log:
                self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        return self.process.wait()

    def heard(self, number: int, _: FrameType | None) -> None:
        self.stopped = True
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)


def ranks_command(plan: LocalPlan, code: Code, run_dir: Path) -> list[str]:
    """torchrun for the ranks of a run, each of them of the frozen code."""
    return [
        *plan.front, plan.python or sys.executable, "-X", "utf8", "-m", "torch.distributed.run",
        "--standalone", "--nproc-per-node", str(plan.ranks),
        "--signals-to-handle", "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR2",
        "--shutdown-timeout", str(SHUTDOWN), *code.script("launch.rank"), str(run_dir),
    ]  # fmt: skip


def _done(run_dir: Path) -> bool:
    return (run_dir / "DONE").exists()


def log_of(job: SubmittedJob, run_dir: Path) -> Path:
    """Return where the ranks of a run print."""
    return Path(job.plan) / LOGS / f"{run_dir.name}.log"


def main(arguments: Sequence[str]) -> int:
    """0 if every run is finished; 1; 2 where the plan or its lock is damaged or in use."""
    root, folder, digest, *more = arguments
    try:
        return _work(Path(root), Code(Path(folder), digest), "--show" in more)
    except ValueError as error:
        print(f"local: {told(error)}", file=sys.stderr)
        return 2


def _work(root: Path, code: Code, show: bool) -> int:
    queue = Queue(root, code, show)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, queue.heard)
    with Lock(root / LOGS):
        return queue.work()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
