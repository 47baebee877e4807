"""What the path of a run may hold that shells, sbatch and the configuration read."""

import re
from pathlib import Path

from daas_dist.config import ConfigError

UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Control characters, and bytes that are not UTF-8."""
REPLACED = re.compile(r"%\d*[A-Za-z%]|\\")
"""What Slurm puts a job's number, its name, its user or its node for in the name of a log (man
sbatch, "filename pattern"; a backslash turns that off for the whole name). submitit does too."""
INTERPOLATED = "${"


def check(root: Path, cwd: Path, slurm: bool) -> None:
    """Refuse what would send logs elsewhere, or be read as something else. ConfigError.

    root: of all runs of a submission, absolute. cwd: the folder that they start in.
    """
    for what, path in (("run_dir", root), ("the current folder", cwd)):
        found = UNPRINTABLE.search(str(path))
        if found is not None:
            raise ConfigError(
                f"{what} {ascii(str(path))} is not possible: expected a path of characters that "
                f"can be printed, without {ascii(found.group())}"
            )
    if INTERPOLATED in str(root):
        raise ConfigError(
            f"run_dir={root} is not possible: expected a path without {INTERPOLATED}, which a "
            "configuration replaces"
        )
    found = REPLACED.search(str(root))
    if slurm and found is not None:
        raise ConfigError(
            f"run_dir={root} is not possible: expected a path without {found.group()}, which Slurm "
            "replaces in the names of logs"
        )
