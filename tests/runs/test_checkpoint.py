"""Checkpoints under kill -9, damage to each of their files, and retention."""

import itertools
import os
import signal
import subprocess
import sys
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from damage import flip_middle

from daas_dist.runs import checkpoint
from daas_dist.runs.checkpoint import DamagedCheckpoint, load, load_newest, save, steps


def state(step: int) -> dict[str, Any]:
    """What a search has: weights, an optimizer, numbers and text; all told apart by the step."""
    network = torch.nn.Linear(3, 2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(step + 0.5)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    network(torch.full((4, 3), 0.3)).square().sum().backward()
    optimizer.step()
    return {
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "progress": {"step": step, "elapsed": 1.25 * step, "phase": "joint", "best": None},
    }


def assert_is_of(step: int, loaded: tuple[int, dict[str, Any]] | None) -> None:
    assert loaded is not None
    assert loaded[0] == step
    assert plain(loaded[1]) == plain(state(step))


def plain(value: Any) -> Any:
    """The same with lists for tensors, so that == compares all of it."""
    if isinstance(value, torch.Tensor):
        return value.dtype, value.tolist()
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    return [plain(part) for part in value] if isinstance(value, list | tuple) else value


def unexpected(message: str) -> None:
    pytest.fail(f"warned: {message}")


def names(root: Path) -> set[str]:
    return {path.name for path in root.iterdir()}


# ---------------------------------------------------------------- saved and loaded


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    path = save(tmp_path / "checkpoints", 12_345, state(12_345), keep=2)
    assert path == tmp_path / "checkpoints" / "step_00012345"
    assert names(path) == {"manifest.json", "network.pt", "optimizer.pt", "progress.pt"}
    assert (path.parent / "LATEST").read_text() == "step_00012345\n"
    assert_is_of(12_345, load_newest(path.parent, warn=unexpected))


def test_an_optimizer_goes_on_where_it_was(tmp_path: Path) -> None:
    def steps_of(network: torch.nn.Linear, optimizer: torch.optim.Optimizer, count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad()
            network(torch.full((4, 3), 0.3)).square().sum().backward()
            optimizer.step()

    def fresh() -> tuple[torch.nn.Linear, torch.optim.Optimizer]:
        network = torch.nn.Linear(3, 2)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.fill_(0.7)
        return network, torch.optim.Adam(network.parameters(), lr=0.01)

    whole, whole_optimizer = fresh()
    steps_of(whole, whole_optimizer, 7)
    first, first_optimizer = fresh()
    steps_of(first, first_optimizer, 3)
    halves = {"network": first.state_dict(), "optimizer": first_optimizer.state_dict()}
    save(tmp_path, 3, halves, keep=1)
    second, second_optimizer = fresh()
    loaded = load(tmp_path, 3)
    second.load_state_dict(loaded["network"])
    second_optimizer.load_state_dict(loaded["optimizer"])
    steps_of(second, second_optimizer, 4)
    assert torch.equal(whole.weight, second.weight)


def test_nothing_saved_is_none(tmp_path: Path) -> None:
    assert load_newest(tmp_path / "nowhere", warn=unexpected) is None
    (tmp_path / ".tmp-7-abc").mkdir()
    (tmp_path / "step_x").mkdir()
    assert load_newest(tmp_path, warn=unexpected) is None


def test_the_newest_is_the_largest_number_not_the_last_name(tmp_path: Path) -> None:
    for step in (99_999_999, 100_000_000):
        save(tmp_path, step, state(step), keep=2)
    assert_is_of(100_000_000, load_newest(tmp_path, warn=unexpected))


def test_milestones_stay(tmp_path: Path) -> None:
    for step in (10, 20, 30, 40, 50):
        save(tmp_path, step, state(step), keep=2, milestones=[20])
    assert steps(tmp_path) == [20, 40, 50]


def test_latest_is_a_hint_only(tmp_path: Path) -> None:
    for step in (5, 6):
        save(tmp_path, step, state(step), keep=2)
    (tmp_path / "LATEST").write_text("step_00000005\n")
    assert_is_of(6, load_newest(tmp_path, warn=unexpected))
    (tmp_path / "LATEST").unlink()
    assert_is_of(6, load_newest(tmp_path, warn=unexpected))


def test_a_published_checkpoint_is_never_written_again(tmp_path: Path) -> None:
    path = save(tmp_path, 5, state(5), keep=1)
    before = {file.name: file.stat().st_mtime_ns for file in path.iterdir()}
    save(tmp_path, 5, state(6), keep=1)
    assert {file.name: file.stat().st_mtime_ns for file in path.iterdir()} == before
    assert_is_of(5, load_newest(tmp_path, warn=unexpected))


def test_a_damaged_one_of_the_same_step_gives_way(tmp_path: Path) -> None:
    (save(tmp_path, 5, state(5), keep=1) / "network.pt").unlink()
    save(tmp_path, 5, state(5), keep=1)
    assert "step_00000005.corrupt" in names(tmp_path)
    assert_is_of(5, load_newest(tmp_path, warn=unexpected))


def test_all_that_a_state_may_be_made_of_is_loaded(tmp_path: Path) -> None:
    leaves = [torch.ones(2), torch.nn.Parameter(torch.ones(2)), 1, 0.5, "a", True, None]
    assert [type(leaf) for leaf in leaves] == list(checkpoint.LEAVES)
    whole = {"list": leaves, "tuple": (*leaves, ()), "ordered": OrderedDict(a=leaves[0])}
    whole["keys"] = {0: {"deep": (leaves, {})}, 0.5: torch.ones(2, dtype=torch.bfloat16)}
    save(tmp_path, 1, whole, keep=1)
    assert plain(load(tmp_path, 1)) == plain(whole)


class Counts(dict[str, int]):
    """No dict: it could do anything on being loaded."""


@pytest.mark.parametrize("bad", [lambda: None, Path("x"), object(), np.float64(1), Counts(), {1}])
def test_a_state_that_could_not_be_loaded_is_not_saved(bad: Any, tmp_path: Path) -> None:
    save(tmp_path, 4, state(4), keep=1)
    with pytest.raises(ValueError, match=r"state\['bad'\]\['deep'\]\[0\] is a .*text"):
        save(tmp_path, 5, {"good": torch.ones(2), "bad": {"deep": [bad]}}, keep=1)
    assert names(tmp_path) == {"step_00000004", "LATEST"}


def test_arguments_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="keeping 0 checkpoints"):
        save(tmp_path, 5, state(5), keep=0)
    with pytest.raises(ValueError, match="count from 0"):
        save(tmp_path, -1, state(5), keep=1)
    for key in ("../x", "", "a b", "manifest.json"):
        with pytest.raises(ValueError, match="file names"):
            save(tmp_path, 5, {key: 1}, keep=1)
    assert not any(tmp_path.iterdir())


# ---------------------------------------------------------------- retention


@pytest.mark.parametrize("keep", [1, 2, 4])
def test_the_last_ones_are_kept(keep: int, tmp_path: Path) -> None:
    for step in range(10, 70, 10):
        save(tmp_path, step, state(step), keep=keep)
        assert steps(tmp_path) == list(range(10, step + 1, 10))[-keep:]
    assert names(tmp_path) == {f"step_000000{step}" for step in steps(tmp_path)} | {"LATEST"}


def test_the_one_just_saved_outlives_later_ones_that_nobody_checked(tmp_path: Path) -> None:
    for step in (50, 60):
        save(tmp_path, step, state(step), keep=2)
        flip_middle(tmp_path / f"step_000000{step}" / "network.pt")
    save(tmp_path, 40, state(40), keep=1)
    warned: list[str] = []
    assert_is_of(40, load_newest(tmp_path, warn=warned.append))


def test_what_is_set_aside_is_not_thrown_away(tmp_path: Path) -> None:
    flip_middle(save(tmp_path, 1, state(1), keep=1) / "network.pt")
    load_newest(tmp_path, warn=lambda _: None)
    for step in (2, 3, 4):
        save(tmp_path, step, state(step), keep=1)
    assert (tmp_path / "step_00000001.corrupt" / "network.pt").exists()


def test_a_failed_write_leaves_what_there_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1, state(1), keep=1)
    written = checkpoint.write_synced

    def disk_full(path: Path, data: bytes) -> None:
        if path.name == "progress.pt":
            raise OSError(28, "No space left on device")
        written(path, data)

    monkeypatch.setattr(checkpoint, "write_synced", disk_full)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path, 2, state(2), keep=1)
    assert names(tmp_path) == {"step_00000001", "LATEST"}
    assert_is_of(1, load_newest(tmp_path, warn=unexpected))


