"""Plant small faults in the heart, one at a time, and see whether a test notices.

    python benchmarks/mutants.py --sample 200         # spaces/, methods/, search/, schedules.py
    python benchmarks/mutants.py --sample 200 --only methods/equations.py
    python benchmarks/mutants.py --list               # what would be planted

A fault is another operator (+ for -, < for <=, and for or), a number one higher, a truth turned
round, max for min, mean for sum, or a minus dropped. It is planted in a copy of the checkout, and
the tests of its module run there (TESTS), the quickest first, until one fails. Docstrings, types
and the words of errors are left alone. The sample is drawn by --seed; a longer one has the shorter
in it. Rows are appended to --rows as JSON lines, and what has a row there is not run again. Printed
at the end: the share of faults that a test noticed, and those that none did. EQUIVALENT lists
faults that change nothing that can be seen, with the reason.
"""

import argparse
import ast
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
HEART = ("spaces", "methods", "search", "schedules.py")
COPIED = (
    "daas_dist",
    "configs",
    "launch",
    "slurm",
    "tests",
    "benchmarks",
    "docs",
    "pyproject.toml",
)
PATIENCE = 600
"""Seconds of the tests of one fault, which may be that a loop never ends."""

METHODS = (
    "tests/methods/test_equations.py tests/methods/test_estimators.py "
    "tests/methods/test_per_image.py tests/methods/test_plain_step.py tests/methods/test_darts.py "
    "tests/methods/test_gdas.py tests/search/test_search.py tests/search/test_warmup.py "
    "tests/config/test_reads.py tests/methods/test_conformance.py"
)
SEARCH = (
    "tests/search/test_search.py tests/search/test_warmup.py tests/methods/test_plain_step.py "
    "tests/config/test_reads.py tests/methods/test_conformance.py tests/whole/test_runs.py"
)
TESTS = {
    "spaces/cells.py": "tests/spaces/test_space.py tests/methods/test_equations.py "
    "tests/models/test_supernet.py tests/methods/test_darts.py tests/methods/test_gdas.py "
    "tests/search/test_search.py",
    "spaces/policy.py": "tests/spaces/test_policy.py tests/methods/test_estimators.py "
    "tests/results/test_result.py tests/search/test_search.py",
    "spaces/operations.py": "tests/spaces/test_augment.py tests/spaces/test_policy.py",
    "spaces/color_jitter.py": "tests/spaces/test_color_jitter.py",
    "schedules.py": "tests/test_schedules.py tests/training/test_optimiser.py "
    "tests/config/test_recipes.py tests/methods/test_plain_step.py",
    "search/budget.py": "tests/search/test_budget.py",
}
"""Lists tests by module; the others of a folder have METHODS or SEARCH."""

EQUIVALENT: dict[str, str] = {}
"""Says, by "file: line as planted", why nothing can be seen of a fault."""

SWAPS = {
    ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "/"), ast.Div: ("/", "*"),
    ast.Lt: ("<", "<="), ast.LtE: ("<=", "<"), ast.Gt: (">", ">="), ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="), ast.NotEq: ("!=", "=="), ast.And: ("and", "or"), ast.Or: ("or", "and"),
    ast.In: ("in", "not in"), ast.NotIn: ("not in", "in"), ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
}  # fmt: skip
NAMES = {
    "max": "min", "min": "max", "argmax": "argmin", "mean": "sum", "sum": "mean", "any": "all",
    "all": "any", "amax": "amin", "clamp_min": "clamp_max",
}  # fmt: skip


@dataclass(frozen=True)
class Fault:
    file: str
    line: int
    text: str
    """The line as planted."""
    source: str
    """The whole file as planted."""

    @property
    def key(self) -> str:
        return hashlib.sha256(f"{self.file}\n{self.source}".encode()).hexdigest()[:16]

    @property
    def tests(self) -> list[str]:
        other = METHODS if self.file.startswith("methods") else SEARCH
        return TESTS.get(self.file, other).split()


def faults(path: Path) -> Iterator[Fault]:
    """Yield every fault that can be planted in a file, in its order."""
    source = path.read_text(encoding="utf-8")
    starts = [0]
    for line in source.encode().splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    data = source.encode()

    def at(line: int, column: int) -> int:
        return starts[line - 1] + column

    def planted(line: int, start: int, end: int, new: str) -> Fault:
        whole = (data[:start] + new.encode() + data[end:]).decode()
        text = whole.splitlines()[line - 1].strip()
        return Fault(str(path.relative_to(ROOT / "daas_dist")), line, text, whole)

    for node in _looked_at(ast.parse(source)):
        if isinstance(node, ast.BinOp | ast.Compare | ast.BoolOp):
            for left, operator, right in _operators(node):
                if type(operator) not in SWAPS:
                    continue
                old, new = SWAPS[type(operator)]
                begin = at(left.end_lineno or 0, left.end_col_offset or 0)
                between = data[begin : at(right.lineno, right.col_offset)].decode()
                if between.count(old) == 1:
                    start = begin + len(between[: between.index(old)].encode())
                    yield planted(left.end_lineno or 0, start, start + len(old), new)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
            inner = node.operand
            if isinstance(node.op, ast.USub) and isinstance(inner, ast.Constant):
                continue  # an axis or an exponent: -1 is the last
            start, end = at(node.lineno, node.col_offset), at(inner.lineno, inner.col_offset)
            yield planted(node.lineno, start, end, "")
        elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
            start = at(node.lineno, node.col_offset)
            end = at(node.end_lineno or 0, node.end_col_offset or 0)
            number: int | float | bool = node.value
            value = not number if isinstance(number, bool) else number + 1
            yield planted(node.lineno, start, end, repr(value))
        elif isinstance(node, ast.Call):
            function, name = node.func, getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in NAMES:
                end = at(function.end_lineno or 0, function.end_col_offset or 0)
                start = end - len(name)
                yield planted(function.end_lineno or 0, start, end, NAMES[name])


