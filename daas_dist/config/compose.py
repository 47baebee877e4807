"""The one door for configuration: YAML and overrides in, a typed and checked Config out.

`load` composes configs/ by Hydra (the choices of GROUPS); `load_frozen` reads the config.yaml of a
run directory and never configs/. Whatever is wrong (a misspelt key, a wrong type, a value that is
impossible) is a ConfigError of one sentence that names the key, its value and what is allowed.
"""

import copy
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from functools import cache, lru_cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, cast, get_args, get_type_hints

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import OverrideType
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from daas_dist.config import site
from daas_dist.config.overrides import all_literal, at_home, read_text
from daas_dist.config.rules import ConfigError, check_secret, one_of, refuse, shown
from daas_dist.config.schema import Config
from daas_dist.config.schema.reads import no_effect
from daas_dist.config.site import ClusterFile, Place
from daas_dist.documents.files import read

__all__ = ["Config", "ConfigError", "difference", "load", "load_frozen", "shown", "to_yaml"]

GROUPS = ("stage", "data", "model", "recipe", "engine", "preset")
BROUGHT = {"kind": "stage", "data.name": "data", "model.name": "model", "engine.name": "engine"}
"""Keys that a group brings: set alone they would leave the group's other values behind."""
OWN = {"search": ("search.", "policy."), "train": ("train.",)}
"""Of each kind of stage the keys that it alone reads; a preset that has none of them is not its."""


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


def load(overrides: Sequence[str], cluster: ClusterFile | None = None) -> Config:
    """The configuration of `stage=NAME key=value …`, composed from configs/ and checked.

    cluster: the file that says where the data lie; this machine's where there is none.
    """
    return load_and_place(overrides, cluster)[0]


def load_and_place(
    overrides: Sequence[str], cluster: ClusterFile | None = None
) -> tuple[Config, Place | None]:
    """load, and where the site said that the data lie; None where it did not, or was not asked."""
    found = composition(overrides, cluster)
    try:
        return _typed(found.values), found.place
    except ConfigError as error:
        if not str(error).startswith("data.root=null "):  # the schema knows no site
            raise
        raise ConfigError(f"{error}; {site.ways(found.data, cluster or this_machine())}") from error


def this_machine() -> ClusterFile:
    """Read the cluster file of runs that are started without launch/submit.py."""
    return site.named("local", directory())


MOST_FROZEN = 1 << 20
"""Bytes of a config.yaml, which has 4,000: a larger one may unfold to any size."""


