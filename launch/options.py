"""Options of sbatch and srun by name, and environment variables: which a site may add.

What has a key of its own in configs/cluster/ is given by that key, and what a run relies on, as to
come back after a preemption, cannot be changed: both are a ConfigError of one sentence.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from daas_dist.config import ConfigError, shown

Value = str | int | float | bool | None
"""true gives an option without a value; false and null give none, in place of the file's."""

KEYS = {
    "nodes": "nodes",
    "ntasks": "ranks_per_node",
    "ntasks-per-node": "ranks_per_node",
    "tasks-per-node": "ranks_per_node",
    "gpus": "gpus_per_node",
    "gpus-per-node": "gpus_per_node",
    "cpus-per-task": "cpus_per_gpu",
    "cpus-per-gpu": "cpus_per_gpu",
    "mem": "mem",
    "time": "time",
    "partition": "partition",
    "account": "account",
    "qos": "qos",
    "constraint": "constraint",
    "exclude": "exclude",
    "signal": "signal_seconds",
}
"""sbatch's options that are keys of a cluster file."""
RANKS = dict.fromkeys(
    (
        "gpus-per-task", "gpus-per-socket", "ntasks-per-gpu", "ntasks-per-core",
        "ntasks-per-socket", "hint",
    ),
    "a rank takes the GPU of its place on its node: gpus_per_node and ranks_per_node say how many",
)  # fmt: skip
LOGS = dict.fromkeys(
    ("output", "error", "input", "open-mode"),
    "`status` and `logs` read what a job prints in its run directory",
)
NOT_OURS = dict.fromkeys(
    (
        "wrap", "wait", "test-only", "parsable", "quiet", "verbose", "help", "usage", "version",
        "pty", "multi-prog", "het-group", "jobid", "clusters", "uid", "gid",
    ),
    "it changes what is submitted, or what Slurm answers",
)  # fmt: skip
ENVIRONMENT = dict.fromkeys(("export", "export-file"), "`environment` has the job's variables")
PLACE = dict.fromkeys(("chdir",), "a job works in the folder that it was submitted from")
SBATCH = {
    **{option: f"the key {key} says it" for option, key in KEYS.items()},
    **RANKS, **LOGS, **NOT_OURS, **ENVIRONMENT, **PLACE,
    "array": "--seeds makes the array, and array_parallelism says how many at once",
    "requeue": "a run goes back into the queue by itself",
    "no-requeue": "a preempted run goes back into the queue",
    "dependency": "--then says what waits for what",
    "kill-on-invalid-dep": "--then says what waits for what",
    "job-name": "a job has the name of its run directory",
}  # fmt: skip
SRUN = {
    **{option: f"the key {key} says it" for option, key in KEYS.items()},
    **RANKS, **LOGS, **NOT_OURS, **ENVIRONMENT, **PLACE,
    "kill-on-bad-exit": "a dead rank ends the step, so that the run comes back",
    "wait": "a dead rank ends the step, so that the run comes back",
    "unbuffered": "it is given already",
    "container-image": "the key container_image says it",
}  # fmt: skip
RANK_VARIABLES = re.compile(
    r"SLURM_|SUBMITIT_|(RANK|WORLD_SIZE|LOCAL_RANK|LOCAL_WORLD_SIZE|MASTER_ADDR|MASTER_PORT)$"
)
READ_BEFORE = ("DAAS_DATA", "DAAS_CLUSTER")
INPUTS = {"time": "TIMELIMIT", "mem": "MEM_PER_NODE", "array": "ARRAY_INX"}
"""What sbatch's variables are called after SBATCH_ where it is not the option's name."""
NEVER = ("no-requeue", "array", "wait", "input", "error")
UNSAFE = re.compile(r"[\x00-\x1f\x7f]")


