"""Definitions of this package as one source file that imports nothing of it.

What is handed over is the very code that trained: each definition that is needed, and each that it
needs in turn, is copied word for word, comments too. Only references to this package's modules
change ("ops.norm" becomes "norm"), and a name that two modules use becomes <module>_<name>.
"""

import ast
import builtins
import importlib.util
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

PACKAGE = "daas_dist"

Key = tuple[str, str]
"""(module, name) of a definition."""


@dataclass(frozen=True)
class Definition:
    """A top-level statement that gives names a value."""

    names: tuple[str, ...]
    node: ast.stmt
    first: int
    last: int
    """Its lines, from 1, with the comments above it and the docstring below it."""


@dataclass
class Module:
    """The definitions of a module in their order, and where its other names come from."""

    name: str
    lines: list[bytes]
    """As bytes, since the columns of ast are those of UTF-8."""
    definitions: list[Definition] = field(default_factory=list)
    imported: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    """local name -> (module, name), or (module, None) where it is a module itself."""

    def definition(self, name: str) -> Definition | None:
        return next((each for each in self.definitions if name in each.names), None)


@cache
def read_module(name: str) -> Module:
    # Not by importing it: what it needs may not be installed.
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ValueError(f"no module {name}")
    text = Path(spec.origin).read_text(encoding="utf-8")
    module = Module(name, text.encode().splitlines())
    statements = ast.parse(text).body
    above = 0
    for node, following in zip(statements, [*statements[1:], None], strict=True):
        last = node.end_lineno or node.lineno
        if isinstance(node, ast.Import | ast.ImportFrom):
            module.imported.update(_imports(node))
        elif names := _defined(node):
            if isinstance(node, ast.Assign | ast.AnnAssign) and _is_text(following):
                assert following is not None
                last = following.end_lineno or last
            module.definitions.append(Definition(names, node, above + 1, last))
        above = last
    return module


def _imports(node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, tuple[str, str | None]]]:
    for alias in node.names:
        local = alias.asname or alias.name
        if isinstance(node, ast.Import):
            yield local, (alias.name, None)
        elif _is_module(f"{node.module}.{alias.name}"):
            yield local, (f"{node.module}.{alias.name}", None)
        else:
            yield local, (str(node.module), alias.name)


def _is_module(name: str) -> bool:
    if not name.startswith(f"{PACKAGE}."):
        return False  # of other packages an import statement can stay as it is
    parent = importlib.util.find_spec(name.rpartition(".")[0])
    is_package = parent is not None and parent.submodule_search_locations is not None
    return is_package and importlib.util.find_spec(name) is not None


def _defined(node: ast.stmt) -> tuple[str, ...]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return (node.name,)
    targets = node.targets if isinstance(node, ast.Assign) else []
    targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
    found = [each for target in targets for each in ast.walk(target)]
    return tuple(each.id for each in found if isinstance(each, ast.Name))


def _is_text(node: ast.stmt | None) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


@dataclass(frozen=True)
class Reference:
    """Where a definition names one of this package: line from 1, columns in bytes."""

    key: Key
    text: str
    line: int
    start: int
    end: int


def _references(module: Module, parts: Sequence[ast.AST]) -> Iterator[Reference]:
    """Every use of a definition of this package, and of the definition's own names."""
    for part in parts:
        if isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name):
            source, name = module.imported.get(part.value.id, ("", ""))
            if name is None and source.startswith(PACKAGE):
                yield _reference((source, part.attr), part)
        elif isinstance(part, ast.Name):
            source, name = module.imported.get(part.id, ("", None))
            if module.definition(part.id) is not None:
                yield _reference((module.name, part.id), part)
            elif name is not None and source.startswith(PACKAGE):
                yield _reference((source, name), part)


def _reference(key: Key, node: ast.expr) -> Reference:
    assert node.end_col_offset is not None and node.lineno == node.end_lineno
    return Reference(key, ast.unparse(node), node.lineno, node.col_offset, node.end_col_offset)


