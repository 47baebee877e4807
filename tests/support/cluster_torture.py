"""Jobs on a real Slurm whose images are read by worker processes, disturbed in every way.

    python tests/support/cluster_torture.py --out /tmp/cells --rows benchmarks/cluster_torture.jsonl

A search on shards, and a training by each engine, on two nodes (engine=alone: on one), is

    preempted        with the user signal, and by SIGTERM alone as many sites have it
    cancelled        by scancel, and resumed
    batch node lost  as by a power cut: the node of the job's script and of rank 0

Each is held at some step until what disturbs it has arrived, saves, comes back, and ends with the
bits of a run that was left in peace on one process off Slurm. No process is left behind. A cell
that stands in --rows is not run again.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import make_imagenet
import torch
import torture
from slurm_cluster import Cluster, up
from whole_runs import events, finish, held, signalled, wait

from daas_dist import cli
from daas_dist.runs import checkpoint

ROW = "trainings/random-none-seed0"
WORK = ("search", "alone", "ddp", "deepspeed")
WAYS = ("preempted", "preempted by SIGTERM", "cancelled", "batch node lost")
OTHER = ("-N4", "--exclusive", "-p", "high", "-o/dev/null", "--wrap", "sleep 1")
"""A job on all nodes, in the partition that preempts the other."""


@dataclass(frozen=True)
class Cell:
    """What is done to what, and what came of it."""

    work: str
    way: str
    starts: int
    logged: int
    """Steps, of a training epochs, that were written down when it was disturbed."""
    kept: int
    """The step of the newest checkpoint after it had stopped."""
    steps: int
    seconds: float


def make_shards(folder: Path) -> Path:
    """Make shards of 120 pictures to learn from and 24 to test on, of 6 classes."""
    pictures = make_imagenet.make(folder, 6, 20, 4, side=0.15)
    out = pictures.train.with_name("shards")
    words = ["--folder", str(pictures.train), "--val-folder", str(pictures.train.with_name("val"))]
    assert cli.main(["shards", "build", str(out), *words, "--per-shard", "30"]) == 0
    return out


def words(work: str, shards: Path, run_dir: Path, *more: str) -> list[str]:
    """The overrides of a run of 12 steps, or of 3 epochs of 15."""
    common = [
        "preset=tiny", f"data.root={shards}", "data.classes=all", "data.size=32",
        "data.test_resize=36", "data.limit=null", "data.test_limit=null", "data.workers=2",
        f"run_dir={run_dir}", *more,
    ]  # fmt: skip
    if work == "search":
        return ["stage=search_imagenet", "search.joint_epochs=3", "search.log_every=1", *common]
    return [
        "stage=train_imagenet", "data=shards", *common,
        "train.compare=[random/none]", "train.epochs=3", "train.batch_size=8",
        "train.micro_batch=4", "model.stem=cifar", "train.auxiliary_weight=0", f"engine={work}",
    ]  # fmt: skip


def peaceful(work: str, shards: Path, run_dir: Path) -> Path:
    """The same work on one process, left in peace. Whatever trains has the same bits."""
    if not (run_dir / "DONE").exists():
        finish("daas_dist", *words("search" if work == "search" else "alone", shards, run_dir))
    return run_dir


def cell(cluster: Cluster, work: str, way: str, shards: Path, run_dir: Path) -> Cell:
    """Run one cell to its end; AssertionError where it does not do what it shall."""
    wait(lambda: cluster.ask("sinfo", "-h", "-o", "%D %t").split() == ["4", "idle"], "all nodes")
    began, lost, node = time.monotonic(), way == "batch node lost", ""
    where = run_dir if work == "search" else run_dir / ROW
    saves = [f"search.checkpoint_every={1 if lost else 1000}"] if work == "search" else []
    nodes = "1" if work == "alone" else "2"
    cluster.submit("--nodes", nodes, *words(work, shards, run_dir, *saves))
    wait(lambda: _lines(where) >= (4 if work == "search" else 1), "its steps")
    disturb: dict[str, Callable[[], object]] = {
        "preempted": lambda: cluster.ask("sbatch", *OTHER),
        "preempted by SIGTERM": lambda: cluster.ask("sbatch", *OTHER),
        "cancelled": lambda: cluster.submit("cancel", str(run_dir)),
    }
    with held(run_dir, 0) as pid:
        logged = _lines(where)
        if lost:
            node = _batch_node(cluster, run_dir)
            cluster.devcluster("lose", node)
        else:
            disturb[way]()
            wait(lambda: signalled(pid), "its signal")
    if lost:
        wait(lambda: "PENDING" in cluster.state(run_dir) or _starts(run_dir) > 1, "its requeue")
        cluster.devcluster("mend", node)
    elif way == "cancelled":
        wait(lambda: cluster.state(run_dir) == "CANCELLED", "its end")
        assert not cluster.orphans()
    else:
        wait(lambda: events(run_dir, "requeued"), "its requeue")
    kept = max(checkpoint.steps(where / "checkpoints"), default=0)
    if not lost:
        assert events(run_dir, "stopped"), events(run_dir)
        assert kept >= logged * (1 if work == "search" else 15), (kept, logged)
    if work == "search":
        assert kept >= _logged_step(run_dir) - (1 if lost else 0)
    if way == "cancelled":
        cluster.submit("resume", str(run_dir))
    elif _starts(run_dir) == 1:
        cluster.let_go(run_dir)
    wait(lambda: (run_dir / "DONE").exists() or (run_dir / "FAILED").exists(), "its end")
    wait(lambda: not cluster.ask("squeue", "-h"), "an empty queue")
    assert cluster.state(run_dir) == "COMPLETED", events(run_dir)
    assert not cluster.orphans()
    steps = max(checkpoint.steps(where / "checkpoints"))
    seconds = round(time.monotonic() - began, 1)
    return Cell(work, way, _starts(run_dir), logged, kept, steps, seconds)


def same(work: str, run_dir: Path, calm: Path) -> None:
    """AssertionError unless both ended with the same bits."""
    if work == "search":
        torture.same(run_dir, calm)
        return
    ours, theirs = (
        checkpoint.load(each / ROW / "checkpoints", 45)["network"] for each in (run_dir, calm)
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def _lines(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def _logged_step(run_dir: Path) -> int:
    return json.loads((run_dir / "metrics.jsonl").read_text().splitlines()[-1])["step"]


def _starts(run_dir: Path) -> int:
    return len(events(run_dir, "attempt"))


def _batch_node(cluster: Cluster, run_dir: Path) -> str:
    job = cluster.states(run_dir)[0]["job"]
    text = cluster.ask("scontrol", "show", "job", job)
    return text.split("BatchHost=")[1].split()[0]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="a folder for the runs")
    parser.add_argument("--rows", type=Path, required=True, help="JSON lines, one a cell")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    rows = given.rows.read_text().splitlines() if given.rows.exists() else []
    done = {(row["work"], row["way"]) for row in map(json.loads, rows)}
    shards = given.out / "shards"
    shards = make_shards(given.out) if not shards.exists() else shards
    for plain in (False, True):
        ways = [way for way in WAYS if ("SIGTERM" in way) == plain]
        left = [(work, way) for work in WORK for way in ways if (work, way) not in done]
        if not left:
            continue
        more = ("--no-user-signal",) if plain else ()
        cluster = up(given.out / f"cluster{plain:d}", "--grace", "20", *more)
        try:
            for work, way in left:
                kind = "search" if work == "search" else "training"
                calm = peaceful(work, shards, given.out / f"peaceful-{kind}")
                run_dir = given.out / f"{work}-{way.replace(' ', '-')}"
                found = cell(cluster, work, way, shards, run_dir)
                same(work, run_dir, calm)
                row: dict[str, Any] = {**vars(found), "same_bits": True, "orphans": 0}
                print(json.dumps(row), flush=True)
                with given.rows.open("a") as file:
                    file.write(json.dumps(row) + "\n")
        finally:
            cluster.devcluster("down")
        assert not cluster.orphans()


if __name__ == "__main__":
    main()
