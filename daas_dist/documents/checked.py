"""A JSON value as a frozen dataclass; what does not fit is named by its key.

    checked(Owner, {"host": "a", "pid": "7"})    ValueError: pid is '7', expected a whole number

Types: str, int, float (a whole number is one), bool, None, Any, Literal, unions, list, tuple,
Mapping with text as keys, dataclasses, and Annotated with a Rule. Nothing is converted: "7" is no
number and true is no 1. A field with a default may be missing; a key without a field is left alone,
as newer versions write more. (cattrs, which does most of this, takes 0.4 s to import, twice as long
as launch.attempt may need on a node, and its errors have no values. pydantic, which holds the
configuration to the same Rules, would take that module's start from 0.09 s to 0.24 s, and its
Literal[1] takes true.)
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

T = TypeVar("T")

Reader = Callable[[Any, str], Any]
"""(value, its key) -> the value as it is used."""

LARGEST = 1e40
"""Of numbers: above float32's largest, far enough below float64's that squares are finite."""


@dataclass(frozen=True)
class Rule:
    """What else a value obeys: Annotated[int, Rule(lambda n: n >= 1, "1 or more")]."""

    holds: Callable[[Any], object]
    words: str

    def __get_pydantic_core_schema__(self, kind: Any, handler: Callable[[Any], Any]) -> Any:
        """Return the schema by which pydantic holds a value to the rule: that of config/ does."""
        from pydantic_core.core_schema import no_info_after_validator_function

        return no_info_after_validator_function(self._obeyed, handler(kind))

    def _obeyed(self, value: Any) -> Any:
        if not self.holds(value):
            raise ValueError(self.words)
        return value


def checked(kind: type[T], value: Any, key: str = "") -> T:
    """The value as a `kind`. ValueError names the key, its value and what was expected."""
    return cast(T, _reader(kind)(value, key))


def _wrong(key: str, value: Any, expected: str) -> ValueError:
    shown = f"is {value!a:.60}, expected {expected}"
    return ValueError(f"{key} {shown}" if key else shown)


@cache
def _reader(kind: Any) -> Reader:
    origin, inside = get_origin(kind), get_args(kind)
    if kind is Any:
        return lambda value, key: value
    if kind in PLAIN:
        return _plain(kind)
    if origin is Annotated:
        return _ruled(_reader(inside[0]), inside[1:])
    if origin is Literal:
        return _literal(inside)
    if origin in (Union, UnionType):
        return _optional(inside)
    if origin in (list, Sequence):
        return _listed(_reader(inside[0]), list)
    if origin is tuple:
        return _listed(_reader(inside[0]), tuple) if inside[1:] == (...,) else _row(inside)
    if origin in (dict, Mapping):
        return _table(_reader(inside[1]))
    assert is_dataclass(kind), f"no reader for {kind}"
    return _record(cast(type, kind))


PLAIN: dict[Any, tuple[Callable[[Any], bool], str]] = {
    str: (lambda value: type(value) is str, "a text"),
    bool: (lambda value: type(value) is bool, "true or false"),
    int: (lambda value: type(value) is int, "a whole number"),
    float: (
        lambda value: type(value) in (int, float) and math.fabs(value) <= LARGEST,
        "a number",
    ),
    NoneType: (lambda value: value is None, "null"),
    Mapping: (lambda value: isinstance(value, dict), "a table"),
}


def _plain(kind: Any) -> Reader:
    holds, words = PLAIN[kind]

    def read(value: Any, key: str) -> Any:
        if not holds(value):
            raise _wrong(key, value, words)
        return value

    return read


def _ruled(inner: Reader, rules: Sequence[Any]) -> Reader:
    def read(value: Any, key: str) -> Any:
        given = inner(value, key)
        for rule in rules:
            if not rule.holds(given):
                raise _wrong(key, value, rule.words)
        return given

    return read


def _literal(allowed: Sequence[Any]) -> Reader:
    def read(value: Any, key: str) -> Any:
        if not any(type(value) is type(each) and value == each for each in allowed):
            raise _wrong(key, value, " or ".join(map(repr, allowed)))
        return value

    return read


def _optional(kinds: Sequence[Any]) -> Reader:
    """X or null: other unions do not occur in the documents."""
    (kind,) = (each for each in kinds if each is not NoneType)
    inner = _reader(kind)
    return lambda value, key: None if value is None else inner(value, key)


def _listed(inner: Reader, made: Callable[[list[Any]], Any]) -> Reader:
    def read(value: Any, key: str) -> Any:
        if not isinstance(value, list):
            raise _wrong(key, value, "a list")
        return made([inner(each, f"{key}[{i}]") for i, each in enumerate(value)])

    return read


def _row(kinds: Sequence[Any]) -> Reader:
    inner = [_reader(kind) for kind in kinds]

    def read(value: Any, key: str) -> Any:
        if not isinstance(value, list) or len(value) != len(inner):
            raise _wrong(key, value, f"a list of {len(inner)}")
        parts = zip(inner, value, strict=True)
        return tuple(each(part, f"{key}[{i}]") for i, (each, part) in enumerate(parts))

    return read


def _table(inner: Reader) -> Reader:
    def read(value: Any, key: str) -> Any:
        if not isinstance(value, dict):
            raise _wrong(key, value, "a table")
        return {name: inner(each, f"{key}.{name!a:.40}") for name, each in value.items()}

    return read


def _record(kind: type) -> Reader:
    hints = get_type_hints(kind, include_extras=True)
    parts = [(each.name, _reader(hints[each.name]), _has_default(each)) for each in fields(kind)]

    def read(value: Any, key: str) -> Any:
        if not isinstance(value, dict):
            raise _wrong(key, value, "a table")
        prefix = f"{key}." if key else ""
        given = {}
        for name, inner, optional in parts:
            if name in value:
                given[name] = inner(value[name], prefix + name)
            elif not optional:
                raise ValueError(f"has no {prefix}{name}")
        try:
            return kind(**given)
        except ValueError as error:
            raise ValueError(f"{key}: {error}" if key else str(error)) from error

    return read


def _has_default(field: Any) -> bool:
    return field.default is not MISSING or field.default_factory is not MISSING


# --- Rules that several documents share ----------------------------------------------------------

Count = Annotated[int, Rule(lambda n: n >= 1, "a whole number of at least 1")]
Natural = Annotated[int, Rule(lambda n: n >= 0, "a whole number of at least 0")]
NotNegative = Annotated[float, Rule(lambda x: x >= 0, "a number of 0 or more")]
Share = Annotated[float, Rule(lambda x: -1e-6 <= x <= 1 + 1e-6, "a number from 0 to 1")]
"""Of float32 sums, which round."""
Moment = Annotated[
    float, Rule(lambda t: 0 <= t < 253_402_300_800, "seconds since 1970, before the year 10000")
]
Name = Annotated[
    str,
    Rule(
        lambda s: 0 < len(s) <= 255 and "/" not in s and "\0" not in s and s not in (".", ".."),
        "a name without /",
    ),
]


def _is_path(text: str) -> bool:
    try:
        return bool(text) and b"\0" not in text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False


PathText = Annotated[str, Rule(_is_path, "a path")]
