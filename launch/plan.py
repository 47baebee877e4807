"""Which runs a submission is: one, several seeds, a chain of stages, a whole experiment.

A run's overrides may hold {NAME}, the result.json of the run of that name with the same seed, and
{NAME:other}, that of another seed; a run is after what it names. {seed} and {other} are numbers.
"""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from daas_dist import config as configuration
from daas_dist.config import Config, ConfigError, directory
from daas_dist.config.overrides import quoted
from daas_dist.config.site import ClusterFile, Place

PLACE = re.compile(r"\{(\w+)(:other)?\}")


@dataclass(frozen=True)
class Run:
    """One run directory to be, and the runs that must have finished before it."""

    name: str
    group: str
    """Its name without the seed: runs of a group differ in their seeds alone."""
    run_dir: Path
    config: Config
    after: tuple[str, ...] = ()
    place: Place | None = None
    """Where the site said that its images lie."""


@dataclass(frozen=True)
class Plan:
    root: Path
    """The folder of all its runs; the run directory itself where there is one run."""
    title: str
    runs: tuple[Run, ...]
    """In an order in which each is after those that it needs."""
    table: bool = False


@dataclass(frozen=True)
class Stage:
    """A run for every seed, or for every pair of seeds."""

    name: str
    overrides: tuple[str, ...]
    pairs: bool = False

    def needs(self) -> set[str]:
        found = {match.group(1) for text in self.overrides for match in PLACE.finditer(text)}
        return found - {"seed", "other"}


def one(overrides: Sequence[str], cluster: ClusterFile | None = None) -> Plan:
    """The run that `daas run OVERRIDES` is. cluster: the file that says where the data lie."""
    config = configuration.load(overrides, cluster)
    root = Path(config.run_dir) if config.run_dir else _new(config.stage)
    words = [*overrides, f"run_dir={quoted(str(root.absolute()))}"]
    config, place = configuration.load_and_place(words, cluster)
    run = Run(root.absolute().name, config.stage, root, config, place=place)
    return Plan(root, config.stage, (run,))


def chain(
    overrides: Sequence[str],
    seeds: Sequence[int] | None,
    then: Sequence[str],
    table: bool,
    cluster: ClusterFile | None = None,
) -> Plan:
    """A stage for every seed, and after each its following stages."""
    config = configuration.load(overrides, cluster)
    overrides, root = _without_root(overrides, config)
    first = config.kind
    stages = [Stage(first, tuple(overrides))]
    for text in then:
        words = shlex.split(text)
        # What it takes from the search is not there yet, and any path passes at the door.
        kind = _kind(words)
        if kind == "train" and not any(word.startswith("train.result=") for word in words):
            words.append(f"train.result={{{first}}}")
        taken = [stage.name for stage in stages]
        number = sum(name.startswith(kind) for name in taken)
        stages.append(Stage(f"{kind}{number + 1}" if number else kind, tuple(words)))
    title = " → ".join([config.stage, *then])
    numbers = [config.seed] if seeds is None else seeds
    return Plan(root, title, _runs(stages, numbers, root, cluster), table)


def experiment(
    name: str,
    extra: Sequence[str],
    seeds: Sequence[int] | None,
    cluster: ClusterFile | None = None,
) -> Plan:
    """configs/experiment/<name>.yaml, with overrides for those of its runs that read them."""
    folder = directory() / "experiment"
    path = folder / f"{name}.yaml"
    if Path(name).name != name or not path.exists():
        known = ", ".join(sorted(each.stem for each in folder.glob("*.yaml")))
        raise ConfigError(f"experiment={name} is not possible: expected one of {known}")
    values: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    run_dir = configuration.text(extra, "run_dir")
    extra = [word for word in extra if not word.startswith("run_dir=")]
    stages, used = [], set[str]()
    for key, run in values["runs"].items():
        read = _read_by(run["overrides"], extra)
        used |= set(read)
        # Before the experiment's own, so that {seed} and {search} stand.
        words = (run["overrides"][0], *read, *run["overrides"][1:])
        stages.append(Stage(key, words, run.get("pairs", False)))
    unused = [word for word in extra if word not in used]
    if unused:
        raise ConfigError(f"{unused[0]} has no effect: no run of experiment={name} reads it")
    root = Path(run_dir) if run_dir else _new(name)
    numbers = values["seeds"] if seeds is None else seeds
    return Plan(root, values["title"], _runs(stages, numbers, root, cluster), table=True)


def parse_seeds(text: str) -> list[int]:
    """0-3 or 0,2,5."""
    seeds: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if found is None:
            raise ConfigError(f"--seeds {text} is not possible: expected 0-3, or 0,2,5")
        first, last = int(found.group(1)), int(found.group(2) or found.group(1))
        seeds += range(first, last + 1)
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(f"--seeds {text} is not possible: expected one or more, none twice")
    return seeds


def _runs(
    stages: Sequence[Stage], seeds: Sequence[int], root: Path, cluster: ClusterFile | None
) -> tuple[Run, ...]:
    runs: list[Run] = []
    for stage in stages:
        unknown = stage.needs() - {each.name for each in stages[: stages.index(stage)]}
        if unknown:
            raise ConfigError(f"{{{min(unknown)}}} is no run before {stage.name}")
        for seed, other in product(seeds, seeds if stage.pairs else [None]):
            after: set[str] = set()
            name = f"{stage.name}-seed{seed}" + ("" if other is None else f"-policy{other}")

            def result(match: re.Match[str], seed: int = seed, other: int | None = other) -> str:
                number = other if match.group(2) else seed
                if match.group(1) in ("seed", "other"):
                    return str(seed if match.group(1) == "seed" else other)
                before = f"{match.group(1)}-seed{number}"
                after.add(before)  # noqa: B023 (called at once)
                return quoted(str((root / before / "result.json").absolute()))

            words = [PLACE.sub(result, text) for text in stage.overrides]
            run_dir = root / name
            words += [f"seed={seed}", f"run_dir={quoted(str(run_dir.absolute()))}"]
            config, place = configuration.load_and_place(words, cluster)
            runs.append(Run(name, stage.name, run_dir, config, tuple(sorted(after)), place))
    return tuple(runs)


def _kind(words: Sequence[str]) -> str:
    return str(configuration.composition([PLACE.sub("x", word) for word in words]).values["kind"])


def _read_by(own: Sequence[str], extra: Sequence[str]) -> list[str]:
    """Return those of the extra overrides that a run with all of them reads."""
    words = [PLACE.sub("x", word) for word in (own[0], *extra, *own[1:])]
    values = configuration.unchecked(words)
    return [word for word in extra if not configuration.without_effect(word, values)]


def _without_root(overrides: Sequence[str], config: Config) -> tuple[list[str], Path]:
    left = [word for word in overrides if not word.startswith(("run_dir=", "seed="))]
    return left, Path(config.run_dir) if config.run_dir else _new(config.stage)


def _new(name: str) -> Path:
    return Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
