"""The methods of daas_dist/methods/ and the settings that each has, read from their files.

To import one takes torch, and seconds.
"""

import ast
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "methods"
OF_THE_LOOP = frozenset(("target", "warmup_epochs", "batch_size", "weights", "fixed", "space"))
"""Settings that every search reads, whichever method runs."""
MADE_OF = {"space": "ranges"}
"""Fields that search/method.py makes of a key of another name."""


@cache
def methods() -> tuple[str, ...]:
    """Return the names of the modules that are a method: those with TARGETS."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.py") if "TARGETS" in _assigned(path)))


@cache
def settings_of(name: str) -> frozenset[str]:
    """Return the fields of a method's dataclasses: keys of search.* and policy.*."""
    return frozenset(
        MADE_OF.get(each.target.id, each.target.id)
        for node in _parsed(FOLDER / f"{name}.py").body
        if isinstance(node, ast.ClassDef) and node.decorator_list
        for each in node.body
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
        if not each.target.id.startswith("_")
    )


def _assigned(path: Path) -> set[str]:
    return {
        target.id
        for node in _parsed(path).body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


@cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))
