"""A run directory through kills, resumes and readers that look while it is written."""

import hashlib
import json
import os
import subprocess
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from daas_dist.documents.run import PROVENANCE
from daas_dist.documents.writing import write_json
from daas_dist.runs import log as runlog
from daas_dist.runs.log import (
    RunLog,
    provenance,
    read_events,
    read_metrics,
    write_text,
)


def record(step: int) -> dict[str, Any]:
    return {"step": step, "train_loss": 2.5 / step, "entropy": {"alpha": 1.9}, "reward_mean": None}


def names(run_dir: Path) -> set[str]:
    return {path.name for path in run_dir.iterdir()}


# ---------------------------------------------------------------- metrics and resuming


def test_metrics_are_one_json_object_a_line(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "runs" / "a")
    for step in (10, 20):
        log.metric(record(step))
    lines = (tmp_path / "runs" / "a" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [record(10), record(20)]
    assert read_metrics(tmp_path / "runs" / "a") == [record(10), record(20)]
    assert read_metrics(tmp_path / "nowhere") == []


def test_a_resumed_run_has_no_duplicate_and_no_gap(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    for step in range(1, 8):
        log.metric(record(step))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "train_lo')
    # Killed in step 8; the last checkpoint is of step 5.
    again = RunLog(tmp_path)
    again.resume(5)
    for step in range(6, 10):
        again.metric(record(step))
    assert read_metrics(tmp_path) == [record(step) for step in range(1, 10)]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(0, 12), st.data())
def test_a_kill_at_any_byte_can_be_resumed_from(
    written: int, resumed: int, data: st.DataObject
) -> None:
    whole = "".join(json.dumps(record(step)) + "\n" for step in range(1, written + 1))
    # A checkpoint is of a step whose line was written whole.
    resumed = min(resumed, written)
    least = len("".join(whole.splitlines(keepends=True)[:resumed]))
    cut = data.draw(st.integers(least, len(whole)))
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "metrics.jsonl").write_text(whole[:cut])
        log = RunLog(folder)
        log.truncate_after(resumed)
        for step in range(resumed + 1, 14):
            log.metric(record(step))
        assert read_metrics(folder) == [record(step) for step in range(1, 14)]


