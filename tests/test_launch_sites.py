"""What a site adds to a job, and what its paths may hold: the batch script that is written."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fake_slurm import FakeSlurm

from daas_dist import config
from daas_dist.config import ConfigError
from launch import executors, options, paths, plan, resources, rundir, submit
from launch.plan import Plan, Run
from launch.resources import Resources
from launch.rundir import Code

SEARCH = ["stage=search_fashion", "preset=tiny"]


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    monkeypatch.chdir(tmp_path)
    return FakeSlurm(tmp_path / "slurm", monkeypatch)


def site_file(folder: Path, text: str) -> str:
    (folder / "site.yaml").write_text(f"kind: slurm\n{text}\n", encoding="utf-8")
    return str(folder / "site.yaml")


def script(slurm: FakeSlurm, job: str = "1") -> str:
    return str(slurm.read()["jobs"][job]["script"])


def srun_line(text: str) -> list[str]:
    return shlex.split(next(line for line in text.splitlines() if line.startswith("srun ")))


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert submit.main(words) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "Traceback" not in said
    return said


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
    given = executors.given_options(text)
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
    assert executors.given_options(script(slurm, "3"))["nice"] == "7"


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
        ("sbatch: {gres: 'gpu:4'}\ngpus_per_node: 2", "gres=gpu:4 is not possible: gpus_per_nod"),
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
    words = executors.plain_options(asked)
    assert f"--gres={gres}" in words and f"--ntasks-per-node={ranks}" in words
    assert (f"--gpus-per-node={gpus}" in words) == (gres == "lscratch:40")


def test_the_table_takes_no_node_for_itself(slurm: FakeSlurm) -> None:
    words = ["--table", "--seeds", "0-1", "--cpus-per-gpu", "8", "--mem", "64G", "--account", "a"]
    asked = ["gres=gpu:a100:4", "exclusive", "nodelist=n1", "reservation=r"]
    given = [word for option in asked for word in ("--sbatch", option)]
    assert submit.main([*words, *given, *SEARCH, "run_dir=many"]) == 0
    first, table = (executors.given_options(script(slurm, job)) for job in ("1_0", "2"))
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
    assert len(outside) == 2 and all(sys.executable in each for each in outside)


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


# --- Paths ---------------------------------------------------------------------------------------

ODD = ("a b", "it's", 'say "hi"', "$HOME", "$(id)", "`id`", "a;b", "a&b", "100%", "50% x", "a,b",
       "a:b", "a=b", "#a", "-dash", "~", "[ab]", "{a}", "*", "!x", "日本 é→", "(x)",
       "a'\"b$c")  # fmt: skip


def quoted(path: Path) -> str:
    return plan._set("run_dir", str(path))  # pyright: ignore[reportPrivateUsage]


@pytest.fixture(scope="module")
def settings() -> config.Config:
    return config.load(SEARCH)


@pytest.mark.parametrize("name", ODD)
def test_every_path_reaches_bash_and_slurm_as_it_is(
    name: str, settings: config.Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, run_dir = tmp_path / name / "here", tmp_path / name / "run"
    here.mkdir(parents=True)
    paths.check(run_dir, here, slurm=True)
    monkeypatch.setattr(sys, "executable", str(here / "python"))
    code = Code(run_dir / "code", "0" * 64)
    todo = Plan(run_dir, "a search", (Run(name, "search", run_dir, settings),))
    text = executors.script(todo, executors.Site(Resources(kind="slurm"), code, here))
    given = executors.given_options(text)
    assert given["chdir"] == str(here) and given["output"] == f"{run_dir}/logs/%j_0_log.out"
    assert subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0
    line = srun_line(text)
    assert line[line.index("--output") + 1] == f"{run_dir}/logs/%j_%t_log.out"
    assert str(here / "python") in line and line[-1] == f"{run_dir}/logs"
    after = next(each for each in text.splitlines() if each.startswith("exec "))
    assert shlex.split(after)[-1] == str(run_dir)


@pytest.mark.parametrize("name", ["日本 é→", "it's $HOME", 'a:b,"c"'])
def test_a_run_directory_of_any_name_is_frozen_as_it_is(
    name: str, slurm: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    assert submit.main([*SEARCH, "run_dir=mine"]) == 0
    run_dir = tmp_path / name / "mine"
    assert executors.given_options(script(slurm))["chdir"] == str(run_dir.parent)
    assert config.load_frozen(run_dir / "config.yaml").run_dir == str(run_dir)
    job = json.loads((run_dir / "job.json").read_text())
    assert job["plan"] == str(run_dir) and re.fullmatch("[0-9a-f]{64}", job["code_sha256"])


def test_the_command_that_is_told_can_be_typed(
    slurm: FakeSlurm, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("-dash", "a 'b' $c"):
        assert submit.main([*SEARCH, f'run_dir="{name}"']) == 0
        told = shlex.split(capsys.readouterr().out.splitlines()[-1])
        assert told[:2] == ["python", "launch/submit.py"] and submit.main(told[2:]) == 0


def test_a_backslash_of_the_folder_that_a_job_starts_in_is_kept(
    slurm: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real sbatch takes one of two away, even between single quotes (seen on 22.05)."""
    here = tmp_path / "DOMAIN\\user"
    here.mkdir()
    monkeypatch.chdir(here)
    assert submit.main(["--sbatch", "comment=a\\b", *SEARCH, quoted(tmp_path / "run")]) == 0
    given = executors.given_options(script(slurm))
    assert given["chdir"].replace("\\\\", "\\") == str(here)
    assert given["comment"] == "a\\\\b"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        *((f"x%{letter}y", f"without %{letter}, which Slurm re") for letter in "AaJjNnstuxb"),
        ("%4j", "without %4j"), ("%%", "without %%"), ("a%%j", "without %%"),
        ("%012t", "without %012t"),
        ("a\\b", "without \\, which Slurm"), ("DOMAIN\\user", "without \\"),
        ("a\nb", "without '\\n'"), ("a\tb", "without '\\t'"), ("\x1b[31m", "without '\\x1b'"),
        ("\x7f", "without '\\x7f'"), ("a\u2028b", "without '\\u2028'"),
        (os.fsdecode(b"\xff"), "without '\\udcff'"), ("${seed}", "without ${"),
    ],
)  # fmt: skip
def test_what_would_send_logs_elsewhere_is_refused(name: str, said: str, tmp_path: Path) -> None:
    """As part of run_dir, or of the folder that a relative one is in."""
    for root in (tmp_path / name, tmp_path / name / "run", tmp_path / f"a{name}b"):
        with pytest.raises(ConfigError) as caught:
            paths.check(root, tmp_path, slurm=True)
        assert said in str(caught.value) and str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["%A", "a\\b", "a\nb"])
