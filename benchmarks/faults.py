"""Small faults of a source file: what benchmarks/mutants.py plants.

A fault is another operator (+ for -, < for <=, and for or), a number one higher, a truth turned
round, max for min, mean for sum, or a minus dropped. Docstrings, types and the words of errors are
left alone.
"""

import ast
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
EQUIVALENT = {
    line
    for line in Path(__file__).with_name("equivalent_faults.txt").read_text("utf-8").splitlines()
    if line and not line.startswith("#")
}
"""Faults of which nothing can be seen, as "file: line as planted"; why stands above each."""

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
    statement: range
    """The lines of the smallest statement around it, less its body; none outside of functions."""

    @property
    def key(self) -> str:
        return hashlib.sha256(f"{self.file}\n{self.source}".encode()).hexdigest()[:16]

    @property
    def name(self) -> str:
        return f"{self.file}: {self.text}"


def faults(path: Path) -> Iterator[Fault]:
    """Yield every fault that can be planted in a file."""
    source = path.read_text(encoding="utf-8")
    starts = [0]
    for line in source.encode().splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    data = source.encode()
    tree = ast.parse(source)
    statements = _statements(tree)

    def at(line: int, column: int) -> int:
        return starts[line - 1] + column

    def planted(line: int, start: int, end: int, new: str) -> Fault:
        whole = (data[:start] + new.encode() + data[end:]).decode()
        text = whole.splitlines()[line - 1].strip()
        file = str(path.relative_to(ROOT / "daas_dist"))
        return Fault(file, line, text, whole, statements.get(line, range(0)))

    for node in _looked_at(tree):
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


def _statements(tree: ast.AST) -> dict[int, range]:
    """Return, by line of a function, the lines of its smallest statement, less its body."""
    found: dict[int, range] = {}
    for function in ast.walk(tree):
        for top in function.body if isinstance(function, ast.FunctionDef) else []:
            for node in ast.walk(top):  # the outer first
                if isinstance(node, ast.stmt):
                    last = node.end_lineno or node.lineno
                    body: list[ast.stmt] = getattr(node, "body", [])
                    head = range(node.lineno, body[0].lineno if body else last + 1)
                    found |= dict.fromkeys(range(node.lineno, last + 1), head)
    return found
