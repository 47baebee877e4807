"""A plan's runs, handed to Slurm by submitit or to this machine. Run directories are there already.

The runs of a group that wait for nothing are one job array; a run that needs others is a job of its
own, which starts when they have finished (afterok) and is dropped when one of them fails.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

from submitit.slurm.slurm import SlurmExecutor

from daas_dist import config as configuration
from daas_dist.config import ConfigError
from daas_dist.documents import Damaged
from daas_dist.documents import run as documents
from daas_dist.documents.redact import redacted
from daas_dist.documents.run import LocalPlan, LocalRun, SubmittedJob
from daas_dist.runs import lock
from launch import local, options, rundir, snapshot
from launch.attempt import HERE, NO_KILL
from launch.plan import Plan, Run
from launch.rank import Rank
from launch.resources import Resources
from launch.rundir import Code
from launch.table import Table

WAIT = 120
"""Seconds that srun leaves the other ranks once one has ended: rank 0 may be saving."""
WAIT_HERE = 15
"""The same where the ranks that are left start anew in the same job, and time is what counts."""
TABLE_MINUTES = 10
STARTS = 30.0
"""Seconds that launch.local may take to start."""
LARGE = ("gpu", "gres", "exclusive", "nodelist", "mem-per-gpu")
"""What the options of sbatch begin with that the job of a table does without."""


class Executor(SlurmExecutor):
    """submitit's, whose ranks run the frozen code and nothing else, in the site's container.

    It also exists where srun is not on PATH: a dry run on a laptop shows what it would submit, and
    launch.submit asks for sbatch before it submits anything.
    """

    def __init__(self, folder: Path, site: "Site") -> None:
        super().__init__(folder)
        self._site = site

    @classmethod
    def affinity(cls) -> int:
        return 2

    @property
    def _submitit_command_str(self) -> str:
        resources, code = self._site.resources, self._site.code
        module = ("submitit.core._submit", str(self.folder))
        return shlex.join([*resources.front, *code.run(*module, python=resources.rank_python)])

    def text(self, count: int) -> str:
        """Write the sbatch file of one job, or of an array of several."""
        if count > 1:
            self.parameters["map_count"] = count
        return self._make_submission_file_text(self._submitit_command_str, "")


@dataclass(frozen=True)
class Site:
    """What the jobs of a submission share: what they ask for, their code, and where they start."""

    resources: Resources
    code: Code
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
        _table(plan, site, list(ids.values())).submit(Table(str(plan.root.absolute())))


def _table(plan: Plan, site: Site, parents: Sequence[str]) -> Executor:
    """A job of a minute, on as little as there is."""
    sbatch = {k: v for k, v in site.resources.sbatch.items() if not k.startswith(LARGE)}
    small = replace(
        site.resources, nodes=1, gpus_per_node=None, ranks_per_node=1, cpus_per_gpu=None, mem=None,
        sbatch=sbatch,
    )  # fmt: skip
    site = replace(site, resources=small)
    executor = Executor(plan.root.absolute() / rundir.LOGS, site)
    executor.update_parameters(
        **_parameters(f"table {_name(plan)}", site, "afterany", parents) | {"time": TABLE_MINUTES},
        setup=_setup(site),
        srun_args=_srun(site, []),
    )
    return executor


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
    executor = Executor(plan.root.absolute() / rundir.LOGS, site)
    alone = runs[0].run_dir.absolute() == plan.root.absolute()
    name = _name(plan) if alone else f"{_name(plan)}/{runs[0].group}"
    directories = [str(run.run_dir.absolute()) for run in runs]
    before = shlex.join(site.code.run("launch.attempt", "before", *directories))
    wait = WAIT_HERE if site.resources.no_kill else WAIT
    executor.update_parameters(
        **_parameters(name, site, "afterok", parents),
        array_parallelism=site.resources.array_parallelism,
        setup=[
            *_setup(site),
            f"SLURM_JOB_END_TIME=$({before}) || exit $?",
            "export SLURM_JOB_END_TIME",
            "trap : TERM  # bash waits for its ranks, which save, and goes on to the last line",
        ],
        # A dead rank ends the step, and the others do not wait for it.
        srun_args=["--kill-on-bad-exit=1", f"--wait={wait}", *_srun(site, runs)],
        teardown=_teardown(site, runs, directories),
    )
    return executor


def _teardown(site: Site, runs: Sequence[Run], directories: Sequence[str]) -> list[str]:
    """The lines of a job's script after its ranks: what became of them, and what comes then."""
    asks = shlex.join(site.code.run("launch.attempt", "after"))
    after = f'{asks} "$status" {shlex.join(directories)}'
    if not site.resources.no_kill:
        return ["status=$?", "whole", f"exec {after}"]
    ranks = site.code.run("launch.rank", *directories, python=site.resources.rank_python)
    given = ["--unbuffered", "--kill-on-bad-exit=1", f"--wait={WAIT_HERE}", *_srun(site, runs)]
    step = f"{shlex.join(given)} {shlex.join([*site.resources.front, *ranks])}"
    return [
        "status=$?",
        "whole",
        f"while where=$({after}); verdict=$?; [ $verdict = {HERE} ]; do",
        f"  srun --overlap $where {step}  # on the nodes that are left",
        "  status=$?",
        "  whole",
        "done",
        "exit $verdict",
    ]


