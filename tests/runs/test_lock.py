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

from daas_dist.documents import Damaged
from daas_dist.runs import lock
from daas_dist.runs.lock import FILE, Lock, Occupied, held

HOLD = """
import sys, time
from pathlib import Path
from daas_dist.runs.lock import Lock, Occupied
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


def test_a_process_of_a_container_is_not_looked_for_among_our_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same host name and kernel, other process numbers: ours has none of that number."""
    command = ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-c", HOLD]
    process = subprocess.Popen(
        [*command, str(tmp_path), "60"], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    if said(process) != "held":
        assert process.stderr is not None
        pytest.skip(f"no name space of processes: {process.stderr.read().strip()}")
    owner = json.loads((tmp_path / FILE).read_text())
    assert owner["pid"] < 10 and owner["host"] == lock.platform.node()
    with pytest.raises(Occupied), Lock(tmp_path):
        pass
    monkeypatch.setattr(lock, "_locked", lambda path: False)  # as on a disk without locks
    assert held(tmp_path)
    with pytest.raises(Occupied), Lock(tmp_path, dead=1.0):
        pass
    process.kill()
    process.communicate()
    with Lock(tmp_path, dead=1.0):
        pass


def test_a_clone_of_this_machine_is_told_by_its_lock(tmp_path: Path) -> None:
    """All that names an owner is ours, and its process is not: the file is locked all the same."""
    process = holder(tmp_path)
    assert said(process) == "held"
    path = tmp_path / FILE
    owner = json.loads(path.read_text())
    with path.open("r+") as file:  # the same file, which stays locked
        file.write(json.dumps({**owner, "started": "0"}))
        file.truncate()
    with pytest.raises(Occupied), Lock(tmp_path):
        pass
    assert held(tmp_path)
    process.kill()
    process.communicate()
    assert not held(tmp_path)


def test_what_a_dead_owner_had_forked_does_not_hold_for_it(tmp_path: Path) -> None:
    script = HOLD.replace("time.sleep", "os.fork() or print(end='', flush=True); time.sleep")
    command = [sys.executable, "-c", f"import os{script}", str(tmp_path), "20"]
    process = subprocess.Popen(command, text=True, stdout=subprocess.PIPE, start_new_session=True)
    assert said(process) == "held"
    time.sleep(0.2)
    process.kill()
    process.wait()
    try:
        with Lock(tmp_path):
            pass
        os.killpg(process.pid, 0)  # the fork is still there
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.parametrize("ahead", [-600.0, 600.0])
def test_at_a_glance_with_another_clock(
    tmp_path: Path, ahead: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "BEAT", 0.5)
    path, end = of_another_host(tmp_path), threading.Event()

    def touch() -> None:
        now = time.time() + ahead
        os.utime(path, (now, now))

    def live() -> None:
        while not end.wait(0.1):
            touch()

    touch()
    assert not held(tmp_path)
    thread = threading.Thread(target=live)
    thread.start()
    try:
        assert held(tmp_path)
    finally:
        end.set()
        thread.join()


@pytest.mark.parametrize(
    "text", ["[]", '{"pid": 1}', '{"host": "a", "pid": "x"}', "\xff", "[" * 100_000]
)
def test_a_damaged_lock_is_named_and_does_not_hold_up(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text, encoding="latin-1")
    with pytest.raises(Damaged, match="names no owner: remove it"):
        held(tmp_path)
    with pytest.raises(Occupied, match="names no owner: remove it"), Lock(tmp_path):
        pass
    (tmp_path / FILE).unlink()
    os.mkfifo(tmp_path / FILE)  # nobody writes to it
    with pytest.raises(Occupied, match="names no owner"), Lock(tmp_path):
        pass
