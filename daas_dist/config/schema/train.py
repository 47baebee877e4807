"""train.*: what is compared, by which recipe."""

from dataclasses import dataclass

from daas_dist.config.rules import (
    CELLS,
    COUNT,
    DISTINCT,
    MILESTONES,
    NATURAL,
    NOT_NEGATIVE,
    OPEN_SHARE,
    POSITIVE,
    SEEDS,
    SHARE,
    check,
    nearest_multiples,
    one_of,
    refuse,
)
from daas_dist.config.schema.search import FIXED
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


@dataclass(kw_only=True, slots=True)
class Train:
    result: str | None
    policy_result: str | None
    policy_per: str
    compare: list[str]
    seeds: list[int]
    epochs: int
    batch_size: int
    micro_batch: int | None
    channels: int
    cells: int
    auxiliary_weight: float
    drop_path: float
    learning_rate: float
    schedule: str
    schedule_by: str
    milestones: list[int] | None
    warmup_epochs: int
    warmup_multiplier: float | None
    momentum: float
    nesterov: bool
    weight_decay: float
    decay_norms: bool
    clip: float | None
    label_smoothing: float
    ema_decay: float | None
    augment_on: str

    def __post_init__(self) -> None:
        networks = (*ARCHITECTURES, *(name for name in FIXED if name != "torchvision"))
        for row in self.compare:
            architecture, _, policy = row.partition("/")
            if policy not in POLICIES or not (
                architecture in networks or in_torchvision(architecture)
            ):
                wanted = f"a list of ARCHITECTURE/POLICY, of {', '.join(networks)} or a network of "
                wanted += f"torchvision's, and {', '.join(POLICIES)}"
                refuse("train.compare", self.compare, wanted)
        if self.policy_result is not None and self.result is None:
            wanted = "null, as train.result is null: it stands in for that one's policy"
            refuse("train.policy_result", self.policy_result, wanted)
        check(self, "train", one_of("iteration", "image"), "policy_per")
        check(self, "train", DISTINCT, "compare", "seeds")
        check(self, "train", SEEDS, "seeds")
        check(self, "train", COUNT, "epochs", "batch_size", "micro_batch", "channels")
        if self.micro_batch is not None and self.batch_size % self.micro_batch:
            batches = nearest_multiples(self.batch_size, self.micro_batch)
            wanted = f"a multiple of train.micro_batch={self.micro_batch}, as {batches}"
            refuse("train.batch_size", self.batch_size, wanted)
        check(self, "train", CELLS, "cells")
        check(self, "train", POSITIVE, "learning_rate", "clip")
        check(self, "train", NOT_NEGATIVE, "auxiliary_weight", "weight_decay")
        check(self, "train", SHARE, "drop_path", "momentum", "label_smoothing")
        check(self, "train", OPEN_SHARE, "ema_decay")
        check(self, "train", one_of(*CURVES), "schedule")
        check(self, "train", one_of("epoch", "step"), "schedule_by")
        check(self, "train", MILESTONES, "milestones")
        check(self, "train", one_of("device", "reader"), "augment_on")
        check(self, "train", NATURAL, "warmup_epochs")
        check(self, "train", POSITIVE, "warmup_multiplier")
        if self.nesterov and not self.momentum:
            refuse("train.nesterov", True, "false, as train.momentum=0.0")
        self._check_schedule()

    def _check_schedule(self) -> None:
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
