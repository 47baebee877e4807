"""The table over the trainings of a plan: best, and mean ± standard deviation over its seeds.

ROOT/table.json and ROOT/table.md, from what is finished; what is not is named.
"""

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from daas_dist.documents import run as documents
from daas_dist.documents.escaping import markdown_code, told
from daas_dist.documents.results import COMPARISON, ComparedRow
from daas_dist.documents.run import TABLE, TableRow
from daas_dist.runs.log import write_text

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
        TABLE.write(root, documents.Table(schema=1, rows=rows, missing=missing))
        write_text(root / "table.md", in_markdown(rows, missing))
        show(rows, missing)


def gather(root: Path) -> tuple[list[TableRow], list[str]]:
    """(rows over the seeds, trainings that are not finished).

    Of a training with several seeds of its own the mean is taken first: a seed of the plan is one
    search and one number, whose spread is the search's.
    """
    found: dict[tuple[str, str], list[tuple[list[float], int]]] = {}
    missing: list[str] = []
    for run_dir in sorted(path.parent for path in root.glob("*/config.yaml")):
        comparison = COMPARISON.read(run_dir)
        if not (run_dir / "DONE").exists():
            missing.append(run_dir.name)
            continue
        if comparison is None:
            continue  # a search
        group = re.sub(r"-seed\d+$", "", run_dir.name)
        trained: dict[str, list[ComparedRow]] = {}
        for row in comparison.rows:
            trained.setdefault(f"{row.architecture} / {row.policy}", []).append(row)
        for pair, rows in trained.items():
            errors = [1 - row.last for row in rows]
            found.setdefault((group, pair), []).append((errors, rows[0].parameters))
    return [_row(group, pair, each) for (group, pair), each in found.items()], missing


def _row(group: str, pair: str, trained: Sequence[tuple[list[float], int]]) -> TableRow:
    """Errors in percent, of the last epoch."""
    means = [100 * statistics.mean(errors) for errors, _ in trained]
    return TableRow(
        run=group,
        pair=pair,
        trainings=sum(len(errors) for errors, _ in trained),
        seeds=len(means),
        best=min(100 * error for errors, _ in trained for error in errors),
        mean=statistics.mean(means),
        std=statistics.stdev(means) if len(means) > 1 else None,
        parameters=statistics.mean(parameters for _, parameters in trained),
    )


def _cells(row: TableRow) -> tuple[str, ...]:
    spread = "" if row.std is None else f" ± {row.std:.2f}"
    return (
        row.run,
        row.pair,
        str(row.trainings),
        f"{row.best:.2f}%",
        f"{row.mean:.2f}{spread}%",
        f"{row.parameters / 1e6:.2f} M",
    )


def in_markdown(rows: Sequence[TableRow], missing: Sequence[str]) -> str:
    """The names in code spans, in which nothing is a mark of Markdown."""
    lines = [COLUMNS, tuple("---" for _ in COLUMNS)]
    for row in rows:
        run, pair, *numbers = _cells(row)
        lines.append((*(markdown_code(name, in_table=True) for name in (run, pair)), *numbers))
    text = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    named = ", ".join(map(markdown_code, missing))
    return text + (f"\nNot finished: {named}\n" if missing else "")


def show(rows: Sequence[TableRow], missing: Sequence[str]) -> None:
    table = RichTable(*COLUMNS)
    for row in rows:
        table.add_row(*(Text(told(cell)) for cell in _cells(row)))
    console = Console()
    console.print(table)
    if missing:
        console.print(Text(told(f"not finished: {', '.join(missing)}")))
