"""What the paths of a run may hold, and code that is not what was submitted: the batch script."""

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
from site_scripts import SEARCH, refused, script, site_file, srun_line

from daas_dist import config
from daas_dist.config import ConfigError, overrides
from daas_dist.documents.run import Checkout
from launch import batch, paths, rundir, submit
from launch.plan import Plan, Run
from launch.resources import Resources
from launch.rundir import Code


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    monkeypatch.chdir(tmp_path)
    return FakeSlurm(tmp_path / "slurm", monkeypatch)


# --- Paths ---------------------------------------------------------------------------------------

ODD = ("a b", "it's", 'say "hi"', "$HOME", "$(id)", "`id`", "a;b", "a&b", "100%", "50% x", "a,b",
       "a:b", "a=b", "#a", "-dash", "~", "[ab]", "{a}", "*", "!x", "日本 é→", "(x)",
       "a'\"b$c")  # fmt: skip


def quoted(path: Path) -> str:
    return f"run_dir={overrides.quoted(str(path))}"


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
    text = batch.script(todo, batch.Site(Resources(kind="slurm"), code, here))
    given = batch.given_options(text)
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
    assert batch.given_options(script(slurm))["chdir"] == str(run_dir.parent)
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
    given = batch.given_options(script(slurm))
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


def test_a_job_that_is_told_to_end_before_its_ranks_starts_none(
    slurm: FakeSlurm, tmp_path: Path
) -> None:
    """scancel in the second that a job begins: what came of it is noted, by either script."""
    run_dir = tmp_path / "run"
    assert submit.main([*SEARCH, f"run_dir={run_dir}"]) == 0
    digest = json.loads((run_dir / "job.json").read_text())["code_sha256"]
    plain = (Path(submit.__file__).parents[1] / "slurm" / "run.sbatch").read_text()
    words = shlex.join([str(run_dir), str(run_dir / "code"), digest, sys.executable])
    for text in (script(slurm), f"set -- {words}\n{plain}"):
        # As if the signal came while bash waits for it.
        early = re.sub(r"(?m)^SLURM_JOB_END_TIME=\$\(", r"\g<0>kill -TERM $$; sleep 0.1; ", text)
        assert early != text
        slurm.change_job("1", JobState="CANCELLED")
        status, _, started = start(early, tmp_path)
        assert (status, started) == (5, False) and told(run_dir)[-2:] == ["attempt", "cancelled"]


def other_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on another checkout is frozen."""
    other = Checkout("0" * 40, dirty=True, diff_sha256="1" * 64)
    monkeypatch.setattr(rundir, "checkout", lambda _: other)


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
    (code / "daas_dist" / "distributed" / "mesh.py").rename(tmp_path / "mesh.py")
    status, said, started = start(text, tmp_path)
    assert (status, started) == (2, False) and said.count("\n") == 1
    assert (
        f"{code} is not the code that was submitted (daas_dist/distributed/mesh.py is gone)" in said
    )
    assert told(run_dir) == ["submitted"]
    slurm.change_job("1", JobState="CANCELLED")
    capsys.readouterr()
    assert submit.main(["status", "--json", str(run_dir)]) == 0
    [found] = json.loads(capsys.readouterr().out)
    assert (
        found["state"] == "INTERRUPTED"
        and "(daas_dist/distributed/mesh.py is gone)" in found["why"]
    )
    assert "daas_dist/distributed/mesh.py is gone" in refused(capsys, "resume", str(run_dir))
    assert told(run_dir) == ["submitted"]
    # Put back, it goes on; nothing else would be needed.
    (tmp_path / "mesh.py").rename(code / "daas_dist" / "distributed" / "mesh.py")
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
