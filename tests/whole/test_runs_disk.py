"""Searches on a disk that is full, then read-only: a small tmpfs of their own."""

import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
import torture
from whole_runs import ENVIRONMENT, finish, needs_fashion_mnist

from daas_dist.runs import checkpoint

pytestmark = needs_fashion_mnist
EPOCHS = 2


@pytest.fixture
def disk(tmp_path: Path) -> Generator[Path]:
    """Room for the first few checkpoints of 1.5 MB, when momenta are still missing."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2300k", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a tmpfs takes root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fail(*words: str) -> str:
    """The one line that it said."""
    command = [sys.executable, "-m", *words]
    ended = subprocess.run(command, env=ENVIRONMENT, text=True, capture_output=True)
    assert ended.returncode == 1, ended.stderr
    *before, line = ended.stderr.splitlines()
    assert all(each.startswith("read ") for each in before), before
    return line


def test_a_full_and_a_read_only_disk_lose_nothing(disk: Path, tmp_path: Path) -> None:
    words = torture.words(disk / "run", EPOCHS, 1)
    assert "No space left on device" in (line := fail(*words)) and "same command goes on" in line
    folder = disk / "run" / "checkpoints"
    saved = checkpoint.load_newest(folder)
    assert saved is not None and saved[0] == checkpoint.steps(folder)[-1]  # whole, not set aside
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    assert "Read-only file system" in fail(*words)
    subprocess.run(["mount", "-o", "remount,rw,size=64m", str(disk)], check=True)
    finish(*words)
    peaceful = tmp_path / "peaceful"
    finish(*torture.words(peaceful, EPOCHS, 1))
    torture.same(disk / "run", peaceful)
