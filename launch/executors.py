"""A plan's runs, handed to Slurm by submitit or to this machine. Run directories are there already.

The runs of a group that wait for nothing are one job array; a run that needs others is a job of its
own, which starts when they have finished (afterok) and is dropped when one of them fails.
"""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

from submitit.slurm.slurm import SlurmExecutor

from daas_dist import config as configuration
from daas_dist import lock
from daas_dist.documents import Damaged
from daas_dist.documents import run as documents
from daas_dist.documents.run import LocalPlan, LocalRun, SubmittedJob
from daas_dist.redact import redacted
from launch import rundir
from launch.plan import Plan, Run
from launch.rank import Rank
from launch.resources import Resources
from launch.table import Table

WAIT = 120
"""Seconds that srun leaves the other ranks once one has ended: rank 0 may be saving."""
TABLE_MINUTES = 10
STARTS = 30.0
"""Seconds that launch.local may take to start."""


class Executor(SlurmExecutor):
    """submitit's, which refuses to exist where srun is not on PATH: but a dry run on a laptop shows
    what it would submit, and launch.submit asks for sbatch before it submits anything."""

    @classmethod
    def affinity(cls) -> int:
        return 2


@dataclass(frozen=True)
class Site:
    """What the jobs of a submission share: what they ask for, their code, and where they start."""

    resources: Resources
    code: Path
    cwd: Path


def submit(plan: Plan, site: Site) -> None:
    """Submit all of a plan, and write down in each run directory as what."""
    if site.resources.kind == "slurm":
        _to_slurm(plan, site)
    else:
        _to_this_machine(plan, site)


# --- Slurm ---------------------------------------------------------------------------------------


def _to_slurm(plan: Plan, site: Site) -> None:
    ids: dict[str, str] = {}
    for runs in _batches(plan.runs):
        parents = [ids[name] for run in runs for name in run.after]
        for run, identifier in zip(runs, _submit(plan, runs, site, parents), strict=True):
            ids[run.name] = identifier
            rundir.record(run.run_dir, _told(plan, run, site, identifier))
    if plan.table:
        executor = Executor(plan.root.absolute() / rundir.LOGS)
        executor.update_parameters(
            **_parameters(f"table {plan.root.name}", site, "afterany", list(ids.values()))
            | {"nodes": 1, "ntasks_per_node": 1, "time": TABLE_MINUTES, "gpus_per_node": None},
            setup=_setup(site),
        )
        executor.submit(Table(str(plan.root.absolute())))


def _submit(plan: Plan, runs: Sequence[Run], site: Site, parents: Sequence[str]) -> list[str]:
    """One job, or one array: the ids of its runs."""
    executor = executor_for(plan, runs, site, parents)
    ranks = [Rank(str(run.run_dir.absolute())) for run in runs]
    if len(ranks) == 1:
        return [executor.submit(ranks[0]).job_id]
    with executor.batch():
        jobs = [executor.submit(rank) for rank in ranks]
    return [job.job_id for job in jobs]


def executor_for(plan: Plan, runs: Sequence[Run], site: Site, parents: Sequence[str]) -> Executor:
    """submitit's, for one job or one array. parents: the jobs that must finish before."""
    executor = Executor(plan.root.absolute() / rundir.LOGS)
    name = plan.root.name if runs[0].run_dir == plan.root else f"{plan.root.name}/{runs[0].group}"
    directories = shlex.join(str(run.run_dir.absolute()) for run in runs)
    around = f"{shlex.quote(sys.executable)} -m launch.attempt"
    executor.update_parameters(
        **_parameters(name, site, "afterok", parents),
        array_parallelism=site.resources.array_parallelism,
        setup=[
            *_setup(site),
            f"SLURM_JOB_END_TIME=$({around} before {directories}) || exit $?",
            "export SLURM_JOB_END_TIME",
            "trap : TERM  # bash waits for its ranks, which save, and goes on to the last line",
        ],
        # A dead rank ends the step, and the others do not wait for it.
        srun_args=["--kill-on-bad-exit=1", f"--wait={WAIT}"],
        teardown=[f"exec {around} after $? {directories}"],
    )
    return executor


