"""Plant small faults in the heart, one at a time, and see whether a test notices.

    python benchmarks/mutants.py                      # spaces/, methods/, search/, schedules.py
    python benchmarks/mutants.py --only methods/equations.py
    python benchmarks/mutants.py --list               # what would be planted

Faults are those of faults.py. Each is planted in a copy of the checkout, and the tests that execute
its line run there until one fails. Which tests those are is measured first, by running all of TESTS
under a tracer.

Every fault has a row in --rows, by the file as planted: what a test noticed is not run again, what
none did is, unless equivalent_faults.txt says why it changes nothing that can be seen. Printed at
the end: the share that a test noticed, those that none did, and what is listed there for nothing.

One process imports torch and the like once. Each run of tests is a fork of it, which imports the
package and the tests anew.
"""

import argparse
import contextlib
import gc
import hashlib
import importlib
import json
import multiprocessing
import os
import pickle
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from faults import EQUIVALENT, ROOT, Fault, faults

HEART = ("spaces", "methods", "search", "schedules.py")
TESTS = (
    "tests/methods", "tests/search", "tests/results/test_result.py", "tests/spaces",
    "tests/models/test_supernet.py", "tests/test_schedules.py",
)  # fmt: skip
COPIED = (
    "daas_dist", "configs", "launch", "slurm", "tests", "benchmarks", "docs", "pyproject.toml",
    "README.md",
)  # fmt: skip
IMPORTED = (
    "hydra", "hypothesis", "matplotlib.pyplot", "numpy", "omegaconf", "scipy.optimize",
    "scipy.stats", "torch", "torchvision.transforms.v2", "webdataset",
)  # fmt: skip
OPTIONS = (
    "-q", "-p", "no:cacheprovider", "-m", "not long", "-p", "_hypothesis_pytestplugin",
    "--hypothesis-seed=0", "-W", "ignore::pytest.PytestAssertRewriteWarning",
)  # fmt: skip
PATIENCE = 60
"""Seconds of a processor that the tests of a fault may take beyond three times those that they take
without it: its loops may never end."""
ENOUGH = 20
"""Seconds of tests that a fault gets, the quickest: what only the slow notice is not noticed."""


@dataclass(eq=False)
class Traced:
    """What each test that passes executes of the heart, measured as pytest runs it."""

    package: str
    seconds: dict[str, float] = field(default_factory=dict)
    """Of a processor, those of the processes that it starts among them."""
    others: set[str] = field(default_factory=set)
    """Tests that do not pass."""
    lines: dict[str, set[tuple[str, int]]] = field(default_factory=lambda: defaultdict(set))
    now: set[tuple[str, int]] = field(default_factory=set)

    def __call__(self, frame: FrameType, event: str, argument: object) -> Any:
        file = frame.f_code.co_filename
        if event == "call" and not file.startswith(self.package):
            return None
        self.now.add((file.removeprefix(self.package), frame.f_lineno))
        return self

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        self.now, before = self.lines[item.nodeid], sum(os.times()[:4])
        sys.settrace(self)
        result = yield
        sys.settrace(None)
        self.seconds[item.nodeid] = sum(os.times()[:4]) - before
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "setup":  # of what a module shares, all its tests see the outcome
            self.lines[report.nodeid.split("::")[0]] |= self.now
        if not report.passed:
            self.others.add(report.nodeid)


@dataclass(frozen=True, eq=False)
class Chosen:
    """Tests in the order in which they are to run."""

    names: Sequence[str]
    failed: list[str] = field(default_factory=list)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        place = {name: n for n, name in enumerate(self.names)}
        items[:] = sorted((i for i in items if i.nodeid in place), key=lambda i: place[i.nodeid])

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self.pytest_runtest_logreport(report)

    def pytest_runtest_logreport(self, report: pytest.CollectReport | pytest.TestReport) -> None:
        if report.failed:
            self.failed.append(report.nodeid)


