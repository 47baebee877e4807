"""What is asked of a cluster: its file, the flags, and what is refused before anything is made."""

from pathlib import Path
from typing import Any

import pytest

from daas_dist import config
from daas_dist.config import ConfigError
from launch import resources
from launch.resources import Resources, load


@pytest.mark.parametrize(
    ("time", "minutes"),
    [
        ("90", 90), ("90:30", 91), ("12:00:00", 720), ("1-00:00:00", 1440), ("2-12", 3600),
        ("1-02:30", 1590), ("00:00:01", 1),
    ],
)  # fmt: skip
def test_times_as_sbatch_reads_them(time: str, minutes: int) -> None:
    assert Resources(kind="slurm", time=time, signal_seconds=1).minutes == minutes


def test_a_rank_for_each_gpu_or_one_a_node() -> None:
    assert load("slurm", {"nodes": 4, "gpus_per_node": 8}).world == 32
    assert load("slurm", {"nodes": 4}).world == 4
    assert load("local", {"ranks_per_node": 2, "gpus_per_node": None}).world == 2


@pytest.mark.parametrize(
    ("cluster", "flags", "said"),
    [
        ("slurm", {"nodes": 0}, "--nodes 0 is not possible: a whole number of at least 1"),
        ("slurm", {"time": "soon"}, "--time soon is not possible: [days-]hours:minutes:seconds"),
        ("slurm", {"time": "1"}, "--time 1 is not possible: more than the 90 s"),
        ("slurm", {"mem": "much"}, "--mem much is not possible: a size such as 64G"),
        ("slurm", {"partition": "a b"}, "--partition a b is not possible: a text without spaces"),
        ("local", {"nodes": 2}, "--nodes 2 is not possible: 1, as local is this machine"),
        ("local", {"partition": "gpu"}, "--partition has no effect: --cluster local is this"),
        ("moon", {}, "--cluster moon is not known: expected one of debug, local, slurm"),
        ("../slurm", {}, "--cluster ../slurm is not known"),
    ],
)
def test_what_is_wrong_is_named(cluster: str, flags: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(cluster, flags)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kind: slurm\npartitoin: gpu\n", "partitoin is not a key"),
        ("kind: slurm\ntime: 24:00:00\n", "--time 86400 is not possible"),  # YAML reads a number
        ("kind: kubernetes\n", "kind=kubernetes is not possible"),
        ("kind: [\n", "is not YAML"),
    ],
)
def test_a_site_s_own_file(
    text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cluster").mkdir()
    (tmp_path / "cluster" / "mine.yaml").write_text(text)
    monkeypatch.setattr(resources, "directory", lambda: tmp_path)
    with pytest.raises(ConfigError) as caught:
        load("mine", {})
    assert said in str(caught.value)


def test_every_cluster_file_loads() -> None:
    assert {load(name, {}).kind for name in resources.clusters()} == set(resources.KINDS)
    assert config.directory().is_dir()
