"""Which ends are deaths, which come back, and when it is enough."""

from pathlib import Path
from typing import Any

import pytest

from daas_dist.runs.log import RunLog, read_events
from daas_dist.system.slurm import JobState, parse_job
from launch import attempt
from launch.attempt import LIVES, deaths, why_ended


def started(position: int) -> dict[str, Any]:
    return {"event": "attempt", "position": position}


def ended(name: str, **told: Any) -> dict[str, Any]:
    return {"event": name, **told}


def job(**changed: Any) -> JobState:
    values: dict[str, Any] = {
        "id": "7", "state": "RUNNING", "reason": "", "restarts": 0, "preempted": False,
        "batch_host": "n1", "limit": 86_400.0, "ran": 60.0,
    }  # fmt: skip
    return JobState(**(values | changed))


DIED = [ended("died", status=137), ended("requeued", cause="died")]
PAUSED = [ended("stopped", reason="SIGUSR2"), ended("requeued", cause="preempted")]


@pytest.mark.parametrize(
    ("history", "count"),
    [
        ([started(4), *DIED, started(4), *DIED], 2),
        ([started(3), *DIED, started(4), *DIED], 1),  # there was a checkpoint in between
        ([started(4), started(4), *DIED], 2),  # a node that was lost leaves no word
        ([started(4), *DIED, started(4), *PAUSED, started(4), *DIED], 2),
        ([started(4), *PAUSED, started(4), *PAUSED, started(4), *PAUSED], 0),
        ([started(4), *DIED, ended("submitted"), started(4), *DIED], 1),
        ([], 0),
    ],
)
def test_deaths_in_a_row_at_one_place(history: list[dict[str, Any]], count: int) -> None:
    assert deaths(history, 4) == count


@pytest.mark.parametrize(
    ("reason", "state", "cause"),
    [
        ("SIGUSR2", job(preempted=True), "preempted"),
        ("SIGTERM", job(preempted=True), "preempted"),
        ("SIGTERM", job(state="COMPLETING"), "cancelled"),
        ("SIGUSR2", job(ran=86_300.0), "time limit"),
        ("SIGTERM", job(ran=86_300.0, state="COMPLETING"), "cancelled"),
        ("SIGTERM", job(ran=86_400.0, state="COMPLETING"), "time limit"),
        ("the time limit", None, "time limit"),
        ("SIGUSR2", job(), "signalled"),
        ("the file STOP", job(), "cancelled"),
        ("stop_after_minutes", job(), "stopped"),
        ("", job(), "died"),
        ("", job(preempted=True), "preempted"),  # killed before it could speak
        ("", job(state="COMPLETING"), "cancelled"),
        ("", None, "died"),
    ],
)
def test_why_an_attempt_ended(reason: str, state: JobState | None, cause: str) -> None:
    told = [ended("stopped", reason="SIGTERM"), started(4)]  # an earlier one's says nothing
    told += [ended("stopped", step=5, reason=reason)] if reason else []
    assert why_ended(told, state) == cause


