"""A run directory, made on the login node: what the job will read, frozen before it is submitted.

config.yaml    the whole configuration; the job never reads configs/
code/          the packages as they are now, files that git does not know too (at a plan's root)
job.json       where it was submitted, and as what
"""

import shutil
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from daas_dist import config as configuration
from daas_dist import stopping
from daas_dist.config import ConfigError
from daas_dist.documents import run as documents
from daas_dist.documents.files import is_there
from daas_dist.documents.run import SubmittedJob
from daas_dist.lock import Lock
from daas_dist.runlog import ENDINGS, RunLog, checkout, write_json, write_text
from launch.plan import Plan

JOB = documents.JOB.file
CONFIG = "config.yaml"
PACKAGES = ("daas_dist", "launch")
NOT_CODE = shutil.ignore_patterns("__pycache__", ".*")
LOGS = "logs"
"""At a plan's root: what its jobs print, and what submitit needs."""


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


def prepare(plan: Plan) -> Path:
    """Make every run directory of a plan. The folder of the frozen code, the same for all."""
    for run in plan.runs:
        run.run_dir.mkdir(parents=True, exist_ok=True)
        reopen(run.run_dir, configuration.to_yaml(run.config))
    return freeze_code(plan.root)


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
    """Alone on the runs below a plan's root, from the look whether they may be submitted until it
    is written down that they were. Occupied where another submission is at it."""
    (root / LOGS).mkdir(parents=True, exist_ok=True)
    with Lock(root / LOGS, "submitting"):
        yield


def freeze_code(root: Path) -> Path:
    """The code as it is now, in root/code; what is there already stays."""
    code = root.absolute() / "code"
    if code.exists():
        return code
    source = Path(__file__).resolve().parents[1]
    partial = code.with_name(".code.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for package in PACKAGES:
        shutil.copytree(source / package, partial / package, ignore=NOT_CODE)
    documents.CHECKOUT.write(partial, checkout(source / PACKAGES[0]))
    partial.rename(code)
    return code


def record(run_dir: Path, job: SubmittedJob) -> None:
    """A job that was submitted for a run directory: what `status` reads."""
    write_json(run_dir / JOB, asdict(replace(job, submitted=time.time())))


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
