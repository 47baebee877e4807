"""train.*: what is compared, by which recipe."""

from dataclasses import dataclass
from typing import Annotated, Literal

from daas_dist.config.rules import (
    DISTINCT,
    Cells,
    NotNegative,
    OpenShare,
    Positive,
    Share,
    Text,
    nearest_multiples,
    one_of,
    refuse,
)
from daas_dist.config.schema.search import FIXED
from daas_dist.documents.checked import Count, Natural, Rule
from daas_dist.schedules import CURVES, TAIL

ARCHITECTURES = ("found", "random")
POLICIES = ("found", "default", "trivial_augment", "rand_augment", "auto_augment", "none")
"""What train.compare names. "default" is crop, flip, colour jitter, lighting and cutout as data.*
has them, which all but "none" have too; "none" leaves even these out. Beside ARCHITECTURES it
names FIXED networks, and torchvision's by their names there."""


def in_torchvision(name: str) -> bool:
    """Tell whether torchvision has a classification network by that name."""
    from torchvision import models  # takes a second: only for a name that is none of ours

    return name in models.list_models(module=models)


def _is_row(row: str) -> bool:
    architecture, _, policy = row.partition("/")
    return policy in POLICIES and (architecture in NETWORKS or in_torchvision(architecture))


NETWORKS = (*ARCHITECTURES, *(name for name in FIXED if name != "torchvision"))
ROWS = Rule(
    lambda rows: all(map(_is_row, rows)),
    f"a list of ARCHITECTURE/POLICY, of {', '.join(NETWORKS)} or a network of torchvision's, and "
    f"{', '.join(POLICIES)}",
)
SEEDS = Rule(lambda seeds: all(seed >= 0 for seed in seeds), "whole numbers of 0 or more")
Milestones = Annotated[
    list[int],
    Rule(
        lambda v: v and v[0] >= 1 and all(a < b for a, b in zip(v, v[1:], strict=False)),
        "one or more epochs from 1 on, each after the one before it",
    ),
]


@dataclass(kw_only=True, slots=True)
class Train:
    result: Text | None
    policy_result: Text | None
    policy_per: Literal["iteration", "image"]
    compare: Annotated[list[str], ROWS, DISTINCT]
    seeds: Annotated[list[int], DISTINCT, SEEDS]
    epochs: Count
    batch_size: Count
    micro_batch: Count | None
    channels: Count
    cells: Cells
    auxiliary_weight: NotNegative
    drop_path: Share
    learning_rate: Positive
    schedule: Annotated[str, one_of(*CURVES)]
    schedule_by: Literal["epoch", "step"]
    milestones: Milestones | None
    warmup_epochs: Natural
    warmup_multiplier: Positive | None
    momentum: Share
    nesterov: bool
    weight_decay: NotNegative
    clip: Positive | None
    label_smoothing: Share
    ema_decay: OpenShare | None
    augment_on: Literal["device", "reader"]

    def __post_init__(self) -> None:
        if self.policy_result is not None and self.result is None:
            wanted = "null, as train.result is null: it stands in for that one's policy"
            refuse("train.policy_result", self.policy_result, wanted)
        if self.micro_batch is not None and self.batch_size % self.micro_batch:
            batches = nearest_multiples(self.batch_size, self.micro_batch)
            wanted = f"a multiple of train.micro_batch={self.micro_batch}, as {batches}"
            refuse("train.batch_size", self.batch_size, wanted)
        if self.nesterov and not self.momentum:
            refuse("train.nesterov", True, "false, as train.momentum=0.0")
        if (self.milestones is None) == (self.schedule == "steps"):
            wanted = "epochs as [90, 180, 240]" if self.milestones is None else "null"
            wanted += f", as train.schedule={self.schedule}"
            refuse("train.milestones", self.milestones, wanted)
        if self.schedule == "linear" and self.epochs <= TAIL:
            wanted = f"cosine or steps, as its end alone takes {TAIL} of train.epochs={self.epochs}"
            refuse("train.schedule", self.schedule, wanted)
        if self.warmup_epochs > self.epochs:
            refuse("train.warmup_epochs", self.warmup_epochs, f"at most train.epochs={self.epochs}")
        if self.warmup_multiplier is not None and not self.warmup_epochs:
            wanted = "null, as train.warmup_epochs=0"
            refuse("train.warmup_multiplier", self.warmup_multiplier, wanted)
