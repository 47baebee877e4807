"""The numbers of the steps since the last line of metrics.jsonl."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

NAMES = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "reward_mean", "reward_std")


@dataclass(frozen=True)
class Interval:
    """Sums over the steps since the last line of metrics: part of the state, so that a resume
    loses none. (2, NAMES): sums, and of how many steps."""

    sums: Tensor

    @staticmethod
    def empty() -> "Interval":
        return Interval(torch.zeros(2, len(NAMES), dtype=torch.float64))

    def add(self, metrics: Mapping[str, float]) -> "Interval":
        """Add one step's, which has some of NAMES."""
        rows = [[metrics.get(n, 0.0) for n in NAMES], [float(n in metrics) for n in NAMES]]
        return Interval(self.sums + torch.tensor(rows, dtype=torch.float64))

    def means(self) -> dict[str, float | None]:
        """Return the mean over the steps that had a number; None where none had it."""
        return {
            name: total / count if count else None
            for name, total, count in zip(NAMES, *self.sums.tolist(), strict=True)
        }