def test_a_line_that_lacks_only_its_end_is_kept(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(json.dumps(record(1)))
    assert read_metrics(tmp_path) == [record(1)]
    log = RunLog(tmp_path)
    log.metric(record(2))
    assert read_metrics(tmp_path) == [record(1), record(2)]


def test_epochs_can_be_the_position(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    for epoch in (1, 2, 3):
        log.metric({"epoch": epoch, "test_accuracy": 0.3 * epoch})
    log.resume(2, key="epoch")
    assert [line["epoch"] for line in read_metrics(tmp_path)] == [1, 2]
    assert read_events(tmp_path)[-1]["epoch"] == 2


def test_a_reader_of_a_running_run_ignores_the_torn_line(tmp_path: Path) -> None:
    RunLog(tmp_path).metric(record(3))
    line = json.dumps(record(4))
    for cut in range(len(line)):
        (tmp_path / "metrics.jsonl").write_text(json.dumps(record(3)) + "\n" + line[:cut])
        assert read_metrics(tmp_path) == [record(3)]


def test_a_broken_line_in_the_middle_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for broken in ('{"step": ', "7", "null"):
        path.write_text(f"{json.dumps(record(3))}\n{broken}\n{json.dumps(record(4))}\n")
        with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2: is .*; repair or remove"):
            read_metrics(tmp_path)


def test_what_was_true_before_a_cut_is_true_until_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = RunLog(tmp_path)
    for step in (1, 2, 3):
        log.metric(record(step))

    def dies(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("os.fsync", dies)
        log.truncate_after(1)
    assert read_metrics(tmp_path) in ([record(1)], [record(step) for step in (1, 2, 3)])
    assert names(tmp_path) == {"metrics.jsonl"}


@pytest.mark.parametrize(
    ("odd", "named"),
    [
        ({"train_loss": float("nan")}, "train_loss=nan"),
        ({"entropy": {"alpha": [1.0, float("inf")]}}, r"entropy\.alpha\[1\]=inf"),
    ],
)
def test_numbers_that_are_not_finite_are_refused_by_name(
    odd: dict[str, Any], named: str, tmp_path: Path
) -> None:
    log = RunLog(tmp_path)
    log.metric(record(1))
    with pytest.raises(ValueError, match=f"{named}: not finite"):
        log.metric(record(2) | odd)
    with pytest.raises(ValueError, match=named):
        write_json(tmp_path / "result.json", odd)
    assert read_metrics(tmp_path) == [record(1)]
    assert not (tmp_path / "result.json").exists()


# ---------------------------------------------------------------- events and endings


def test_events_tell_the_story(tmp_path: Path) -> None:
    before = time.time()
    log = RunLog(tmp_path)
    log.start(ranks=2)
    log.event("checkpointed", step=40)
    log.finish("FAILED", "loss is not finite in step 43")
    assert (tmp_path / "FAILED").read_text() == "loss is not finite in step 43\n"
    again = RunLog(tmp_path)
    again.resume(40)
    assert not (tmp_path / "FAILED").exists()
    again.finish("DONE")
    assert names(tmp_path) == {"events.jsonl", "DONE"}
    events = read_events(tmp_path)
    times = [event.pop("time") for event in events]
    assert times == sorted(times)
    assert before <= times[0] <= times[-1] <= time.time()
    assert events == [
        {"event": "started", "ranks": 2},
        {"event": "checkpointed", "step": 40},
        {"event": "failed", "reason": "loss is not finite in step 43"},
        {"event": "resumed", "step": 40},
        {"event": "finished"},
    ]


def test_a_torn_event_does_not_swallow_the_next(tmp_path: Path) -> None:
    RunLog(tmp_path).start()
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write('{"time": 17')
    RunLog(tmp_path).resume(3)
    assert [event["event"] for event in read_events(tmp_path)] == ["started", "resumed"]


def test_a_new_run_does_not_start_over_an_old_one(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    log.metric(record(1))
    with pytest.raises(FileExistsError, match=r"already holds metrics.*run_dir"):
        log.start()


def test_a_run_ends_in_one_of_two_ways(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="DONE.*FAILED"):
        RunLog(tmp_path).finish("STOPPED")  # pyright: ignore[reportArgumentType]


# ---------------------------------------------------------------- whole files


def test_a_file_is_the_old_one_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "result.json"
    write_json(path, {"schema": 1, "name": "Ærø"})
    assert json.loads(path.read_text()) == {"schema": 1, "name": "Ærø"}
    old_umask = os.umask(0o022)
    try:
        write_text(path, "second\n")
    finally:
        os.umask(old_umask)
    assert path.read_text() == "second\n"
    assert path.stat().st_mode & 0o777 == 0o644

    def disk_full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runlog.os, "fsync", disk_full)
    with pytest.raises(OSError, match="No space left"):
        write_text(path, "third\n")
    assert path.read_text() == "second\n"
    assert names(tmp_path) == {"result.json"}


# ---------------------------------------------------------------- provenance


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    return subprocess.run(
        ["git", *identity, *arguments],
        cwd=folder,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with one committed file, which says it is the package's."""
    git(tmp_path, "init", "--quiet")
    path = tmp_path / "package" / "runs" / "log.py"
    path.parent.mkdir(parents=True)
    path.write_text("first\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    monkeypatch.setattr(runlog, "__file__", str(path))
    return path


def test_provenance_names_the_commit_and_what_differs_from_it(source: Path) -> None:
    clean = provenance(["daas", "run"], "cpu", "abc")
    assert clean.commit == git(source.parent, "rev-parse", "HEAD")
    assert (clean.dirty, clean.diff_sha256) == (False, None)
    seen = []
    for text in ("second\n", "third\n"):
        source.write_text(text)
        changed = provenance(["daas", "run"], "cpu", "abc")
        assert changed.commit == clean.commit
        assert changed.dirty is True
        seen.append(changed.diff_sha256)
    source.write_text("first\n")
    (source.parent / "new.py").write_text("x\n")
    seen.append(provenance(["daas", "run"], "cpu", "abc").diff_sha256)
    assert len(set(seen)) == 3
    assert all(len(digest) == len(hashlib.sha256().hexdigest()) for digest in seen)


def test_a_copy_inside_another_checkout_is_not_of_its_commit(source: Path) -> None:
    (source.parents[2] / ".gitignore").write_text("package/\n")
    git(source.parents[2], "rm", "--quiet", "--cached", str(source))
    assert provenance([], "cpu", "abc").commit is None


def test_provenance_without_git(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    told = provenance([], "cpu", "abc")
    assert (told.commit, told.dirty, told.diff_sha256) == (None, False, None)


def test_a_git_hook_s_variables_do_not_lead_elsewhere(
    source: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    git(elsewhere, "init", "--quiet")
    monkeypatch.setenv("GIT_DIR", str(elsewhere / ".git"))
    assert provenance([], "cpu", "abc").commit == git(source.parent, "rev-parse", "HEAD")


def test_provenance_says_what_ran_where(tmp_path: Path) -> None:
    command = ["daas", "run", "seed=3", "data.root=https://me:pw@h.org/a"]
    PROVENANCE.write(tmp_path, provenance(command, "cpu (2 threads)", "abc"))
    told = PROVENANCE.read(tmp_path)
    assert told is not None
    assert told.command == ["daas", "run", "seed=3", "data.root=https://…@h.org/a"]
    assert (told.device, told.data_sha256) == ("cpu (2 threads)", "abc")
    assert told.versions["torch"] == torch.__version__ and told.versions["numpy"]
    assert told.host
    age = time.time() - datetime.fromisoformat(told.started).timestamp()
    assert -1 < age < 60