def test_a_disk_that_writes_something_else_is_noticed_before_publication(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1, state(1), keep=1)
    written = checkpoint.write_synced

    def lying(path: Path, data: bytes) -> None:
        written(path, data[:-1] + b"?" if path.name == "network.pt" else data)

    monkeypatch.setattr(checkpoint, "write_synced", lying)
    with pytest.raises(DamagedCheckpoint, match=r"network\.pt"):
        save(tmp_path, 2, state(2), keep=1)
    assert_is_of(1, load_newest(tmp_path, warn=unexpected))


# ---------------------------------------------------------------- kill -9

KILLS = 30


def save_for_ever(root: Path, told: int) -> None:
    """Publish one step after another, writing each number to the pipe once it is published."""
    found = load_newest(root, warn=lambda text: os._exit(3))
    for step in itertools.count(found[0] + 1 if found else 1):
        weights = {key: torch.full((size,), float(step)) for key, size in (("a", 50_000), ("b", 7))}
        save(root, step, {**weights, "step": step}, keep=2)
        os.write(told, b"%d " % step)


def kill_many_times(root: Path) -> None:
    """Runs in a process of its own: starting torch once, forking, killing, looking, again."""
    last, caught_writing = 0, 0
    for attempt in range(KILLS):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            save_for_ever(root, writing)
        os.close(writing)
        told = os.read(reading, 100)
        # Another moment of a save every time.
        time.sleep(0.0013 * (attempt % 10))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WTERMSIG(status) == signal.SIGKILL, status
        told += os.read(reading, 10_000)
        os.close(reading)
        caught_writing += any(name.startswith(".") for name in os.listdir(root))
        loaded = load_newest(root, warn=unexpected)
        assert loaded is not None
        step, content = loaded
        # What was told is there, or at most the one after it, killed before it could be told.
        newest = int(told.split()[-1])
        assert newest <= step <= newest + 1
        assert step > last
        assert content["step"] == step
        assert content["a"].eq(step).all()
        assert content["b"].eq(step).all()
        last = step
    # Else the kills all came between two saves, and nothing was shown.
    assert caught_writing >= KILLS // 5, caught_writing
    save(root, last + 1, {"step": last + 1}, keep=2)
    assert not [name for name in os.listdir(root) if name.startswith(".")]