def load_frozen(path: str | Path) -> Config:
    """The configuration that a run directory froze in its config.yaml; configs/ is not read."""
    remedy = "expected the config.yaml of a run: get it back from a copy"
    text = read(Path(path), remedy, MOST_FROZEN)
    if text is None:
        raise ConfigError(f"{path} cannot be read: expected the config.yaml of a run")
    try:
        values = OmegaConf.to_container(OmegaConf.create(text.decode("utf-8-sig")), resolve=True)
        return _typed(values)
    except (YAMLError, UnicodeDecodeError, OmegaConfBaseException, RecursionError) as error:
        raise ConfigError(
            f"{path} is not a configuration ({_first_line(error)}); {remedy}"
        ) from error
    except (AttributeError, TypeError, AssertionError) as error:  # OmegaConf's on odd YAML
        raise ConfigError(f"{path} is not a configuration; {remedy}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def to_yaml(config: Config) -> str:
    """All values, for the config.yaml of a run directory; load_frozen reads it back."""
    return OmegaConf.to_yaml(OmegaConf.create(all_literal(asdict(config))))


HOW = (
    "run_dir",
    "device",
    "deterministic",
    "tensorboard",
    "stop_after_minutes",
    "patience_minutes",
    "mesh.arch",
    "mesh.data",
    "mesh.reduction",
    "engine.name",
    "engine.compile",
    "engine.fused",
    "resume.allow",
    "search.cuda_graphs",
    "search.keep_checkpoints",
)
"""Keys of where and how a run is computed, not of what: a resume may change them."""


def difference(a: Config, b: Config) -> dict[str, str]:
    """Key by key what differs, as {"search.xi": "null -> 0.1"}; HOW apart."""
    before, after = flat(asdict(a)), flat(asdict(b))
    return {
        key: f"{shown(before[key])} -> {shown(after[key])}"
        for key in before
        if before[key] != after[key] and key not in HOW
    }


@dataclass(frozen=True)
class Composition:
    """What Hydra made of overrides: keys are checked, types and values not yet."""

    values: dict[str, Any]
    data: str
    """The NAME of data=NAME."""
    place: Place | None


def composed(overrides: Sequence[str]) -> dict[str, Any]:
    """The values of a composition."""
    return composition(overrides).values


def composition(overrides: Sequence[str], cluster: ClusterFile | None = None) -> Composition:
    """Compose by Hydra; every override is one that is read, and the site says where the data lie.

    Raises ConfigError for a key or a preset that has no effect.
    """
    found = _compose(overrides, cluster)
    for text in overrides:
        why = without_effect(text, found.values)
        if why:
            raise ConfigError(why)
    chosen = {key: value.strip("'\"") for key, _, value in (o.partition("=") for o in overrides)}
    if chosen.get("preset") == "paper" and chosen.get("recipe", "none") != "none":
        wanted = f"none or tiny, as recipe={chosen['recipe']} says how its network is trained"
        refuse("preset", "paper", wanted)
    return found


def without_effect(override: str, values: Mapping[str, Any]) -> str:
    """Say why an override changes nothing of what the values stand for; nothing if it is read."""
    key, _, value = override.partition("=")
    if key != "preset":
        return no_effect(f"{key}=" if key in GROUPS else key, flat(values))
    mine, kind = sets(key, value.strip("'\"")), values["kind"]
    kinds = {name for name, own in OWN.items() if any(each.startswith(own) for each in mine)}
    if not kinds or kind in kinds:
        return ""
    return f"{override} has no effect: stage={values['stage']} is a {kind}, which does not read it"


def sets(group: str, name: str) -> set[str]:
    """Return the keys that a file of a group sets, or the files of that group which it extends."""
    values = yaml.safe_load((directory() / group / f"{name}.yaml").read_text("utf-8")) or {}
    parents = [each for each in values.pop("defaults", []) if each != "_self_"]
    return set(flat(values)).union(*(sets(group, each) for each in parents))


def unchecked(overrides: Sequence[str]) -> dict[str, Any]:
    """Compose the values; keys that nothing reads may be among the overrides."""
    return _compose(overrides, None).values


def _compose(overrides: Sequence[str], cluster: ClusterFile | None) -> Composition:
    arguments = list(overrides)
    overridden = settings(arguments)
    typed = texts(arguments)
    try:
        plain = tuple(text for text in arguments if not _is_text(text))
        found, data = _by_hydra(plain, directory(), _edited(directory()))
        made = copy.deepcopy(found)
        for key, value in typed.items():
            OmegaConf.update(made, key, value)
        values = OmegaConf.to_container(made, resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        given = " ".join(arguments)
        raise ConfigError(f"{given} cannot be composed: {_first_line(error)}") from error
    values = cast(dict[str, Any], values)
    place = None
    if "data.root" not in overridden:
        place = site.place(data, cluster or this_machine())
    for key, path in place.values.items() if place else ():
        if key not in overridden:
            values["data"][key.partition(".")[2]] = path
    _go_home(values)
    return Composition(values, data, place)


@lru_cache(maxsize=32)
def _by_hydra(plain: tuple[str, ...], configs: Path, edited: int) -> tuple[DictConfig, str]:
    """(the composition, the NAME of data=NAME). Half a second, and a submission asks often.

    edited: when configs/ was, so that an older composition is not taken for it.
    """
    with initialize_config_dir(str(configs), version_base="1.3"):
        made = compose("config", overrides=list(plain), return_hydra_config=True)
    data = str(made.hydra.runtime.choices["data"])
    with open_dict(made):
        del made["hydra"]
    return made, data


def _edited(configs: Path) -> int:
    return max(path.stat().st_mtime_ns for path in configs.rglob("*"))


def files(overrides: Sequence[str]) -> list[str]:
    """The files below configs/ that `composed` reads, in order: a later one wins."""
    with initialize_config_dir(str(directory()), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        plain = [text for text in overrides if not _is_text(text)]
        parts = loader.compute_defaults_list("config", plain, RunMode.RUN).defaults
    paths = [part.config_path for part in parts if part.config_path is not None]
    return [f"{path}.yaml" for path in paths if not path.startswith("hydra")]


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


def texts(overrides: Sequence[str]) -> dict[str, str | None]:
    """The texts among the overrides as they were typed, by key; the last of a key wins."""
    given = (text.partition("=") for text in overrides if _is_text(text))
    return {key: read_text(key, typed, _type_words(key)) for key, _, typed in given}


def text(overrides: Sequence[str], key: str) -> str | None:
    """The text that overrides give one key, as `load` reads it but for ${…} of other keys."""
    try:
        made = OmegaConf.create({"text": texts(overrides).get(key)})
        found = cast(str | None, made.text)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{key} cannot be composed: {_first_line(error)}") from error
    return at_home(key, found) if found and key in PATHS else found


def _is_text(override: str) -> bool:
    """Whether the value of an override is a text, which Hydra's grammar would change."""
    key, equals, _ = override.partition("=")
    return bool(equals) and key not in (*GROUPS, *BROUGHT) and key in _text_keys()


@cache
def _text_keys() -> frozenset[str]:
    return frozenset(key for key in keys() if str in _types(key))


def _go_home(values: dict[str, Any]) -> None:
    """Expand the ~ of every path, in place, wherever it is from."""
    for key in PATHS:
        *groups, name = key.split(".")
        group = values
        for each in groups:
            group = group[each]
        if isinstance(group[name], str):
            group[name] = at_home(key, group[name])


def settings(overrides: Sequence[str]) -> list[str]:
    """The key of each override: a leaf or one of GROUPS.

    Raises ConfigError for what is not KEY=VALUE with a known key and one value.
    """
    parser = OverridesParser.create()
    leaves = keys()
    found = []
    for text in overrides:
        if _is_text(text):
            found.append(text.partition("=")[0])
            continue
        try:
            override = parser.parse_override(text)
        except HydraException as error:
            raise ConfigError(f"{text} cannot be read: expected KEY=VALUE") from error
        key, value = override.key_or_group, override.value()
        inside = [leaf for leaf in leaves if leaf.startswith(f"{key}.")]
        if override.type is not OverrideType.CHANGE or override.package is not None:
            raise ConfigError(f"{text} cannot be read: expected KEY=VALUE, no key added or removed")
        if override.is_sweep_override():
            raise ConfigError(f"{text} has several values: a list is written {key}=[A,B]")
        if key in BROUGHT:
            raise ConfigError(f"{key} comes with its group: use {BROUGHT[key]}=NAME")
        if key in GROUPS and value not in options(key):
            refuse(key, value, one_of(*options(key))[1])
        if key not in GROUPS and inside:
            raise ConfigError(f"{text} sets a whole group: set its keys, such as {inside[0]}=VALUE")
        if key not in GROUPS and key not in leaves:
            raise unknown(key)
        if isinstance(value, dict):
            refuse(key, value, _type_words(key))
        found.append(key)
    return found


def _typed(values: Any) -> Config:
    _check_keys(Config, values, "")
    for key, value in flat(values).items():
        for text in value if isinstance(value, list) else [value]:
            check_secret(key, str(text))
    try:
        given = OmegaConf.create(all_literal(values))
        merged = OmegaConf.merge(OmegaConf.structured(Config), given)
        config = cast(Config, OmegaConf.to_object(merged))
    except OmegaConfBaseException as error:
        key = str(error.full_key).partition("[")[0]
        refuse(key, flat(values).get(key), _type_words(key))
    for key in config.resume.allow:
        if key not in (*keys(), "data"):
            raise unknown(key)
    return config


def _check_keys(group: type, values: Any, prefix: str) -> None:
    """No key unknown, none missing, groups and values where the schema has them."""
    hints = get_type_hints(group)
    if not isinstance(values, dict):
        refuse(prefix.rstrip(".") or "the file", values, f"the keys {', '.join(hints)}")
    for name in values:
        if name not in hints:
            raise unknown(f"{prefix}{name}")
    for name, hint in hints.items():
        key = f"{prefix}{name}"
        if name not in values:
            raise ConfigError(f"{key} is missing: expected {_type_words(key)}")
        if is_dataclass(hint):
            _check_keys(cast(type, hint), values[name], f"{key}.")
        elif isinstance(values[name], dict) or values[name] == "":
            refuse(key, values[name], _type_words(key))


def _type_words(key: str) -> str:
    """The type of a key in words: "a whole number or null"."""
    either = _types(key)
    if is_dataclass(either[0]):
        return "the keys " + ", ".join(get_type_hints(either[0]))
    words = {
        str: "a text", int: "a whole number", float: "a number", bool: "true or false",
        list[str]: "a list [A, B]", list[int]: "a list of whole numbers [0, 1]",
        list[float]: "a list of numbers [0.5, 0.9]", NoneType: "null",
    }  # fmt: skip
    return " or ".join(words[part] for part in either)


def _types(key: str) -> tuple[Any, ...]:
    """The types that a key's value may have."""
    hint: Any = Config
    for name in key.split("."):
        hint = get_type_hints(hint)[name]
    return get_args(hint) if isinstance(hint, UnionType) else (hint,)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
