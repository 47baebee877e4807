"""What a start says of the pictures that it read, while it reads and before it computes."""

import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from loading import load_images, use_of
from own_pictures import picture, tree
from rich.console import Console

from daas_dist.config import load
from daas_dist.data import Images, dataset, folder
from daas_dist.data.dataset import load_data_in_turn, tell_read
from daas_dist.data.enough import check_batch
from daas_dist.data.sharding import build, command, sources
from daas_dist.distributed.mesh import Mesh
from daas_dist.runs import progress
from daas_dist.runs.log import RunLog, read_events

SEARCH = ["stage=search_folder", "data.size=8"]
TRAINING = ["stage=train_folder", "data.size=8", "train.compare=[random/none]"]


# --- One line at a start -------------------------------------------------------------------------


def told(root: Path, words: list[str], run_dir: Path) -> list[dict[str, object]]:
    config = load([*words, f"data.root={root}"])
    tell_read(load_images(config), RunLog(run_dir))
    return read_events(run_dir)


def test_a_start_says_what_it_read_and_what_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tree(tmp_path / "p", {"rose": 10, "tulip": 5})
    (root / "rose" / "Thumbs.db").write_bytes(b"x")
    (root / "rose" / "1.xmp").write_text("x")
    (root / "rose" / "2.xmp").write_text("x")
    (root / ".old").mkdir()
    (root / "tulip" / "bad.jpg").write_bytes(b"\xff\xd8\xff")
    first, *warnings = told(root, SEARCH, tmp_path / "run")
    assert first["event"] == "read"
    assert (first["classes"], first["train"], first["test"]) == (2, 12, 3)
    assert first["left_out"] == {
        "unreadable": 1, "left by a system": 1, "sidecars or documents": 2, "hidden": 1
    }  # fmt: skip
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == first["message"]
    for part in (str(root), "2 classes", "15 pictures", "12 to learn", "3 to test", "Thumbs.db"):
        assert part in lines[0]
    assert [each["event"] for each in warnings] == ["warning"]
    assert str(warnings[0]["message"]) in lines[1] and "tulip/bad.jpg" in lines[1]


def test_nothing_left_out_is_not_spoken_of(tmp_path: Path) -> None:
    root = tree(tmp_path / "p", {"rose": 5, "tulip": 5})
    (event,) = told(root, TRAINING, tmp_path / "run")
    assert event["left_out"] == {} and "left out" not in str(event["message"])


def test_pictures_that_are_twice_are_a_warning_of_shards_too(tmp_path: Path) -> None:
    root, tests = tree(tmp_path / "p", {"a": 4, "b": 4}), tree(tmp_path / "t", {"a": 2, "b": 2})
    (tests / "a" / "copy.png").write_bytes((root / "a" / "0.png").read_bytes())
    for part, folder_ in (("train", root), ("val", tests)):
        build.build(sources.from_folder(folder_), tmp_path / "shards" / part)
    config = load([*SEARCH, "data=shards", f"data.root={tmp_path}/shards", "data.size=8"])
    data = load_images(config)
    assert any("1 picture of testing" in said for said in data.warnings)


def test_shards_say_what_was_left_out_when_they_were_made(tmp_path: Path) -> None:
    root = tree(tmp_path / "p", {"a": 4, "b": 4})
    (root / "a" / "odd.jpg").write_text("no picture")
    words = ["build", str(tmp_path / "out"), "--folder", str(root), "--max-bad-files", "1"]
    assert command.main(words) == 0
    events = told(tmp_path / "out", [*SEARCH, "data=shards", "data.size=8"], tmp_path / "run")
    assert events[0]["left_out"] == {"left out when the shards were made": 1}
    assert "a/odd.jpg" in str(events[0]["message"])


def test_a_build_says_what_it_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tree(tmp_path / "p", {"a": 3, "b": 3})
    (root / "a" / "Thumbs.db").write_text("x")
    assert command.main(["build", str(tmp_path / "out"), "--folder", str(root)]) == 0
    assert "left out: 1 left by a system" in capsys.readouterr().out


# --- While it reads ------------------------------------------------------------------------------