def origin(key: Key) -> Key:
    """Return where a name is defined, that a module may only pass on."""
    module = read_module(key[0])
    if module.definition(key[1]) is None and key[1] in module.imported:
        source, name = module.imported[key[1]]
        if name is None:
            raise ValueError(f"{key[1]} of {key[0]} is a module, which is not copied as a whole")
        return origin((source, name))
    return key


@dataclass(frozen=True)
class Copy:
    """These definitions and all that they need, under names that the file still has free."""

    entries: tuple[Key, ...]
    without: tuple[str, ...] = ()
    """ "Class.method" and "TABLE.key" of what is left out, and with it what only it needs."""
    reserved: tuple[str, ...] = ()
    """Names that the rest of the file has."""

    def source(self) -> str:
        """The text: imports first, then the definitions in the order of their modules."""
        needed, names = self._needed(), self.names()
        text, imports, values = "", set[Import](), False
        for module in _in_order({name for name, _ in needed}):
            for definition in module.definitions:
                if (module.name, definition.names[0]) not in needed:
                    continue
                is_value = isinstance(definition.node, ast.Assign | ast.AnnAssign)
                text += "\n" if is_value and values else "\n\n\n"
                text += self._text(module, definition, names)
                imports |= _externals(module, self._parts(definition))
                values = is_value
        return _import_lines(imports) + text + "\n"

    def names(self) -> dict[Key, str]:
        """Return what each definition is called in the file."""
        needed = self._needed()
        names = [name for _, name in needed]
        taken = {*self.reserved, *dir(builtins)}
        for key in needed:
            taken |= self._captured(key) | self._imported(key)
        return {
            (module, name): _prefixed(module, name)
            if names.count(name) > 1 or name in taken
            else name
            for module, name in needed
        }

    def _needed(self) -> set[Key]:
        found, waiting = set[Key](), [origin(key) for key in self.entries]
        while waiting:
            key = waiting.pop()
            if key not in found:
                module, definition = _defined_at(key)
                found |= {(module.name, name) for name in definition.names}
                uses = _references(module, self._parts(definition))
                waiting += [origin(use.key) for use in uses]
        return found

    def _parts(self, definition: Definition) -> list[ast.AST]:
        """Every node of a definition, without those of methods that are left out."""
        parts, waiting = [], list[ast.AST]([definition.node])
        left_out = self._left_out(definition)
        while waiting:
            node = waiting.pop()
            parts.append(node)
            waiting += [child for child in ast.iter_child_nodes(node) if child not in left_out]
        return parts

    def _left_out(self, definition: Definition) -> list[ast.AST]:
        """Methods of a class, keys and values of a table."""
        node = definition.node
        if isinstance(node, ast.ClassDef):
            methods = [child for child in node.body if isinstance(child, ast.FunctionDef)]
            return [each for each in methods if f"{node.name}.{each.name}" in self.without]
        if not isinstance(node, ast.Assign | ast.AnnAssign) or not isinstance(node.value, ast.Dict):
            return []
        return [
            part
            for key, entry in zip(node.value.keys, node.value.values, strict=True)
            if isinstance(key, ast.Constant)
            and f"{definition.names[0]}.{key.value}" in self.without
            for part in (key, entry)
        ]

    def _captured(self, key: Key) -> set[str]:
        """Names that a definition has for something of its own and, through its module, of ours."""
        module, definition = _defined_at(key)
        parts = self._parts(definition)
        own = {part.arg for part in parts if isinstance(part, ast.arg)}
        if isinstance(definition.node, ast.FunctionDef | ast.ClassDef):
            stored = [part for part in parts if isinstance(part, ast.Name)]
            own |= {part.id for part in stored if isinstance(part.ctx, ast.Store)}
        return own & {use.key[1] for use in _references(module, parts) if use.key[0] != key[0]}

    def _imported(self, key: Key) -> set[str]:
        """Names that a definition has from other packages."""
        module, definition = _defined_at(key)
        return {local for _, _, local in _externals(module, self._parts(definition))}

    def _text(self, module: Module, definition: Definition, names: dict[Key, str]) -> str:
        lines = list(module.lines)
        uses = _references(module, self._parts(definition))
        for use in sorted(uses, key=lambda use: (use.line, use.start), reverse=True):
            line = lines[use.line - 1]
            if line[use.start : use.end] != use.text.encode():
                raise ValueError(f"{module.name}, line {use.line}: {use.text} is not found there")
            name = names[origin(use.key)].encode()
            lines[use.line - 1] = line[: use.start] + name + line[use.end :]
        node = definition.node
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            old, new = rf"(def|class) {node.name}\b", rf"\1 {names[module.name, node.name]}"
            first = lines[node.lineno - 1]
            lines[node.lineno - 1] = re.sub(old.encode(), new.encode(), first, count=1)
        dropped = {line for part in self._left_out(definition) for line in _lines_of(part)}
        kept = range(definition.first, definition.last + 1)
        text = b"\n".join(lines[line - 1] for line in kept if line not in dropped).decode()
        return text.strip("\n")


