"""The table over the trainings of a plan: best, and mean ± standard deviation over its seeds.

ROOT/table.json and ROOT/table.md, from what is finished; what is not is named.
"""

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable

from daas_dist.report.record import read_document
from daas_dist.runlog import write_json, write_text

COLUMNS = (
    "run",
    "architecture / policy",
    "trainings",
    "error, best",
    "error, mean ± std",
    "parameters",
)


@dataclass(frozen=True)
class Table:
    """A call writes it. This is what Slurm is given, too."""

    root: str

    def __call__(self) -> None:
        root = Path(self.root)
        rows, missing = gather(root)
        write_json(root / "table.json", {"schema": 1, "rows": rows, "missing": missing})
        write_text(root / "table.md", in_markdown(rows, missing))
        show(rows, missing)


def gather(root: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """(rows over the seeds, trainings that are not finished).

    Of a training with several seeds of its own the mean is taken first: a seed of the plan is one
    search and one number, whose spread is the search's.
    """
    found: dict[tuple[str, str], list[tuple[list[float], int]]] = {}
    missing: list[str] = []
    for run_dir in sorted(path.parent for path in root.glob("*/config.yaml")):
        comparison = read_document(run_dir / "comparison.json")
        if not (run_dir / "DONE").exists():
            missing.append(run_dir.name)
            continue
        if comparison is None:
            continue  # a search
        group = re.sub(r"-seed\d+$", "", run_dir.name)
        trained: dict[str, list[dict[str, Any]]] = {}
        for row in comparison["rows"]:
            trained.setdefault(f"{row['architecture']} / {row['policy']}", []).append(row)
        for pair, rows in trained.items():
            errors = [1 - row["last"] for row in rows]
            found.setdefault((group, pair), []).append((errors, rows[0]["parameters"]))
    return [_row(group, pair, each) for (group, pair), each in found.items()], missing


def _row(group: str, pair: str, trained: Sequence[tuple[list[float], int]]) -> dict[str, Any]:
    """Errors in percent, of the last epoch."""
    means = [100 * statistics.mean(errors) for errors, _ in trained]
    return {
        "run": group,
        "pair": pair,
        "trainings": sum(len(errors) for errors, _ in trained),
        "seeds": len(means),
        "best": min(100 * error for errors, _ in trained for error in errors),
        "mean": statistics.mean(means),
        "std": statistics.stdev(means) if len(means) > 1 else None,
        "parameters": statistics.mean(parameters for _, parameters in trained),
    }


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    spread = "" if row["std"] is None else f" ± {row['std']:.2f}"
    return (
        row["run"],
        row["pair"],
        str(row["trainings"]),
        f"{row['best']:.2f}%",
        f"{row['mean']:.2f}{spread}%",
        f"{row['parameters'] / 1e6:.2f} M",
    )


def in_markdown(rows: Sequence[dict[str, Any]], missing: Sequence[str]) -> str:
    lines = [COLUMNS, tuple("---" for _ in COLUMNS), *(_cells(row) for row in rows)]
    text = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return text + (f"\nNot finished: {', '.join(missing)}\n" if missing else "")


def show(rows: Sequence[dict[str, Any]], missing: Sequence[str]) -> None:
    table = RichTable(*COLUMNS)
    for row in rows:
        table.add_row(*_cells(row))
    console = Console()
    console.print(table)
    if missing:
        console.print(f"not finished: {', '.join(missing)}")
