"""Stopping: real signals to this process, a real file, a clock that the test turns."""

import os
import signal
import time
from pathlib import Path

import pytest

from daas_dist.runs.stopping import (
    FILE,
    GUARD,
    GUARD_SHARE,
    IMPATIENCE,
    LOOKS,
    REASONS,
    SIGNALS,
    TIME_LIMIT,
    Stop,
    allocation_left,
)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_noted_and_the_handlers_return(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with Stop() as stop:
        assert stop.asked() == 0
        os.kill(os.getpid(), number)
        assert REASONS[stop.asked()] == number.name
        os.kill(os.getpid(), signal.SIGTERM)
        assert REASONS[stop.asked()] == number.name  # the first one stays
    assert signal.getsignal(number) is before


def test_the_file_is_seen_at_the_next_look(tmp_path: Path) -> None:
    clock = Clock()
    stop = Stop(clock)
    stop.watch(tmp_path, None)
    assert stop.asked() == 0
    (tmp_path / FILE).touch()
    assert stop.asked() == 0
    clock.now += LOOKS
    assert REASONS[stop.asked()] == "the file STOP"


def test_the_clock(tmp_path: Path) -> None:
    clock = Clock()
    stop = Stop(clock)
    stop.watch(tmp_path, 2.0)
    clock.now += 119
    assert stop.asked() == 0
    clock.now += 1
    assert REASONS[stop.asked()] == "stop_after_minutes"


def test_the_end_of_an_allocation_is_seen_where_no_signal_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for minutes, early in ((60, GUARD), (5, GUARD_SHARE * 300)):
        clock = Clock()
        monkeypatch.setenv("SLURM_JOB_END_TIME", str(time.time() + 60 * minutes))
        stop = Stop(clock)
        stop.watch(tmp_path, 90.0)
        clock.now += 60 * minutes - early - 1
        assert stop.asked() == 0
        clock.now += 2
        assert REASONS[stop.asked()] == TIME_LIMIT
    monkeypatch.setenv("SLURM_JOB_END_TIME", "")  # a job without a limit
    assert allocation_left() is None


def test_a_second_interrupt_ends_at_once_but_not_the_double_of_the_first() -> None:
    clock = Clock()
    with Stop(clock):
        os.kill(os.getpid(), signal.SIGINT)
        clock.now += IMPATIENCE / 2
        os.kill(os.getpid(), signal.SIGINT)  # a terminal and torchrun both send it
        clock.now += IMPATIENCE
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_worker_does_not_act_on_a_signal() -> None:
    with Stop() as stop:
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(stop.asked())
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert stop.asked() == 0