def traced(folder: Path, file: str) -> tuple[dict[str, float], dict[str, set[tuple[str, int]]]]:
    """Run a file of tests, and return the seconds and the lines of each that passes."""
    tracer = Traced(f"{folder / 'daas_dist'}/")
    pytest.main([*OPTIONS, file], [tracer])
    passed = {name: round(s, 3) for name, s in tracer.seconds.items() if name not in tracer.others}
    return passed, {name: tracer.lines[name] | tracer.lines[file] for name in passed}


def first_to_fail(folder: Path, fault: Fault, tests: Sequence[str], seconds: int) -> str:
    """Return the first of the tests that fails with a fault, or nothing. The system ends this
    process after so many seconds of a processor."""
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    planted = folder / "daas_dist" / fault.file
    planted.write_text(fault.source, encoding="utf-8")
    time_of_its_own = int(fault.key[:7], 16)  # or another fault's bytecode would do
    os.utime(planted, (time_of_its_own, time_of_its_own))
    for file in dict.fromkeys(name.split("::")[0] for name in tests):
        chosen = Chosen([name for name in tests if name.startswith(f"{file}::")])
        status = pytest.main([*OPTIONS, "-x", file], [chosen])
        if status:
            return chosen.failed[0]
    return ""


FORK = multiprocessing.get_context("fork")


def forked(patience: float, what: Callable[..., Any], *given: object) -> Any:
    """Call `what` in a fork, at this process's copy of the checkout, and return what it returns;
    an Exception if it does not end well or not within `patience` seconds."""
    folder = Path.cwd()

    def run() -> None:
        os.setsid()
        os.environ["PYTHONPATH"] = str(folder)
        sys.path.insert(0, str(folder))
        for descriptor in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
        sender.send(what(folder, *given))

    receiver, sender = FORK.Pipe(duplex=False)
    process = FORK.Process(target=run)
    process.start()
    sender.close()
    try:
        return receiver.recv() if receiver.poll(patience) else TimeoutError(f"{patience:.0f} s")
    except EOFError as error:
        return error
    finally:
        process.join(1)
        with contextlib.suppress(ProcessLookupError):  # also what its tests started
            os.killpg(process.pid or 0, signal.SIGKILL)
        process.join()


Trace = tuple[dict[str, float], dict[str, set[tuple[str, int]]]]


def trace(file: str) -> Trace:
    """Return the seconds and the lines of each test of a file, from an earlier run if nothing of
    the package and of the tests' support has changed since."""
    paths = [p for part in ("daas_dist", "tests/support") for p in sorted(Path(part).rglob("*.py"))]
    digest = hashlib.sha256(b"".join(p.read_bytes() for p in [*paths, Path(file)])).hexdigest()
    known = Path(tempfile.gettempdir(), f"mutants-{digest[:16]}.pickle")
    if not known.exists():
        told = forked(10 * PATIENCE, traced, file)
        if isinstance(told, Exception):
            raise RuntimeError(f"{file} did not run") from told
        known.write_bytes(pickle.dumps(told))
    return pickle.loads(known.read_bytes())


def plant(fault: Fault, tests: Sequence[str], seconds: float) -> dict[str, object]:
    """Tell whether a test noticed a fault, and which, as a row."""
    planted = Path("daas_dist", fault.file)
    whole, began = planted.read_bytes(), time.monotonic()
    patience = int(PATIENCE + 3 * seconds)
    told = forked(10 * patience, first_to_fail, fault, tests, patience)
    planted.write_bytes(whole)
    return {
        "key": fault.key, "file": fault.file, "line": fault.line, "text": fault.text,
        "noticed": f"no end: {told!r}" if isinstance(told, Exception) else told,
        "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip


def reaching(fault: Fault, seconds: dict[str, float], lines: dict[str, Any]) -> list[str]:
    """Return the quickest tests that execute a fault's line, or any of its file where that is run
    at import, or all where none does: of a quick file first, in a file the quick first."""
    wanted = {(fault.file, line) for line in fault.statement}
    reach = [n for n in seconds if wanted & lines[n]]
    reach = reach or [n for n in seconds if fault.file in {file for file, _ in lines[n]}]
    reach = sorted(reach or seconds, key=lambda n: seconds[n])
    before = accumulate((seconds[n] for n in reach), initial=0.0)
    quick = [name for name, begun in zip(reach, before, strict=False) if begun < ENOUGH]
    whole: dict[str, float] = defaultdict(float)
    for name in quick:
        whole[name.split("::")[0]] += seconds[name]
    return sorted(quick, key=lambda n: (whole[n.split("::")[0]], n.split("::")[0]))


def settle(parent: str) -> None:
    """Give this process a copy of the checkout, and go there."""
    folder = Path(parent, str(os.getpid()))
    folder.mkdir()
    for name in COPIED:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, folder / name)
    os.chdir(folder)


