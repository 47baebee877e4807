"""The frozen code: whatever differs from what was submitted is refused by name, and never run."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from daas_dist.config import ConfigError
from launch import rundir, snapshot
from launch.rundir import Code


@pytest.fixture
def code(tmp_path: Path) -> Code:
    return rundir.freeze_code(tmp_path / "run")


def append(path: Path) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write("\n")


def same_length(path: Path) -> None:
    """Another byte, the same size and the same time."""
    data, stat = path.read_bytes(), path.stat()
    path.write_bytes(data[:-1] + b"#")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def replace_by_link(path: Path) -> None:
    target = shutil.move(path, path.parents[3] / "moved.py")
    path.symlink_to(target)


def all_empty(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            path.write_bytes(b"")


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "gone": (lambda c: shutil.rmtree(c), "it is gone"),
    "a file in its place": (lambda c: (shutil.rmtree(c), c.write_text("x")), "it is gone"),
    "empty": (lambda c: (shutil.rmtree(c), c.mkdir()), "SHA256SUMS is not the one"),
    "every file cut to nothing": (all_empty, "SHA256SUMS is not the one"),
    "no package": (lambda c: shutil.rmtree(c / "daas_dist"), "daas_dist/__init__.py is gone"),
    "no file": (
        lambda c: (c / "daas_dist" / "distributed" / "mesh.py").unlink(),
        "daas_dist/distributed/mesh.py is gone",
    ),
    "a longer file": (lambda c: append(c / "launch" / "rank.py"), "launch/rank.py was changed"),
    "another byte": (
        lambda c: same_length(c / "daas_dist" / "data" / "feed.py"),
        "daas_dist/data/feed.py was changed",
    ),
    "a module more": (lambda c: (c / "torch.py").write_text(""), "torch.py was added"),
    "a package more": (
        lambda c: ((c / "numpy").mkdir(), (c / "numpy" / "__init__.py").write_text("")),
        "numpy/__init__.py was added",
    ),
    "a link": (lambda c: replace_by_link(c / "daas_dist" / "rng.py"), "daas_dist/rng.py was"),
    "a list of another": (lambda c: append(c / snapshot.SUMS), ""),
    "where it came from": (lambda c: append(c / "checkout.json"), "checkout.json was changed"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_what_differs_is_named_and_refused(name: str, code: Code) -> None:
    damage, said = DAMAGE[name]
    damage(code.folder)
    differs = snapshot.difference(str(code.folder), code.digest)
    assert (differs or "").find(said) >= 0
    assert (differs is None) == (said == "")  # the list itself is no code
    if said and code.folder.exists():
        with pytest.raises(ConfigError, match="is not the code that was submitted"):
            rundir.freeze_code(code.folder.parent)


def test_many_differences_are_counted(code: Code) -> None:
    for path in (code.folder / "launch").glob("*.py"):
        append(path)
    count = len(list((code.folder / "launch").glob("*.py")))
    differs = snapshot.difference(str(code.folder), code.digest)
    assert differs is not None and differs.endswith(f"and {count - 3} more")


def test_what_python_and_systems_leave_is_no_difference(code: Code) -> None:
    for name in ("__pycache__/mesh.cpython-311.pyc", ".nfs000012", ".DS_Store"):
        path = code.folder / "daas_dist" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"\0")
    assert snapshot.difference(str(code.folder), code.digest) is None
    assert rundir.freeze_code(code.folder.parent) == code


def test_the_list_is_one_that_sha256sum_reads(code: Code) -> None:
    done = subprocess.run(
        ["sha256sum", "--check", "--quiet", "--strict", snapshot.SUMS], cwd=code.folder
    )
    assert done.returncode == 0


def test_a_module_runs_from_the_copy_wherever_python_looks_first(
    code: Code, tmp_path: Path
) -> None:
    """In a folder, and with a PYTHONPATH, that hold other packages of these names."""
    for package in ("daas_dist", "launch"):
        (tmp_path / "other" / package).mkdir(parents=True)
        text = "raise SystemExit('the wrong code')"
        (tmp_path / "other" / package / "__init__.py").write_text(text)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "other")}
    launchers = (code.run, lambda *words: [sys.executable, *code.script(words[0]), *words[1:]])
    for command in launchers:
        done = subprocess.run(
            command("launch.attempt", "before", str(tmp_path)), env=environment, text=True,
            cwd=tmp_path / "other", capture_output=True,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "events.jsonl").read_text().count('"attempt"') == 2
    append(code.folder / "launch" / "attempt.py")
    done = subprocess.run(code.run("launch.attempt", "before", str(tmp_path)), text=True,
                          capture_output=True)  # fmt: skip
    assert done.returncode == 2 and "(launch/attempt.py was changed)" in done.stderr
    assert (tmp_path / "events.jsonl").read_text().count('"attempt"') == 2


def test_names_that_are_no_text_are_escaped(code: Code) -> None:
    (code.folder / os.fsdecode(b"\xff\x1b[31m.py")).write_text("")
    done = subprocess.run(code.check(), capture_output=True)
    assert done.returncode == 2 and b"\x1b" not in done.stdout
    assert done.stdout.decode("ascii") == "\\udcff\\x1b[31m.py was added\n"
