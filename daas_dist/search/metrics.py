"""The numbers of the steps since the last line of metrics.jsonl."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

NAMES = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "reward_mean", "reward_std")


@dataclass(frozen=True)
class Interval:
    """Sums over the steps since the last line of metrics: part of the state, so that a resume
    loses none. NAMES in order, then the number of steps."""

    sums: Tensor

    @staticmethod
    def empty() -> "Interval":
        return Interval(torch.zeros(len(NAMES) + 1, dtype=torch.float64))

    def add(self, metrics: Mapping[str, float]) -> "Interval":
        """Add one step's; what it has not counts 0."""
        row = torch.tensor([*(metrics.get(name, 0.0) for name in NAMES), 1.0], dtype=torch.float64)
        return Interval(self.sums + row)

    def means(self) -> dict[str, float | None]:
        """Return the means, None where no step of the interval was whole."""
        if not self.sums[-1]:
            return dict.fromkeys(NAMES)
        return dict(zip(NAMES, (self.sums[:-1] / self.sums[-1]).tolist(), strict=True))
