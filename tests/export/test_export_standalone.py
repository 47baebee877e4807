"""Definitions as one source file: a small package with every trap, and the package's own."""

import importlib
from pathlib import Path
from typing import Any

import pytest

from daas_dist.export import standalone
from daas_dist.export.standalone import Copy

PACKAGE = {
    "__init__": """
from traps.inner.table import scaled as passed_on
from traps.zbase import Base as passed_base
""",
    "zbase": "class Base:\n    pass\n",
    "inner/__init__": "",
    "inner/table": '''
"""Nothing of this docstring is copied."""
import math
from collections.abc import Callable

import os.path

UNUSED = 7
floor = "taken by an import of another module"
FACTOR = 3
"""Written below, so it belongs to FACTOR."""
first, second = 1, len(os.path.join("", "ab")) + len(floor) * 0
TABLE: dict[str, Callable[[int], float]] = {
    "kept": lambda value: value * FACTOR,
    "dropped": lambda value: math.floor(only_for_dropped(value)),
}


def only_for_dropped(value: int) -> int:
    return value


# Above scaled, so it goes with it.
def scaled(value: int) -> float:
    return TABLE["kept"](value) + second
''',
    "deep": '''
from math import floor, pi as tau_half

from traps import inner, passed_base, passed_on as renamed
from traps.inner import table


def scaled(value: int) -> float:
    """Of the same name as another module's."""
    return 1000 * value


def capture(FACTOR: int) -> float:
    """Its argument has the name of what it reads through the module: × ° é."""
    return FACTOR * 100 + table.FACTOR


class Shape(passed_base):
    def area(self) -> float:
        said = f"é {scaled(0)} and {table.FACTOR}, "
        said += (
            f"é {renamed(1)} "
            f"then {floor(2.5)}"
        )
        assert said == "é 0 and 3, é 5 then 2", said
        return "é" and scaled(2) + renamed(2) + tau_half * 0 + capture(FACTOR=5)

    @property
    def left_out(self) -> float:
        return only_for_left_out()

    def twice(self) -> float:
        return 2 * self.area()


def only_for_left_out() -> float:
    return 0.0
''',
}


@pytest.fixture
def traps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in PACKAGE.items():
        path = tmp_path / "traps" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(standalone, "PACKAGE", "traps")
    monkeypatch.setattr(standalone, "read_module", standalone.read_module.__wrapped__)
    importlib.invalidate_caches()


def run(source: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "copied"}
    exec(compile(source, "copied", "exec"), names)
    return names


WITHOUT = ("Shape.left_out", "TABLE.dropped")


@pytest.mark.usefixtures("traps")
def test_the_copy_computes_what_the_package_does_and_imports_nothing_of_it() -> None:
    source = Copy((("traps.deep", "Shape"),), WITHOUT).source()
    assert "traps" not in source
    shape = run(source)["Shape"]()
    # By hand: 2000 of its own scaled, 2 * 3 + 2 of the other, 5 * 100 + 3.
    assert shape.area() == 2000 + 8 + 503
    assert shape.twice() == 2 * 2511
    assert shape.area() == importlib.import_module("traps.deep").Shape().area()


@pytest.mark.usefixtures("traps")
def test_only_what_is_needed_is_copied_with_its_comments() -> None:
    source = Copy((("traps.deep", "Shape"),), WITHOUT).source()
    for absent in (
        "UNUSED",
        "left_out",
        "dropped",
        "Nothing of this docstring",
        "import math\n",
        "inner.table",
    ):
        assert absent not in source
    assert '"""Written below' in source and "# Above scaled" in source
    assert "from math import floor, pi as tau_half" in source
    whole = Copy((("traps.deep", "Shape"),)).source()
    assert "only_for_left_out" in whole and "only_for_dropped" in whole and "import math" in whole


@pytest.mark.usefixtures("traps")
def test_names_that_are_taken_are_given_their_modules() -> None:
    copy = Copy((("traps.deep", "Shape"),), WITHOUT, reserved=("capture",))
    names = copy.names()
    assert names["traps.inner.table", "floor"] == "table_floor"
    assert names["traps.deep", "scaled"] == "deep_scaled"
    assert names["traps.inner.table", "scaled"] == "table_scaled"
    assert names["traps.inner.table", "FACTOR"] == "table_FACTOR"
    assert names["traps.deep", "capture"] == "deep_capture"
    assert names["traps.inner.table", "TABLE"] == "TABLE"
    assert run(copy.source())["Shape"]().area() == 2511


@pytest.mark.usefixtures("traps")
def test_what_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match=r"traps.deep has no definition of Missing"):
        Copy((("traps.deep", "Missing"),)).source()
    with pytest.raises(ValueError, match="no module traps.missing"):
        Copy((("traps.missing", "x"),)).source()
    with pytest.raises(ValueError, match="inner of traps.deep is a module"):
        Copy((("traps.deep", "inner"),)).source()


def test_what_is_left_out_of_the_packages_own_is_still_there_to_leave_out() -> None:
    """Otherwise a method that was renamed would be copied again, unnoticed."""
    from daas_dist.export import network_source, policy_source

    for key, without in (
        (("daas_dist.spaces.policy", "Policy"), policy_source.COPY.without),
        (("daas_dist.spaces.cells", "Genotype"), network_source.WITHOUT),
    ):
        whole = Copy((key,)).source()
        for name in without:
            assert f"def {name.partition('.')[2]}(" in whole, name
