"""What a site adds to a job: options of sbatch and srun, variables, a container."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from fake_slurm import FakeSlurm
from site_scripts import SEARCH, refused, script, site_file, srun_line

from daas_dist.config import ConfigError
from launch import batch, options, resources, submit
from launch.resources import Resources


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    monkeypatch.chdir(tmp_path)
    return FakeSlurm(tmp_path / "slurm", monkeypatch)


# --- Options -------------------------------------------------------------------------------------


def test_a_site_s_file_and_the_command_line_over_it(
    slurm: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = site_file(
        tmp_path,
        "nodes: 2\nsbatch: {licenses: 'a:2', reservation: monday, exclusive: true, begin: now}\n"
        "srun: {distribution: block, mpi: none}\nenvironment: {NCCL_DEBUG: INFO, A: b}\n"
        "setup: [module load cuda]",
    )
    words = ["--cluster", site, "--sbatch", "reservation=tuesday", "--sbatch", "begin=null",
             "--sbatch", "spread-job", "--srun", "mpi=pmi2", "--env", "A=1 '2' $x"]  # fmt: skip
    assert submit.main([*words, *SEARCH, "run_dir=mine"]) == 0
    text = script(slurm)
    given = batch.given_options(text)
    assert {key: given[key] for key in ("licenses", "reservation", "exclusive", "nodes")} == {
        "licenses": "a:2", "reservation": "tuesday", "exclusive": "", "nodes": "2",
    }  # fmt: skip
    assert "begin" not in given and given["spread-job"] == ""
    assert {"--distribution=block", "--mpi=pmi2"} < set(srun_line(text))
    lines = text.splitlines()
    told = subprocess.run(
        ["bash", "-c", "\n".join(line for line in lines if line.startswith("export A"))
         + '\nprintf %s "$A"'], text=True, capture_output=True,
    ).stdout  # fmt: skip
    assert told == "1 '2' $x"
    assert lines.index("module load cuda") < lines.index("export NCCL_DEBUG=INFO")
    # A resume asks for the same.
    (tmp_path / "site.yaml").unlink()
    slurm.change_job("1", JobState="CANCELLED")
    assert submit.main(["resume", "mine"]) == 0
    assert script(slurm, "2") == text
    # The default of --cluster.
    site = site_file(tmp_path, "sbatch: {nice: 7}")
    monkeypatch.setenv("DAAS_CLUSTER", site)
    assert submit.main([*SEARCH, "run_dir=other"]) == 0
    assert batch.given_options(script(slurm, "3"))["nice"] == "7"


@pytest.mark.parametrize(
    ("key", "option", "said"),
    [
        *(("sbatch", f"{option}=1", f"the key {key} says it")
          for option, key in options.KEYS.items()),
        ("sbatch", "requeue", "goes back into the queue by itself"),
        ("sbatch", "no-requeue", "goes back into the queue"),
        ("sbatch", "no_requeue", "goes back into the queue"),
        ("sbatch", "open-mode=truncate", "`logs` read"),
        ("sbatch", "output=/tmp/x", "`logs` read"),
        ("sbatch", "error=/tmp/x", "`logs` read"),
        ("sbatch", "array=0-3", "--seeds makes the array"),
        ("sbatch", "dependency=afterok:1", "--then says"),
        ("sbatch", "job-name=x", "name of its run directory"),
        ("sbatch", "chdir=/", "submitted from"),
        ("sbatch", "wait", "what Slurm answers"),
        ("sbatch", "parsable", "what Slurm answers"),
        ("sbatch", "clusters=other", "what Slurm answers"),
        ("sbatch", "export=NONE", "`environment` has"),
        ("sbatch", "gpus-per-task=1", "gpus_per_node and ranks_per_node say"),
        ("sbatch", "p=gpu", "the long name of an option"),
        ("sbatch", "--nice=5", "the long name of an option"),
        ("sbatch", "Nice=5", "the long name of an option"),
        ("sbatch", "comment=a\nb", "a text of one line"),
        ("sbatch", "=3", "NAME=VALUE, each name once"),
        ("srun", "kill-on-bad-exit=0", "a dead rank ends the step"),
        ("srun", "wait=0", "a dead rank ends the step"),
        ("srun", "output=none", "`logs` read"),
        ("srun", "ntasks=9", "the key ranks_per_node says it"),
        ("srun", "container-image=x", "the key container_image says it"),
        ("srun", "container-mounts=/a:/b", "container_image is null"),
        ("env", "SLURM_NTASKS=1", "Slurm and the launcher set it"),
        ("env", "RANK=0", "Slurm and the launcher set it"),
        ("env", "MASTER_PORT=1", "Slurm and the launcher set it"),
        ("env", "DAAS_DATA=/data", "read before a job is submitted"),
        ("env", "A", "expected NAME=VALUE"),
        ("env", "A-B=1", "the name of a variable"),
        ("env", "2=1", "the name of a variable"),
    ],
)  # fmt: skip
def test_what_contradicts_a_key_or_breaks_a_run_is_refused(
    key: str, option: str, said: str, slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refused(capsys, f"--{key}={option}", *SEARCH)
    assert not slurm.read()["jobs"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sbatch: [exclusive]", "expected options by name"),
        ("sbatch: exclusive", "expected options by name"),
        ("sbatch: {mail_type: END, mail-type: ALL}", "it is given twice"),
        ("sbatch: {licenses: [a, b]}", "a text of one line"),
        ("environment: {A: true}", "true and false in quotes"),
        ("environment: {A: null}", "expected a text or a number"),
        ("environment: [A]", "expected variables by name"),
        ("sbatch: {gres: 'gpu:4'}\ngpus_per_node: 2", "gres=gpu:4 is not possible beside gpus_p"),
        ("sbatch: {mem-per-cpu: 2G}\nmem: 8G", "beside mem=8G"),
        ("container_command: \"apptainer 'exec\"", "No closing quotation"),
        ("container_command: ''", "a text of one line"),
        ("container_command: a\ncontainer_image: b", "null, as container_image is given"),
        ("python: 3", "a text of one line"),
        ("account: \"a\\nb\"", "a text without spaces"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_site_s_file(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        resources.load(site_file(tmp_path, text), {})
    assert said in str(caught.value)


def test_a_machine_s_file_has_no_keys_of_slurm_s(tmp_path: Path) -> None:
    (tmp_path / "ours.yaml").write_text("kind: local\npartition: gpu\n")
    with pytest.raises(ConfigError, match="partition has no effect: kind=local is this machine"):
        resources.load(str(tmp_path / "ours.yaml"), {})
    (tmp_path / "ours.yaml").write_text("nodes: 2\n")
    with pytest.raises(ConfigError, match="kind is missing"):
        resources.load(str(tmp_path / "ours.yaml"), {})


@pytest.mark.parametrize(
    ("gres", "gpus", "ranks"),
    [
        ("gpu:a100:4", None, 4), ("gpu:4", 4, 4), ("gpu", None, 1), ("nic:1,gpu:v100:2", None, 2),
        ("gpu:a:1,gpu:b:2", None, 3), ("gpu:h100:8(S:0-1)", None, 8), ("lscratch:40", 3, 3),
    ],
)  # fmt: skip
def test_gres_says_how_many_gpus_and_so_ranks(gres: str, gpus: int | None, ranks: int) -> None:
    asked = Resources(kind="slurm", gpus_per_node=gpus, sbatch={"gres": gres})
    assert asked.ranks == ranks
    words = batch.plain_options(asked)
    assert f"--gres={gres}" in words and f"--ntasks-per-node={ranks}" in words
    assert (f"--gpus-per-node={gpus}" in words) == (gres == "lscratch:40")


def test_the_table_takes_no_node_for_itself(slurm: FakeSlurm) -> None:
    words = ["--table", "--seeds", "0-1", "--cpus-per-gpu", "8", "--mem", "64G", "--account", "a"]
    asked = ["gres=gpu:a100:4", "exclusive", "nodelist=n1", "reservation=r"]
    given = [word for option in asked for word in ("--sbatch", option)]
    assert submit.main([*words, *given, *SEARCH, "run_dir=many"]) == 0
    first, table = (batch.given_options(script(slurm, job)) for job in ("1_0", "2"))
    assert first["gres"] == "gpu:a100:4" and first["ntasks-per-node"] == "4"
    assert not {"gres", "exclusive", "nodelist", "mem", "cpus-per-task"} & set(table)
    assert (table["account"], table["reservation"], table["ntasks-per-node"]) == ("a", "r", "1")


@pytest.mark.parametrize("name", ["NO_REQUEUE", "ARRAY_INX", "SIGNAL", "OUTPUT", "TIMELIMIT"])
def test_a_variable_of_sbatch_does_not_undo_a_job(
    name: str,
    slurm: FakeSlurm,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It would count more than the script's own lines."""
    monkeypatch.setenv(f"SBATCH_{name}", "1")
    monkeypatch.setenv("SBATCH_PARTITION", "low")
    monkeypatch.setenv("SBATCH_WCKEY", "project")
    assert f"unset SBATCH_{name}" in refused(capsys, *SEARCH)
    monkeypatch.delenv(f"SBATCH_{name}")
    assert submit.main(["--dry-run", *SEARCH]) == 0
    assert submit.main(["--dry-run", "--partition", "low", *SEARCH]) == 0
    capsys.readouterr()
    assert "unset SBATCH_PARTITION" in refused(capsys, "--partition", "high", *SEARCH)


