"""The house: imports go down only, and every equation is found by its number."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from daas_dist.config.method_names import methods
from daas_dist.training.engine import ENGINES

PACKAGE = Path(__file__).parents[1] / "daas_dist"
LINES = (
    "cli",
    "search training export",
    "system results",
    "data",
    "runs",
    "models distributed",
    "config",
    "methods report",
    "spaces",
    "documents schedules rng",
)
"""Each line may import the lines below it, and nothing of its own line. launch is above all."""
DEPTH = {room: depth for depth, line in enumerate(LINES) for room in line.split()}
LAUNCH = PACKAGE.with_name("launch")
LAUNCH_FLOORS = [
    {"options", "paths", "plan", "attempt", "snapshot", "table", "estimate"},
    {"resources", "rundir", "rank"},
    {"local"},
    {"batch"},
    {"executors"},
    {"jobs"},
    {"submit"},
]
MODULES = [path for path in sorted(PACKAGE.rglob("*.py")) if not path.name.startswith("__main")]


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """The rooms that a module imports, wherever in it and in whatever form."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports by dots"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("daas_dist.")}
    return found


def test_each_room_imports_those_below_it_alone() -> None:
    assert {room(path) for path in MODULES} - {"__init__"} == set(DEPTH)
    for path in MODULES:
        if room(path) == "__init__":  # what `import daas_dist` offers
            continue
        for other in imported(path) - {room(path)}:
            assert DEPTH[other] > DEPTH[room(path)], f"{path} imports {other}"


def test_inside_a_room_no_two_modules_import_each_other() -> None:
    graph = {}
    for path in MODULES:
        name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        graph[name.removesuffix(".__init__")] = path
    above: dict[str, set[str]] = {}
    for name, path in graph.items():
        above[name] = set()
        for node in ast.parse(path.read_text(encoding="utf-8")).body:  # those at its start
            if isinstance(node, ast.ImportFrom) and node.module:
                inside = (f"{node.module}.{alias.name}" for alias in node.names)
                above[name] |= {each if each in graph else node.module for each in inside} & {
                    *graph
                }
    while above:
        free = [name for name, others in above.items() if not others & set(above)]
        assert free, f"in a circle: {sorted(above)}"
        for name in free:
            del above[name]


def names_config(source: str) -> bool:
    """Whether a module names the type of a whole configuration: imported under any name, as an
    attribute of what it imported, or in an annotation that is text."""
    for node in ast.walk(ast.parse(source)):
        names = set()
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("daas_dist"):
            names = {alias.name for alias in node.names}
        elif isinstance(node, ast.Attribute):
            names = {node.attr}
        elif isinstance(node, ast.Name):
            names = {node.id}
        elif isinstance(node, ast.arg | ast.AnnAssign) and node.annotation is not None:
            names = words_of(node.annotation)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.returns is not None:
            names = words_of(node.returns)
        if names & {"Config", "*"}:
            return True
    return False


def words_of(annotation: ast.expr) -> set[str]:
    """The words of the texts in it."""
    parts = (part.value for part in ast.walk(annotation) if isinstance(part, ast.Constant))
    return {word for text in parts if isinstance(text, str) for word in re.findall(r"\w+", text)}


@pytest.mark.parametrize(
    "source",
    [
        "from daas_dist.config import Config",
        "from daas_dist.config.schema.run import Config as Settings",
        "from daas_dist.config import *",
        "from daas_dist import config\n\ndef load(settings: config.Config) -> None: ...",
        "import daas_dist.config as door\n\nSettings = door.Config",
        "import daas_dist.config\n\nvalue: 'list[daas_dist.config.Config]'",
        "def load() -> 'Config | None':\n    from elsewhere import Config",
        "if TYPE_CHECKING:\n    from daas_dist.config import Config, ConfigError",
    ],
)
def test_a_whole_configuration_is_seen_in_every_form(source: str) -> None:
    assert names_config(source)


def test_the_groups_of_a_configuration_are_not_taken_for_it() -> None:
    groups = "from daas_dist.config.schema import Data\nfrom daas_dist.config import ConfigError"
    text = "def load(data: Data, name: 'str') -> 'Data':\n    print('Config')"
    assert not names_config(f"{groups}\n{text}")


def test_below_cli_search_and_training_nothing_takes_the_whole_configuration() -> None:
    for path in MODULES:
        if room(path) not in ("config", "cli", "search", "training"):
            assert not names_config(path.read_text(encoding="utf-8")), f"{path} names Config"


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
    tree = ast.parse((PACKAGE / "methods" / "equations.py").read_text())
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


def test_nothing_branches_on_the_name_of_a_method_or_an_engine() -> None:
    """Each is found by its name once; what it can do is asked of it."""
    names = {*methods(), *ENGINES}
    for path in [*MODULES, *LAUNCH.glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            compared: list[ast.expr | ast.pattern] = []
            if isinstance(node, ast.Compare):
                compared = [node.left, *node.comparators]
            elif isinstance(node, ast.match_case):
                compared = [node.pattern]
            for each in compared:
                for part in ast.walk(each):
                    told = isinstance(part, ast.Constant) and part.value in names
                    assert not told, f"{path.name}:{node.__class__.__name__} {ast.unparse(part)}"
