"""The first hour on a GPU, without one: which rows are kept, what goes on, what is told apart."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import on_gpu
import pytest
import torch
from gpu import pays, right
from gpu.rows import Check, File, Rows, Settings, Skipped, Unfinished, Values, run
from on_gpu import ended, within
from torch import Tensor, nn

MACHINE: Values = {"device": "a GPU", "quick": True}


@pytest.fixture
def file(tmp_path: Path) -> File:
    return File(tmp_path / "out" / "rows.jsonl", MACHINE)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(torch.device("cpu"), True, tmp_path, 60.0, None)


def two_rows(_: Settings) -> Rows:
    yield "first", {"seconds": 1.5}
    yield "second", {"seconds": 2.5}


def broken(_: Settings) -> Rows:
    yield "first", {"seconds": 1.5}
    raise RuntimeError("no memory\nand a long stack")


def half(_: Settings) -> Rows:
    yield "first", {"seconds": 1.5}
    raise Unfinished("at step 3")


def elsewhere(_: Settings) -> Rows:
    raise Skipped("skipped: needs CUDA")
    yield "", {}


def test_rows_are_kept_as_they_come_and_an_end_ends(file: File, settings: Settings) -> None:
    checks = {"a": two_rows, "b": broken, "c": half, "d": elsewhere}
    went_to_the_end = {n: run(Check(n, 1, rows), settings, file) for n, rows in checks.items()}
    assert went_to_the_end == {"a": True, "b": True, "c": False, "d": True}
    assert file.ended() == {
        "a": "done", "b": "failed: RuntimeError: no memory", "d": "skipped: needs CUDA",
    }  # fmt: skip
    rows = [json.loads(line) for line in file.path.read_text().splitlines()]
    assert [row["row"] for row in rows if "end" not in row] == ["first", "second", "first", "first"]
    assert rows[1] == {"check": "a", "row": "second", **MACHINE, "seconds": 2.5}


def test_rows_of_another_machine_and_torn_ones_do_not_count(file: File) -> None:
    File(file.path, MACHINE | {"quick": False}).add("a", "", {"end": "done"})
    file.add("b", "", {"end": "done"})
    with file.path.open("a") as torn:
        torn.write('{"check": "c", "row": "", "device": "a GPU", "quick": true, "en')
    assert file.ended() == {"b": "done"}


def test_a_check_that_is_cut_off_when_made_again_has_not_ended(
    file: File, settings: Settings
) -> None:
    for rows in (broken, half):
        run(Check("a", 1, rows), settings, file)
    assert file.ended() == {}


def test_a_check_is_not_begun_twice_nor_without_time(
    file: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[float] = []

    def status(command: list[str], seconds: float) -> int | None:
        begun.append(seconds)
        return None

    monkeypatch.setattr(on_gpu, "within", status)
    until, short, long = time.monotonic() + 150, Check("a", 1, two_rows), Check("b", 5, two_rows)
    assert not ended("right", long, until, file, again=[]) and not begun
    assert ended("right", short, until, file, again=[]) and begun == [60]
    assert file.ended() == {"a": "out of time: 1 minutes"}
    assert ended("right", short, until, file, again=[]) and begun == [60]
    assert ended("right", short, until, file, again=["a"]) and begun == [60, 60]
    resumes = Check("c", 60, two_rows, resumes=True)
    assert not ended("real", resumes, until, file, again=[])
    assert begun[2:] == [pytest.approx(150, abs=5)] and "c" not in file.ended()


def test_what_takes_too_long_ends_with_all_that_it_started(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    code = (
        "import subprocess, sys, time, pathlib;"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
        f"pathlib.Path({str(note)!r}).write_text(str(child.pid)); time.sleep(600)"
    )
    assert within([sys.executable, "-c", code], 5) is None
    pid, until = int(note.read_text()), time.monotonic() + 20
    while _lives(pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert not _lives(pid)
    assert within([sys.executable, "-c", "raise SystemExit(3)"], 60) == 3


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_no_two_checks_have_one_name() -> None:
    names = [check.name for checks in on_gpu.PARTS.values() for check in checks]
    assert len(set(names)) == len(names)


def test_a_pixel_that_differs_is_seen(settings: Settings) -> None:
    calls: list[int] = []

    def odd(images: Tensor) -> Tensor:
        calls.append(1)
        images = images.clone()
        images[0, 0, 0, 0] += 3 if len(calls) == 2 else 0
        return images

    images = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    found = right.pixels_apart(odd, images, settings.device)
    assert found == {"same bits": False, "differ": 1, "of": 96, "largest": 3.0}


def test_one_bit_of_a_state_is_seen() -> None:
    own = [torch.tensor([1.0, 2.0]), 3, "x"]
    assert right.same(own, [torch.tensor([1.0, 2.0]), 3, "x"])
    assert not right.same(own, [torch.tensor([1.0, 2.0 + 2**-22]), 3, "x"])
    assert not right.same(own, [*own[:2], "y"]) and not right.same(own, own[:2])


def test_a_step_in_float32_is_float64_s_to_rounding_only(settings: Settings) -> None:
    kinds = [right.Kind(settings.device, dtype) for dtype in (torch.float64, torch.float32)]
    exact, rounded = (right.step_of(right.WAYS["gdas"], settings, kind) for kind in kinds)
    assert set(exact) == {"θ", "z", "alpha"}
    for name, value in exact.items():
        apart = float((rounded[name] - value).norm() / value.norm())
        assert 0 < apart < 1e-2, name


def test_inputs_of_operations_are_those_that_compute_something(settings: Settings) -> None:
    problem = pays.Problem.make(settings, paths=2)
    inputs = pays.inputs_of_operations(problem)
    assert inputs and not any(isinstance(each, nn.Identity) for each in inputs)
    passes = problem.direct(problem.network)
    before = dict(inputs)
    passes()  # nothing is noted any more
    gradient = problem.gradient().clone()
    for operation, given in inputs.items():
        assert given is before[operation]
        assert operation(given).shape[:2] == given.shape[:2]
    passes()
    assert torch.equal(problem.gradient(), gradient) and float(gradient.norm()) > 0


@pytest.mark.long
def test_all_of_the_first_part_passes_on_a_cpu(tmp_path: Path) -> None:
    words = ["--device", "cpu", "--quick", "--part", "right", "--out", str(tmp_path)]
    subprocess.run([sys.executable, on_gpu.__file__, *words], check=True)
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    ends = {row["check"]: row["end"] for row in rows if "end" in row}
    assert ends == {check.name: "done" for check in on_gpu.PARTS["right"]}
    assert not any("error" in row for row in rows if row["check"] != "suite")
    told = [row[key] for row in rows for key in ("again", "stopped and resumed") if key in row]
    assert told and all(told)
