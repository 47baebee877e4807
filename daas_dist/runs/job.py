"""A job on a run directory: its ranks, what stops it, and whose the directory is."""

import os
import sys
import warnings
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import torch

from daas_dist.config import ConfigError, Frozen
from daas_dist.distributed.connect import connect
from daas_dist.distributed.faults import PeerLost
from daas_dist.distributed.mesh import Mesh
from daas_dist.documents import run as run_documents
from daas_dist.runs import checkpoint, stopping
from daas_dist.runs import tensorboard as board
from daas_dist.runs.lock import Lock, Occupied
from daas_dist.runs.log import RunLog, provenance
from daas_dist.runs.memory import keep_freed_memory
from daas_dist.runs.stopping import Stop

PROVENANCE = run_documents.PROVENANCE.file


class Settings(Protocol):
    """Where and how a job computes: keys of the configuration that are of no group."""

    @property
    def stage(self) -> str: ...
    @property
    def run_dir(self) -> str | None: ...
    @property
    def device(self) -> str: ...
    @property
    def deterministic(self) -> bool: ...
    @property
    def tensorboard(self) -> bool: ...
    @property
    def stop_after_minutes(self) -> float | None: ...
    @property
    def patience_minutes(self) -> float: ...


@dataclass(frozen=True)
class Job:
    """What every rank of a run has at hand."""

    frozen: Frozen
    mesh: Mesh
    stop: Stop
    run_dir: Path
    device: torch.device
    log: RunLog | None
    """Rank 0's; it alone writes."""
    lock: Lock | None
    patience: float
    """Seconds without a step after which a rank is given up."""

    def asked(self, mesh: Mesh) -> str:
        """Return why one of these ranks is to stop, "" if nothing asks it to; all of them call."""
        return stopping.REASONS[mesh.highest(self.stop.asked())]

    def check_ours(self) -> None:
        """Occupied if another job took the run directory, as this one was silent for too long."""
        if self.lock is not None and self.lock.lost:
            raise Occupied(f"{self.run_dir} was taken by another job while this one slept")

    def record_provenance(self, data_sha256: str) -> None:
        """Write provenance.json. ConfigError if the run began on other images."""
        began = run_documents.PROVENANCE.read(self.run_dir)
        changed = began is not None and began.data_sha256 != data_sha256
        if began is not None and changed and not self.frozen.allows("data"):
            raise ConfigError(
                f"{self.run_dir} holds a run on other training images (sha256 "
                f"{began.data_sha256[:12]}… -> {data_sha256[:12]}…); set run_dir to a new folder, "
                "or resume.allow=[data] to go on with these"
            )
        made = provenance(sys.argv, self.device.type, data_sha256)
        run_documents.PROVENANCE.write(self.run_dir, made)


Report = Callable[[Path], object]

Arrange = Callable[[Mesh, timedelta], Mesh]
"""(all ranks, how long they wait for each other) -> the same ranks as they share the work.
ConfigError where they cannot, before anything is written."""


@contextmanager
def at_work(
    settings: Settings,
    frozen: Frozen,
    arrange: Arrange,
    *,
    exchanges: bool = True,
    report: Report | None = None,
) -> Generator[Job]:
    """The job of this process. The run directory is this job's alone while it lasts.

    frozen: what the directory keeps as config.yaml. exchanges: whether the ranks compute one result
    together, and so wait for each other at every step; else they meet at the end only. An error
    that the same command would meet again is left in the file FAILED.
    """
    device = _choose_device(settings.device)
    if device == "cpu":
        keep_freed_memory()
    if settings.deterministic:
        be_deterministic()
    # Where a rank waits in vain its watchdog is to speak first, not the backend.
    arrival = timedelta(minutes=settings.patience_minutes)
    patience = 2 * arrival if exchanges else timedelta(days=90)
    mesh = connect(device if exchanges else "cpu", patience, arrival)
    with _leaving(mesh), ExitStack() as held:
        mesh = arrange(mesh, patience)
        stop = held.enter_context(Stop())
        log: RunLog | None = None
        lock: Lock | None = None

        def prepare() -> str:
            nonlocal log, lock
            run_dir = _open(settings)
            lock = held.enter_context(Lock(run_dir))
            changes = _freeze(frozen, run_dir)
            log = RunLog(run_dir, settings.tensorboard)
            if changes:
                log.event("reconfigured", changes=changes)
            return str(run_dir)

        run_dir = Path(mesh.led(prepare))
        stop.watch(run_dir, settings.stop_after_minutes)
        place = torch.device(device if device == "cpu" else f"cuda:{mesh.local_rank}")
        try:
            yield Job(frozen, mesh, stop, run_dir, place, log, lock, arrival.total_seconds())
            if report is not None and mesh.leads and (run_dir / "DONE").exists():
                report(run_dir)
            # All at once: launchers end those that stay behind the first.
            mesh.barrier()
            if exchanges and not (run_dir / "DONE").exists():
                stop.linger()
        except (FloatingPointError, MemoryError) as error:
            if log is not None and lock is not None and not lock.lost:
                log.finish("FAILED", str(error))
            raise


@contextmanager
def _leaving(mesh: Mesh) -> Generator[None]:
    """Disconnect at the end; not where a rank is lost, as the others would wait for it."""
    try:
        yield
    except PeerLost:
        raise
    except BaseException:
        mesh.close()
        raise
    mesh.close()


def load_together(
    mesh: Mesh, folder: Path, warn: Callable[[str], object] = warnings.warn
) -> tuple[int, dict[str, Any]] | None:
    """checkpoint.load_newest for ranks: rank 0 finds it, the others load the step it found."""
    saved = checkpoint.load_newest(folder, warn=warn) if mesh.leads else None
    step = mesh.agree("" if saved is None else str(saved[0]))
    if not step:
        return None
    return (int(step), checkpoint.load(folder, int(step))) if saved is None else saved


def _choose_device(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device=cuda but torch sees no GPU; set device=cpu or device=auto")
    return name


def be_deterministic() -> None:
    """Kernels that add in one order only; an operation that has none raises and names itself."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False


def _open(settings: Settings) -> Path:
    if settings.tensorboard:
        board.require()
    name = f"{settings.stage}-{datetime.now():%Y%m%d-%H%M%S}"
    run_dir = Path(settings.run_dir) if settings.run_dir else Path("runs") / name
    if (run_dir / stopping.FILE).exists():
        raise ConfigError(f"{run_dir / stopping.FILE} is there; remove it to go on with this run")
    run_dir.mkdir(parents=True, exist_ok=True)
    return run_dir


def _freeze(frozen: Frozen, run_dir: Path) -> dict[str, str]:
    """Write the configuration, or compare it with that of a run which began: what differs, allowed.

    A start that failed before it had its images leaves nothing that a corrected one would break.
    """
    path, began = run_dir / "config.yaml", (run_dir / PROVENANCE).exists()
    differs = frozen.changes(path) if began else {}
    refused = [f"{key}: {told}" for key, told in differs.items() if not frozen.allows(key)]
    if refused:
        raise ConfigError(
            f"{run_dir} holds a run of another configuration ({'; '.join(refused)}); set "
            "run_dir to a new folder, or resume.allow=[KEY,…] to go on with the new values"
        )
    if differs or not began:
        frozen.write(path)
    return differs
