"""Submit runs to a cluster or to this machine, and look after them.

    python launch/submit.py --nodes 4 --gpus-per-node 8 stage=search_cifar10 data.root=/shared/data
    python launch/submit.py --seeds 0-3 --then stage=train_fashion --table stage=search_fashion
    python launch/submit.py experiment=table4 data.root=/shared/data
    python launch/submit.py status|logs|cancel|resume|table RUN…
    python launch/submit.py list [FOLDER]

What is not a flag is KEY=VALUE, as `daas run` takes it.
"""

import argparse
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from daas_dist.config import Config, ConfigError, site
from daas_dist.config.overrides import to_path
from daas_dist.config.site import ClusterFile
from daas_dist.documents.escaping import output, told
from daas_dist.system import slurm, utf8
from daas_dist.system.doctor import preflight
from daas_dist.system.slurm import SlurmError
from launch import batch, estimate, executors, jobs, options, paths, plan, resources, rundir
from launch.plan import Plan, Run
from launch.resources import Resources
from launch.rundir import Code
from launch.table import Table

UNKNOWN = "DIGEST"
COMMANDS = ("status", "logs", "cancel", "resume", "list", "table")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0; 1 where a cluster refuses; 2 for a wrong call or value, told in one line."""
    if arguments is None:
        utf8.start()
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if words and words[0] in COMMANDS:
            return _look_after(words[0], words[1:])
        return _submit(words)
    except ValueError as error:
        print(f"submit: {told(error)}", file=sys.stderr)
        return 2
    except (SlurmError, OSError) as error:
        print(f"submit: {told(error)}", file=sys.stderr)
        return 1


# --- Submitting ----------------------------------------------------------------------------------


def _submit(words: Sequence[str]) -> int:
    parser = _parser()
    given = parser.parse_intermixed_args(words)
    cluster = resources.cluster_file(given.cluster)
    asked = resources.load(cluster, _flags(given))
    todo = _plan(given, cluster)
    paths.check(todo.root.absolute(), Path.cwd(), asked.kind == "slurm")
    rundir.check(todo)
    jobs.check_idle(todo)
    for run in todo.runs:
        _check_mesh(run.config, asked)
    if given.prepare:
        _check_plain(asked)
    _tell(todo, asked)
    _check_images(todo, asked)
    # Of code that is yet to be frozen the digest is not known.
    shown = batch.Site(asked, Code(todo.root.absolute() / "code", UNKNOWN), Path.cwd())
    if asked.kind == "slurm":
        _check_slurm(todo, shown, given.dry_run)
    elif given.dry_run:
        print(executors.local_commands(todo, shown))
    if given.dry_run:
        return 0
    _check_disk(todo)
    with rundir.submitting(todo.root):
        rundir.check(todo)  # again: another submission may have come between
        jobs.check_idle(todo)
        code = rundir.prepare(todo)
        if given.prepare:
            print(_twin(todo, asked, code))
            return 0
        executors.submit(todo, batch.Site(asked, code, Path.cwd()))
    if asked.kind != "debug":
        print(jobs_told(todo))
    return 0


def _flags(given: argparse.Namespace) -> dict[str, Any]:
    """Return what of Resources the command line gives, by its keys."""
    names = {each.name for each in fields(Resources)} - {"kind", "setup", *resources.NAMED}
    return {
        **{name: getattr(given, name) for name in names},
        "sbatch": options.from_flags("--sbatch", given.sbatch),
        "srun": options.from_flags("--srun", given.srun),
        "environment": options.variables_from_flags(given.env),
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="submit.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("overrides", nargs="*", metavar="KEY=VALUE", help="stage=NAME or experiment=NAME, and more")
    add("--cluster", metavar="NAME|FILE", help="of configs/cluster/ (default: DAAS_CLUSTER, slurm)")
    add("--nodes", type=int)
    add("--gpus-per-node", type=int, help="a rank for each")
    add("--ranks-per-node", type=int, help="without GPUs")
    add("--cpus-per-gpu", type=int, help="of each rank")
    add("--mem", help="of a node, as 64G")
    add("--time", help="[days-]hours:minutes:seconds")
    for name in ("partition", "account", "qos", "constraint", "exclude"):
        add(f"--{name}")
    add("--signal-seconds", type=int, help="before its time limit, for a run to save")
    add("--array-parallelism", type=int, help="seeds that may run at once")
    add("--sbatch", action="append", default=[], metavar="NAME=VALUE", help="an option of sbatch")
    add("--srun", action="append", default=[], metavar="NAME=VALUE", help="an option of srun")
    add("--env", action="append", default=[], metavar="NAME=VALUE", help="a variable of the job")
    add("--container-image", help="of pyxis, for the ranks")
    add("--container-command", help="in front of the ranks' Python, as 'apptainer exec …'")
    add("--python", help="of the ranks")
    add("--seeds", help="0-3 or 0,2,5: a run for each")
    add("--then", action="append", default=[], metavar="'stage=NAME …'", help="after each of them")
    add("--table", action="store_true", help="and a table of all, at the end")
    add("--dry-run", action="store_true", help="print what would be submitted, and make nothing")
    add("--prepare", action="store_true", help="make the run directory; submit by slurm/run.sbatch")
    return parser


def _plan(given: argparse.Namespace, cluster: ClusterFile) -> Plan:
    seeds = None if given.seeds is None else plan.parse_seeds(given.seeds)
    experiment = [word for word in given.overrides if word.startswith("experiment=")]
    if experiment:
        if given.then:
            raise ConfigError("--then has no effect: an experiment has its own stages")
        extra = [word for word in given.overrides if word not in experiment]
        return plan.experiment(experiment[0].partition("=")[2], extra, seeds, cluster)
    if seeds is None and not given.then:
        if given.table:
            raise ConfigError("--table has no effect on one run; use it with --then or --seeds")
        return plan.one(given.overrides, cluster)
    return plan.chain(given.overrides, seeds, given.then, given.table, cluster)


def _check_mesh(config: Config, asked: Resources) -> None:
    if config.kind == "search":
        from daas_dist.distributed.mesh import choose_data  # torch takes seconds to import

        search = config.search
        fewest = 1 if asked.no_kill else asked.nodes  # it goes on with the nodes that are left
        for nodes in range(fewest, asked.nodes + 1):
            choose_data(
                config.mesh, nodes * asked.ranks, asked.ranks, search.architectures,
                search.batch_size,
            )  # fmt: skip


def _check_images(todo: Plan, asked: Resources) -> None:
    """The folder that a site names is there; of a cluster it may be on the nodes alone."""
    for run in _one_of_each_group(todo):
        if run.place is None or run.config.data.download:
            continue
        absent = site.absent(run.place)
        if absent is not None and asked.kind != "slurm":
            raise ConfigError(absent)
        if absent is not None:
            print(f"warning: on this machine {absent}", file=sys.stderr)


def _check_plain(asked: Resources) -> None:
    """Return what slurm/run.sbatch has no place for is refused, not left out."""
    if asked.kind != "slurm":
        raise ConfigError("--prepare has no effect: slurm/run.sbatch is for a cluster of Slurm's")
    if asked.no_kill:
        raise ConfigError("sbatch: no-kill has no effect with --prepare: submit without it")
    for name in ("setup", "srun", "environment", "container_image", "container_command", "python"):
        if getattr(asked, name):
            raise ConfigError(
                f"{name} has no effect with --prepare: write it into a copy of slurm/run.sbatch"
            )


def _check_slurm(todo: Plan, shown: batch.Site, dry_run: bool) -> None:
    asked, text = shown.resources, batch.script(todo, shown)
    if dry_run:
        print(output(text))
    name = options.overriding(os.environ, batch.given_options(text))
    if name is not None:
        raise ConfigError(f"{name} is set, and counts more than the job's own lines: unset {name}")
    if not slurm.available():
        if dry_run:
            print("\nsbatch is not on PATH here: not asked whether it would take this")
            return
        raise ConfigError("sbatch is not on PATH: submit from a login node, or --cluster local")
    refused = batch.test_only(text) or batch.test_srun(todo, shown)
    if refused is not None:
        raise ConfigError(f"Slurm would not take it: {refused}")
    for check in preflight(asked.partition, asked.minutes, asked.signal_seconds):
        if check.state == "fail":
            raise ConfigError(f"{check.name}: {check.reason}; {check.remedy}")
        if check.state == "warn":
            warning = told(f"{check.name}: {check.reason}; {check.remedy}")
            print(f"warning: {warning}", file=sys.stderr)


def _check_disk(todo: Plan) -> None:
    wanted = sum(estimate.disk(run.config) for run in todo.runs)
    place = next(p for p in (todo.root.absolute(), *todo.root.absolute().parents) if p.exists())
    free = shutil.disk_usage(place).free
    if free < wanted:
        raise ConfigError(
            f"{place} has {free / 2**20:.0f} MiB free, and the checkpoints want "
            f"{wanted / 2**20:.0f}; free some, or set run_dir to another disk"
        )


def _tell(todo: Plan, asked: Resources) -> None:
    gpus = f", {asked.gpus} GPUs a node" if asked.gpus else ""
    limit = f", {asked.minutes} minutes at a time" if asked.kind == "slurm" else ""
    ranks = f"{asked.nodes} node{'s' if asked.nodes > 1 else ''} × {asked.ranks} rank"
    count = f"{len(todo.runs)} run{'s' if len(todo.runs) > 1 else ''}"
    print(told(f"{todo.title}: {count} in {todo.root}"))
    print(f"each on {ranks}{'s' if asked.ranks > 1 else ''}{gpus}{limit}")
    for run in _one_of_each_group(todo):
        passes = f"{estimate.passes(run.config):g} forward-backward passes a step"
        print(told(f"{run.group} ({run.config.stage}): {passes}"))
        near = todo.root.parent if todo.root.parent.exists() else Path("runs")
        print(f"  {told(estimate.hours(run.config, near))}")
        if run.place is not None:
            said = ", ".join(f"{key}={path}" for key, path in run.place.values.items())
            print(told(f"  {said}, from {run.place.origin}"))


def _one_of_each_group(todo: Plan) -> list[Run]:
    return list({run.group: run for run in reversed(todo.runs)}.values())[::-1]


def _twin(todo: Plan, asked: Resources, code: Code) -> str:
    """The command that submits by the plain script."""
    script = Path(__file__).resolve().parents[1] / "slurm" / "run.sbatch"
    given = batch.plain_options(asked)
    last = [str(code.folder), code.digest, sys.executable]
    return "\n".join(
        shlex.join(["sbatch", *given, str(script), str(run.run_dir.absolute()), *last])
        for run in todo.runs
    )


def jobs_told(todo: Plan) -> str:
    lines = [
        told(f"{run.run_dir}: {('job ' + job.id) if job.id else 'on this machine'}")
        for run in todo.runs
        for job in [rundir.submitted(run.run_dir)]
    ]
    folder = f"./{todo.root}" if str(todo.root).startswith("-") else str(todo.root)
    command = shlex.join(["python", "launch/submit.py", "status", folder])
    return "\n".join([*lines, told(command)])


# --- Looking after -------------------------------------------------------------------------------


def _look_after(command: str, words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog=f"submit.py {command}")
    several = "?" if command == "list" else "+"
    parser.add_argument("paths", nargs=several, type=to_path, metavar="RUN")
    if command in ("status", "list"):
        parser.add_argument("--json", action="store_true")
    if command == "status":
        parser.add_argument("--follow", action="store_true", help="until all have ended")
    if command == "logs":
        parser.add_argument("--lines", type=int, default=50)
    given = parser.parse_args(words)
    if command == "logs" and given.lines < 1:
        raise ConfigError(f"--lines {given.lines} is not possible: expected 1 or more")
    if command == "list":
        given.paths = jobs.listed(given.paths or Path("runs"))
        given.follow = False
    if command in ("status", "list"):
        return jobs.status(given.paths, given.json, given.follow)
    if command == "logs":
        for run_dir in rundir.runs_in(given.paths):
            print(jobs.log_tail(run_dir, given.lines))
    elif command == "table":
        for path in given.paths:
            Table(str(path))()
    else:
        act = jobs.cancel if command == "cancel" else jobs.resume
        print("\n".join(map(told, act(given.paths))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
