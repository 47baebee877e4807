"""What goes wrong with ranks: a peer that is gone, a rank that hangs. One readable line each.

Exit statuses: 0 done or stopped, 1 failed, 2 a wrong call or configuration, PEER_LOST, HUNG.
"""

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

PEER_LOST = 3
HUNG = 4


_purposes: list[str] = []
"""What this process waits for other ranks for, if it does."""


class PeerLost(RuntimeError):
    """Another rank went away, or did not come, while this one waited for it."""


class NotConnected(ValueError):
    """What a rank was told of its place is missing or wrong; each rank says so itself."""


class Refused(ValueError):
    """Rank 0 refused, and says why itself."""


@contextmanager
def waiting(rank: int, purpose: str) -> Generator[None]:
    """A collective call: what its backend says of a lost peer becomes one line."""
    _purposes.append(purpose)
    try:
        yield
    except PeerLost:
        raise
    except RuntimeError as error:
        # Gloo's message has a source line in front, NCCL's a stack behind.
        said = str(error).strip().splitlines()[0].rpartition("] ")[2][:200]
        raise PeerLost(
            f"rank {rank}: another rank is gone, or late, while {purpose} ({said}). The last good "
            "checkpoint stands; the same command goes on from it"
        ) from error
    finally:
        _purposes.pop()


class Watchdog:
    """Ends a process that made no step for `patience` seconds, and tells where each thread stood.

    A thread of its own looks; where the interpreter itself is stuck, the C timer of faulthandler
    ends the process half a patience later (with status 1).
    """

    def __init__(self, rank: int, patience: float, run_dir: Path) -> None:
        """The stacks go to hung-rank<n>.txt in the run directory."""
        self._rank, self._patience = rank, patience
        self._report = run_dir / f"hung-rank{rank}.txt"
        self._last = time.monotonic()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look, name="watchdog", daemon=True)

    def __enter__(self) -> "Watchdog":
        self.beat()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        faulthandler.cancel_dump_traceback_later()

    def beat(self) -> None:
        """A step was made."""
        self._last = time.monotonic()
        faulthandler.dump_traceback_later(1.5 * self._patience, exit=True)

    def _look(self) -> None:
        while not self._end.wait(min(1.0, self._patience / 5)):
            if time.monotonic() - self._last > self._patience:
                self._give_up()

    def _give_up(self) -> None:
        doing = f"waiting for others while {_purposes[-1]}" if _purposes else "at its own work"
        line = (
            f"rank {self._rank}: no step for {self._patience:g} s (patience_minutes), {doing}; "
            f"where every thread stood is in {self._report}. The last good checkpoint stands; the "
            "same command goes on from it"
        )
        try:
            # Whatever stands there: a pipe without a reader would hold this process for ever.
            self._report.unlink(missing_ok=True)
            with self._report.open("x", encoding="utf-8") as file:
                faulthandler.dump_traceback(file, all_threads=True)
        finally:
            print(line, file=sys.stderr, flush=True)
            os._exit(HUNG)