def test_prepare_gives_all_that_a_plain_script_can_take_and_refuses_the_rest(
    slurm: FakeSlurm, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--prepare", "--partition", "low", "--signal-seconds", "70", "--sbatch", "comment=a b"]
    assert submit.main([*words, *SEARCH, "run_dir=p"]) == 0
    command = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert {"--partition=low", "--signal=USR2@70", "--comment=a b", "--nodes=1"} < set(command)
    digest = command[-2]
    assert re.fullmatch("[0-9a-f]{64}", digest) and command[-3] == str(tmp_path / "p" / "code")
    assert "srun has no effect with" in refused(capsys, *words, "--srun", "mpi=none", *SEARCH)
    assert "environment has no" in refused(capsys, *words, "--env", "A=1", *SEARCH)
    local = ["--cluster", "local", "--prepare", *SEARCH]
    assert "--prepare has no effect" in refused(capsys, *local)


# --- Containers ----------------------------------------------------------------------------------


def test_a_command_in_front_of_the_ranks_python(slurm: FakeSlurm, tmp_path: Path) -> None:
    command = "apptainer exec --nv --bind '/a b' /images/torch.sif"
    words = ["--container-command", command, "--python", "/opt/py thon"]
    assert submit.main([*words, *SEARCH, "run_dir=mine"]) == 0
    line = srun_line(script(slurm))
    at = line.index("apptainer")
    assert line[at : at + 7] == [
        "apptainer", "exec", "--nv", "--bind", "/a b", "/images/torch.sif", "/opt/py thon",
    ]  # fmt: skip
    assert "launch/snapshot.py" in " ".join(line[at:])
    # What asks Slurm is outside: a container has no scontrol.
    outside = [each for each in script(slurm).splitlines() if "launch.attempt" in each]
    assert len(outside) == 3 and all(sys.executable in each for each in outside)


def test_pyxis_sees_the_runs_the_code_and_the_images(slurm: FakeSlurm, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    words = ["--container-image", "nvcr.io#nvidia/torch:1", "--srun", "container-mounts=/x:/y:ro"]
    assert submit.main([*words, *SEARCH, "run_dir=mine", f"data.root={images}"]) == 0
    line = srun_line(script(slurm))
    assert "--container-image=nvcr.io#nvidia/torch:1" in line
    mounts = next(each for each in line if each.startswith("--container-mounts="))
    assert set(mounts.partition("=")[2].split(",")) == {
        f"{tmp_path}/mine:{tmp_path}/mine", f"{tmp_path}:{tmp_path}", f"{images}:{images}",
        "/x:/y:ro",
    }  # fmt: skip
    assert f"--container-workdir={tmp_path}" in line and "python3" in line


def test_this_machine_s_ranks_have_variables_and_a_command_in_front(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [
        "--cluster",
        "local",
        "--dry-run",
        "--env",
        "A=b c",
        "--container-command",
        "nice -n 3",
    ]
    assert submit.main([*words, *SEARCH]) == 0
    told = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert told[:5] == ["A=b c", "nice", "-n", "3", sys.executable]
    assert not (tmp_path / "runs").exists()
