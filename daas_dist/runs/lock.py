"""One job a run directory. The owner may be on any host, and a dead one does not hold for ever.

The file `lock` names its owner, who has it open and locked (flock), and touches it every BEAT
seconds. It is another's while it is locked, where the file system tells hosts of it; while its
process lives, where process numbers are this process's own; and while it is touched, by the disk's
clock alone.
"""

import fcntl
import json
import os
import platform
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from daas_dist.documents import Damaged
from daas_dist.documents.files import read
from daas_dist.documents.run import OWNER, Owner

FILE = OWNER.file
BEAT = 5.0
DEAD = 30.0
"""Seconds without a touch after which an owner elsewhere is taken for dead."""
SKEW = 3600.0
"""Seconds by which the clocks of two hosts may differ."""

_descriptors: set[int] = set()
"""Of the locks that this process holds. A forked process that kept one open would hold it too."""


def _let_go_in_child() -> None:
    while _descriptors:
        os.close(_descriptors.pop())


os.register_at_fork(after_in_child=_let_go_in_child)


class Occupied(ValueError):
    """Another job is at work in the run directory."""

    def __init__(self, message: str, job: str | None = None) -> None:
        super().__init__(message)
        self.job = job
        """Of a cluster, that the owner is of."""


class Lock:
    """Held while entered. Occupied if another job has it."""

    def __init__(
        self, run_dir: Path, name: str = FILE, beat: float = BEAT, dead: float = DEAD
    ) -> None:
        """name: of the file; a folder may have several locks."""
        self._path, self._beat, self._dead = run_dir / name, beat, dead
        self._owner = Owner(
            host=platform.node(),
            pid=os.getpid(),
            started=started(os.getpid()),
            token=uuid.uuid4().hex,
            place=place(),
            job=os.environ.get("SLURM_JOB_ID"),
        )
        self._descriptor: int | None = None
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._touch, name="lock", daemon=True)
        self.lost = False
        """Whether another job has taken the directory, as this one was silent for too long."""

    def __enter__(self) -> "Lock":
        while not self._link():
            self._wait_for_death()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._read() == self._owner:
            self._path.unlink(missing_ok=True)
        self._close()

    def _link(self) -> bool:
        """Put the file there, locked, unless there is one; atomic on network disks too."""
        own = self._path.with_name(f".{self._path.name}-{self._owner.token}")
        self._descriptor = os.open(own, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        _descriptors.add(self._descriptor)
        try:
            os.write(self._descriptor, json.dumps(asdict(self._owner)).encode())
            os.fsync(self._descriptor)  # an empty lock after a power cut would name no owner
            with suppress(OSError):  # a file system without locks
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.link(own, self._path)
        except FileExistsError:
            self._close()
            return False
        except BaseException:
            self._close()
            raise
        finally:
            own.unlink(missing_ok=True)
        return True

    def _close(self) -> None:
        if self._descriptor is not None:
            _descriptors.discard(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None

    def _wait_for_death(self) -> None:
        """Return once the owner is known to be dead and its file is away. Occupied if it lives."""
        owner, touched = self._read(), self._touched()
        if owner is None:
            self._clear(None)
            return
        if _locked(self._path):
            dead = False
        elif owner.place == self._owner.place:
            dead = started(owner.pid) != owner.started
        else:
            until = time.monotonic() + self._dead
            while self._touched() == touched and time.monotonic() < until:
                time.sleep(min(0.5, self._dead / 10))
            dead = self._touched() == touched
        if not dead:
            raise Occupied(
                f"{self._path.parent} is in use by process {owner.pid} on {owner.host}; "
                "wait for it, stop it, or set run_dir to a new folder",
                owner.job,
            )
        self._clear(owner)

    def _clear(self, dead: Owner | None) -> None:
        """Take the dead owner's file away, and put back what was not its."""
        aside = self._path.with_name(f".{self._path.name}-dead-{self._owner.token}")
        try:
            self._path.rename(aside)
        except FileNotFoundError:
            return
        if _owner(aside) != dead:
            # A third may have come between: who was put aside then learns that it lost it.
            with suppress(FileExistsError):
                os.link(aside, self._path)
        aside.unlink()

    def _touch(self) -> None:
        while not self._end.wait(self._beat):
            try:
                self.lost = self._read() != self._owner
                if not self.lost:
                    os.utime(self._path)
            except (FileNotFoundError, Occupied):
                self.lost = True
            except OSError:
                continue  # a network disk that is away for a moment
            if self.lost:
                return

    def _read(self) -> Owner | None:
        try:
            return _owner(self._path)
        except Damaged as error:
            raise Occupied(str(error)) from error

    def _touched(self) -> int:
        try:
            return self._path.stat().st_mtime_ns
        except FileNotFoundError:
            return 0


def held(run_dir: Path, name: str = FILE) -> bool:
    """Tell whether a job is at work there, as far as can be seen at a glance. Damaged if the file
    names no owner."""
    path = run_dir / name
    owner = _owner(path)
    if owner is None or _locked(path):
        return owner is not None
    try:
        touched = path.stat().st_mtime
    except FileNotFoundError:
        return False
    if owner.place == place():
        return started(owner.pid) == owner.started
    silent = time.time() - touched
    if 0 <= silent < DEAD or silent > SKEW:
        return silent < DEAD
    # Clocks differ, or it is dead: it is touched meanwhile, or not.
    time.sleep(1.2 * BEAT)
    with suppress(FileNotFoundError):
        return path.stat().st_mtime != touched
    return False


def _owner(path: Path) -> Owner | None:
    """Return whose the file is; None where it is not there, or is null: nobody's. Damaged if it
    names no owner."""
    data = read(path, OWNER.remedy)
    return None if data is None or data.strip() == b"null" else OWNER.parse(data, path)


def _locked(path: Path) -> bool:
    """Tell whether its owner has it locked. False where the file system cannot tell, too."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def place() -> str:
    """Return where process numbers are unique: the boot of a kernel and its name space of
    processes. Containers have the host name that they are given, machines that were cloned the
    same."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot}:{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return platform.node()


def started(pid: int) -> str | None:
    """Return when a process of this host began, so that a number used again is not mistaken; None
    if it is not there. Where there is no /proc a living process counts as the same."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    except FileNotFoundError:
        if Path("/proc/self").exists():
            return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "alive"