def test_kill_9_while_saving_never_costs_what_was_published(tmp_path: Path) -> None:
    here = Path(__file__).parent
    package = Path(checkpoint.__file__).parents[2]
    paths = os.pathsep.join([str(here), str(here.parent / "support"), str(package)])
    root = tmp_path / "checkpoints"
    script = (
        "import sys, pathlib, test_checkpoint as t; t.kill_many_times(pathlib.Path(sys.argv[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(root)],
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("call", ["write", "rename", "rename_trash", "rmtree"])
def test_death_at_each_step_of_a_save_costs_nothing(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same at chosen places: a BaseException that no handler of save's can turn into order."""

    class Death(BaseException):
        pass

    def die(*_: Any, **__: Any) -> None:
        raise Death

    for step in (1, 2):
        save(tmp_path, step, state(step), keep=2)
    rename = Path.rename

    def dying_rename(self: Path, target: Path) -> Path:
        if self.name.startswith(".tmp-") == (call == "rename"):
            raise Death
        return rename(self, target)

    with monkeypatch.context() as patch, pytest.raises(Death):
        if call == "write":
            patch.setattr(checkpoint, "sync_folder", die)
            patch.setattr(checkpoint.shutil, "rmtree", die)
        elif call == "rmtree":
            patch.setattr(checkpoint, "_retain", die)
            (tmp_path / ".trash-0").mkdir()
        else:
            patch.setattr(Path, "rename", dying_rename)
        save(tmp_path, 3, state(3), keep=2)
    newest = 2 if call in ("write", "rename") else 3
    assert_is_of(newest, load_newest(tmp_path, warn=unexpected))
    save(tmp_path, 4, state(4), keep=2)
    assert names(tmp_path) == {f"step_0000000{step}" for step in steps(tmp_path)} | {"LATEST"}
    assert steps(tmp_path)[-1] == 4