def _parameters(name: str, site: Site, kind: str, parents: Sequence[str]) -> dict[str, Any]:
    """submitit's names for them. kind: afterok or afterany."""
    resources = site.resources
    return {
        "job_name": name,
        "nodes": resources.nodes,
        "ntasks_per_node": resources.ranks,
        "gpus_per_node": resources.gpus_per_node,
        "cpus_per_task": resources.cpus_per_gpu,
        "mem": resources.mem,
        "time": resources.minutes,
        "partition": resources.partition,
        "account": resources.account,
        "qos": resources.qos,
        "constraint": resources.constraint,
        "exclude": resources.exclude,
        "signal_delay_s": resources.signal_seconds,
        "stderr_to_stdout": True,
        "dependency": f"{kind}:{':'.join(parents)}" if parents else None,
        "additional_parameters": {
            "requeue": True,
            "chdir": str(site.cwd),
            **({"kill-on-invalid-dep": "yes"} if parents else {}),
        },
    }


def _setup(site: Site) -> list[str]:
    """The lines of a job's script before Python."""
    return [
        *site.resources.setup,
        f"export PYTHONPATH={shlex.quote(str(site.code))}${{PYTHONPATH:+:$PYTHONPATH}}",
        "export PYTHONSAFEPATH=1  # or the checkout that it was submitted from would go first",
        # srun does not inherit it since Slurm 22.05.
        '[ -z "$SLURM_CPUS_PER_TASK" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK',
        "export OMP_NUM_THREADS=${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}",
    ]


def script(plan: Plan, resources: Resources, cwd: Path) -> str:
    """The sbatch files of a plan, as `submit` would write them; nothing is made."""
    texts = []
    for runs in _batches(plan.runs):
        parents = [f"<{name}>" for run in runs for name in run.after]
        site = Site(resources, plan.root.absolute() / "code", cwd)
        executor = executor_for(plan, runs, site, parents)
        if len(runs) > 1:
            executor.parameters["map_count"] = len(runs)
        text = executor._make_submission_file_text(  # pyright: ignore[reportPrivateUsage]
            executor._submitit_command_str,  # pyright: ignore[reportPrivateUsage]
            "",
        )
        texts.append(text)
    return "\n\n".join(texts)


def test_only(text: str) -> str | None:
    """What Slurm has against a script, None if it would take it."""
    text = "\n".join(line for line in text.splitlines() if "--dependency" not in line)
    done = subprocess.run(["sbatch", "--test-only"], input=text, text=True, capture_output=True)
    said = done.stderr.strip().splitlines()
    return None if done.returncode == 0 else said[-1] if said else f"status {done.returncode}"


def _batches(runs: Sequence[Run]) -> list[list[Run]]:
    """Arrays, and single jobs, in the order of the plan."""
    batches: list[list[Run]] = []
    for run in runs:
        last = batches[-1] if batches else []
        if last and not run.after and not last[0].after and last[0].group == run.group:
            last.append(run)
        else:
            batches.append([run])
    return batches


# --- This machine --------------------------------------------------------------------------------


def _to_this_machine(plan: Plan, site: Site) -> None:
    """Write down what local.py shall run in turn, and start it."""
    resources = site.resources
    runs = [LocalRun(r.name, str(r.run_dir.absolute()), list(r.after)) for r in plan.runs]
    local = LocalPlan(resources.ranks, resources.cpus_per_gpu, plan.table, runs)
    documents.PLAN.write(plan.root, local)
    for run in plan.runs:
        rundir.record(run.run_dir, _told(plan, run, site, ""))
    start_local(plan.root.absolute(), site.code, site.cwd, show=resources.kind == "debug")


def start_local(root: Path, code: Path, cwd: Path, show: bool = False) -> None:
    """Run what is left of a plan on this machine; in the background unless it shall be shown."""
    command = [sys.executable, "-m", "launch.local", str(root), *(["--show"] if show else [])]
    environment = {**os.environ, "PYTHONPATH": str(code), "PYTHONSAFEPATH": "1"}
    if show:
        process = subprocess.Popen(command, env=environment, cwd=cwd)
        for number in (signal.SIGINT, signal.SIGTERM):  # for the run, which saves
            signal.signal(number, lambda number, _: process.send_signal(number))
        status = process.wait()
        if status:
            raise SystemExit(status)
        return
    with (root / rundir.LOGS / "local.log").open("ab") as log:
        process = subprocess.Popen(
            command, env=environment, cwd=cwd, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
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
    )


def submit_again(run_dir: Path, job: SubmittedJob, code: Path, parents: Sequence[str]) -> str:
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
    rundir.record(run_dir, replace(job, id=identifier))
    return identifier
