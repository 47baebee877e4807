"""What a run directory says about its run: metrics, events, how it ended, where it came from.

One process writes (mesh decides which); any number may read while it does. Lines are appended and
fsynced, whole files appear by rename, so a kill leaves at most one torn last line.
Times are seconds since 1970.
"""

import hashlib
import importlib.metadata
import json
import math
import os
import platform
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from daas_dist.board import Board

METRICS = "metrics.jsonl"
EVENTS = "events.jsonl"
ENDINGS = ("DONE", "FAILED", "STALLED")

CODE = "checkout.json"
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
            _mend(self.run_dir / name)

    def metric(self, record: Mapping[str, Any]) -> None:
        """One line of metrics.jsonl, and the same numbers for TensorBoard."""
        if self._tensorboard and self._board is None:  # not earlier: a resume drops lines first
            self._board = Board(self.run_dir, read_metrics(self.run_dir))
        _append(self.run_dir / METRICS, record)
        if self._board is not None:
            self._board.add(record)

    def event(self, name: str, **details: Any) -> None:
        """One line of events.jsonl: the time, the event, then its details."""
        _append(self.run_dir / EVENTS, {"time": time.time(), "event": name, **details})

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
        """Drop the lines of metrics.jsonl whose `key` is past `position`, in one rename.

        The steps after the checkpoint are done again, so they are logged once, without a gap.
        """
        path = self.run_dir / METRICS
        records = list(_read_lines(path))
        kept = [record for record in records if record[key] <= position]
        if len(kept) < len(records):
            write_text(path, "".join(_line(record) for record in kept))

    def finish(self, ending: Literal["DONE", "FAILED", "STALLED"], reason: str = "") -> None:
        """Write the file DONE, FAILED or STALLED, which holds the reason, and the event."""
        if ending not in ENDINGS:
            raise ValueError(f"a run ends as one of {ENDINGS}, not as {ending!r}")
        name = {"DONE": "finished", "FAILED": "failed", "STALLED": "stalled"}[ending]
        self.event(name, **({"reason": reason} if reason else {}))
        self._forget_ending()
        write_text(self.run_dir / ending, f"{reason}\n" if reason else "")

    def _forget_ending(self) -> None:
        for ending in ENDINGS:
            (self.run_dir / ending).unlink(missing_ok=True)


def read_metrics(run_dir: Path | str) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; a torn last line of a running run is left out."""
    return list(_read_lines(Path(run_dir) / METRICS))


def read_events(run_dir: Path | str) -> list[dict[str, Any]]:
    """The lines of events.jsonl; a torn last line of a running run is left out."""
    return list(_read_lines(Path(run_dir) / EVENTS))


# ---------------------------------------------------------------- lines


def _line(record: Mapping[str, Any]) -> str:
    try:
        return json.dumps(record, allow_nan=False) + "\n"
    except ValueError as error:
        odd = list(_non_finite(record, ""))
        if not odd:
            raise
        raise ValueError(
            f"{', '.join(odd)}: not finite, which JSON cannot hold; stop the run before the "
            "update, or give None where there is no value"
        ) from error


def _non_finite(value: Any, name: str) -> Iterator[str]:
    """The dotted names of the numbers that are NaN or infinite."""
    if isinstance(value, float) and not math.isfinite(value):
        yield f"{name}={value}"
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _non_finite(part, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        for index, part in enumerate(value):
            yield from _non_finite(part, f"{name}[{index}]")


def _append(path: Path, record: Mapping[str, Any]) -> None:
    with path.open("ab") as file:
        file.write(_line(record).encode())
        file.flush()
        os.fsync(file.fileno())


def _read_lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        record = _parse(line)
        if record is not None:
            yield record
        elif line and number < len(lines):
            raise ValueError(f"{path}, line {number} is no JSON object; repair or remove that line")


def _parse(line: bytes) -> dict[str, Any] | None:
    """None unless it is a whole object: no beginning of one is, so a torn line is always seen."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _mend(path: Path) -> None:
    """End the last line, or cut it off where a kill tore it, so that the next one starts afresh."""
    if not path.exists():
        return
    data = path.read_bytes()
    whole, newline, last = data.rpartition(b"\n")
    if not last:
        return
    kept = data + b"\n" if _parse(last) is not None else whole + newline
    write_text(path, kept.decode())


# ---------------------------------------------------------------- whole files


def write_text(path: Path | str, text: str) -> None:
    """As write_bytes."""
    write_bytes(path, text.encode())


def write_bytes(path: Path | str, data: bytes) -> None:
    """The file holds the old bytes or the new ones, never a part, whenever the power goes."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp-{uuid.uuid4().hex}")
    try:
        write_synced(temporary, data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_json(path: Path | str, value: Mapping[str, Any]) -> None:
    """As write_text. ValueError on numbers that are not finite."""
    _line(value)  # its error names the number
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_synced(path: Path, data: bytes) -> None:
    """A new file, on the disk when this returns. FileExistsError if there is one."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """A rename is on the disk only when its folder is."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# ---------------------------------------------------------------- provenance


def provenance(command: Sequence[str], device: str, data_digest: str) -> dict[str, Any]:
    """Enough to say later which code, on what, made this. commit is None outside a git checkout."""
    import torch  # takes seconds, and who only writes lines has no use for it

    return {
        **checkout(Path(__file__).resolve().parent),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            **{name: _version(name) for name in PACKAGES},
        },
        "host": platform.node(),
        "command": list(command),
        "device": device,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "data_sha256": data_digest,
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def checkout(package: Path) -> dict[str, Any]:
    """commit, dirty and diff_sha256 of the checkout that a package is in, or was copied from.

    diff_sha256 is over the difference from the commit and the names of files git does not know.
    """
    copied = package.with_name(CODE)
    if copied.exists():
        return json.loads(copied.read_text(encoding="utf-8"))
    git = _git_in(package)
    commit = git("rev-parse", "HEAD")
    # A copy installed inside somebody else's checkout (.venv) is ignored there, and not its code.
    if commit is None or git("check-ignore", str(package)) is not None:
        return {"commit": None, "dirty": False, "diff_sha256": None}
    status = git("status", "--porcelain")
    difference = git("diff", "HEAD", "--binary", "--no-ext-diff", "--no-textconv")
    if status is None or difference is None:
        raise RuntimeError(f"git knows the commit of {package}, but not its state")
    dirty = bool(status)
    digest = hashlib.sha256(status + difference).hexdigest() if dirty else None
    return {"commit": commit.decode().strip(), "dirty": dirty, "diff_sha256": digest}


def _git_in(folder: Path) -> Callable[..., bytes | None]:
    # Inside a git hook these would point to whatever is being committed.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    environment["GIT_OPTIONAL_LOCKS"] = "0"

    def git(*arguments: str) -> bytes | None:
        """What git prints, or None where there is no git, no checkout, or the answer is no."""
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
