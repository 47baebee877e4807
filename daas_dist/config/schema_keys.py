"""The keys of a configuration and their types, as daas_dist/config/schema/ has them."""

import difflib
from collections.abc import Mapping
from dataclasses import is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from daas_dist.config.rules import ConfigError, one_of
from daas_dist.config.schema import Config

GROUPS = ("stage", "data", "model", "recipe", "engine", "method", "preset")
BROUGHT = {
    "kind": "stage",
    "data.name": "data",
    "model.name": "model",
    "engine.name": "engine",
    "search.method": "method",
}
"""Keys that a group brings: set alone they would leave the group's other values behind."""
PATHS = (
    "run_dir",
    "data.root",
    "data.val_root",
    "data.cache",
    "data.classes",
    "model.genotype",
    "policy.fixed",
    "train.result",
    "train.policy_result",
)
"""Keys that name a file or a folder: a ~ in front is expanded."""


def directory() -> Path:
    """configs/ beside the package (a checkout), else inside it (an installed wheel)."""
    package = Path(__file__).resolve().parents[1]
    for candidate in (package.parent / "configs", package / "configs"):
        if (candidate / "config.yaml").is_file() and (candidate / "stage").is_dir():
            return candidate
    raise ConfigError(f"no configs/ beside or inside {package}: reinstall daas-dist")


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (directory() / group).glob("*.yaml"))


def keys(group: Any = Config, prefix: str = "") -> list[str]:
    """Every leaf of the schema, in its order, as "search.tau.start"."""
    leaves = []
    for name, hint in get_type_hints(group).items():
        leaves += keys(hint, f"{prefix}{name}.") if is_dataclass(hint) else [prefix + name]
    return leaves


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by dotted key; lists are leaves."""
    leaves = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        leaves |= flat(value, f"{key}.") if isinstance(value, Mapping) else {key: value}
    return leaves


def unknown(key: str) -> ConfigError:
    """The error for a misspelt key, with the valid keys nearest to it."""
    if key in GROUPS:
        return ConfigError(f"{key} is not a key but a choice: {key}={'|'.join(options(key))}")
    known = list(dict.fromkeys([*GROUPS, *keys()]))
    last = {name: name.rpartition(".")[2] for name in known}
    close = difflib.get_close_matches(key.rpartition(".")[2], last.values(), n=1)
    near = [name for name in known if last[name] in close]
    near = difflib.get_close_matches(key, near or known, n=3, cutoff=0.0 if near else 0.6)
    hint = f"did you mean {' or '.join(near)}?" if near else "`daas explain stage=NAME` lists all"
    return ConfigError(f"{key} is not a key: {hint}")


def type_words(key: str) -> str:
    """The type of a key in words: "a whole number or null"."""
    either = types_of(key)
    if is_dataclass(either[0]):
        return "the keys " + ", ".join(get_type_hints(either[0]))
    words = {
        str: "a text", int: "a whole number", float: "a number", bool: "true or false",
        list[str]: "a list [A, B]", list[int]: "a list of whole numbers [0, 1]",
        list[float]: "a list of numbers [0.5, 0.9]", NoneType: "null",
    }  # fmt: skip
    return " or ".join(words.get(part) or one_of(*get_args(part)).words for part in either)


def is_text(key: str) -> bool:
    return any(part is str or get_origin(part) is Literal for part in types_of(key))


def types_of(key: str) -> tuple[Any, ...]:
    """The types that a key's value may have; of "", Config."""
    hint: Any = Config
    for name in filter(None, key.split(".")):
        hint = get_type_hints(hint)[name]
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