def test_reading_is_reported_to_its_end(tmp_path: Path) -> None:
    tree(tmp_path, {"rose": 6, "tulip": 6})
    said: list[tuple[str, int, int | None]] = []
    folder(tmp_path, size=8, report=lambda *each: said.append(each))
    assert {what for what, _, _ in said} == {"listing pictures", "reading pictures"}
    assert said[-1] == ("reading pictures", 12, 12)
    counts = [done for what, done, _ in said if what == "reading pictures"]
    assert counts == list(range(1, 13))


def test_shards_are_measured_with_reports(tmp_path: Path) -> None:
    root = tree(tmp_path / "p", {"rose": 30, "tulip": 30})
    build.build(sources.from_folder(root), tmp_path / "out")
    words = [*SEARCH, "data=shards", f"data.root={tmp_path}/out", "data.mean=null", "data.size=8"]
    said: list[tuple[str, int, int | None]] = []
    load_images(load([*words, "data.std=null"]), lambda *each: said.append(each))
    assert said == [("measuring pictures", 32, 48), ("measuring pictures", 48, 48)]


def shown(terminal: bool, step: Callable[[progress.Report], None]) -> str:
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=100)
    with progress.shown(console) as report:
        step(report)
    return file.getvalue()


def test_a_terminal_has_a_bar() -> None:
    def step(report: progress.Report) -> None:
        report("listing pictures", 7, None)
        report("reading pictures", 7, 20)

    said = shown(True, step)
    assert "reading pictures" in said and "7/20" in said and "\x1b[" in said


def test_elsewhere_there_is_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)

    def step(report: progress.Report) -> None:
        nonlocal now
        for done in range(1, 1001):
            now += 0.125
            report("reading [bold]pictures", done, 1000)

    lines = shown(False, step).splitlines()
    assert lines == [f"reading [bold]pictures: {n} of 1000" for n in (80, 320, 560, 800)]
    assert shown(False, lambda report: report("quick", 1, 1)) == ""


def test_only_rank_0_shows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree(tmp_path, {"rose": 6, "tulip": 6})
    config = load([*SEARCH, f"data.root={root}", "search.batch_size=2"])
    used: list[object] = []
    monkeypatch.setattr(dataset, "shown", lambda: used.append(1) or progress.shown())
    data = load_data_in_turn(config.data, 0, use_of(config), Mesh())
    other = Mesh()
    object.__setattr__(other, "rank", 1)
    again = load_data_in_turn(config.data, 0, use_of(config), other)
    assert again.train.digest() == data.train.digest()
    assert used == [1]


# --- Too few -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "words", "said"),
    [
        ({"a": 9, "b": 2}, [], ["class 'b' has 2 pictures", "1 put aside to test", "val_root"]),
        ({"a": 9, "b": 1}, [], ["class 'b' has 1 picture,", "2 or more", "data.val_root"]),
        (
            {"a": 40, "b": 8}, ["data.limit=6"],
            ["class 'b' has 8 pictures", "data.limit=6 takes 1", "raise data.limit"],
        ),
        ({"a": 9, "b": 9, "c": 9}, ["data.limit=2"], ["2 of", "3 classes", "set data.limit to 3"]),
        ({"a": 9, "b": 9, "c": 9}, ["data.test_limit=2"], ["set data.test_limit to 3"]),
    ],
)  # fmt: skip
def test_a_class_that_is_too_small_is_counted_before_it_is_split(
    counts: dict[str, int], words: list[str], said: list[str], tmp_path: Path
) -> None:
    tree(tmp_path, counts)
    with pytest.raises(ValueError) as refused:
        load_images(load([*SEARCH, f"data.root={tmp_path}", *words]))
    for each in said:
        assert each in str(refused.value)


def test_with_test_pictures_of_its_own_two_of_a_class_do(tmp_path: Path) -> None:
    root, tests = tree(tmp_path / "p", {"a": 2, "b": 4}), tree(tmp_path / "t", {"a": 1, "b": 1})
    data = load_images(load([*SEARCH, f"data.root={root}", f"data.val_root={tests}"]))
    train, val = data.train.split(0.5, 0)
    assert isinstance(train, Images) and isinstance(val, Images)
    assert torch.bincount(train.labels).tolist() == torch.bincount(val.labels).tolist() == [1, 2]
    tree(tmp_path / "q", {"a": 1, "b": 4})
    with pytest.raises(ValueError, match="class 'a' has 1 picture: a search needs 2.*add pictures"):
        load_images(load([*SEARCH, f"data.root={tmp_path}/q", f"data.val_root={tests}"]))
    # A training splits nothing.
    load_images(load([*TRAINING, f"data.root={tmp_path}/q", f"data.val_root={tests}"]))