def check(where: str, refused: Mapping[str, str], options: Any) -> dict[str, Value]:
    """Check options given by name; returns them with dashes. where: sbatch or srun."""
    checked: dict[str, Value] = {}
    for name, value in _items(where, options, "options by name, as {reservation: x}"):
        option = name.replace("_", "-")
        given = f"{where}: {name}={shown(value)} is not possible"
        if not re.fullmatch(r"[a-z][a-z0-9-]+", option):
            raise ConfigError(f"{given}: expected the long name of an option, without dashes")
        if option in refused:
            raise ConfigError(f"{given}: {refused[option]}")
        if isinstance(value, list | dict) or (isinstance(value, str) and UNSAFE.search(value)):
            raise ConfigError(f"{given}: expected a text of one line, a number, true or false")
        if option in checked:
            raise ConfigError(f"{given}: it is given twice")
        checked[option] = value
    return checked


def check_environment(variables: Any) -> dict[str, str]:
    """Check environment variables by name; returns their values as texts."""
    checked = {}
    for name, value in _items("environment", variables, "variables by name, as {NCCL_DEBUG: INFO}"):
        given = f"environment: {name}={shown(value)} is not possible"
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ConfigError(f"{given}: expected the name of a variable")
        if RANK_VARIABLES.match(name):
            raise ConfigError(f"{given}: Slurm and the launcher set it for each rank")
        if name in READ_BEFORE:
            raise ConfigError(f"{given}: it is read before a job is submitted, not in it")
        told = isinstance(value, str | int | float) and not isinstance(value, bool)
        if not told or "\0" in str(value):
            raise ConfigError(f"{given}: expected a text or a number; true and false in quotes")
        checked[name] = str(value)
    return checked


def flags(options: Mapping[str, Value]) -> list[str]:
    """Write options as the words of a command."""
    given = {name: value for name, value in options.items() if value not in (False, None)}
    return [f"--{n}" if value is True else f"--{n}={value}" for n, value in given.items()]


def pairs(flag: str, words: Iterable[str]) -> dict[str, str | None]:
    """Split NAME=VALUE of a flag that may be repeated; the value is None where there is no "="."""
    found: dict[str, str | None] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not name or name in found:
            wanted = "NAME=VALUE, each name once"
            raise ConfigError(f"{flag} {word} is not possible: expected {wanted}")
        found[name] = value if equals else None
    return found


def from_flags(flag: str, words: Iterable[str]) -> dict[str, Value]:
    """Read options from a flag: NAME alone and NAME=true give it without a value."""
    constants: dict[str | None, Value] = {None: True, "true": True, "false": False, "null": None}
    return {name: constants.get(value, value) for name, value in pairs(flag, words).items()}


def variables_from_flags(words: Iterable[str]) -> dict[str, str]:
    found = pairs("--env", words)
    for name, value in found.items():
        if value is None:
            raise ConfigError(f"--env {name} is not possible: expected NAME=VALUE")
    return {name: str(value) for name, value in found.items()}


def gpus_in(gres: Value) -> int | None:
    """Count the GPUs that a gres asks of each node; None where it asks for none."""
    parts = [part.strip() for part in str(gres or "").split(",")]
    asked = [re.fullmatch(r"(?:gres[/:])?gpu((?::[^:()]+)*)(\(.*\))?", part) for part in parts]
    counts = [found.group(1).rpartition(":")[2] for found in asked if found is not None]
    if not counts:
        return None
    return sum(int(count) if count.isdigit() else 1 for count in counts) or None


def overriding(environment: Mapping[str, str], options: Mapping[str, str]) -> str | None:
    """Find a variable of sbatch that would override a job's options, or add one that a run cannot
    have: sbatch's variables count more than the lines of a script. Returns its name, else None."""
    for option, value in {**dict.fromkeys(NEVER, None), **options}.items():
        name = f"SBATCH_{INPUTS.get(option, option.upper().replace('-', '_'))}"
        if environment.get(name, value) != value and option != "wckey":  # submitit's own
            return name
    return None


def _items(where: str, values: Any, wanted: str) -> list[tuple[str, Any]]:
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where}: {shown(values)} is not possible: expected {wanted}")
    return [(str(name), value) for name, value in values.items()]
