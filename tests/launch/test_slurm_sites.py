"""On a real Slurm: what a site adds to a job, code that is not what was submitted, and the command
that this project is known by."""

import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import make_imagenet
import pytest
import yaml
from slurm_cluster import Cluster, up
from whole_runs import events, needs_fashion_mnist, wait

from daas_dist.config import site
from daas_dist.data import FASHION_MNIST_ROOT

pytestmark = needs_fashion_mnist
SEARCH = ("stage=search_fashion", "preset=tiny", "data.limit=64", "search.joint_epochs=1")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = up(tmp_path_factory.mktemp("slurm") / "cluster")
    yield cluster
    cluster.devcluster("down")
    wait(lambda: not cluster.orphans(), "its last process")  # killed, and gone in a moment


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (site.DATA, site.CLUSTER):
        monkeypatch.delenv(name, raising=False)


def empty(cluster: Cluster) -> bool:
    return not cluster.ask("squeue", "-h")


@pytest.mark.long
def test_options_variables_a_container_and_paths(cluster: Cluster, tmp_path: Path) -> None:
    """The container is a mount namespace of each rank's own: the images are in it alone."""
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("no mount namespace can be made here")
    inside, seen = tmp_path / "inside", tmp_path / "seen"
    here = tmp_path / "DOMAIN\\user, 100% $HOME"
    for folder in (inside, here):
        folder.mkdir()
    mount = f"mount --bind {FASHION_MNIST_ROOT} {inside}"
    script = f'{mount} && echo "$GREETING" >> {seen} && exec "$@"'
    command = shlex.join(["unshare", "--mount", "bash", "-ec", script, "--"])
    values = {
        "kind": "slurm",
        "nodes": 2,
        "sbatch": {"comment": 'a \\ "b"', "gres": "gpu:1", "exclusive": True, "nice": 5},
        "srun": {"cpu-bind": "none"},
        "environment": {"GREETING": "it's $HOME"},
        "container_command": command,
        "setup": ["set -eu"],
        "roots": {"fashion_mnist": str(inside)},
    }
    (here / "ours.yaml").write_text(yaml.safe_dump(values))
    run_dir = tmp_path / 'it\'s "mine": 100% é, $x'
    words = ["--cluster", "./ours.yaml", *SEARCH, f"run_dir={_hydra(run_dir)}"]
    cluster.submit_in(here, *words)
    wait(lambda: empty(cluster), "its end")
    assert (run_dir / "DONE").exists(), cluster.submit("logs", str(run_dir))
    assert seen.read_text() == "it's $HOME\n" * 2
    assert not list(inside.iterdir()) and events(run_dir, "attempt")[0]["nodes"] == "n[1-2]"
    job = cluster.states(run_dir)[0]["job"]
    told = cluster.ask("scontrol", "show", "job", "-o", job)
    for part in ('Comment=a \\ "b"', "Nice=5", "TresPerNode=gres:gpu:1", "OverSubscribe=NO",
                 f"WorkDir={here}", f"StdOut={run_dir}/logs/{job}_0_log.out"):  # fmt: skip
        assert part in told
    assert sorted(path.name for path in (run_dir / "logs").glob("*.out")) == [
        f"{job}_0_log.out", f"{job}_1_log.out",
    ]  # fmt: skip


@pytest.mark.long
def test_an_option_that_this_slurm_does_not_know_is_refused(
    cluster: Cluster, tmp_path: Path
) -> None:
    for flag, said in (
        ("--sbatch=moonlight=1", "unrecognized option '--moonlight=1'"),
        ("--srun=moonlight=1", "unrecognized option '--moonlight=1'"),
        ("--sbatch=gres=fpga:1", "generic resource"),
    ):
        done = cluster.try_submit(flag, *SEARCH, f"run_dir={tmp_path}/run")
        assert done.returncode == 2 and done.stderr.startswith("submit: Slurm would not take it: ")
        assert said in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_pending_jobs_refuse_code_that_is_not_what_was_submitted(
    cluster: Cluster, tmp_path: Path
) -> None:
    gone, changed = tmp_path / "gone", tmp_path / "changed"
    hold = ("--sbatch", "hold", *SEARCH)
    cluster.submit(
        "--seeds", "0-0", "--then", "stage=train_fashion preset=tiny", *hold, f"run_dir={gone}"
    )
    cluster.submit(*hold, f"run_dir={changed}")
    (gone / "code").rename(tmp_path / "elsewhere")
    with (changed / "code" / "daas_dist" / "search" / "steps.py").open("a") as file:
        file.write("print('other code')\n")
    for job in cluster.ask("squeue", "-h", "-o", "%i").split():
        cluster.ask("scontrol", "release", job)
    wait(lambda: empty(cluster), "their end")
    for run_dir, said in (
        (gone / "search-seed0", "snapshot.py"),
        (changed, "(daas_dist/search/steps.py was changed)"),
    ):
        assert [each["event"] for each in events(run_dir)] == ["submitted"]
        log = cluster.submit("logs", str(run_dir))
        assert "is not the code that was submitted" in log and said in log
        assert cluster.state(run_dir) == "INTERRUPTED"
        done = cluster.try_submit("resume", str(run_dir))
        assert (done.returncode == 2) == (run_dir == changed)
    train = cluster.states(gone / "train-seed0")[0]
    assert train["state"] == "CANCELLED" and "search-seed0 did not finish" in train["why"]
    cluster.ask("scancel", "-u", "root")
    wait(lambda: empty(cluster), "an empty queue")


def test_the_command_that_this_project_is_known_by(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_imagenet.shards_of_all_classes(tmp_path / "data" / "imagenet")
    monkeypatch.setenv(site.DATA, str(tmp_path / "data"))
    here = tmp_path / "here"
    here.mkdir()
    told = cluster.submit_in(here, "--nodes", "4", "stage=search_imagenet")
    assert f"data.root={tmp_path}/data/imagenet, from DAAS_DATA={tmp_path}/data" in told
    [run_dir] = (here / "runs").iterdir()
    wait(lambda: events(run_dir, "started") or empty(cluster), "its start")
    assert events(run_dir, "started")
    cluster.submit("cancel", str(run_dir))
    wait(lambda: empty(cluster), "its end")


def _hydra(path: Path) -> str:
    """A text as an override has it."""
    return '"' + str(path).replace('"', '\\"') + '"'