def test_shards_of_a_small_class_are_counted_alike(tmp_path: Path) -> None:
    root = tree(tmp_path / "p", {"a": 9, "b": 2})
    build.build(sources.from_folder(root), tmp_path / "out")
    words = [*SEARCH, "data=shards", f"data.root={tmp_path}/out", "data.size=8"]
    with pytest.raises(ValueError, match="'b' has 2 pictures, of which 1 put aside to test on"):
        load_images(load(words))


def test_many_classes_of_two_can_be_put_aside_from(tmp_path: Path) -> None:
    """A fifth of 20 is 4, but each of 10 classes gives one."""
    tree(tmp_path, {f"{i}": 2 for i in range(10)})
    learns, tests = folder(tmp_path, size=8)
    assert (len(learns), len(tests)) == (10, 10)
    with pytest.raises(ValueError, match="class '0' has 1 picture here"):
        learns.split(0.5, 0)


@pytest.mark.parametrize(
    ("words", "train", "said"),
    [
        (SEARCH, 60, ["30 pictures to train on", "60 pictures to learn from", "15 more put aside",
                      "search.batch_size=64", "lower search.batch_size to 30", "add pictures"]),
        ([*SEARCH, "data.val_share=0.9"], 600, ["60 pictures to train on", "data.val_share=0.9"]),
        ([*SEARCH, "data.val_share=0.1"], 600, ["60 pictures to validate on"]),
        ([*SEARCH, "data.limit=60"], 60, ["data.limit=60", "raise data.limit"]),
        (TRAINING, 60, ["60 pictures to train on", "train.batch_size=96", "to 60"]),
    ],
)  # fmt: skip
def test_a_set_that_fills_no_batch_names_the_key(
    words: list[str], train: int, said: list[str]
) -> None:
    config = load([*words, "data.root=p"])
    with pytest.raises(ValueError) as refused:
        check_batch(config.data, use_of(config), train, 15)
    for each in said:
        assert each in str(refused.value)
    check_batch(config.data, use_of(config), 10 * train, 15)


def test_a_run_on_a_small_set_ends_before_it_computes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from daas_dist import cli

    for name in list(os.environ):
        if name.startswith(("RANK", "WORLD_SIZE", "LOCAL_RANK", "SLURM")):
            monkeypatch.delenv(name)
    root = tree(tmp_path / "p", {"a": 9, "b": 9})
    picture(root / "a" / "more.png")
    words = [
        "run",
        *SEARCH,
        "preset=tiny",
        f"data.root={root}",
        f"run_dir={tmp_path}/r",
        "device=cpu",
    ]
    assert cli.main([*words, "search.batch_size=64"]) == 2
    said = capsys.readouterr().err
    assert "search.batch_size=64" in said and "Traceback" not in said
    assert not (tmp_path / "r" / "metrics.jsonl").exists()


def test_a_whole_run_has_the_event(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A search of two steps on a root of two parts, and its result says the depth."""
    from daas_dist import cli

    root = tree(tmp_path / "p", {f"{part}/{name}": 8 for part in ("train", "val") for name in "ab"})
    words = [
        "run",
        *SEARCH,
        "preset=tiny",
        f"data.root={root}",
        f"run_dir={tmp_path}/r",
        "device=cpu",
    ]
    more = ["search.batch_size=4", "search.warmup_epochs=1", "search.joint_epochs=1"]
    assert cli.main([*words, *more]) == 0
    assert "training and the test pictures" in capfd.readouterr().err
    events = [each["event"] for each in read_events(tmp_path / "r")]
    assert events.index("read") < events.index("finished")
    result = json.loads((tmp_path / "r" / "result.json").read_text())
    assert result["data"]["bits"] is None and result["data"]["classes"] == ["a", "b"]
