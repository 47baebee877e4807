"""Which values a key may have, and the error of one that it may not.

An impossible value is a ConfigError of one sentence: the key, the value, what is allowed.
"""

import re
from collections.abc import Callable
from math import inf
from typing import Any, NoReturn

from daas_dist.documents.redact import redacted, secret_in


class ConfigError(ValueError):
    """One sentence: the key, its value, what is allowed."""

    def __init__(self, message: str, key: str | None = None) -> None:
        """key: whose value is refused, where it is one key's."""
        super().__init__(message)
        self.key = key


def shown(value: Any) -> str:
    """A value as one writes it on the command line."""
    if isinstance(value, list):
        return f"[{', '.join(map(shown, value))}]"
    if isinstance(value, str):
        return "'null'" if value == "null" else value
    return {"None": "null", "True": "true", "False": "false"}.get(str(value), str(value))


Rule = tuple[Callable[[Any], object], str]
"""(is it possible?, what is allowed, in words)"""

COUNT: Rule = (lambda value: value >= 1, "a whole number of at least 1")
NATURAL: Rule = (lambda value: value >= 0, "a whole number of at least 0")
EVEN: Rule = (lambda value: value >= 2 and value % 2 == 0, "an even number of at least 2")
CELLS: Rule = (lambda value: value >= 3, "a whole number of at least 3, as two cells reduce")
POSITIVE: Rule = (lambda value: 0 < value < inf, "a number above 0")
NOT_NEGATIVE: Rule = (lambda value: 0 <= value < inf, "a number of 0 or more")
SHARE: Rule = (lambda value: 0 <= value < 1, "a number of 0 or more and below 1")
OPEN_SHARE: Rule = (lambda value: 0 < value < 1, "a number between 0 and 1")
DECAY: Rule = (lambda value: 0 < value <= 1, "above 0 and at most 1 (1 forgets nothing)")
BETAS: Rule = (lambda v: len(v) == 2 and all(0 <= b < 1 for b in v), "two numbers in [0, 1)")
SCALES: Rule = (lambda values: all(0 < value < inf for value in values), "numbers above 0")
FINITE: Rule = (lambda values: all(-inf < value < inf for value in values), "finite numbers")
SEEDS: Rule = (lambda values: all(value >= 0 for value in values), "whole numbers of 0 or more")
PARTS: Rule = (
    lambda v: len(v) == 2 and 0 < v[0] <= v[1] <= 1,
    "two shares of the area, least and most, above 0 and at most 1",
)
JITTER: Rule = (
    lambda v: len(v) == 4 and all(0 <= s < inf for s in v) and v[3] <= 0.5,
    "brightness, contrast, saturation and hue, each 0 or more, hue at most 0.5",
)
MILESTONES: Rule = (
    lambda v: v and v[0] >= 1 and all(a < b for a, b in zip(v, v[1:], strict=False)),
    "one or more epochs from 1 on, each after the one before it",
)
DISTINCT: Rule = (lambda v: v and len(set(v)) == len(v), "one or more, none of them twice")


def one_of(*choices: Any) -> Rule:
    return (lambda value: value in choices, "one of " + ", ".join(map(str, choices)))


def refuse(key: str, value: Any, allowed: str) -> NoReturn:
    told = f"{key}={redacted(shown(value))} is not possible: expected {allowed}"
    raise ConfigError(told, key)


def check(group: Any, key: str, rule: Rule, *names: str) -> None:
    """Every named field of a group obeys the rule, or is null where its type allows null."""
    for name in names:
        value = getattr(group, name)
        if value is not None and not rule[0](value):
            refuse(f"{key}.{name}" if key else name, value, rule[1])


def is_url(place: str | None) -> bool:
    """Tell whether a place is for fsspec to read, not a path."""
    return place is not None and re.match(r"(?i)pipe:|[a-z][\w+.-]*:(//|:)", place) is not None


def check_secret(key: str, value: str) -> None:
    """No URL that holds a secret: the run would keep it, and show it in its page and its logs."""
    secret = secret_in(value) if "://" in value else None
    if secret is not None:
        raise ConfigError(
            f"{key} holds {secret}, which every file of the run would keep; leave it out, and give "
            "it by ~/.netrc (https), the environment (AWS_ACCESS_KEY_ID, …) or the file system's "
            "own configuration (~/.config/fsspec)"
        )


def check_url(key: str, url: str) -> None:
    """Nothing that runs a command, or that other processes do not have."""
    scheme = url.partition(":")[0].lower()
    if scheme == "pipe":
        refuse(key, url, "a folder or a URL, as pipe: runs a command")
    if scheme == "memory":
        refuse(key, url, "a folder or a URL, as memory:// is another one in each process")
    if "::" in url:
        refuse(key, url, "a folder or one URL, as :: chains several")
    if scheme in ("http", "https") and re.search(r"[?#]", url):
        refuse(key, url, "the URL of a folder, without ? and #")


def nearest_multiples(value: int, unit: int) -> str:
    """ "96 or 128": the multiples of unit just below and above a value that is none."""
    below = value // unit * unit
    return f"{below} or {below + unit}" if below else str(unit)


def nearest_divisors(of: int, value: int) -> str:
    """ "3 or 6": the divisors of `of` just below and above a value that is none."""
    divisors = [each for each in range(1, of + 1) if of % each == 0]
    below = max(each for each in divisors if each < value)
    above = [each for each in divisors if each > value][:1]
    return " or ".join(map(str, [below, *above]))
