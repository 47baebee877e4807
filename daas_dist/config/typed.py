"""Nested values as a Config, each of the type and by the rule that its field has.

pydantic takes 0.2 s to import: this module is imported where values are checked, not before.
"""

import json
import re
from collections.abc import Mapping
from functools import reduce
from typing import Any, NoReturn

from pydantic import TypeAdapter, ValidationError

from daas_dist.config.rules import ConfigError, check_secret, refuse
from daas_dist.config.schema import Config
from daas_dist.config.schema_keys import flat, keys, type_words, unknown

CONFIG = TypeAdapter(Config)
UNKNOWN = "unexpected_keyword_argument"


def typed(values: Any) -> Config:
    """Check nested values against the schema and return them as a Config. ConfigError."""
    for key, value in flat(values).items() if isinstance(values, dict) else ():
        for text in value if isinstance(value, list) else [value]:
            check_secret(key, str(text))
            if re.search("[\ud800-\udfff]", str(text)):  # which JSON has no bytes for
                refuse(key, ascii(text)[1:-1], "a text in UTF-8")
    try:
        # As JSON, since a strict type of Python takes no dictionary for a dataclass.
        config = CONFIG.validate_json(json.dumps(values))
    except ValidationError as error:
        found = error.errors(include_url=False)
        _refuse(min(found, key=lambda each: each["type"] != UNKNOWN), values)
    for key in config.resume.allow:
        if key not in (*keys(), "data"):
            raise unknown(key)
    return config


def _refuse(found: Mapping[str, Any], values: Any) -> NoReturn:
    """Raise one of pydantic's errors as a ConfigError."""
    key = ".".join(name for name in found["loc"] if isinstance(name, str))
    why = found.get("ctx", {}).get("error")
    if isinstance(why, ConfigError):
        raise why
    if found["type"] == UNKNOWN:
        raise unknown(key)
    if found["type"] == "missing":
        raise ConfigError(f"{key} is missing: expected {type_words(key)}")
    given = reduce(lambda inside, name: inside[name], filter(None, key.split(".")), values)
    if why is not None:
        refuse(key, given, str(why))
    refuse(key or "the file", _quoted(given), type_words(key))


def _quoted(given: Any) -> Any:
    """Put texts in quotes that would read as a number or a switch, which they are not."""
    if isinstance(given, list):
        return [_quoted(each) for each in given]
    is_like = isinstance(given, str) and re.fullmatch(r"[-+]?[.\d].*|true|false", given)
    return f"'{given}'" if is_like else given