def _name(plan: Plan) -> str:
    return plan.root.absolute().name or "daas"


def _parameters(name: str, site: Site, kind: str, parents: Sequence[str]) -> dict[str, Any]:
    """submitit's names for them. kind: afterok or afterany."""
    resources = site.resources
    gres = options.gpus_in(resources.sbatch.get("gres"))
    given = {
        "job_name": name,
        "nodes": resources.nodes,
        "ntasks_per_node": resources.ranks,
        "gpus_per_node": None if gres else resources.gpus_per_node,
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
    }
    more = {
        "requeue": True,
        "chdir": str(site.cwd),
        **({"kill-on-invalid-dep": "yes"} if parents else {}),
        **{k: v for k, v in resources.sbatch.items() if v not in (None, False)},
    }
    return {**_escaped(given), "additional_parameters": _escaped(more)}


def _escaped(values: Mapping[str, Any]) -> dict[str, Any]:
    """Double the backslashes of texts: sbatch takes one away even between quotes."""
    return {
        key: value.replace("\\", "\\\\") if isinstance(value, str) else value
        for key, value in values.items()
    }


def _setup(site: Site) -> list[str]:
    """The lines of a job's script before Python."""
    resources = site.resources
    return [
        *resources.setup,
        *(f"export {name}={shlex.quote(v)}" for name, v in resources.environment.items()),
        "set +eu  # a line below may fail, and the last one shall still be reached",
        *_whole(site.code),
        *([f"export {NO_KILL}=1"] if resources.no_kill else []),
        "export SLURM_EXPORT_ENV=ALL  # or ranks lack what is set here, where SBATCH_EXPORT=NONE",
        # srun does not inherit it since Slurm 22.05.
        '[ -z "$SLURM_CPUS_PER_TASK" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK',
        "export OMP_NUM_THREADS=${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}",
    ]


def _whole(code: Code) -> list[str]:
    """A function of bash that ends a job whose code is not what it was submitted with."""
    refusal = shlex.quote(snapshot.refusal("%s", "%s") + "\\n")
    return [
        "whole() {",
        "  local said",
        f"  said=$({shlex.join(code.check())} 2>&1)",
        "  said=${said##*$'\\n'}",
        f'  [ "$said" = {code.digest} ] && return',
        f'  printf {refusal} {shlex.quote(str(code.folder))} "${{said:-it is gone}}" >&2',
        f"  exit {snapshot.REFUSED}",
        "}",
        "whole",
    ]


