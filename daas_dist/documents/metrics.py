"""metrics.jsonl: a line an interval of a search, a line an epoch of a training.

Losses and accuracies are means over the interval; accuracies are shares of one. Null is what this
run has not: α of a search for a policy, rewards during the warm-up, all of an interval whose every
step was left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from daas_dist.documents import lines
from daas_dist.documents.checked import Count, Moment, Natural, NotNegative, Rule, Share, checked

FILE = "metrics.jsonl"

Shares = Mapping[str, Share]
BothCells = Rule(lambda table: set(table) == {"normal", "reduce"}, "the keys normal and reduce")
WithSkip = Rule(lambda table: "skip_connect" in table, "an operation skip_connect among others")


@dataclass(frozen=True, slots=True)
class SearchRow:
    """The interval that ended with `step`, of `steps`."""

    step: Natural
    epoch: Natural
    steps: Count
    epochs: Count
    phase: Literal["warmup", "joint"]
    time: Moment
    images_per_second: NotNegative
    tau: float | None
    learning_rate: float
    train_loss: float | None
    train_accuracy: Share | None
    val_loss: float | None
    val_accuracy: Share | None
    reward_mean: float | None
    reward_std: float | None
    entropy: Mapping[str, float | None]
    """Mean nats of a choice, by the name of its logits."""
    operation_share: Annotated[Mapping[str, Annotated[Shares, WithSkip]], BothCells] | None
    """Of each kind of cell, the expected share of each operation in the kept edges."""
    skip_share: Annotated[Shares, BothCells] | None
    policy_weight: Mapping[str, NotNegative] | None
    """Of each operation of the policy, probability x application summed over the slots."""
    genotype: Mapping[str, Any] | None

    @staticmethod
    def parse(row: lines.Row) -> "SearchRow":
        return checked(SearchRow, row)

    @property
    def position(self) -> tuple[int, int]:
        """(done, of how many), in steps."""
        return self.step, self.steps


@dataclass(frozen=True, slots=True)
class TrainingRow:
    """An epoch, with the tests after it."""

    epoch: Natural
    epochs: Count
    time: Moment
    learning_rate: float
    train_loss: float
    train_accuracy: Share
    test_loss: float
    test_accuracy: Share
    images_per_second: NotNegative
    test_top5: Share | None = None
    """None for 5 classes or fewer."""
    test_calibration_error: Share | None = None
    ema_loss: float | None = None
    ema_accuracy: Share | None = None

    @staticmethod
    def parse(row: lines.Row) -> "TrainingRow":
        return checked(TrainingRow, row)

    @property
    def position(self) -> tuple[int, int]:
        """(done, of how many), in epochs."""
        return self.epoch, self.epochs


MetricsRow = SearchRow | TrainingRow


def best_accuracy(folder: Path) -> float:
    """The highest test accuracy of all epochs of a training, 0 before the first."""
    rows = lines.stream(folder / FILE, TrainingRow.parse)
    return max((row.test_accuracy for row in rows), default=0.0)