def rows_of(left: Sequence[Fault], tests: Sequence[str], workers: int) -> Iterator[dict[str, Any]]:
    """Plant each fault, and yield its row as soon as it is known."""
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    for name in IMPORTED:
        importlib.import_module(name)
    gc.freeze()  # pytest collects garbage twice a run
    found = [p for t in tests for p in sorted((ROOT / t).rglob("test_*.py")) or [ROOT / t]]
    files = [str(path.relative_to(ROOT)) for path in found]
    seconds: dict[str, float] = {}
    lines: dict[str, set[tuple[str, int]]] = {}
    with (
        tempfile.TemporaryDirectory() as parent,
        ProcessPoolExecutor(workers, FORK, settle, (os.path.realpath(parent),)) as pool,
    ):
        for own_seconds, own_lines in pool.map(trace, files):
            seconds |= own_seconds
            lines |= own_lines
        print(
            f"{len(seconds)} tests of {len(files)} files take {sum(seconds.values()):.0f} s traced",
            flush=True,
        )
        pending = []
        for fault in left:
            chosen = reaching(fault, seconds, lines)
            pending.append(pool.submit(plant, fault, chosen, sum(seconds[n] for n in chosen)))
        for future in as_completed(pending):
            yield future.result()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--only", nargs="+", default=[""], help="files or folders, as methods/daas.py"
    )
    parser.add_argument("--tests", nargs="+", default=TESTS, help="those that may notice")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rows", type=Path, default=ROOT / "benchmarks" / "mutants.jsonl")
    parser.add_argument("--list", action="store_true")
    given = parser.parse_args()
    package = ROOT / "daas_dist"
    paths = [
        p for part in HEART for p in sorted((package / part).rglob("*.py")) or [package / part]
    ]
    every = [fault for path in paths for fault in faults(path)]
    chosen = [fault for fault in every if fault.file.startswith(tuple(given.only))]
    if given.list:
        for fault in chosen:
            print(f"{fault.file}:{fault.line}: {fault.text}")
        return 0
    written = given.rows.read_text().splitlines() if given.rows.exists() else []
    rows = {row["key"]: row for row in map(json.loads, written)}
    known = {key for key, row in rows.items() if row["noticed"]}
    known |= {fault.key for fault in every if fault.key in rows and fault.name in EQUIVALENT}
    left = [fault for fault in chosen if fault.key not in known]
    for row in rows_of(left, given.tests, given.workers) if left else ():
        rows[row["key"]] = row
        with given.rows.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(f"{'noticed' if row['noticed'] else 'SURVIVED'} {row['seconds']:6} s  "
              f"{row['file']}:{row['line']}: {row['text']}", flush=True)  # fmt: skip
    kept = [rows[fault.key] for fault in every if fault.key in rows]
    given.rows.write_text("".join(f"{json.dumps(row)}\n" for row in kept))
    survived = [fault for fault in chosen if not rows[fault.key]["noticed"]]
    unknown = [fault for fault in survived if fault.name not in EQUIVALENT]
    seen, equivalent = len(chosen) - len(survived), len(survived) - len(unknown)
    print(f"{seen} of {len(chosen) - equivalent} noticed; {equivalent} equivalent")
    for fault in unknown:
        print(f"  {fault.file}:{fault.line}: {fault.text}")
    missed = {fault.name for fault in every if not rows.get(fault.key, {"noticed": ""})["noticed"]}
    for name in sorted(EQUIVALENT - missed):
        print(f"  equivalent_faults.txt: no such fault, or it was noticed: {name}")
    return 1 if unknown else 0


if __name__ == "__main__":
    sys.exit(main())
