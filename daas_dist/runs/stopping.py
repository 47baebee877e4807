"""Stopping before the end, whoever asks: a signal, a file in the run directory, or the clock.

A handler only notes the signal; the run looks between two steps, and what any rank has seen all
ranks hear of (mesh.highest), so that all stop at the same step.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

SIGNALS = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGUSR2,
    signal.SIGUSR1,
    signal.SIGHUP,
    signal.SIGQUIT,
)
"""What ends a run, as clusters, launchers, service managers and terminals send it: often to every
process of a job, the readers of images and other helpers included (see shielded)."""
AGAIN = (signal.SIGINT, signal.SIGQUIT)
"""Keys of a terminal. A second one ends the process at once."""
FILE = "STOP"
"""Its presence in a run directory stops the run, and keeps it from starting again."""

OWN_TIME = "stop_after_minutes"
TIME_LIMIT = "the time limit"
REASONS = ("", *(number.name for number in SIGNALS), f"the file {FILE}", OWN_TIME, TIME_LIMIT)
"""Why, as an index that ranks can compare; 0 is not asked."""

LOOKS = 1.0
"""Seconds between two looks for the file: on a network disk a look is not free."""

IMPATIENCE = 3.0
"""Seconds after the first signal from which another of AGAIN ends the process at once. Not earlier:
a terminal and torchrun both deliver the first."""


LINGER = 10.0
"""Seconds between the first and the last of a job's processes to be told."""

GUARD = 60.0
"""Seconds before the end of an allocation of the cluster at which a run stops by itself, or
GUARD_SHARE of what is left of it where that is less."""
GUARD_SHARE = 0.1


def allocation_left() -> float | None:
    """Seconds until Slurm takes the machine back; None where it never does, or this is none."""
    end = os.environ.get("SLURM_JOB_END_TIME", "")
    return float(end) - time.time() if end else None


@contextmanager
def shielded() -> Generator[None]:
    """Hold back SIGNALS in this thread, and from every process that it starts meanwhile.

    A process inherits which signals are held back, so one that is sent to a whole job reaches this
    process when the block is left, and never its helpers.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def obey_parent(_: int = 0) -> None:
    """Make a process that was forked under shielded() end when its parent sends SIGTERM, as
    Process.terminate does, and at nobody else's."""
    parent = os.getppid()

    def wait() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
            pass
        os._exit(0)

    threading.Thread(target=wait, name="obey-parent", daemon=True).start()


class Stop:
    """Listens while entered. One a process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._reason = 0
        self._first = clock()
        self._file: Path | None = None
        self._deadlines: dict[str, float] = {}
        self._looked = -float("inf")

    def __enter__(self) -> "Stop":
        self._process = os.getpid()
        listened = [number for number in SIGNALS if not _by_nohup(number)]
        self._before = {number: signal.signal(number, self._heard) for number in listened}
        # A launcher holds back what comes earlier (launch/rank.py).
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def watch(self, run_dir: Path, after_minutes: float | None) -> None:
        """Look for the file there, and at the clock from now on."""
        self._file = run_dir / FILE
        if after_minutes is not None:
            self._deadlines[OWN_TIME] = self._clock() + 60 * after_minutes
        left = allocation_left()
        if left is not None:
            # A cluster that sends a signal ahead sends it earlier than this.
            self._deadlines[TIME_LIMIT] = self._clock() + left - min(GUARD, GUARD_SHARE * left)

    def asked(self) -> int:
        """Why this rank would stop, an index of REASONS; 0 if nothing asked it to."""
        now = self._clock()
        for reason, deadline in self._deadlines.items():
            if not self._reason and now >= deadline:
                self._reason = REASONS.index(reason)
        if not self._reason and self._file is not None and now - self._looked >= LOOKS:
            self._looked = now
            if self._file.exists():
                self._reason = REASONS.index(f"the file {FILE}")
        return self._reason

    def linger(self) -> None:
        """Wait a little to be told to stop, where only another rank was: an agent of torchrun
        whose ranks leave before it has told them takes them for finished, and leaves too."""
        self._looked = -float("inf")
        until = self._clock() + LINGER
        while "TORCHELASTIC_RUN_ID" in os.environ and self._clock() < until and not self.asked():
            time.sleep(0.05)

    def _heard(self, number: int, _: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # a forked process: its parent decides
        again = self._reason and number in AGAIN
        if again and self._clock() - self._first > IMPATIENCE:
            raise KeyboardInterrupt
        if not self._reason:
            self._first = self._clock()
            self._reason = REASONS.index(signal.Signals(number).name)


def _by_nohup(number: signal.Signals) -> bool:
    """Tell whether this run shall outlive its terminal. Shells that run scripts ignore SIGINT and
    SIGQUIT for what they start in the background too, where they mean nothing by it."""
    return number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN
