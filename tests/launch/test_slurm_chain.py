"""Seeds, what follows them and the table, on a real Slurm: a search that does not finish takes its
own training with it, and no other. And what doctor says of a Slurm that is set up badly."""

import json
from pathlib import Path

import pytest
from slurm_cluster import up
from whole_runs import events, needs_fashion_mnist, wait

pytestmark = needs_fashion_mnist


@pytest.mark.long
def test_a_failed_search_drops_only_its_own_training(tmp_path: Path) -> None:
    cluster, root = up(tmp_path / "cluster"), tmp_path / "plan"
    try:
        cluster.submit(
            "--seeds", "0-1", "--array-parallelism", "1", "--table",
            "--then", "stage=train_fashion preset=tiny train.compare=[found/found]",
            "stage=search_fashion", "preset=tiny", "search.joint_epochs=1", f"run_dir={root}",
        )  # fmt: skip
        (root / "search-seed1" / "STOP").touch()  # it waits for seed 0, and will not start
        wait(lambda: (root / "table.md").exists(), "the table")
        found = {Path(row["run_dir"]).name: row for row in cluster.states(root)}
        assert {name: row["state"] for name, row in found.items()} == {
            "search-seed0": "COMPLETED",
            "search-seed1": "CANCELLED",
            "train-seed0": "COMPLETED",
            "train-seed1": "CANCELLED",
        }
        assert found["train-seed1"]["why"] == "search-seed1 did not finish"
        assert not events(root / "train-seed1", "attempt")
        table = (root / "table.md").read_text()
        assert "| `train` | `found / found` | 1 |" in table
        assert "Not finished: `search-seed1`, `train-seed1`" in table
        # And again, as its owner thinks better of it.
        (root / "search-seed1" / "STOP").unlink()
        cluster.submit("resume", str(root))
        wait(lambda: (root / "train-seed1" / "DONE").exists(), "the resumed training")
        cluster.submit("table", str(root))
        table = (root / "table.md").read_text()
        assert "| `train` | `found / found` | 2 |" in table and "Not finished" not in table
    finally:
        cluster.devcluster("down")
    wait(lambda: not cluster.orphans(), "its last process")  # killed, and gone in a moment


def test_doctor_names_the_faults_of_a_cluster(tmp_path: Path) -> None:
    cluster = up(
        tmp_path / "cluster", "--no-requeue", "--grace", "0", "--kill-wait", "2", "--no-user-signal"
    )
    try:
        cluster.ask("scontrol", "update", "PartitionName=low", "MaxTime=1")
        done = cluster.run("daas", "doctor", "--json", "stage=search_fashion", "run_dir=/proc/no")
        assert done.returncode == 1, done.stderr
        found = {row["name"]: row for row in json.loads(done.stdout)}
        bad = {name: row["state"] for name, row in found.items() if row["state"] != "ok"}
        assert bad.items() >= {
            "requeue": "warn", "preemption": "warn", "scancel": "warn", "time limit": "fail",
            "run directory": "fail",
        }.items()  # fmt: skip
        assert all(found[name]["remedy"] for name in bad)
    finally:
        cluster.devcluster("down")
