"""The small documents of a run directory and of a submission."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from daas_dist.documents.checked import Count, Moment, Name, Natural, NotNegative, PathText, Rule
from daas_dist.documents.whole import Document

NEW_RUN = "get it back from a copy, or set run_dir to a new folder"

Commit = Annotated[
    str, Rule(lambda text: bool(re.fullmatch("[0-9a-f]{6,64}", text)), "the number of a commit")
]


@dataclass(frozen=True)
class Provenance:
    """Which code, on what, made a run. commit is None outside a git checkout."""

    commit: Commit | None
    dirty: bool
    diff_sha256: str | None
    versions: Mapping[str, str | None]
    host: str
    command: list[str]
    device: str
    started: str
    data_sha256: str


PROVENANCE = Document(Provenance, "provenance.json", NEW_RUN)


@dataclass(frozen=True)
class Checkout:
    """Of which checkout a copy of the code is; diff_sha256 is over what differs from the commit."""

    commit: Commit | None
    dirty: bool
    diff_sha256: str | None


CHECKOUT = Document(Checkout, "checkout.json", "remove the folder that it is in, and submit again")


@dataclass(frozen=True)
class Owner:
    """Whose a run directory is: a process, when it began, and a word that no other has."""

    host: str
    pid: Natural
    started: str | None
    token: str
    place: str | None = None
    """Where its number is a process's: lock.place()."""
    job: str | None = None
    """Of a cluster, that the process is of."""


OWNER = Document(Owner, "lock", "it names no owner: remove it if no job is at work there")


@dataclass(frozen=True)
class Cut:
    """The micro-batch that a training began with."""

    micro_batch: Count


CUT = Document(Cut, "cut.json", NEW_RUN)


@dataclass(frozen=True)
class Rendezvous:
    """Where the ranks of one start meet."""

    address: str
    port: Count


def rendezvous(start: str) -> Document[Rendezvous]:
    """Return the document of a start of a job, by its name."""
    return Document(Rendezvous, f"{start}.json", "remove it, and start the job again")


@dataclass(frozen=True)
class SubmittedJob:
    """Where a run was submitted, and as what. id: Slurm's; "" on this machine."""

    cluster: Literal["slurm", "local", "debug"]
    id: str
    name: Name
    plan: PathText
    """The folder of the submission."""
    after: list[PathText]
    """The run directories that it needs."""
    resources: Mapping[str, Any]
    cwd: PathText
    command: list[str]
    submitted: Moment = 0.0
    code_sha256: str = ""
    """Of the frozen code; launch/snapshot.py has how."""


JOB = Document(SubmittedJob, "job.json", "get it back from a copy, or submit the run again")


@dataclass(frozen=True)
class LocalRun:
    """A run of a plan on this machine; after: the names of those that it needs."""

    name: Name
    run_dir: PathText
    after: list[Name]


@dataclass(frozen=True)
class LocalPlan:
    """What launch.local does, one run after the other."""

    ranks: Count
    threads: Count | None
    table: bool
    runs: list[LocalRun] = field(default_factory=list)
    environment: Mapping[str, str] = field(default_factory=dict)
    front: list[str] = field(default_factory=list)
    """Words before Python: of a container."""
    python: str | None = None
    """None: the one that runs launch.local."""

    def __post_init__(self) -> None:
        names = {run.name for run in self.runs}
        for run in self.runs:
            if not names >= set(run.after):
                raise ValueError(f"{run.name!r} is after {run.after}, which are no runs of it")


PLAN = Document(LocalPlan, "plan.json", "get it back from a copy, or submit again")


@dataclass(frozen=True)
class CheckpointFile:
    """Of one file of a checkpoint."""

    bytes: Natural
    sha256: str


KEPT_CHECKPOINTS = 2
"""Of each search and each row of a training: one to fall back on if the newest is damaged."""


@dataclass(frozen=True)
class Manifest:
    """manifest.json of a checkpoint. sha256: of all the rest."""

    schema: Natural
    step: Natural
    torch: str
    files: Mapping[str, CheckpointFile]
    sha256: str


@dataclass(frozen=True)
class TableRow:
    """Trainings of a plan over their seeds; errors in percent, of the last epoch."""

    run: str
    pair: str
    trainings: Count
    seeds: Count
    best: float
    mean: float
    std: float | None
    parameters: NotNegative


@dataclass(frozen=True)
class Table:
    """table.json: what is finished; missing: the names of the other runs."""

    schema: Literal[1]
    rows: list[TableRow]
    missing: list[Name]


TABLE = Document(Table, "table.json", "remove it, and make the table again")
