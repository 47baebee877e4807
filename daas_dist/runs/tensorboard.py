"""TensorBoard's event files of a run directory: the numbers of metrics.jsonl once more."""

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any


def require() -> None:
    """ValueError where the package is missing: before a run starts, not at its first line."""
    if importlib.util.find_spec("tensorboard") is None:
        raise ValueError(
            "tensorboard=true needs a package that is not installed: "
            "pip install 'daas-dist[tensorboard]', or set tensorboard=false"
        )


class Board:
    """Appends to run_dir/tensorboard, after the rows that are already there were written anew.

    Every session starts at step 0, which tells TensorBoard to forget what earlier sessions wrote:
    a resumed run shows each line once, without a gap. Their files stay, since a TensorBoard that is
    watching is stuck when the file it reads is deleted.
    """

    def __init__(self, run_dir: Path, rows: Sequence[Mapping[str, Any]]) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import, and rarely wanted

        self._writer = SummaryWriter(str(run_dir / "tensorboard"), purge_step=0)
        for row in rows:
            self.add(row)

    def add(self, row: Mapping[str, Any]) -> None:
        """Every number of a row, at its step (a search's) or its epoch (a training's)."""
        step = row["step"] if "step" in row else row["epoch"]
        for name, value in _numbers(row, ""):
            self._writer.add_scalar(name, value, step, row["time"])
        self._writer.flush()


def _numbers(row: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, float]]:
    """("entropy/alpha", 1.9): numbers by the names that lead to them."""
    for name, value in row.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float):
            yield prefix + name, value