def test_a_refused_path_leaves_nothing(
    name: str,
    slurm: FakeSlurm,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / name).mkdir()
    before = sorted(path.name for path in tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path / name)
    assert "is not possible" in refused(capsys, *SEARCH, "run_dir=run")
    assert "is not possible" in refused(capsys, "--dry-run", *SEARCH)
    assert not slurm.read()["jobs"]
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_this_machine_takes_what_only_slurm_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--cluster", "local", "--dry-run", *SEARCH]
    assert submit.main([*words, quoted(tmp_path / "a\\b%j")]) == 0
    assert f"{tmp_path}/a\\b%j" in capsys.readouterr().out
    assert submit.main([*words, quoted(tmp_path / "a\nb")]) == 2


# --- The frozen code -----------------------------------------------------------------------------


def start(text: str, folder: Path) -> tuple[int, str, bool]:
    """Run a batch script as a node would: (status, stderr, whether the ranks were started)."""
    stub = folder / "stub"
    stub.mkdir(exist_ok=True)
    mark = folder / "ranks"
    mark.unlink(missing_ok=True)
    (stub / "srun").write_text(f"#!/bin/sh\ntouch {shlex.quote(str(mark))}\n")
    (stub / "srun").chmod(0o755)
    environment = {**os.environ, "PATH": f"{stub}:{os.environ['PATH']}", "SLURM_JOB_ID": "1"}
    done = subprocess.run(
        ["bash"], input=text, text=True, capture_output=True, env=environment, cwd=folder
    )
    return done.returncode, done.stderr, mark.exists()


