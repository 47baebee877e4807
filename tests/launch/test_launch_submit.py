"""launch/submit.py against a Slurm that takes jobs and runs none: what is made and what is said."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fake_slurm import FakeSlurm

from daas_dist import config
from daas_dist.report.record import read_rows
from daas_dist.runs.lock import Lock
from daas_dist.runs.log import RunLog, read_events
from launch import attempt, submit
from launch import jobs as looking

SEARCH = ["stage=search_fashion", "preset=tiny"]


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    monkeypatch.chdir(tmp_path)
    return FakeSlurm(tmp_path / "slurm", monkeypatch)


def states(capsys: pytest.CaptureFixture[str], *paths: str) -> dict[str, dict[str, Any]]:
    capsys.readouterr()
    assert submit.main(["status", "--json", *paths]) == 0
    return {Path(row["run_dir"]).name: row for row in json.loads(capsys.readouterr().out)}


def test_a_dry_run_prints_all_and_makes_nothing(
    slurm: FakeSlurm, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--nodes", "4", "--gpus-per-node", "8", "--cpus-per-gpu", "6", "--mem", "64G",
             "--account", "vision", "--dry-run", *SEARCH, "mesh.data=4"]  # fmt: skip
    assert submit.main(words) == 0
    told = capsys.readouterr().out
    assert (
        "4 nodes × 8 ranks, 8 GPUs a node" in told and "7.2 forward-backward passes a step" in told
    )
    for line in ("nodes=4", "ntasks-per-node=8", "gpus-per-node=8", "cpus-per-task=6", "mem=64G",
                 "account=vision", "requeue", "signal=USR2@90", "open-mode=append"):  # fmt: skip
        assert f"#SBATCH --{line}" in told
    assert "--kill-on-bad-exit=1" in told and "launch.attempt after" in told
    assert not slurm.read()["jobs"] and not (tmp_path / "runs").exists()


def test_a_dry_run_on_a_machine_without_slurm_shows_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "git").symlink_to(shutil.which("git") or "git")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert submit.main(["--dry-run", *SEARCH]) == 0
    told = capsys.readouterr().out
    assert "#SBATCH --requeue" in told and "sbatch is not on PATH here" in told
    assert submit.main(SEARCH) == 2
    assert "submit from a login node, or --cluster local" in capsys.readouterr().err


def test_what_the_job_reads_is_frozen(
    slurm: FakeSlurm, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert submit.main([*SEARCH, "run_dir=mine", "data.root=here"]) == 0
    run_dir = tmp_path / "mine"
    frozen = config.load_frozen(run_dir / "config.yaml")
    assert frozen.data.root == "here" and frozen.run_dir == str(run_dir)
    assert (run_dir / "code" / "daas_dist" / "methods" / "daas.py").exists()
    assert (run_dir / "code" / "launch" / "rank.py").exists()
    assert not list(run_dir.glob("code/**/__pycache__"))
    assert "commit" in json.loads((run_dir / "code" / "checkout.json").read_text())
    script = slurm.read()["jobs"]["1"]["script"]
    assert f"--chdir={tmp_path}" in script and "PYTHONPATH" not in script
    assert [row["event"] for row in read_rows(run_dir / "events.jsonl")[0]] == ["submitted"]
    assert "job 1" in capsys.readouterr().out


def test_seeds_are_an_array_and_each_training_waits_for_its_own(
    slurm: FakeSlurm, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--seeds", "0-2", "--array-parallelism", "2", "--then", "stage=train_fashion",
             "--table", *SEARCH, "run_dir=many"]  # fmt: skip
    assert submit.main(words) == 0
    jobs = slurm.read()["jobs"]
    assert list(jobs) == ["1_0", "1_1", "1_2", "2", "3", "4", "5"]
    assert "--array=0-2%2" in jobs["1_0"]["script"]
    assert [jobs[name]["dependency"] for name in ("2", "3", "4")] == [
        "afterok:1_0", "afterok:1_1", "afterok:1_2",
    ]  # fmt: skip
    assert "kill-on-invalid-dep=yes" in jobs["2"]["script"]
    assert jobs["5"]["dependency"] == "afterany:1_0:1_1:1_2:2:3:4"
    assert "launch.attempt" not in jobs["5"]["script"]
    found = states(capsys, "many")
    assert {row["state"] for row in found.values()} == {"PENDING"} and len(found) == 6
    assert found["train-seed1"]["why"] == "Dependency" and found["search-seed2"]["job"] == "1_2"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--nodes", "0", *SEARCH], "--nodes 0 is not possible"),
        (["--partition", "gpu", *SEARCH], "Slurm would not take it: sbatch: error: invalid part"),
        (["--cluster", "moon", *SEARCH], "--cluster moon is not known"),
        ([*SEARCH, "search.epochs=3"], "search.epochs is not a key"),
        (["--nodes", "3", *SEARCH, "mesh.data=2"], "mesh.arch=null × mesh.data=2 does not make 3"),
        (["--seeds", "x", *SEARCH], "--seeds x is not possible"),
        (["--table", *SEARCH], "--table has no effect on one run"),
        (["--then", "stage=train_fashion train.epochs=0", *SEARCH], "train.epochs=0 is not"),
        (["experiment=table4", "--then", "stage=train_fashion"], "--then has no effect"),
        (["status", "nowhere"], "nowhere is no submitted run"),
        (["--then", "stage=train_fashion mesh.data=1", *SEARCH], "mesh.data has no effect"),
    ],
)
def test_what_is_wrong_ends_here(
    slurm: FakeSlurm,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    said: str,
) -> None:
    assert submit.main(words) == 2
    assert said in capsys.readouterr().err
    assert not slurm.read()["jobs"] and not (tmp_path / "runs").exists()


def test_a_longer_limit_than_the_partition_s_and_a_cluster_that_does_not_requeue(
    slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    slurm.change("partition", MaxTime="02:00:00")
    assert submit.main([*SEARCH, "run_dir=mine"]) == 2
    assert "1440 minutes, but the partition has at most 120; --time 120" in capsys.readouterr().err
    slurm.change("config", JobRequeue="0")
    assert submit.main([*SEARCH, "--time", "60", "run_dir=mine"]) == 0
    assert "warning: requeue: JobRequeue=0" in capsys.readouterr().err


def test_a_run_directory_is_one_run_s(
    slurm: FakeSlurm, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert submit.main([*SEARCH, "run_dir=mine"]) == 0
    assert submit.main([*SEARCH, "run_dir=mine", "search.joint_epochs=3"]) == 2
    assert "holds a run of another configuration (search.joint_epochs: 2 -> 3)" in (
        capsys.readouterr().err
    )
    assert submit.main([*SEARCH, "run_dir=mine"]) == 2
    assert "is in the queue already, as job 1" in capsys.readouterr().err
    assert submit.main(["cancel", "mine"]) == 0
    (tmp_path / "mine" / "DONE").touch()
    assert submit.main([*SEARCH, "run_dir=mine"]) == 2
    assert "is finished" in capsys.readouterr().err


def test_cancelled_resumed_lost_and_stalled(
    slurm: FakeSlurm, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--seeds", "0-0", "--then", "stage=train_fashion", *SEARCH, "run_dir=chain"]
    assert submit.main(words) == 0
    search, train = tmp_path / "chain" / "search-seed0", tmp_path / "chain" / "train-seed0"
    slurm.change_job("1", JobState="RUNNING", Reason="n[1-2]")
    attempt.before(search)
    assert states(capsys, "chain")["search-seed0"]["state"] == "RUNNING"
    # What the job's own end writes after scancel; its training goes with it.
    assert submit.main(["cancel", "chain/search-seed0"]) == 0
    RunLog(search).event("stopped", step=3, reason="SIGTERM")
    assert attempt.after(search, 0) == "cancelled"
    slurm.change_job("2", JobState="CANCELLED")
    found = states(capsys, "chain")
    assert found["search-seed0"]["state"] == found["train-seed0"]["state"] == "CANCELLED"
    assert found["train-seed0"]["why"] == "search-seed0 did not finish"
    assert submit.main(["resume", "chain"]) == 0
    assert "train-seed0: job 4" in capsys.readouterr().out
    jobs = slurm.read()["jobs"]
    assert list(jobs) == ["1", "2", "3", "4"] and jobs["4"]["dependency"] == "afterok:3"
    # A job that nobody knows any more.
    attempt.before(search)
    slurm.change_job("3", JobState="CANCELLED")
    assert states(capsys, "chain/search-seed0")["search-seed0"]["state"] == "INTERRUPTED"
    # A job that Slurm killed before it could say a word, as somebody had cancelled it.
    assert submit.main(["resume", "chain/search-seed0"]) == 0
    slurm.change_job("5", JobState="RUNNING", Reason="n[1-2]")
    assert submit.main(["cancel", "chain/search-seed0"]) == 0
    assert states(capsys, "chain/search-seed0")["search-seed0"]["state"] == "CANCELLED"
    assert looking.look(search, None).state == "UNKNOWN"  # where squeue cannot be asked
    assert attempt.before(search) == attempt.REFUSED  # nor would it come back
    assert submit.main(["resume", "chain/search-seed0"]) == 0
    assert states(capsys, "chain/search-seed0")["search-seed0"]["state"] == "PENDING"
    slurm.change_job("6", JobState="CANCELLED")
    (search / "STALLED").write_text("3 starts in a row died\n")
    found = states(capsys, "chain/search-seed0")["search-seed0"]
    assert (found["state"], found["why"]) == ("STALLED", "3 starts in a row died")
    (train / "DONE").touch()
    assert states(capsys, "chain/train-seed0")["train-seed0"]["state"] == "COMPLETED"


def test_a_full_disk_is_seen_before(
    slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(submit.estimate, "disk", lambda _: 10**18)
    assert submit.main([*SEARCH, "run_dir=mine"]) == 2
    assert "MiB free, and the checkpoints want" in capsys.readouterr().err
    assert not slurm.read()["jobs"]


def test_the_time_of_an_earlier_run_is_the_estimate(
    slurm: FakeSlurm, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    earlier = tmp_path / "earlier"
    earlier.mkdir()
    (earlier / "config.yaml").write_text(config.to_yaml(config.load([*SEARCH, "seed=3"])))
    (earlier / "events.jsonl").write_text(
        '{"time": 0, "event": "a"}\n{"time": 7200, "event": "b"}\n'
    )
    (earlier / "DONE").touch()
    assert submit.main(["--dry-run", *SEARCH, "run_dir=mine"]) == 0
    assert "about 2.0 h, as an earlier run below" in capsys.readouterr().out
    assert submit.main(["--dry-run", "stage=search_cifar10", "run_dir=mine"]) == 0
    assert "1 day on one 2080 Ti (paper Tables 2 and 3)" in capsys.readouterr().out
    assert submit.main(["--dry-run", "stage=search_cifar10", "method=ours", "run_dir=mine"]) == 0
    assert "not known" in capsys.readouterr().out


def test_of_submissions_at_one_moment_one_is_taken(slurm: FakeSlurm, tmp_path: Path) -> None:
    command = [sys.executable, str(Path(submit.__file__)), *SEARCH, f"run_dir={tmp_path / 'run'}"]
    started = [
        subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    said = [process.communicate()[1] for process in started]
    assert sorted(process.returncode for process in started) == [0, 2, 2], said
    assert len(slurm.read()["jobs"]) == 1
    refused = [each for each in said if each]
    assert all("is in the queue already" in each or "is in use by" in each for each in refused)
    assert [row["event"] for row in read_events(tmp_path / "run")] == ["submitted"]


def test_a_run_that_is_at_work_is_not_submitted(
    slurm: FakeSlurm, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By hand, which no job.json tells."""
    (tmp_path / "run").mkdir()
    with Lock(tmp_path / "run"):
        assert submit.main([*SEARCH, f"run_dir={tmp_path / 'run'}"]) == 2
    assert f"{tmp_path / 'run'} is in use by process" in capsys.readouterr().err
    assert not slurm.read()["jobs"]
