"""Stopping before the end, whoever asks: a signal, a file in the run directory, or the clock.

A handler only notes the signal; the run looks between two steps, and what any rank has seen all
ranks hear of (mesh.highest), so that all stop at the same step.
"""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
FILE = "STOP"
"""Its presence in a run directory stops the run, and keeps it from starting again."""

REASONS = ("", *(number.name for number in SIGNALS), f"the file {FILE}", "stop_after_minutes")
"""Why, as an index that ranks can compare; 0 is not asked."""

LOOKS = 1.0
"""Seconds between two looks for the file: on a network disk a look is not free."""

IMPATIENCE = 3.0
"""A second Ctrl-C this many seconds after the first ends the process at once. Not earlier: a
terminal and torchrun both deliver the first."""


class Stop:
    """Listens while entered. One a process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._reason = 0
        self._first = clock()
        self._file: Path | None = None
        self._deadline = float("inf")
        self._looked = -float("inf")

    def __enter__(self) -> "Stop":
        self._process = os.getpid()
        self._before = {number: signal.signal(number, self._heard) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def watch(self, run_dir: Path, after_minutes: float | None) -> None:
        """Look for the file there, and at the clock from now on."""
        self._file = run_dir / FILE
        if after_minutes is not None:
            self._deadline = self._clock() + 60 * after_minutes

    def asked(self) -> int:
        """Why this rank would stop, an index of REASONS; 0 if nothing asked it to."""
        now = self._clock()
        if not self._reason and now >= self._deadline:
            self._reason = REASONS.index("stop_after_minutes")
        if not self._reason and self._file is not None and now - self._looked >= LOOKS:
            self._looked = now
            if self._file.exists():
                self._reason = REASONS.index(f"the file {FILE}")
        return self._reason

    def _heard(self, number: int, _: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # a forked worker of a data loader: its parent decides
        again = self._reason and number == signal.SIGINT
        if again and self._clock() - self._first > IMPATIENCE:
            raise KeyboardInterrupt
        if not self._reason:
            self._first = self._clock()
            self._reason = REASONS.index(signal.Signals(number).name)
