"""Submit runs to a cluster or to this machine, and look after them.

    python launch/submit.py --nodes 4 --gpus-per-node 8 stage=search_cifar10 data.root=/shared/data
    python launch/submit.py --seeds 0-3 --then stage=train_fashion --table stage=search_fashion
    python launch/submit.py experiment=table4 data.root=/shared/data
    python launch/submit.py status|logs|cancel|resume|table RUN…
    python launch/submit.py list [FOLDER]

What is not a flag is KEY=VALUE, as `daas run` takes it.
"""

import argparse
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from daas_dist import slurm
from daas_dist.config import Config, ConfigError
from daas_dist.doctor import preflight
from daas_dist.escaping import output, told
from daas_dist.overrides import to_path
from daas_dist.slurm import SlurmError
from launch import estimate, executors, jobs, plan, resources, rundir
from launch.plan import Plan
from launch.resources import Resources
from launch.table import Table

COMMANDS = ("status", "logs", "cancel", "resume", "list", "table")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0; 1 where a cluster refuses; 2 for a wrong call or value, told in one line."""
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
    names = {each.name for each in fields(Resources)} - {"kind", "setup"}
    asked = resources.load(given.cluster, {name: getattr(given, name) for name in names})
    todo = _plan(given)
    rundir.check(todo)
    jobs.check_idle(todo)
    for run in todo.runs:
        _check_mesh(run.config, asked)
    _tell(todo, asked)
    if asked.kind == "slurm":
        _check_slurm(todo, asked, given.dry_run)
    if given.dry_run:
        return 0
    _check_disk(todo)
    with rundir.submitting(todo.root):
        rundir.check(todo)  # again: another submission may have come between
        jobs.check_idle(todo)
        code = rundir.prepare(todo)
        if given.prepare:
            print(_twin(todo, asked))
            return 0
        executors.submit(todo, executors.Site(asked, code, Path.cwd()))
    if asked.kind != "debug":
        print(jobs_told(todo))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="submit.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("overrides", nargs="*", metavar="KEY=VALUE", help="stage=NAME or experiment=NAME, and more")
    add("--cluster", default="slurm", help="a file of configs/cluster/ (default: slurm)")
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
    add("--seeds", help="0-3 or 0,2,5: a run for each")
    add("--then", action="append", default=[], metavar="'stage=NAME …'", help="after each of them")
    add("--table", action="store_true", help="and a table of all, at the end")
    add("--dry-run", action="store_true", help="print what would be submitted, and make nothing")
    add("--prepare", action="store_true", help="make the run directory; submit by slurm/run.sbatch")
    return parser


def _plan(given: argparse.Namespace) -> Plan:
    seeds = None if given.seeds is None else plan.parse_seeds(given.seeds)
    experiment = [word for word in given.overrides if word.startswith("experiment=")]
    if experiment:
        if given.then:
            raise ConfigError("--then has no effect: an experiment has its own stages")
        extra = [word for word in given.overrides if word not in experiment]
        return plan.experiment(experiment[0].partition("=")[2], extra, seeds)
    if seeds is None and not given.then:
        if given.table:
            raise ConfigError("--table has no effect on one run; use it with --then or --seeds")
        return plan.one(given.overrides)
    return plan.chain(given.overrides, seeds, given.then, given.table)


def _check_mesh(config: Config, asked: Resources) -> None:
    if config.kind == "search":
        from daas_dist.mesh import choose_data  # torch takes seconds to import

        search = config.search
        choose_data(config.mesh, asked.world, asked.ranks, search.architectures, search.batch_size)


def _check_slurm(todo: Plan, asked: Resources, dry_run: bool) -> None:
    text = executors.script(todo, asked, Path.cwd())
    if dry_run:
        print(output(text))
    if not slurm.available():
        if dry_run:
            print("\nsbatch is not on PATH here: not asked whether it would take this")
            return
        raise ConfigError("sbatch is not on PATH: submit from a login node, or --cluster local")
    refused = executors.test_only(text)
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
    gpus = f", {asked.gpus_per_node} GPUs a node" if asked.gpus_per_node else ""
    limit = f", {asked.minutes} minutes at a time" if asked.kind == "slurm" else ""
    ranks = f"{asked.nodes} node{'s' if asked.nodes > 1 else ''} × {asked.ranks} rank"
    count = f"{len(todo.runs)} run{'s' if len(todo.runs) > 1 else ''}"
    print(told(f"{todo.title}: {count} in {todo.root}"))
    print(f"each on {ranks}{'s' if asked.ranks > 1 else ''}{gpus}{limit}")
    done: set[str] = set()
    for run in todo.runs:
        if run.group in done:
            continue
        done.add(run.group)
        passes = f"{estimate.passes(run.config):g} forward-backward passes a step"
        print(told(f"{run.group} ({run.config.stage}): {passes}"))
        near = todo.root.parent if todo.root.parent.exists() else Path("runs")
        print(f"  {told(estimate.hours(run.config, near))}")


def _twin(todo: Plan, asked: Resources) -> str:
    """The command that submits by the plain script."""
    script = Path(__file__).resolve().parents[1] / "slurm" / "run.sbatch"
    lines = []
    for run in todo.runs:
        words = [
            "sbatch", f"--nodes={asked.nodes}", f"--ntasks-per-node={asked.ranks}",
            f"--time={asked.minutes}", *([f"--gpus-per-node={asked.gpus_per_node}"]
            if asked.gpus_per_node else []),
            str(script), str(run.run_dir.absolute()), str(todo.root.absolute() / "code"),
            sys.executable,
        ]  # fmt: skip
        lines.append(shlex.join(words))
    return "\n".join(lines)


def jobs_told(todo: Plan) -> str:
    lines = [
        told(f"{run.run_dir}: {('job ' + job.id) if job.id else 'on this machine'}")
        for run in todo.runs
        for job in [rundir.submitted(run.run_dir)]
    ]
    return "\n".join([*lines, told(f"python launch/submit.py status {todo.root}")])


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