def test_three_deaths_are_a_stall_and_a_resume_begins_anew(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for life in range(LIVES):
        assert attempt.before(tmp_path) == 0
        assert attempt.after(tmp_path, 137) == ("stalled" if life == LIVES - 1 else "again")
    assert "3 starts in a row died at step 0" in (tmp_path / "STALLED").read_text()
    assert "status 137" in capfd.readouterr().err
    assert attempt.before(tmp_path) != 0
    RunLog(tmp_path).event("submitted")
    assert attempt.before(tmp_path) == 0


def test_where_slurm_does_not_answer_a_job_is_not_said_to_be_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its status would else be 0, and what waits for its result would start."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("daas_dist.system.slurm.TRIES", 1)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert attempt.main(["before", str(tmp_path)]) == 0
    assert attempt.main(["after", "137", str(tmp_path)]) == attempt.STOPPED
    last = read_events(tmp_path)[-1]
    assert last["event"] == "warning" and "scontrol is not on PATH" in last["message"]


def test_a_checkpoint_between_is_progress(tmp_path: Path) -> None:
    for step in range(2 * LIVES):
        assert attempt.before(tmp_path) == 0
        (tmp_path / "trainings" / "a" / "checkpoints" / f"step_{step:08}").mkdir(parents=True)
        assert attempt.after(tmp_path, 3) == "again"
    assert attempt.progress(tmp_path) == 2 * LIVES - 1


def test_what_shall_stop_does_not_start_and_what_is_finished_is_finished(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    attempt.before(tmp_path)
    (tmp_path / "STOP").touch()  # while its ranks start, which it kills
    assert attempt.after(tmp_path, 143) == "cancelled"
    (tmp_path / "events.jsonl").unlink()
    assert attempt.before(tmp_path) == attempt.REFUSED
    assert f"{tmp_path / 'STOP'} is there; remove it" in capfd.readouterr().err
    assert [event["event"] for event in read_events(tmp_path)] == ["cancelled"]
    (tmp_path / "DONE").touch()  # a job that is requeued as its node was lost at the last moment
    assert attempt.before(tmp_path) == 0 and attempt.after(tmp_path, 0) == "done"
    assert len(read_events(tmp_path)) == 1


def test_a_failure_of_its_own_does_not_come_back(tmp_path: Path) -> None:
    attempt.before(tmp_path)
    (tmp_path / "FAILED").write_text("step 3: not finite\n")
    assert attempt.main(["after", "1", str(tmp_path)]) == 1
    (tmp_path / "FAILED").unlink()
    (tmp_path / "DONE").touch()
    assert attempt.main(["after", "0", str(tmp_path)]) == 0


def test_the_end_is_told_by_the_clock_of_the_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The controller's may differ by hours; how much time is left does not."""
    monkeypatch.setattr(attempt.slurm, "job", lambda _: job(limit=3600.0, ran=600.0))
    monkeypatch.setattr(attempt.time, "time", lambda: 5_000.0)
    assert attempt.before(tmp_path, "7") == 0
    assert capsys.readouterr().out == "8000\n"
    monkeypatch.setattr(attempt.slurm, "job", lambda _: job(limit=None))
    assert attempt.before(tmp_path, "7") == 0 and capsys.readouterr().out == ""


def test_of_a_job_that_outlives_its_nodes_those_that_answer_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "4")
    monkeypatch.setattr(attempt.slurm, "job", lambda _: job())
    monkeypatch.setattr(attempt.slurm, "host_names", lambda _: ["n1", "n2", "n3"])
    monkeypatch.setattr(attempt.slurm, "answers", lambda name: name != "n2")
    requeued: list[str] = []
    monkeypatch.setattr(attempt.slurm, "requeue", requeued.append)
    attempt.before(tmp_path, "7")
    assert attempt.after(tmp_path, 1, "7") == "again" and requeued == ["7"]
    monkeypatch.setenv(attempt.NO_KILL, "1")
    attempt.before(tmp_path, "7")
    capsys.readouterr()
    assert attempt.after(tmp_path, 1, "7") == "here" and requeued == ["7"]
    told = capsys.readouterr().out
    assert told == "--nodes=2 --ntasks=8 --ntasks-per-node=4 --nodelist=n1,n3\n"
    assert attempt.after(tmp_path, 1, "7") == "stalled"  # the third death at one place


def test_a_line_of_scontrol() -> None:
    """As Slurm 22.05 prints it, a preempted job of an array."""
    line = (
        "JobId=12 ArrayJobId=11 ArrayTaskId=3 JobName=a/search JobState=RUNNING Reason=None "
        "Requeue=1 Restarts=2 RunTime=1-02:03:04 TimeLimit=2-00:00:00 "
        "StartTime=2026-11-24T20:24:24 EndTime=2026-11-26T20:24:24 PreemptTime=2026-11-24T20:24:26 "
        "BatchHost=n7"
    )
    found = parse_job("11_3", line)
    assert (found.state, found.reason, found.restarts, found.preempted) == ("RUNNING", "", 2, True)
    assert found.ran == 26 * 3600 + 184 and found.limit == 2 * 86_400
    assert found.batch_host == "n7"
    assert found.left == 22 * 3600 - 184
    free = parse_job("1", "JobState=RUNNING EndTime=Unknown TimeLimit=UNLIMITED PreemptTime=None")
    assert (free.limit, free.preempted, free.left) == (None, False, float("inf"))
