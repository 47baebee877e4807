"""What a run directory says about its run: metrics, events, how it ended, where it came from.

One process writes (mesh decides which); any number may read while it does. Lines are appended and
fsynced, whole files appear by rename, so a kill leaves at most one torn last line.
Times are seconds since 1970.
"""

import hashlib
import importlib.metadata
import os
import platform
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from daas_dist.documents import checked, lines
from daas_dist.documents.events import FILE as EVENTS
from daas_dist.documents.events import STATES, ending
from daas_dist.documents.files import opened_to_append
from daas_dist.documents.metrics import FILE as METRICS
from daas_dist.documents.redact import redacted
from daas_dist.documents.run import CHECKOUT, Checkout, Provenance
from daas_dist.documents.writing import (
    json_line,
    sync_folder,
    write_bytes,
    write_synced,
    write_text,
)
from daas_dist.runs.tensorboard import Board

__all__ = [
    "CODE", "ENDINGS", "EVENTS", "METRICS", "RunLog", "checkout", "provenance", "read_events",
    "read_metrics", "sync_folder", "write_bytes", "write_synced", "write_text",
]  # fmt: skip

ENDINGS = tuple(STATES)

CODE = CHECKOUT.file
"""Beside a copy of the code: which checkout it was copied from."""

PACKAGES = ("torchvision", "numpy", "pillow", "hydra-core", "submitit", "daas-dist")
"""Distributions whose versions provenance records, beside python, torch and cuda."""

GIT_SECONDS = 30
"""A checkout on a slow file system must not hold up a run; its state is then not recorded."""


class RunLog:
    """Appends to the metrics and events of one run directory, which is made if it is missing."""

    def __init__(self, run_dir: Path | str, tensorboard: bool = False) -> None:
        self.run_dir = Path(run_dir)
        self._tensorboard = tensorboard
        self._board: Board | None = None
        self.run_dir.mkdir(parents=True, exist_ok=True)
        for name in (METRICS, EVENTS):
            lines.mend(self.run_dir / name)

    def metric(self, record: Mapping[str, Any]) -> None:
        """One line of metrics.jsonl, and the same numbers for TensorBoard."""
        if self._tensorboard and self._board is None:  # not earlier: a resume drops lines first
            self._board = Board(self.run_dir, read_metrics(self.run_dir))
        _append(self.run_dir / METRICS, record)
        if self._board is not None:
            self._board.add(record)

    def event(self, name: str, **details: Any) -> None:
        """One line of events.jsonl: the time, the event, then its details."""
        told = {key: _without_secrets(value) for key, value in details.items()}
        _append(self.run_dir / EVENTS, {"time": time.time(), "event": name, **told})

    def start(self, **details: Any) -> None:
        """The first event of a new run. FileExistsError if the directory holds metrics already."""
        if (self.run_dir / METRICS).exists():
            raise FileExistsError(
                f"{self.run_dir} already holds metrics; resume it, or set run_dir to a new folder"
            )
        self._forget_ending()
        self.event("started", **details)

    def resume(self, position: int, key: str = "step", **details: Any) -> None:
        """Go on after `position`: drop later lines, and forget how the last attempt ended."""
        self.truncate_after(position, key)
        self._forget_ending()
        self.event("resumed", **{key: position}, **details)

    def truncate_after(self, position: int, key: str = "step") -> None:
        """Drop the lines of metrics.jsonl whose `key` is past `position`, in one step.

        The steps after the checkpoint are done again, so they are logged once, without a gap.
        """

        def keep(row: Mapping[str, Any]) -> bool:
            return checked(int, row.get(key), key) <= position

        lines.cut(self.run_dir / METRICS, keep)

    def finish(self, how: Literal["DONE", "FAILED", "STALLED"], reason: str = "") -> None:
        """Write the file DONE, FAILED or STALLED, which holds the reason, and the event."""
        if how not in ENDINGS:
            raise ValueError(f"a run ends as one of {ENDINGS}, not as {how!r}")
        name = {"DONE": "finished", "FAILED": "failed", "STALLED": "stalled"}[how]
        reason = redacted(reason)
        self.event(name, **({"reason": reason} if reason else {}))
        self._forget_ending()
        write_text(self.run_dir / how, f"{reason}\n" if reason else "")

    def _forget_ending(self) -> None:
        ending(self.run_dir)  # Damaged if what stands there is no file
        for name in ENDINGS:
            (self.run_dir / name).unlink(missing_ok=True)


def read_metrics(run_dir: Path | str) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; a torn last line of a running run is left out."""
    return lines.read_rows(Path(run_dir) / METRICS)[0]


def read_events(run_dir: Path | str) -> list[dict[str, Any]]:
    """The lines of events.jsonl; a torn last line of a running run is left out."""
    return lines.read_rows(Path(run_dir) / EVENTS)[0]


def _without_secrets(value: Any) -> Any:
    """Texts redacted, in tables too; the rest as it is."""
    if isinstance(value, Mapping):
        return {key: _without_secrets(each) for key, each in value.items()}
    return redacted(value) if isinstance(value, str) else value


def _append(path: Path, record: Mapping[str, Any]) -> None:
    line = json_line(record).encode()
    with opened_to_append(path) as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


# ---------------------------------------------------------------- provenance


def provenance(command: Sequence[str], device: str, data_digest: str) -> Provenance:
    """Enough to say later which code, on what, made this. commit is None outside a git checkout."""
    import torch  # takes seconds, and who only writes lines has no use for it

    code = checkout(Path(__file__).resolve().parents[1])
    return Provenance(
        commit=code.commit,
        dirty=code.dirty,
        diff_sha256=code.diff_sha256,
        versions={
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "cuda": torch.version.cuda,
            **{name: _version(name) for name in PACKAGES},
        },
        host=platform.node(),
        command=[redacted(word) for word in command],
        device=device,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        data_sha256=data_digest,
    )


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def checkout(package: Path) -> Checkout:
    """The checkout that a package is in, or was copied from.

    diff_sha256 is over the difference from the commit and the names of files git does not know.
    """
    copied = CHECKOUT.read(package.parent)
    if copied is not None:
        return copied
    git = _git_in(package)
    commit = git("rev-parse", "HEAD")
    # A copy installed inside somebody else's checkout (.venv) is ignored there, and not its code.
    if commit is None or git("check-ignore", str(package)) is not None:
        return Checkout(commit=None, dirty=False, diff_sha256=None)
    status = git("status", "--porcelain")
    difference = git("diff", "HEAD", "--binary", "--no-ext-diff", "--no-textconv")
    if status is None or difference is None:
        raise RuntimeError(f"git knows the commit of {package}, but not its state")
    dirty = bool(status)
    digest = hashlib.sha256(status + difference).hexdigest() if dirty else None
    return Checkout(commit=commit.decode().strip(), dirty=dirty, diff_sha256=digest)


def _git_in(folder: Path) -> Callable[..., bytes | None]:
    # Inside a git hook these would point to whatever is being committed.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    environment["GIT_OPTIONAL_LOCKS"] = "0"

    def git(*arguments: str) -> bytes | None:
        """Return what git prints, or None where there is no git, no checkout, or the answer is
        no."""
        try:
            done = subprocess.run(
                ["git", *arguments],
                cwd=folder,
                env=environment,
                capture_output=True,
                timeout=GIT_SECONDS,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout if done.returncode == 0 else None

    return git
