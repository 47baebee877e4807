"""--cluster local: the same commands on this machine, with nothing but torchrun below."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from whole_runs import ENVIRONMENT, events, held, needs_fashion_mnist, wait

from daas_dist.runs import lock
from launch import submit

pytestmark = needs_fashion_mnist
SEARCH = ["stage=search_fashion", "preset=tiny", "data.limit=64", "search.checkpoint_every=1",
          "search.log_every=1"]  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)


def states(capsys: pytest.CaptureFixture[str], *paths: Path) -> dict[str, dict[str, Any]]:
    capsys.readouterr()
    assert submit.main(["status", "--json", *map(str, paths)]) == 0
    return {Path(row["run_dir"]).name: row for row in json.loads(capsys.readouterr().out)}


def told(run_dir: Path) -> list[str]:
    return [row["event"] for row in events(run_dir)]


@pytest.mark.long
def test_a_rank_that_is_killed_comes_back_and_what_is_cancelled_can_be_resumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "plan"
    words = ["--cluster", "local", "--ranks-per-node", "2", "--seeds", "0-1", *SEARCH,
             "search.joint_epochs=3", f"run_dir={root}"]  # fmt: skip
    assert submit.main(words) == 0
    first, second = root / "search-seed0", root / "search-seed1"
    with held(first, 2) as pid:
        found = states(capsys, root)
        assert found["search-seed0"]["state"] == "RUNNING"
        assert found["search-seed1"]["state"] == "WAITING"
        os.kill(pid, signal.SIGKILL)
    wait(lambda: told(first).count("attempt") == 2 and "resumed" in told(first))
    assert "died" in told(first) and "requeued" in told(first)
    with held(first, 4):
        assert submit.main(["cancel", str(first)]) == 0
    wait(lambda: "cancelled" in told(first))
    with held(second, 1):
        assert states(capsys, first)["search-seed0"]["state"] == "CANCELLED"
        assert submit.main(["cancel", str(second)]) == 0
    wait(lambda: not lock.held(root / "logs"))
    assert submit.main(["logs", "--lines", "3", str(first)]) == 0
    # A search that is shorter now would be another: it goes on as it was, to its end.
    assert submit.main(["resume", str(root)]) == 0
    wait(lambda: all((each / "DONE").exists() for each in (first, second)))
    wait(lambda: not lock.held(root / "logs"))
    assert {row["state"] for row in states(capsys, root).values()} == {"COMPLETED"}


@pytest.mark.long
def test_debug_stays_in_the_foreground_and_has_the_status_of_its_run(tmp_path: Path) -> None:
    words = [*SEARCH, "search.joint_epochs=1", f"run_dir={tmp_path / 'run'}"]
    command = [sys.executable, submit.__file__, "--cluster", "debug", *words]
    done = subprocess.run(command, env=ENVIRONMENT, text=True, capture_output=True)
    assert done.returncode == 0 and "policy, probability x application" in done.stdout
    assert (tmp_path / "run" / "DONE").exists()
    broken = [*command[:-1], f"run_dir={tmp_path / 'broken'}", f"data.root={tmp_path / 'no'}"]
    done = subprocess.run(broken, env=ENVIRONMENT, text=True, capture_output=True)
    assert done.returncode == 1
    assert f"{tmp_path / 'no'}" in (tmp_path / "broken" / "FAILED").read_text()
