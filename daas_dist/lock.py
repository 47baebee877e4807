"""One job a run directory. The owner may be on any host, and a dead one does not hold for ever.

The file `lock` names its owner, who touches it every BEAT seconds. It is another's while it is
touched, by the disk's clock alone, or while its process lives on this host.
"""

import json
import os
import platform
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

FILE = "lock"
BEAT = 5.0
DEAD = 30.0
"""Seconds without a touch after which an owner on another host is taken for dead."""


class Occupied(ValueError):
    """Another job is at work in the run directory."""


class Lock:
    """Held while entered. Occupied if another job has it."""

    def __init__(self, run_dir: Path, beat: float = BEAT, dead: float = DEAD) -> None:
        self._path, self._beat, self._dead = run_dir / FILE, beat, dead
        self._owner = {
            "host": platform.node(),
            "pid": os.getpid(),
            "started": started(os.getpid()),
            "token": uuid.uuid4().hex,
        }
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

    def _link(self) -> bool:
        """Put the file there unless there is one; atomic on network disks too."""
        own = self._path.with_name(f".lock-{self._owner['token']}")
        try:
            with own.open("x", encoding="utf-8") as file:
                file.write(json.dumps(self._owner))
                file.flush()
                os.fsync(file.fileno())  # an empty lock after a power cut would name no owner
            os.link(own, self._path)
        except FileExistsError:
            return False
        finally:
            own.unlink(missing_ok=True)
        return True

    def _wait_for_death(self) -> None:
        """Return once the owner is known to be dead and its file is away. Occupied if it lives."""
        owner, touched = self._read(), self._touched()
        if owner is None:
            return
        if owner["host"] == self._owner["host"]:
            dead = started(owner["pid"]) != owner["started"]
        else:
            until = time.monotonic() + self._dead
            while self._touched() == touched and time.monotonic() < until:
                time.sleep(min(0.5, self._dead / 10))
            dead = self._touched() == touched
        if not dead:
            raise Occupied(
                f"{self._path.parent} is in use by process {owner['pid']} on {owner['host']}; "
                "wait for it, stop it, or set run_dir to a new folder"
            )
        self._clear(owner)

    def _clear(self, dead: dict[str, Any]) -> None:
        """Take the dead owner's file away, and put back what was not its."""
        aside = self._path.with_name(f".lock-dead-{self._owner['token']}")
        try:
            self._path.rename(aside)
        except FileNotFoundError:
            return
        if json.loads(aside.read_text(encoding="utf-8")) != dead:
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
            except FileNotFoundError:
                self.lost = True
            if self.lost:
                return

    def _read(self) -> dict[str, Any] | None:
        try:
            text = self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        try:
            return json.loads(text)
        except ValueError as error:
            raise Occupied(
                f"{self._path} names no owner; remove it if no job is at work there"
            ) from error

    def _touched(self) -> int:
        try:
            return self._path.stat().st_mtime_ns
        except FileNotFoundError:
            return 0


def held(run_dir: Path) -> bool:
    """Whether a job is at work there, as far as can be seen at a glance: its owner lives on this
    host, or touched the file lately from another."""
    path = run_dir / FILE
    try:
        owner, touched = json.loads(path.read_text(encoding="utf-8")), path.stat().st_mtime
    except (FileNotFoundError, ValueError):
        return False
    if owner["host"] == platform.node():
        return started(owner["pid"]) == owner["started"]
    return time.time() - touched < DEAD


def started(pid: int) -> str | None:
    """When a process of this host began, so that a number used again is not mistaken; None if it
    is not there. Where there is no /proc a living process counts as the same."""
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