def _defined_at(key: Key) -> tuple[Module, Definition]:
    module = read_module(key[0])
    definition = module.definition(key[1])
    if definition is None:
        raise ValueError(f"{key[0]} has no definition of {key[1]}")
    return module, definition


def _lines_of(part: ast.AST) -> range:
    """The lines to drop with a method, the blank one below it too, or with an entry of a table."""
    assert isinstance(part, ast.FunctionDef | ast.expr) and part.end_lineno is not None
    if isinstance(part, ast.expr):
        return range(part.lineno, part.end_lineno + 1)
    first = min([part.lineno, *(each.lineno for each in part.decorator_list)])
    return range(first, part.end_lineno + 2)


def _prefixed(module: str, name: str) -> str:
    bare = name.lstrip("_")
    return name[: len(name) - len(bare)] + f"{module.rpartition('.')[2]}_{bare}"


def _in_order(names: set[str]) -> list[Module]:
    """Return what a module imports stands before it."""
    ordered: list[str] = []

    def visit(name: str) -> None:
        for source, attribute in read_module(name).imported.values():
            if source.partition(".")[0] == PACKAGE:
                home = source if attribute is None else origin((source, attribute))[0]
                if home in names and home not in ordered:
                    visit(home)
        if name not in ordered:
            ordered.append(name)

    for name in sorted(names):
        visit(name)
    return [read_module(name) for name in ordered]


Import = tuple[str, str | None, str]
"""(module, name or None for the module itself, local name)."""


def _externals(module: Module, parts: Sequence[ast.AST]) -> set[Import]:
    """Return what a definition needs of other packages."""
    used = {part.id for part in parts if isinstance(part, ast.Name)}
    return {
        (source, name, local)
        for local, (source, name) in module.imported.items()
        if local.partition(".")[0] in used and source.partition(".")[0] != PACKAGE
    }


def _import_lines(imports: set[Import]) -> str:
    """Python's own first, then others', each sorted; what comes from one module in one line."""
    whole, parts = list[tuple[str, str]](), dict[str, list[str]]()
    bound = [local for _, _, local in imports]
    twice = {local for local in bound if bound.count(local) > 1}
    if twice:
        raise ValueError(f"{', '.join(sorted(twice))}: imported from several places in one file")
    for source, name, local in imports:
        renamed = "" if local == (name or source) else f" as {local}"
        if name is None:
            whole.append((source, f"import {source}{renamed}"))
        else:
            parts.setdefault(source, []).append(name + renamed)
    lines = sorted(whole)
    lines += [(key, f"from {key} import {', '.join(sorted(parts[key]))}") for key in sorted(parts)]
    own = [line for key, line in lines if key.partition(".")[0] in sys.stdlib_module_names]
    others = [line for _, line in lines if line not in own]
    return "\n\n".join("\n".join(each) for each in (own, others) if each)
