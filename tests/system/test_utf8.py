"""Commands where the locale is not UTF-8: a terminal gets what it can show, files are UTF-8."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from fake_slurm import FakeSlurm
from whole_runs import needs_fashion_mnist

from daas_dist.system import utf8

ROOT = Path(__file__).parents[2]
SUBMIT = (sys.executable, str(ROOT / "launch" / "submit.py"))
DAAS = (sys.executable, "-m", "daas_dist.cli")
ASCII = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
LOCALES = {
    "C": ASCII,
    "POSIX": {**ASCII, "LC_ALL": "", "LANG": "POSIX"},
    "an ASCII terminal": {"LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "ascii"},
    "a Latin-1 terminal": {"LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "latin-1"},
}
NAME = "größe → 大"


def run(
    *command: str, locale: str = "C", cwd: Path = ROOT, status: int = 0
) -> "subprocess.CompletedProcess[bytes]":
    """A real process; its output is what such a terminal can show."""
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("LC_", "LANG"))}
    environment = {**plain, "OMP_NUM_THREADS": "1", "COLUMNS": "160", **LOCALES[locale],
                   "PYTHONPATH": str(ROOT)}  # fmt: skip
    done = subprocess.run(command, env=environment, cwd=cwd, capture_output=True)
    assert done.returncode == status, done.stderr.decode()
    encoding = "latin-1" if "Latin" in locale else "ascii"
    (done.stdout + done.stderr).decode(encoding)
    assert b"Traceback" not in done.stderr and b"codec can't" not in done.stderr
    return done


@pytest.mark.parametrize("locale", LOCALES)
def test_what_a_terminal_cannot_show_is_escaped(locale: str) -> None:
    """τ, Γ, → and box-drawing stand in what explain prints."""
    told = run(*DAAS, "explain", "stage=search_fashion", locale=locale).stdout
    assert b"\\u03b1" in told and b"search.tau.start=10.0" in told


@pytest.mark.long
@needs_fashion_mnist
def test_a_run_is_made_watched_and_reported(tmp_path: Path) -> None:
    folder = tmp_path / NAME
    folder.mkdir()
    words = ["stage=search_fashion", "preset=tiny", "data.limit=64", 'run_dir="α"']
    run(sys.executable, "-m", "daas_dist", *words, cwd=folder)
    run_dir = folder / "α"
    frozen = yaml.safe_load((run_dir / "config.yaml").read_text(encoding="utf-8"))
    assert frozen["run_dir"] == "α" and (run_dir / "DONE").exists()
    run(*DAAS, "watch", "α", cwd=folder)
    (run_dir / "report.html").unlink()
    assert b"report.html" in run(*DAAS, "report", "α", cwd=folder).stdout
    assert "größe → 大/α" in (run_dir / "report.html").read_text(encoding="utf-8")
    told = run(*DAAS, "run", "stage=search_fashion", 'data.root="größe"', status=2, cwd=folder)
    assert b"gr\\xf6\\xdfe" in told.stderr


@pytest.mark.long
def test_doctor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeSlurm(tmp_path / "slurm", monkeypatch)
    rows = json.loads(run(*DAAS, "doctor", "--json", cwd=tmp_path).stdout)
    assert all(row["state"] != "fail" for row in rows)


@pytest.mark.long
def test_a_job_is_submitted_and_looked_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm, folder = FakeSlurm(tmp_path / "slurm", monkeypatch), tmp_path / NAME
    folder.mkdir()
    words = ["stage=search_fashion", "preset=tiny", "run_dir=mine"]
    assert b"#SBATCH --chdir" in run(*SUBMIT, "--dry-run", *words, cwd=folder).stdout
    run(*SUBMIT, *words, cwd=folder)
    assert f"--chdir='{folder}'" in slurm.read()["jobs"]["1"]["script"]
    assert json.loads((folder / "mine" / "job.json").read_text("utf-8"))["cwd"] == str(folder)
    assert b"PENDING" in run(*SUBMIT, "status", "mine", cwd=folder).stdout
    [found] = json.loads(run(*SUBMIT, "list", "--json", ".", cwd=folder).stdout)
    Path(found["log"]).write_text("→ 大\n", encoding="utf-8")
    assert b"\\u2192 \\u5927" in run(*SUBMIT, "logs", "mine", cwd=folder).stdout
    run(*SUBMIT, "cancel", "mine", cwd=folder)
    run(*SUBMIT, "resume", "mine", cwd=folder)


def test_a_process_that_has_utf_8_is_not_started_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "execv", lambda *_: pytest.fail("started anew"))
    utf8.start()


# --- Held for every line -------------------------------------------------------------------------


def unnamed(tree: ast.AST) -> Iterator[str]:
    """Calls that would take the locale's encoding."""
    for node in (each for each in ast.walk(tree) if isinstance(each, ast.Call)):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)
        keywords = {keyword.arg for keyword in node.keywords}
        modes = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
        texts = {
            "read_text": not node.args,
            "write_text": isinstance(node.func, ast.Attribute) and len(node.args) == 1,
            "open": ast.unparse(node.func).partition(".")[0]
            not in ("os", "Image", "tarfile", "gzip")
            and not any(isinstance(mode, str) and "b" in mode for mode in modes),
        }
        as_text = bool({"text", "universal_newlines"} & keywords)
        if (texts.get(name, False) or as_text) and "encoding" not in keywords:
            yield f"line {node.lineno}: {ast.unparse(node)}"


def test_the_search_for_such_calls_finds_them() -> None:
    bad = "open(p); p.open('w'); p.read_text(); p.write_text(t); run(c, text=True); open(p, 'a')"
    assert len(list(unnamed(ast.parse(bad)))) == 6
    good = (
        "open(p, 'rb'); p.read_text('utf-8'); write_text(p, t); os.open(p, 0); run(c); p.open('xb')"
    )
    assert not list(unnamed(ast.parse(good)))


@pytest.mark.parametrize("package", ["daas_dist", "launch"])
def test_every_file_and_process_names_its_encoding(package: str) -> None:
    found = {
        str(path.relative_to(ROOT)): lines
        for path in (ROOT / package).rglob("*.py")
        if (lines := list(unnamed(ast.parse(path.read_text(encoding="utf-8")))))
    }
    assert not found
