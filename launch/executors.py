"""A plan's runs, handed to Slurm by submitit or to this machine; their directories are there."""

import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

from daas_dist import config as configuration
from daas_dist.documents import Damaged
from daas_dist.documents import run as documents
from daas_dist.documents.redact import redacted
from daas_dist.documents.run import LocalPlan, LocalRun, SubmittedJob
from daas_dist.runs import lock
from launch import local, rundir
from launch.batch import Site, batches, executor_for, table_job
from launch.plan import Plan, Run
from launch.rank import Rank
from launch.resources import Resources
from launch.rundir import Code
from launch.table import Table

STARTS = 30.0
"""Seconds that launch.local may take to start."""


def submit(plan: Plan, site: Site) -> None:
    """Submit all of a plan, and write down in each run directory as what."""
    if site.resources.kind == "slurm":
        _to_slurm(plan, site)
    else:
        _to_this_machine(plan, site)


# --- Slurm ---------------------------------------------------------------------------------------


def _to_slurm(plan: Plan, site: Site) -> None:
    ids: dict[str, str] = {}
    for runs in batches(plan.runs):
        parents = [ids[name] for run in runs for name in run.after]
        for run, identifier in zip(runs, _submit(plan, runs, site, parents), strict=True):
            ids[run.name] = identifier
            rundir.record(run.run_dir, _told(plan, run, site, identifier))
    if plan.table:
        table_job(plan, site, list(ids.values())).submit(Table(str(plan.root.absolute())))


def _submit(plan: Plan, runs: Sequence[Run], site: Site, parents: Sequence[str]) -> list[str]:
    """One job, or one array: the ids of its runs."""
    executor = executor_for(plan, runs, site, parents)
    ranks = [Rank(str(run.run_dir.absolute())) for run in runs]
    if len(ranks) == 1:
        return [executor.submit(ranks[0]).job_id]
    with executor.batch():
        jobs = [executor.submit(rank) for rank in ranks]
    return [job.job_id for job in jobs]


# --- This machine --------------------------------------------------------------------------------


def _to_this_machine(plan: Plan, site: Site) -> None:
    """Write down what local.py shall run in turn, and start it."""
    documents.PLAN.write(plan.root, local_plan(plan, site.resources))
    for run in plan.runs:
        rundir.record(run.run_dir, _told(plan, run, site, ""))
    start_local(plan.root.absolute(), site.code, site.cwd, show=site.resources.kind == "debug")


def local_plan(plan: Plan, resources: Resources) -> LocalPlan:
    """Return how each run of a plan is started on this machine."""
    return LocalPlan(
        ranks=resources.ranks,
        threads=resources.cpus_per_gpu,
        table=plan.table,
        runs=[LocalRun(r.name, str(r.run_dir.absolute()), list(r.after)) for r in plan.runs],
        environment=resources.environment,
        front=list(resources.front),
        python=resources.rank_python,
    )


def local_commands(plan: Plan, site: Site) -> str:
    """Return how each run of a plan would be started on this machine; nothing is made."""
    values = local_plan(plan, site.resources)
    before = [f"{name}={shlex.quote(v)}" for name, v in site.resources.environment.items()]
    commands = (local.ranks_command(values, site.code, r.run_dir.absolute()) for r in plan.runs)
    return "\n".join(" ".join([*before, shlex.join(command)]) for command in commands)


def start_local(root: Path, code: Code, cwd: Path, show: bool = False) -> None:
    """Run what is left of a plan on this machine; in the background unless it shall be shown."""
    words = (str(root), str(code.folder), code.digest, *(["--show"] if show else []))
    command = code.run("launch.local", *words)
    if show:
        process = subprocess.Popen(command, cwd=cwd)
        for number in (signal.SIGINT, signal.SIGTERM):  # for the run, which saves
            signal.signal(number, lambda number, _: process.send_signal(number))
        status = process.wait()
        if status:
            raise SystemExit(status)
        return
    with (root / rundir.LOGS / "local.log").open("ab") as log:
        process = subprocess.Popen(
            command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
    until = time.monotonic() + STARTS
    while process.poll() is None and time.monotonic() < until:
        if lock.held(root / rundir.LOGS):  # from now on another submission sees it
            break
        time.sleep(0.05)
    process.returncode = 0  # it outlives this one, and nobody shall wait for it


def _told(plan: Plan, run: Run, site: Site, identifier: str) -> SubmittedJob:
    return SubmittedJob(
        cluster=cast(Any, site.resources.kind),  # one of resources.KINDS
        id=identifier,
        name=run.name,
        plan=str(plan.root.absolute()),
        after=[str((plan.root / name).absolute()) for name in run.after],
        resources=asdict(site.resources),
        cwd=str(site.cwd),
        command=[redacted(word) for word in sys.argv],
        code_sha256=site.code.digest,
    )


def submit_again(run_dir: Path, job: SubmittedJob, code: Code, parents: Sequence[str]) -> str:
    """One run of Slurm's, as it was submitted before; its new job."""
    config = configuration.load_frozen(run_dir / rundir.CONFIG)
    run = Run(job.name, job.name, run_dir, config)
    plan = Plan(Path(job.plan), job.name, (run,))
    try:
        resources = Resources(**job.resources)
    except TypeError as error:  # of another version, or damaged
        wrong = f"resources does not fit ({error})"
        raise Damaged(run_dir / rundir.JOB, wrong, documents.JOB.remedy) from error
    site = Site(resources, code, Path(job.cwd))
    [identifier] = _submit(plan, [run], site, parents)
    rundir.record(run_dir, replace(job, id=identifier, code_sha256=code.digest))
    return identifier
