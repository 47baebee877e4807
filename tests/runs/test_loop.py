"""The loop of a run: what is in the run directory after each turn, and where it stops."""

from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch

from daas_dist.config import Frozen, load
from daas_dist.distributed.mesh import Mesh
from daas_dist.runs import checkpoint
from daas_dist.runs.job import Job
from daas_dist.runs.lock import Occupied
from daas_dist.runs.log import RunLog, read_events, read_metrics
from daas_dist.runs.loop import Asked, Beat, take_turns
from daas_dist.runs.memory import within_memory
from daas_dist.runs.stopping import FILE, Stop

TURNS = 7


class Counting:
    """Counts to TURNS, and asks to stop in the turn `stops`; a checkpoint is due every third."""

    def __init__(self, run_dir: Path, began: int = 0, stops: int = 0) -> None:
        self.run_dir, self.step, self.stops = run_dir, began, stops
        self.seen: list[tuple[int, list[int], int]] = []
        self.warnings: list[str] = []

    @property
    def done(self) -> bool:
        return self.step == TURNS

    @property
    def due(self) -> bool:
        return self.step % 3 == 0

    def turn(self, beat: Beat, asked: Asked) -> None:
        self.seen.append((self.step, checkpoint.steps(self.run_dir / "checkpoints"), self.told))
        assert not asked()
        self.step += 1
        if self.step in (2, 5):
            self.warnings.append(f"odd: {self.step}")
        if self.step == self.stops:
            (self.run_dir / FILE).touch()

    @property
    def told(self) -> int:
        return len(read_metrics(self.run_dir))

    def tell(self, log: RunLog | None) -> None:
        if log is not None:
            log.metric({"step": self.step})

    def state(self) -> dict[str, Any]:
        return {"step": self.step, "told": self.told}


@pytest.fixture
def job(tmp_path: Path) -> Job:
    seconds = count(0, 10)  # at every look a while after the last
    stop = Stop(lambda: float(next(seconds)))
    stop.watch(tmp_path, None)
    frozen = Frozen(load(["stage=search_fashion"]))
    cpu, log = torch.device("cpu"), RunLog(tmp_path)
    return Job(frozen, Mesh(), stop, tmp_path, cpu, log, None, patience=60.0)


def run(work: Counting, job: Job, milestones: tuple[int, ...] = ()) -> str:
    return take_turns(work, job, job.mesh, job.log, milestones=milestones)


def test_each_turn_is_told_then_saved_where_that_is_due_or_all_is_done(job: Job) -> None:
    work = Counting(job.run_dir)
    assert run(work, job, milestones=(3,)) == ""
    saved = {0: [], 3: [3], 6: [3, 6]}
    assert work.seen == [(i, saved[i - i % 3], i) for i in range(TURNS)]
    folder = job.run_dir / "checkpoints"
    assert checkpoint.steps(folder) == [3, 6, 7]
    # What is saved was told before: a resume repeats nothing that the log lacks.
    assert [checkpoint.load(folder, step)["told"] for step in (3, 6, 7)] == [3, 6, 7]
    assert [event["message"] for event in read_events(job.run_dir)] == ["odd: 2", "odd: 5"]


def test_a_stop_is_saved_whether_that_was_due_or_not(job: Job) -> None:
    work = Counting(job.run_dir, stops=4)
    assert run(work, job) == f"the file {FILE}"
    assert work.step == 4 and checkpoint.steps(job.run_dir / "checkpoints") == [3, 4]


def test_one_that_is_asked_for_in_the_last_turn_stops_nothing(job: Job) -> None:
    assert run(Counting(job.run_dir, stops=TURNS), job) == ""


def test_work_that_is_done_makes_no_turn(job: Job) -> None:
    work = Counting(job.run_dir, began=TURNS)
    assert run(work, job) == "" and work.seen == []
    assert not (job.run_dir / "checkpoints").exists()


def test_old_checkpoints_go_but_milestones_stay(job: Job) -> None:
    run(Counting(job.run_dir), job)
    assert checkpoint.steps(job.run_dir / "checkpoints") == [6, 7]


def test_a_rank_that_does_not_write_leaves_nothing(job: Job) -> None:
    work = Counting(job.run_dir, stops=4)
    assert take_turns(work, job, job.mesh, None) == f"the file {FILE}"
    assert not (job.run_dir / "checkpoints").exists() and work.told == 0


def test_a_directory_that_another_job_took_is_not_written_to(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    def taken(self: Job) -> None:
        raise Occupied("taken")

    monkeypatch.setattr(Job, "check_ours", taken)
    work = Counting(job.run_dir, stops=1)
    with pytest.raises(Occupied):
        run(work, job)
    assert work.step == 1 and work.told == 0 and not (job.run_dir / "checkpoints").exists()


def test_too_little_memory_names_the_keys_that_help() -> None:
    said = r"^step 3: the device has too little memory; lower a.b or c.d$"
    with pytest.raises(MemoryError, match=said), within_memory("a.b or c.d", "step 3: "):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    with pytest.raises(RuntimeError, match="another"), within_memory("a.b"):
        raise RuntimeError("another")
