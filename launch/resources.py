"""What to ask of a cluster: configs/cluster/<name>.yaml, and the flags, which have the last word.

Whatever is wrong is a ConfigError of one sentence, before anything is submitted.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from daas_dist.config import ConfigError, directory, shown

KINDS = ("slurm", "local", "debug")
SLURM_ONLY = (
    "mem", "time", "partition", "account", "qos", "constraint", "exclude", "array_parallelism",
    "signal_seconds", "setup",
)  # fmt: skip
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
            if value is not None and (not isinstance(value, str) or not value or " " in value):
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

    @property
    def ranks(self) -> int:
        """On each node."""
        return self.ranks_per_node or self.gpus_per_node or 1

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


def load(cluster: str, flags: Mapping[str, Any]) -> Resources:
    """The resources of a cluster by name, changed by the flags that are not None."""
    path = directory() / "cluster" / f"{cluster}.yaml"
    if Path(cluster).name != cluster or not path.exists():
        raise ConfigError(
            f"--cluster {cluster} is not known: expected one of {', '.join(clusters())}, or a new "
            "file in configs/cluster/"
        )
    try:
        values = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {str(error).splitlines()[0]}") from error
    known = [each.name for each in fields(Resources)]
    for key in values:
        if key not in known:
            raise ConfigError(f"{path}: {key} is not a key: expected some of {', '.join(known)}")
    given = {key: value for key, value in flags.items() if value is not None}
    kind = values.get("kind")
    for key in given:
        if kind != "slurm" and key in SLURM_ONLY:
            flag = f"--{key.replace('_', '-')}"
            raise ConfigError(f"{flag} has no effect: --cluster {cluster} is this machine")
    return Resources(**{**values, **given})
