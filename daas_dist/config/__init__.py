"""The configuration: how it is composed, its types, its rules, and where each value is from.

from daas_dist import config

settings = config.load(["stage=search_folder", "data.root=pictures"])
"""

from daas_dist.config.compose import (
    composition,
    load,
    load_and_place,
    text,
    unchecked,
    without_effect,
)
from daas_dist.config.frozen import Frozen, difference, load_frozen, to_yaml, values_of
from daas_dist.config.rules import ConfigError, shown
from daas_dist.config.schema import Config
from daas_dist.config.schema_keys import GROUPS, directory, flat, keys, options

__all__ = [
    "GROUPS",
    "Config",
    "ConfigError",
    "Frozen",
    "composition",
    "difference",
    "directory",
    "flat",
    "keys",
    "load",
    "load_and_place",
    "load_frozen",
    "options",
    "shown",
    "text",
    "to_yaml",
    "unchecked",
    "values_of",
    "without_effect",
]
