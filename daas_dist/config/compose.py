"""From `stage=NAME key=value …` to a Config: composed from configs/ by Hydra, checked, placed.

Whatever is wrong (a misspelt key, a wrong type, a value that is impossible) is a ConfigError of one
sentence that names the key, its value and what is allowed. typed.py checks the values.

Hydra takes 0.15 s to import, so it is imported where something is composed: ranks of a submission,
the page and the terminal read a configuration that is frozen already.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, cast

import yaml
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from daas_dist.config import site
from daas_dist.config.frozen import first_line
from daas_dist.config.overrides import at_home, read_text
from daas_dist.config.rules import ConfigError, one_of, refuse
from daas_dist.config.schema import Config
from daas_dist.config.schema.reads import no_effect
from daas_dist.config.schema_keys import (
    BROUGHT,
    GROUPS,
    PATHS,
    directory,
    flat,
    is_text,
    keys,
    options,
    type_words,
    unknown,
)
from daas_dist.config.site import ClusterFile, Place

OWN = {"search": ("search.", "policy."), "train": ("train.",)}
"""Groups that only one kind of stage reads: a preset with none of its kind's is not for it."""


def load(overrides: Sequence[str], cluster: ClusterFile | None = None) -> Config:
    """The configuration of `stage=NAME key=value …`, composed from configs/ and checked.

    cluster: the file that says where the data lie; this machine's where there is none.
    """
    return load_and_place(overrides, cluster)[0]


def load_and_place(
    overrides: Sequence[str], cluster: ClusterFile | None = None
) -> tuple[Config, Place | None]:
    """load, and where the site said that the data lie; None where it did not, or was not asked."""
    from daas_dist.config.typed import typed  # takes pydantic, and 0.2 s

    found = composition(overrides, cluster)
    try:
        return typed(found.values), found.place
    except ConfigError as error:
        if error.key != "data.root" or found.values["data"]["root"] is not None:
            raise
        raise ConfigError(f"{error}; {site.ways(found.data, cluster or this_machine())}") from error


def this_machine() -> ClusterFile:
    """Read the cluster file of runs that are started without launch/submit.py."""
    return site.named("local", directory())


@dataclass(frozen=True)
class Composition:
    """What Hydra made of overrides: keys are checked, types and values not yet."""

    values: dict[str, Any]
    data: str
    """The NAME of data=NAME."""
    place: Place | None


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
    from hydra.errors import HydraException

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
        raise ConfigError(f"{given} cannot be composed: {first_line(error)}") from error
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
    from hydra import compose, initialize_config_dir

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
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.types import RunMode

    with initialize_config_dir(str(directory()), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        plain = [text for text in overrides if not _is_text(text)]
        parts = loader.compute_defaults_list("config", plain, RunMode.RUN).defaults
    paths = [part.config_path for part in parts if part.config_path is not None]
    return [f"{path}.yaml" for path in paths if not path.startswith("hydra")]


def texts(overrides: Sequence[str]) -> dict[str, str | None]:
    """The texts among the overrides as they were typed, by key; the last of a key wins."""
    given = (text.partition("=") for text in overrides if _is_text(text))
    return {key: read_text(key, typed, type_words(key)) for key, _, typed in given}


def text(overrides: Sequence[str], key: str) -> str | None:
    """The text that overrides give one key, as `load` reads it but for ${…} of other keys."""
    try:
        made = OmegaConf.create({"text": texts(overrides).get(key)})
        found = cast(str | None, made.text)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{key} cannot be composed: {first_line(error)}") from error
    return at_home(key, found) if found and key in PATHS else found


def _is_text(override: str) -> bool:
    """Tell whether the value of an override is a text, which Hydra's grammar would change."""
    key, equals, _ = override.partition("=")
    return bool(equals) and key not in (*GROUPS, *BROUGHT) and key in _text_keys()


@cache
def _text_keys() -> frozenset[str]:
    return frozenset(filter(is_text, keys()))


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
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import OverrideType
    from hydra.errors import HydraException

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
            refuse(key, value, one_of(*options(key)).words)
        if key not in GROUPS and inside:
            raise ConfigError(f"{text} sets a whole group: set its keys, such as {inside[0]}=VALUE")
        if key not in GROUPS and key not in leaves:
            raise unknown(key)
        if isinstance(value, dict):
            refuse(key, value, type_words(key))
        found.append(key)
    return found
