"""The house: imports go down only, and every equation is found by its number."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "daas_dist"
FLOORS = [
    {
        "documents",
        "escaping",
        "redact",
        "attention",
        "augment",
        "color_jitter",
        "space",
        "rng",
        "board",
        "schedules",
        "stopping",
        "faults",
        "lock",
        "memory",
        "slurm",
        "overrides",
        "progress",
        "rules",
        "published",
        "utf8",
    },
    {"policy", "evaluation", "optimiser"},
    {"daas", "transform", "inputs"},
    {"estimators", "per_image", "finite"},
    {"schema", "runlog", "mesh", "data", "models"},
    {"site", "config", "checkpoint", "connect", "result", "trained", "deal", "shards", "engine"},
    {"enough"},
    {"telemetry", "dataset", "job", "budget"},
    {"state", "rows"},
    {"report", "watch", "search", "explain"},
    {"findings", "doctor", "export"},
    {"run", "training"},
    {"outcome"},
    {"train"},
    {"cli"},
]
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names}
LAUNCH = PACKAGE.with_name("launch")
LAUNCH_FLOORS = [
    {"options", "paths", "plan", "attempt", "snapshot", "table", "estimate"},
    {"resources", "rundir", "rank"},
    {"local"},
    {"executors"},
    {"jobs"},
    {"submit"},
]
"""Above all of daas_dist, which knows nothing of it."""
MODULES = [path for path in sorted(PACKAGE.rglob("*.py")) if not path.name.startswith("__main")]


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if (
            isinstance(node, ast.ImportFrom)
            and node.module
            and node.module.startswith("daas_dist.")
        ):
            rooms.add(node.module.split(".")[1])
        elif isinstance(node, ast.ImportFrom) and node.module == "daas_dist":
            rooms |= {alias.name for alias in node.names}
    return rooms


def test_imports_go_down_only() -> None:
    for path in MODULES:
        if room(path) == "__init__":
            continue
        for other in imported(path) - {room(path)}:
            assert FLOOR[other] <= FLOOR[room(path)], (
                f"{path.name} imports {other}, which is above it"
            )


def test_launch_is_above_and_goes_down_too() -> None:
    floor = {name: number for number, names in enumerate(LAUNCH_FLOORS) for name in names}
    for path in [*MODULES, *LAUNCH.glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.ImportFrom)
                and (node.module or "").partition(".")[0] == "launch"
            ):
                assert path.parent == LAUNCH, f"{path} imports launch"
                inside = (node.module or "").partition(".")[2]
                for other in [inside] if inside else [alias.name for alias in node.names]:
                    assert floor[other] < floor[path.stem], f"{path.name} imports {other}"


def test_every_equation_is_a_function_with_its_number() -> None:
    tree = ast.parse((PACKAGE / "daas.py").read_text())
    starts = [ast.get_docstring(n) or "" for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
    for number in range(7, 15):
        assert any(re.match(rf"(The bracket of )?Eq\. \({number}\)", text) for text in starts), (
            number
        )


@pytest.mark.parametrize("module", ["daas_dist.cli", "launch.submit"])
def test_a_command_that_computes_nothing_does_not_wait_for_torch(module: str) -> None:
    heavy = "{'torch', 'torchvision', 'matplotlib', 'numpy', 'scipy'}"
    code = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_module_is_a_grab_bag() -> None:
    for path in MODULES:
        assert path.stem not in {"utils", "helpers", "common", "misc"}
        assert len(path.read_text().splitlines()) <= 620, f"{path.name} is too long to live in"
