"""Checkpoints whose files are damaged, missing or not to be read: the one before is taken."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from damage import (
    a_file,
    a_link_to_nowhere,
    empty,
    flip_first,
    flip_last,
    flip_middle,
    lengthen,
    truncate,
)
from test_checkpoint import assert_is_of, names, state, unexpected

from daas_dist.runs import checkpoint
from daas_dist.runs.checkpoint import (
    DamagedCheckpoint,
    OtherVersion,
    load,
    load_newest,
    save,
    steps,
)


@pytest.mark.parametrize("name", ["manifest.json", "network.pt", "optimizer.pt", "progress.pt"])
@pytest.mark.parametrize(
    "damage", [flip_first, flip_middle, flip_last, truncate, empty, lengthen, Path.unlink]
)
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_it_taken(
    name: str, damage: Callable[[Path], None], tmp_path: Path
) -> None:
    for step in (30, 40):
        save(tmp_path, step, state(step), keep=2)
    damage(tmp_path / "step_00000040" / name)
    warned: list[str] = []
    assert_is_of(30, load_newest(tmp_path, warn=warned.append))
    assert len(warned) == 1
    assert "step_00000040" in warned[0]
    assert name in warned[0]
    assert "step_00000040.corrupt" in names(tmp_path)
    assert steps(tmp_path) == [30]
    # The next look is not told again, and the step can be published again.
    assert_is_of(30, load_newest(tmp_path, warn=unexpected))
    save(tmp_path, 40, state(40), keep=2)
    assert_is_of(40, load_newest(tmp_path, warn=unexpected))


def test_every_byte_of_a_manifest_counts(tmp_path: Path) -> None:
    path = save(tmp_path, 5, {"one": 1}, keep=1) / "manifest.json"
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(DamagedCheckpoint):
            load(tmp_path, 5)
    path.write_bytes(whole)
    assert load(tmp_path, 5) == {"one": 1}


def test_a_checkpoint_under_another_s_name_is_damaged(tmp_path: Path) -> None:
    save(tmp_path, 5, state(5), keep=1).rename(tmp_path / "step_00000009")
    with pytest.raises(DamagedCheckpoint, match="of step 5, not 9"):
        load(tmp_path, 9)


def test_when_all_are_damaged_none_is_left_and_all_are_named(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        truncate(save(tmp_path, step, state(step), keep=3) / "network.pt")
    warned: list[str] = []
    assert load_newest(tmp_path, warn=warned.append) is None
    assert [f"step_0000000{step}" in text for step, text in zip((3, 2, 1), warned, strict=True)]
    assert names(tmp_path) == {f"step_0000000{step}.corrupt" for step in (1, 2, 3)} | {"LATEST"}


def test_without_a_listener_damage_is_a_warning(tmp_path: Path) -> None:
    for step in (3, 4):
        save(tmp_path, step, state(step), keep=2)
    flip_middle(tmp_path / "step_00000004" / "network.pt")
    with pytest.warns(UserWarning, match="step_00000004"):
        assert_is_of(3, load_newest(tmp_path))


def test_a_whole_checkpoint_that_cannot_be_loaded_here_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 5, state(5), keep=1)

    def out_of_memory(*_: Any, **__: Any) -> None:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="out of memory"):
        patch.setattr(torch, "load", out_of_memory)
        load_newest(tmp_path, warn=unexpected)
    with monkeypatch.context() as patch, pytest.raises(OtherVersion, match="schema 1.*reads 2"):
        patch.setattr(checkpoint, "SCHEMA", 2)
        load_newest(tmp_path, warn=unexpected)
    assert_is_of(5, load_newest(tmp_path, warn=unexpected))


@pytest.mark.parametrize("replace", [a_file, a_link_to_nowhere])
def test_what_is_no_folder_is_set_aside_and_retired(
    replace: Callable[[Path], None], tmp_path: Path
) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step, state(step), keep=3)
    replace(tmp_path / "step_00000003")
    warned: list[str] = []
    assert_is_of(2, load_newest(tmp_path, warn=warned.append))
    assert "step_00000003" in warned[0] and "step_00000003.corrupt" in names(tmp_path)
    replace(tmp_path / "step_00000001")
    save(tmp_path, 3, state(3), keep=1)
    assert steps(tmp_path) == [3]


def test_an_unreadable_folder_is_set_aside() -> None:
    """As a user who is not root, who reads everything."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "checkpoints"
        for step in (1, 2):
            save(root, step, state(step), keep=2)
        for path in (Path(name), *Path(name).rglob("*")):
            os.chown(path, 65534 if os.geteuid() == 0 else -1, -1)
        (root / "step_00000002").chmod(0)
        own, warned = os.geteuid(), list[str]()
        try:
            os.seteuid(65534 if own == 0 else own)
            assert_is_of(1, load_newest(root, warn=warned.append))
        finally:
            os.seteuid(own)
        assert "cannot be read" in warned[0]
        assert "step_00000002.corrupt" in names(root)
        (root / "step_00000002.corrupt").chmod(0o700)
