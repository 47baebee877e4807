"""A run directory, made on the login node: what the job will read, frozen before it is submitted.

config.yaml    the whole configuration; the job never reads configs/
code/          the packages as they are now, files that git does not know too (at a plan's root)
job.json       where it was submitted, as what, and the digest of that code
"""

import shutil
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from daas_dist import config as configuration
from daas_dist.config import ConfigError
from daas_dist.documents import run as documents
from daas_dist.documents.files import is_there
from daas_dist.documents.run import SubmittedJob
from daas_dist.runs import stopping
from daas_dist.runs.lock import Lock
from daas_dist.runs.log import ENDINGS, RunLog, checkout, write_text
from launch import snapshot
from launch.plan import Plan

JOB = documents.JOB.file
CONFIG = "config.yaml"
PACKAGES = ("daas_dist", "launch")
NOT_CODE = shutil.ignore_patterns("__pycache__", ".*")
LOGS = "logs"
"""At a plan's root: what its jobs print, and what submitit needs."""


@dataclass(frozen=True)
class Code:
    """A frozen copy of the code, and its digest (launch/snapshot.py)."""

    folder: Path
    digest: str

    def check(self) -> list[str]:
        """Return the command that prints the digest if the copy is whole."""
        return [sys.executable, "-I", "-S", self._snapshot, str(self.folder), self.digest]

    def run(self, module: str, *words: str, python: str | None = None) -> list[str]:
        """Return the command that runs a module of the copy, or ends with what differs."""
        start = [python or sys.executable, "-u", "-X", "utf8", "-P"]
        return [*start, *self.script(module), *words]

    def script(self, module: str) -> list[str]:
        """Return it as a script and its arguments, for a launcher that starts Python itself."""
        return [self._snapshot, str(self.folder), self.digest, module]

    @property
    def _snapshot(self) -> str:
        return str(self.folder / "launch" / "snapshot.py")


def check(plan: Plan) -> None:
    """ConfigError where a run directory is another run's, or ready already."""
    for run in plan.runs:
        if (run.run_dir / "DONE").exists():
            raise ConfigError(f"{run.run_dir} is finished; set run_dir to a new folder")
        if (run.run_dir / CONFIG).exists():
            began = configuration.load_frozen(run.run_dir / CONFIG)
            differs = configuration.difference(began, run.config)
            if differs:
                told = "; ".join(f"{key}: {change}" for key, change in differs.items())
                raise ConfigError(
                    f"{run.run_dir} holds a run of another configuration ({told}); set run_dir to "
                    "a new folder, or `resume` it as it is"
                )


def prepare(plan: Plan) -> Code:
    """Make every run directory of a plan. Returns the frozen code, the same for all."""
    code = freeze_code(plan.root)
    for run in plan.runs:
        run.run_dir.mkdir(parents=True, exist_ok=True)
        reopen(run.run_dir, configuration.to_yaml(run.config))
    return code


def reopen(run_dir: Path, config: str | None = None) -> None:
    """Forget how a run ended before, and that it was to stop: somebody wants it to go on.

    Before it is submitted: from then on the job writes the events. Occupied where one is at work.
    config: the text of config.yaml, of a run that is new.
    """
    with Lock(run_dir):
        if config is not None:
            write_text(run_dir / CONFIG, config)
        for file in (stopping.FILE, *ENDINGS):
            (run_dir / file).unlink(missing_ok=True)
        RunLog(run_dir).event("submitted")


@contextmanager
def submitting(root: Path) -> Generator[None]:
    """Hold alone the runs below a plan's root, from the look whether they may be submitted
    until it is written down that they were. Occupied where another submission is at it."""
    (root / LOGS).mkdir(parents=True, exist_ok=True)
    with Lock(root / LOGS, "submitting"):
        yield


def freeze_code(root: Path) -> Code:
    """Copy the code as it is now to root/code; a copy that is there already is used again.

    ConfigError where such a copy is not what its own list says.
    """
    folder = root.absolute() / "code"
    if not folder.is_symlink() and not folder.exists():
        _copy_code(folder)
    digest = _recorded(folder)
    differs = snapshot.difference(str(folder), digest)
    if differs is not None:
        raise ConfigError(snapshot.refusal(str(folder), differs))
    return Code(folder, digest)


def _copy_code(folder: Path) -> None:
    source = Path(__file__).resolve().parents[1]
    partial = folder.with_name(".code.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for package in PACKAGES:
        shutil.copytree(source / package, partial / package, ignore=NOT_CODE)
    documents.CHECKOUT.write(partial, checkout(source / PACKAGES[0]))
    write_text(partial / snapshot.SUMS, snapshot.text_of(snapshot.sums(str(partial))))
    partial.rename(folder)


def _recorded(folder: Path) -> str:
    """The digest that a copy's own list has."""
    try:
        return snapshot.digest_of((folder / snapshot.SUMS).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        differs = f"it has no {snapshot.SUMS} that can be read"
        raise ConfigError(snapshot.refusal(str(folder), differs)) from error


def code_differs(job: SubmittedJob) -> str | None:
    """Tell why a submitted run may not start with the code beside it; None if it may."""
    folder = str(Path(job.plan) / "code")
    differs = snapshot.difference(folder, job.code_sha256)
    return None if differs is None else snapshot.refusal(folder, differs)


def record(run_dir: Path, job: SubmittedJob) -> None:
    """A job that was submitted for a run directory: what `status` reads."""
    documents.JOB.write(run_dir, replace(job, submitted=time.time()))


def submitted(run_dir: Path) -> SubmittedJob:
    """ConfigError if it never was, Damaged if what it says is not whole."""
    job = documents.JOB.read(run_dir)
    if job is None:
        raise ConfigError(f"{run_dir} was not submitted: it has no {JOB}")
    return job


def runs_in(paths: Sequence[Path]) -> list[Path]:
    """Run directories, and those inside folders of several. ConfigError for what is neither."""
    found: list[Path] = []
    for path in paths:
        inside = sorted(each for each in path.glob("*") if is_there(each / JOB))
        if is_there(path / JOB):
            found.append(path)
        elif inside:
            found += inside
        else:
            raise ConfigError(f"{path} is no submitted run, nor a folder of some")
    return found