def _operators(
    node: ast.BinOp | ast.Compare | ast.BoolOp,
) -> Iterator[tuple[ast.expr, ast.AST, ast.expr]]:
    if isinstance(node, ast.BinOp):
        yield node.left, node.op, node.right
    elif isinstance(node, ast.Compare):
        yield from zip([node.left, *node.comparators], node.ops, node.comparators, strict=False)
    else:
        for left, right in zip(node.values, node.values[1:], strict=False):
            yield left, node.op, right


def _looked_at(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes that compute: no annotations, no words of errors, no texts, no overloads."""
    yield tree
    for name, value in ast.iter_fields(tree):
        if name in ("annotation", "returns", "decorator_list", "type_params"):
            continue
        for child in value if isinstance(value, list) else [value]:
            left_out = ast.Raise | ast.JoinedStr | ast.Assert | ast.Import | ast.ImportFrom
            if isinstance(child, ast.AST) and not isinstance(child, left_out):
                yield from _looked_at(child)


def drawn(seed: int, count: int, only: str | None) -> list[Fault]:
    """Return the first `count` of all faults, in an order of the seed."""
    package = ROOT / "daas_dist"
    paths = [p for part in HEART for p in sorted((package / part).rglob("*.py"))]
    paths.append(package / "schedules.py")
    every = [fault for path in paths for fault in faults(path)]
    if only:
        every = [fault for fault in every if fault.file.startswith(only)]
    every.sort(key=lambda f: hashlib.sha256(f"{seed} {f.key}".encode()).digest())
    return every[:count]


def run(fault: Fault, folder: Path) -> dict[str, object]:
    """Tell whether a test noticed a fault, and which, as a row."""
    target = folder / "daas_dist" / fault.file
    whole = target.read_text(encoding="utf-8")
    target.write_text(fault.source, encoding="utf-8")
    began, noticed = time.monotonic(), ""

    def told(test: str) -> str:
        """Run one file of tests and return the first that fails, if one does."""
        command = ["pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "not long", test]
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=folder, text=True, capture_output=True, timeout=PATIENCE,
            env={**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
        if failed:
            return failed[0][:200]
        return "" if done.returncode == 0 else f"{test}: status {done.returncode}"

    try:
        noticed = next(filter(None, map(told, fault.tests)), "")
    except subprocess.TimeoutExpired:
        noticed = f"no end within {PATIENCE} s"
    finally:
        target.write_text(whole, encoding="utf-8")
    return {
        "key": fault.key, "file": fault.file, "line": fault.line, "text": fault.text,
        "noticed": noticed, "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--sample", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="a file, or its folder, as methods/daas.py")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rows", type=Path, default=ROOT / "benchmarks" / "mutants.jsonl")
    parser.add_argument("--list", action="store_true")
    given = parser.parse_args()
    chosen = drawn(given.seed, given.sample, given.only)
    if given.list:
        for fault in chosen:
            print(f"{fault.file}:{fault.line}: {fault.text}")
        return 0
    lines = given.rows.read_text().splitlines() if given.rows.exists() else []
    rows = {row["key"]: row for row in map(json.loads, lines)}
    left = [fault for fault in chosen if fault.key not in rows]
    with tempfile.TemporaryDirectory() as temporary:
        folders = [Path(temporary) / str(n) for n in range(given.workers)]
        for folder in folders:
            for name in COPIED:
                source = ROOT / name
                ignored = shutil.ignore_patterns("__pycache__", "*.jsonl")
                copy = shutil.copytree if source.is_dir() else shutil.copy
                options = {"ignore": ignored} if source.is_dir() else {}
                folder.mkdir(parents=True, exist_ok=True)
                copy(source, folder / name, **options)  # type: ignore[operator]

        def share(n: int) -> None:
            for fault in left[n :: given.workers]:
                row = run(fault, folders[n])
                rows[fault.key] = row
                with given.rows.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(f"{'noticed' if row['noticed'] else 'SURVIVED'} {row['seconds']:6} s  "
                      f"{fault.file}:{fault.line}: {fault.text}", flush=True)  # fmt: skip

        with ThreadPoolExecutor(given.workers) as pool:
            list(pool.map(share, range(given.workers)))
    told = [rows[fault.key] for fault in chosen]
    survived = [row for row in told if not row["noticed"]]
    unknown = [row for row in survived if f"{row['file']}: {row['text']}" not in EQUIVALENT]
    counted = len(told) - (len(survived) - len(unknown))
    print(
        f"{counted - len(unknown)} of {counted} noticed; {len(survived) - len(unknown)} equivalent"
    )
    for row in unknown:
        print(f"  {row['file']}:{row['line']}: {row['text']}")
    return 1 if unknown else 0


if __name__ == "__main__":
    sys.exit(main())