def _srun(site: Site, runs: Sequence[Run]) -> list[str]:
    """The site's options of srun, the container's among them."""
    resources = site.resources
    if resources.container_image is None:
        return options.flags(resources.srun)
    own = {k: v for k, v in resources.srun.items() if k != "container-mounts"}
    more = resources.srun.get("container-mounts")
    given = {
        "container-image": resources.container_image,
        "container-mounts": ",".join([*_mounts(site, runs), *([str(more)] if more else [])]),
        "container-workdir": str(site.cwd),
    }
    return options.flags({**given, **own})


def _mounts(site: Site, runs: Sequence[Run]) -> list[str]:
    """What a container sees of the host: the runs, the folder they start in, and their images."""
    images = [place for r in runs for place in (r.config.data.root, r.config.data.val_root)]
    seen = [str(site.code.folder.parent), str(site.cwd)]
    seen += [place for place in images if place and os.path.isdir(place) and os.path.isabs(place)]
    for place in seen:
        if re.search("[:,]", place):
            raise ConfigError(
                f"{place} cannot be mounted by container_image: expected a path without : and ,"
            )
    return [f"{place}:{place}" for place in dict.fromkeys(seen)]


def script(plan: Plan, site: Site) -> str:
    """The sbatch files of a plan, as `submit` would write them; nothing is made."""
    texts = []
    for runs in _batches(plan.runs):
        parents = [f"<{name}>" for run in runs for name in run.after]
        texts.append(executor_for(plan, runs, site, parents).text(len(runs)))
    if plan.table:
        texts.append(_table(plan, site, [f"<{run.name}>" for run in plan.runs]).text(1))
    return "\n\n".join(texts)


def given_options(text: str) -> dict[str, str]:
    """The options of sbatch in a script, as sbatch reads them."""
    lines = re.findall(r"^#SBATCH (.*)$", text, re.MULTILINE)
    words = [word[2:].partition("=") for line in lines for word in shlex.split(line)]
    return {name: value for name, _, value in words}


def plain_options(resources: Resources) -> list[str]:
    """The words of sbatch for a script that has no options of its own for resources."""
    gres = options.gpus_in(resources.sbatch.get("gres"))
    names = ("mem", "partition", "account", "qos", "constraint", "exclude")
    return options.flags(
        {
            "nodes": resources.nodes,
            "ntasks-per-node": resources.ranks,
            "time": resources.minutes,
            "gpus-per-node": None if gres else resources.gpus_per_node,
            "cpus-per-task": resources.cpus_per_gpu,
            **{name: getattr(resources, name) for name in names},
            "signal": f"USR2@{resources.signal_seconds}",
            **resources.sbatch,
        }
    )


def test_only(text: str) -> str | None:
    """What Slurm has against a script, None if it would take it."""
    text = "\n".join(line for line in text.splitlines() if "--dependency" not in line)
    return _refused(["sbatch", "--test-only"], text)


def test_srun(plan: Plan, site: Site) -> str | None:
    """What srun has against the site's options, None if it knows them. It starts nothing."""
    given = _srun(site, plan.runs)
    return _refused(["srun", *given, "--version"]) if given else None


def _refused(command: Sequence[str], text: str = "") -> str | None:
    done = subprocess.run(command, input=text, encoding="utf-8", errors="replace",
                          capture_output=True)  # fmt: skip
    said = [each for each in done.stderr.strip().splitlines() if not each.startswith("Try ")]
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
    documents.PLAN.write(plan.root, local_plan(plan, site.resources))
    for run in plan.runs:
        rundir.record(run.run_dir, _told(plan, run, site, ""))
    start_local(plan.root.absolute(), site.code, site.cwd, show=site.resources.kind == "debug")


def local_plan(plan: Plan, resources: Resources) -> LocalPlan:
    """How each run of a plan is started on this machine."""
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
    """How each run of a plan would be started on this machine; nothing is made."""
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
