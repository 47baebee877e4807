"""The jobs of a plan as sbatch files, made by submitit: what they ask for, and what bash does.

The runs of a group that wait for nothing are one job array; a run that needs others is a job of its
own, which starts when they have finished (afterok) and is dropped when one of them fails.
"""

import os
import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from submitit.slurm.slurm import SlurmExecutor

from daas_dist.config import ConfigError
from launch import options, rundir, snapshot
from launch.attempt import HERE, NO_KILL
from launch.plan import Plan, Run
from launch.resources import Resources
from launch.rundir import Code

WAIT = 120
"""Seconds that srun leaves the other ranks once one has ended: rank 0 may be saving."""
WAIT_HERE = 15
"""The same where the ranks that are left start anew in the same job, and time is what counts."""
TABLE_MINUTES = 10
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


def table_job(plan: Plan, site: Site, parents: Sequence[str]) -> Executor:
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


def executor_for(plan: Plan, runs: Sequence[Run], site: Site, parents: Sequence[str]) -> Executor:
    """submitit's, for one job or one array. parents: the jobs that must finish before."""
    executor = Executor(plan.root.absolute() / rundir.LOGS, site)
    alone = runs[0].run_dir.absolute() == plan.root.absolute()
    name = _name(plan) if alone else f"{_name(plan)}/{runs[0].group}"
    directories = [str(run.run_dir.absolute()) for run in runs]
    before = shlex.join(site.code.run("launch.attempt", "before", *directories))
    leave = "; ".join(_leave(site, directories))
    executor.update_parameters(
        **_parameters(name, site, "afterok", parents),
        array_parallelism=site.resources.array_parallelism,
        setup=[
            *_setup(site),
            "trap 'told=143' TERM  # while the line below runs: no rank is started any more",
            f'SLURM_JOB_END_TIME=$({before}) || [ -n "$told" ] || exit $?',
            f'[ -z "$told" ] || {{ unset {NO_KILL}; status=$told; {leave}; }}',
            "export SLURM_JOB_END_TIME",
            "trap : TERM  # bash waits for its ranks, which save, and goes on to the last line",
        ],
        srun_args=_step(site, runs),
        teardown=_teardown(site, runs, directories),
    )
    return executor


def _teardown(site: Site, runs: Sequence[Run], directories: Sequence[str]) -> list[str]:
    """The lines of a job's script after its ranks: what became of them, and what comes then."""
    if not site.resources.no_kill:
        return ["status=$?", "whole", *_leave(site, directories)]
    ranks = site.code.run("launch.rank", *directories, python=site.resources.rank_python)
    given = shlex.join(["--unbuffered", *_step(site, runs), *site.resources.front, *ranks])
    return [
        "status=$?",
        "whole",
        f"while where=$({_after(site, directories)}); verdict=$?; [ $verdict = {HERE} ]; do",
        f"  srun --overlap $where {given}  # on the nodes that are left",
        "  status=$?",
        "  whole",
        "done",
        "exit $verdict",
    ]


def _leave(site: Site, directories: Sequence[str]) -> list[str]:
    """Write bash's last lines; nothing interrupts what is noted there."""
    return ["trap '' TERM", f"exec {_after(site, directories)}"]


def _after(site: Site, directories: Sequence[str]) -> str:
    """Write the command that notes how the ranks, which ended with $status, came to their end."""
    asks = shlex.join(site.code.run("launch.attempt", "after"))
    return f'{asks} "$status" {shlex.join(directories)}'


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


def _step(site: Site, runs: Sequence[Run]) -> list[str]:
    """List srun's options for ranks: a dead one ends the step, and the others do not wait."""
    wait = WAIT_HERE if site.resources.no_kill else WAIT
    return ["--kill-on-bad-exit=1", f"--wait={wait}", *_srun(site, runs)]


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
    """Return what a container sees of the host: the runs, the folder they start in, and their
    images."""
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
    for runs in batches(plan.runs):
        parents = [f"<{name}>" for run in runs for name in run.after]
        texts.append(executor_for(plan, runs, site, parents).text(len(runs)))
    if plan.table:
        texts.append(table_job(plan, site, [f"<{run.name}>" for run in plan.runs]).text(1))
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
    """Return what Slurm has against a script, None if it would take it."""
    text = "\n".join(line for line in text.splitlines() if "--dependency" not in line)
    return _refused(["sbatch", "--test-only"], text)


def test_srun(plan: Plan, site: Site) -> str | None:
    """Return what srun has against the site's options, None if it knows them. It starts nothing."""
    given = _srun(site, plan.runs)
    return _refused(["srun", *given, "--version"]) if given else None


def _refused(command: Sequence[str], text: str = "") -> str | None:
    done = subprocess.run(command, input=text, encoding="utf-8", errors="replace",
                          capture_output=True)  # fmt: skip
    said = [each for each in done.stderr.strip().splitlines() if not each.startswith("Try ")]
    return None if done.returncode == 0 else said[-1] if said else f"status {done.returncode}"


def batches(runs: Sequence[Run]) -> list[list[Run]]:
    """Arrays, and single jobs, in the order of the plan."""
    batches: list[list[Run]] = []
    for run in runs:
        last = batches[-1] if batches else []
        if last and not run.after and not last[0].after and last[0].group == run.group:
            last.append(run)
        else:
            batches.append([run])
    return batches