def other_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on another checkout is frozen."""
    monkeypatch.setattr(rundir, "checkout", lambda _: {"commit": "another"})


def told(run_dir: Path) -> list[str]:
    lines = (run_dir / "events.jsonl").read_text().splitlines()
    return [json.loads(line)["event"] for line in lines]


@pytest.mark.parametrize("name", ["run", "it's 100%: $x"])
def test_a_pending_job_refuses_other_code(
    name: str,
    slurm: FakeSlurm,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_dir = tmp_path / name
    site = site_file(tmp_path, "setup: [set -eu]")
    assert submit.main(["--cluster", site, *SEARCH, quoted(run_dir)]) == 0
    text, code = script(slurm), run_dir / "code"
    (code / "daas_dist" / "mesh.py").rename(tmp_path / "mesh.py")
    status, said, started = start(text, tmp_path)
    assert (status, started) == (2, False) and said.count("\n") == 1
    assert f"{code} is not the code that was submitted (daas_dist/mesh.py is gone)" in said
    assert told(run_dir) == ["submitted"]
    slurm.change_job("1", JobState="CANCELLED")
    capsys.readouterr()
    assert submit.main(["status", "--json", str(run_dir)]) == 0
    [found] = json.loads(capsys.readouterr().out)
    assert found["state"] == "INTERRUPTED" and "(daas_dist/mesh.py is gone)" in found["why"]
    assert "daas_dist/mesh.py is gone" in refused(capsys, "resume", str(run_dir))
    assert told(run_dir) == ["submitted"]
    # Put back, it goes on; nothing else would be needed.
    (tmp_path / "mesh.py").rename(code / "daas_dist" / "mesh.py")
    slurm.change_job("1", JobState="RUNNING")
    status, said, started = start(text, tmp_path)
    assert started and told(run_dir) == ["submitted", "attempt", "died", "requeued"]
    shutil.rmtree(code)
    status, said, started = start(text, tmp_path)
    assert (status, started) == (2, False) and "snapshot.py" in said
    slurm.change_job("1", JobState="CANCELLED")
    other_code(monkeypatch)
    assert submit.main(["resume", str(run_dir)]) == 0
    assert "with other code than before" in capsys.readouterr().out
    assert start(script(slurm, "2"), tmp_path)[2]


def test_code_that_goes_while_a_run_works_does_not_bring_it_back(
    slurm: FakeSlurm, tmp_path: Path
) -> None:
    """What decides on a return is code too."""
    assert submit.main([*SEARCH, "run_dir=mine"]) == 0
    text = script(slurm).replace("\nstatus=$?", f"\nstatus=$?\nrm -r {tmp_path}/mine/code/launch")
    slurm.change_job("1", JobState="RUNNING")
    status, said, started = start(text, tmp_path)
    assert started and status == 2 and "snapshot.py" in said
    assert told(tmp_path / "mine") == ["submitted", "attempt"]


def test_every_run_of_a_plan_resumes_where_its_code_was_made_anew(
    slurm: FakeSlurm,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert submit.main(["--seeds", "0-1", *SEARCH, "run_dir=many"]) == 0
    for job in ("1_0", "1_1"):
        slurm.change_job(job, JobState="CANCELLED")
    shutil.rmtree(tmp_path / "many" / "code")
    other_code(monkeypatch)
    assert submit.main(["resume", "many/search-seed0"]) == 0
    assert submit.main(["resume", "many"]) == 0
    assert capsys.readouterr().out.count("with other code than before") == 2
    assert submit.main(["status", "many"]) == 0
    assert [start(script(slurm, job), tmp_path)[2] for job in ("2", "3")] == [True, True]
    assert not start(script(slurm, "1_0"), tmp_path)[2]


def test_the_plain_script_refuses_too(
    slurm: FakeSlurm, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert submit.main(["--prepare", *SEARCH, quoted(tmp_path / "a b")]) == 0
    command = shlex.split(capsys.readouterr().out.splitlines()[-1])
    at = next(i for i, word in enumerate(command) if word.endswith("run.sbatch"))
    text = f"set -- {shlex.join(command[at + 1 :])}\n{Path(command[at]).read_text()}"
    assert start(text, tmp_path)[2]
    (tmp_path / "a b" / "code" / "launch" / "rank.py").write_text("")
    status, said, started = start(text, tmp_path)
    assert (status, started) == (2, False) and "(launch/rank.py was changed)" in said


def test_a_queue_of_this_machine_s_refuses_other_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--cluster", "debug", *SEARCH, quoted(tmp_path / "run"), "data.root=nowhere"]
    with pytest.raises(SystemExit):
        submit.main(words)
    assert told(tmp_path / "run").count("attempt") == 1
    (tmp_path / "run" / "code" / "daas_dist" / "new.py").write_text("")
    assert "daas_dist/new.py was added" in refused(capsys, "resume", str(tmp_path / "run"))
    assert "daas_dist/new.py was added" in refused(capsys, *words)
    assert told(tmp_path / "run").count("attempt") == 1
