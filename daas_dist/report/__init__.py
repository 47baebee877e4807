"""`daas report RUN…`: run directories in, one self-contained report.html out.

record.py    what a run directory holds, read once into frozen values
samples.py   images before and after the found policy (written by a run, shown here)
compare.py   the training comparison: groups, spread, differences to the default policy
cells.py     cells as graphs
pictures.py  curves and plots, as inline SVG
tested.py    how a trained network errs: calibration, and class by class
policy.py    the policy as a heat map and as a ranked table
markup.py    escaping, small blocks of HTML, the style sheet
page.py      the page
panels.py    the same rows as a terminal shows them, for watch.py

Nothing here changes a run directory, except for the report.html that is written into it.
"""

from collections.abc import Sequence
from pathlib import Path

from daas_dist.documents.writing import write_text
from daas_dist.report.record import Run

FILE = "report.html"


def write(run_dirs: Sequence[Path], out: Path | None = None) -> Path:
    """Write the report of one or several runs; by default to report.html in the first of them.

    Finished, failed and unfinished runs are all shown, as what they are. Raises ValueError if there
    is no directory, or one of them is no run.
    """
    if not run_dirs:
        raise ValueError("report: expected at least one run directory, got none")
    runs = [Run.read(Path(directory)) for directory in run_dirs]
    # Only here: a search imports report.samples, and should not pay for matplotlib.
    from daas_dist.report.page import page

    target = Path(run_dirs[0]) / FILE if out is None else Path(out)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_text(target, page(runs))
    return target
