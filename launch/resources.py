"""What to ask of a cluster: its file (daas_dist/config/site.py), and the flags, which win.

Whatever is wrong is a ConfigError of one sentence, before anything is submitted.
"""

import re
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

from daas_dist.config import ConfigError, directory, shown, site
from daas_dist.config.site import ClusterFile
from launch import options
from launch.options import Value

KINDS = ("slurm", "local", "debug")
SLURM_ONLY = (
    "mem", "time", "partition", "account", "qos", "constraint", "exclude", "array_parallelism",
    "signal_seconds", "setup", "sbatch", "srun", "container_image",
)  # fmt: skip
NAMED: dict[str, Callable[[Any], dict[str, Any]]] = {
    "sbatch": partial(options.check, "sbatch", options.SBATCH),
    "srun": partial(options.check, "srun", options.SRUN),
    "environment": options.check_environment,
}
"""Keys with values by name, and their checks: a flag changes one value, and leaves the others."""
TIME = re.compile(r"(?:(\d+)-)?(\d{1,3})(?::(\d{1,2}))?(?::(\d{1,2}))?")
LEAST_MINUTES = 1


@dataclass(frozen=True, kw_only=True)
class Resources:
    """One submission's resources; every field a key of configs/cluster/ and most a flag."""

    kind: str
    nodes: int = 1
    gpus_per_node: int | None = None
    ranks_per_node: int | None = None
    cpus_per_gpu: int | None = None
    mem: str | None = None
    time: str = "1-00:00:00"
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    exclude: str | None = None
    array_parallelism: int = 256
    signal_seconds: int = 90
    setup: list[str] = field(default_factory=list)
    sbatch: dict[str, Value] = field(default_factory=dict)
    srun: dict[str, Value] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    container_image: str | None = None
    container_command: str | None = None
    python: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"kind={self.kind} is not possible: expected one of {KINDS}")
        for name in ("nodes", "array_parallelism", "signal_seconds"):
            self._check(name, int, 1)
        for name in ("gpus_per_node", "ranks_per_node", "cpus_per_gpu"):
            if getattr(self, name) is not None:
                self._check(name, int, 1)
        for name in ("mem", "partition", "account", "qos", "constraint", "exclude"):
            value = getattr(self, name)
            plain = isinstance(value, str) and re.fullmatch(r"\S+", value)
            if value is not None and not plain:
                self._refuse(name, "a text without spaces")
        if self.mem is not None and not re.fullmatch(r"\d+[KMGT]?B?", self.mem):
            self._refuse("mem", "a size such as 64G")
        if self.kind != "slurm" and self.nodes != 1:
            self._refuse("nodes", f"1, as {self.kind} is this machine; --cluster slurm has more")
        if not isinstance(self.setup, list) or not all(isinstance(s, str) for s in self.setup):
            self._refuse("setup", "a list of lines")
        if self.kind == "slurm" and 60 * self.minutes <= self.signal_seconds:
            self._refuse(
                "time", f"more than the {self.signal_seconds} s (signal_seconds) a run has to save"
            )
        self._check_options()
        self._check_container()

    def _check_options(self) -> None:
        for name, check in NAMED.items():
            object.__setattr__(self, name, check(getattr(self, name)))
        asked = options.gpus_in(self.sbatch.get("gres"))
        if asked is not None and self.gpus_per_node not in (None, asked):
            gres = f"sbatch: gres={self.sbatch['gres']}"
            raise ConfigError(
                f"{gres} is not possible beside gpus_per_node={self.gpus_per_node}: expected the "
                "same number, or one of the two"
            )
        for option in ("mem-per-cpu", "mem-per-gpu"):
            if self.mem is not None and self.sbatch.get(option) is not None:
                told = f"sbatch: {option}={self.sbatch[option]} is not possible"
                raise ConfigError(f"{told} beside mem={self.mem}: expected one of the two")

    def _check_container(self) -> None:
        for name in ("container_image", "container_command", "python"):
            value = getattr(self, name)
            wrong = not isinstance(value, str) or not value.strip() or options.UNSAFE.search(value)
            if value is not None and wrong:
                self._refuse(name, "a text of one line")
        if self.container_image is not None and self.container_command is not None:
            self._refuse("container_command", "null, as container_image is given")
        if self.container_image is None and "container-mounts" in self.srun:
            raise ConfigError("srun: container-mounts is not possible: container_image is null")
        try:
            shlex.split(self.container_command or "")
        except ValueError as error:
            self._refuse("container_command", f"a command in front of Python ({error})")

    @property
    def gpus(self) -> int | None:
        """Return how many GPUs each node has, None where nobody says."""
        return self.gpus_per_node or options.gpus_in(self.sbatch.get("gres"))

    @property
    def ranks(self) -> int:
        """Return how many ranks each node has."""
        return self.ranks_per_node or self.gpus or 1

    @property
    def front(self) -> list[str]:
        """The words in front of a rank's Python."""
        return shlex.split(self.container_command or "")

    @property
    def rank_python(self) -> str:
        return self.python or (sys.executable if self.container_image is None else "python3")

    @property
    def no_kill(self) -> bool:
        """Tell whether a job shall go on with the nodes that are left where one is lost."""
        return self.sbatch.get("no-kill") not in (None, False, "off")

    @property
    def world(self) -> int:
        return self.nodes * self.ranks

    @property
    def minutes(self) -> int:
        """The time limit in whole minutes, as Slurm counts it."""
        found = TIME.fullmatch(self.time) if isinstance(self.time, str) else None
        if found is None:
            self._refuse("time", "[days-]hours:minutes:seconds, in quotes, or minutes")
        assert found is not None
        days, *rest = (None if part is None else int(part) for part in found.groups())
        first, second, third = rest
        # As sbatch reads it: minutes, minutes:seconds, hours:minutes:seconds, days-hours:…
        if days is None and third is None:
            seconds = 60 * (first or 0) + (second or 0)
        else:
            seconds = ((24 * (days or 0) + (first or 0)) * 60 + (second or 0)) * 60 + (third or 0)
        return max(LEAST_MINUTES, -(-seconds // 60))

    def _check(self, name: str, kind: type, least: int) -> None:
        value = getattr(self, name)
        if not isinstance(value, kind) or isinstance(value, bool) or value < least:
            self._refuse(name, f"a whole number of at least {least}")

    def _refuse(self, name: str, allowed: str) -> None:
        flag = f"--{name.replace('_', '-')}"
        raise ConfigError(f"{flag} {shown(getattr(self, name))} is not possible: {allowed}")


def clusters() -> list[str]:
    return sorted(path.stem for path in (directory() / "cluster").glob("*.yaml"))


def cluster_file(name: str | None) -> ClusterFile:
    """Read the file of --cluster, else that of DAAS_CLUSTER, else slurm's."""
    return site.read(name, directory()) if name else site.named("slurm", directory())


def load(cluster: str | ClusterFile, flags: Mapping[str, Any]) -> Resources:
    """Read what a cluster's file asks for, changed by the flags that are not None."""
    file = cluster_file(cluster) if isinstance(cluster, str) else cluster
    values = {key: value for key, value in file.values.items() if key != site.ROOTS}
    known = [each.name for each in fields(Resources)]
    for key in values:
        if key not in known:
            expected = ", ".join([*known, site.ROOTS])
            raise ConfigError(f"{file.path}: {key} is not a key: expected some of {expected}")
    if "kind" not in values:
        raise ConfigError(f"{file.path}: kind is missing: expected one of {', '.join(KINDS)}")
    given = {key: value for key, value in flags.items() if value not in (None, {})}
    if values["kind"] != "slurm":
        _refuse_slurm_only(file, values, given)
    named = {
        key: {**check(values.get(key) or {}), **check(given.get(key, {}))}
        for key, check in NAMED.items()
    }
    return Resources(**{**values, **given, **named})


def _refuse_slurm_only(
    file: ClusterFile, values: Mapping[str, Any], given: Mapping[str, Any]
) -> None:
    for key in SLURM_ONLY:
        if key in given:
            flag = f"--{key.replace('_', '-')}"
            raise ConfigError(f"{flag} has no effect: --cluster {file.path.stem} is this machine")
        if values.get(key) not in (None, [], {}):
            kind = values.get("kind")
            raise ConfigError(f"{file.path}: {key} has no effect: kind={kind} is this machine")
