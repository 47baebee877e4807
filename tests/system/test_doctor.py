"""daas doctor: what it finds, and what it says to do, on good and on broken ground."""

import json
from pathlib import Path

import pytest
import torch
from fake_slurm import FakeSlurm
from whole_runs import needs_fashion_mnist

from daas_dist import cli
from daas_dist.data import fashion_mnist
from daas_dist.data.sharding import build, sources
from daas_dist.system import doctor, published
from daas_dist.system.doctor import Check, preflight


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    return FakeSlurm(tmp_path / "slurm", monkeypatch)


def by_name(checks: list[Check]) -> dict[str, Check]:
    assert all(check.remedy for check in checks if check.state != "ok")
    return {check.name: check for check in checks}


@needs_fashion_mnist
def test_on_this_machine_nothing_fails(
    slurm: FakeSlurm, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["doctor", "--json", "stage=search_fashion", f"run_dir={tmp_path}/run"]
    assert cli.main(words) == 0
    found = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert all(row["state"] != "fail" for row in found.values())
    assert "gloo" in found["all-reduce"]["reason"] or "nccl" in found["all-reduce"]["reason"]
    assert "70000 images of 10 classes" not in found["data"]["reason"]  # data.limit holds
    assert "18000 images of 10 classes" in found["data"]["reason"]


def test_a_good_cluster(slurm: FakeSlurm) -> None:
    checks = by_name(preflight(None, 600, 90))
    assert {check.state for check in checks.values()} == {"ok"}
    assert "its user signal, then 60 s" in checks["preemption"].reason


def test_each_fault_of_a_cluster_is_named_with_its_remedy(slurm: FakeSlurm) -> None:
    slurm.change("config", JobRequeue="0", KillWait="2 sec", SlurmctldParameters="(null)")
    slurm.change("partition", GraceTime="0", MaxTime="00:01:00")
    checks = by_name(preflight(None, None, 90))
    assert checks["requeue"].state == checks["scancel"].state == "warn"
    assert checks["preemption"].state == "warn" and "after SIGTERM" in checks["preemption"].reason
    assert checks["time limit"].state == "fail" and "60 s, and" in checks["time limit"].reason
    slurm.change("partition", PreemptMode="CANCEL")
    assert "ended for good" in by_name(preflight(None, None, 90))["preemption"].reason


def test_a_limit_longer_than_the_partition_s(slurm: FakeSlurm) -> None:
    slurm.change("partition", MaxTime="12:00:00")
    check = by_name(preflight(None, 1440, 90))["time limit"]
    assert (check.state, check.remedy) == ("fail", "--time 720; a run goes on after its limit")


def test_a_run_directory_that_is_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Of root every folder is writable, but /proc is nobody's.
    [check] = doctor.run_directory(Path("/proc/runs"))
    assert check.state == "fail" and "run_dir" in check.remedy

    def no_links(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(doctor.os, "link", no_links)
    [check] = doctor.run_directory(tmp_path)
    assert check.state == "fail" and "no hard links" in check.reason


def test_missing_data_and_a_wrong_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = doctor.configuration.load(["stage=search_fashion", f"data.root={tmp_path}/no"])
    [check] = doctor.images(config.data, 0, 2, config.stage)
    assert check.state == "fail" and f"{tmp_path}/no" in check.reason
    assert cli.main(["doctor", "stage=search_fashion", "data.rot=x"]) == 2
    assert "data.rot is not a key" in capsys.readouterr().err


@needs_fashion_mnist
def test_shards_are_opened_and_some_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = fashion_mnist(None, train=False).take(torch.arange(300))
    for part in ("train", "val"):
        source = sources.from_images(images, "part of it")
        build.build(source, tmp_path / part, build.Recipe(part, per_shard=100))
    words = ["stage=search_imagenet", "data.classes=all", "data.size=32", "data.test_resize=null"]
    config = doctor.configuration.load([*words, f"data.root={tmp_path}"])
    [check] = doctor.images(config.data, 0, 2, config.stage)
    assert check.state == "ok" and "300 pictures of 10 classes" in check.reason
    assert "a second are read and cut by one process" in check.reason
    assert "at the paper's pace, of one 2080 Ti, reads 0" in check.reason
    monkeypatch.setitem(published.GPU_DAYS, "search_imagenet", 1e-9)  # 300 images in 2 ms
    [check] = doctor.images(config.data, 0, 2, config.stage)
    assert check.state == "warn" and "--cpus-per-gpu" in check.remedy
    (tmp_path / "train" / "shard-000001.tar").unlink()
    [check] = doctor.images(config.data, 0, 2, config.stage)
    assert check.state == "fail" and "shard-000001.tar is missing" in check.reason


def test_every_stage_composes() -> None:
    [check] = doctor.stages()
    assert check.state == "ok"
