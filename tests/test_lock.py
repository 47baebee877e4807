"""The lock of a run directory: real processes that hold it, die, sleep and come at once."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from daas_dist.lock import FILE, Lock, Occupied

HOLD = """
import sys, time
from pathlib import Path
from daas_dist.lock import Lock, Occupied
try:
    with Lock(Path(sys.argv[1]), beat=0.1, dead=1.0):
        print("held", flush=True)
        time.sleep(float(sys.argv[2]))
except Occupied:
    print("occupied", flush=True)
"""


def holder(run_dir: Path, seconds: float = 60) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", HOLD, str(run_dir), str(seconds)]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE)


def said(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def of_another_host(run_dir: Path) -> Path:
    path = run_dir / FILE
    owner = {"host": "elsewhere", "pid": 1, "started": "1", "token": "theirs"}
    path.write_text(json.dumps(owner))
    return path


def test_one_has_it_and_lets_go(tmp_path: Path) -> None:
    with Lock(tmp_path):
        assert json.loads((tmp_path / FILE).read_text())["pid"] == os.getpid()
        with pytest.raises(Occupied, match=rf"process {os.getpid()} on "), Lock(tmp_path):
            pass
    assert list(tmp_path.iterdir()) == []


def test_a_living_process_is_in_the_way_a_killed_one_is_not(tmp_path: Path) -> None:
    process = holder(tmp_path)
    assert said(process) == "held"
    with pytest.raises(Occupied), Lock(tmp_path):
        pass
    process.send_signal(signal.SIGSTOP)  # asleep is not dead
    with pytest.raises(Occupied), Lock(tmp_path):
        pass
    process.kill()
    process.communicate()
    with Lock(tmp_path):
        assert json.loads((tmp_path / FILE).read_text())["pid"] == os.getpid()


def test_a_number_that_another_process_has_now_is_not_the_owner(tmp_path: Path) -> None:
    with Lock(tmp_path):
        owner = json.loads((tmp_path / FILE).read_text())
    (tmp_path / FILE).write_text(json.dumps({**owner, "started": "before"}))
    with Lock(tmp_path):
        pass


def test_on_another_host_it_holds_while_it_is_touched(tmp_path: Path) -> None:
    path, end = of_another_host(tmp_path), threading.Event()

    def live() -> None:
        while not end.wait(0.1):
            os.utime(path)

    thread = threading.Thread(target=live)
    thread.start()
    try:
        with pytest.raises(Occupied, match="process 1 on elsewhere"), Lock(tmp_path, dead=1.0):
            pass
    finally:
        end.set()
        thread.join()
    with Lock(tmp_path, dead=1.0):
        assert json.loads(path.read_text())["host"] != "elsewhere"


def test_a_lock_without_an_owner_is_named(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("")
    with pytest.raises(Occupied, match=f"{tmp_path / FILE}: .* names no owner"), Lock(tmp_path):
        pass


def test_of_many_that_come_at_once_one_gets_it(tmp_path: Path) -> None:
    of_another_host(tmp_path)
    processes = [holder(tmp_path, 6) for _ in range(4)]
    try:
        assert sorted(map(said, processes)) == ["held", "occupied", "occupied", "occupied"]
    finally:
        for process in processes:
            process.communicate()
    assert list(tmp_path.iterdir()) == []


def test_who_slept_too_long_learns_that_it_is_another_s(tmp_path: Path) -> None:
    with Lock(tmp_path, beat=0.05) as lock:
        (tmp_path / FILE).unlink()
        path = of_another_host(tmp_path)
        until = time.monotonic() + 10
        while not lock.lost and time.monotonic() < until:
            time.sleep(0.01)
        assert lock.lost
    assert path.exists()  # and does not take it away
