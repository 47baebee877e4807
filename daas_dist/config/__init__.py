"""The configuration: how it is composed, its types, its rules, and where each value is from.

from daas_dist import config

settings = config.load(["stage=search_folder", "data.root=pictures"])
"""

from daas_dist.config.compose import (
    GROUPS,
    Config,
    ConfigError,
    composed,
    composition,
    difference,
    directory,
    flat,
    keys,
    load,
    load_and_place,
    load_frozen,
    options,
    shown,
    text,
    to_yaml,
    unchecked,
    without_effect,
)

__all__ = [
    "GROUPS",
    "Config",
    "ConfigError",
    "composed",
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
    "without_effect",
]
