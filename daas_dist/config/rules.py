"""Which values a key may have, and the error of one that it may not.

An impossible value is a ConfigError of one sentence: the key, the value, what is allowed.
"""

import re
from math import inf
from typing import Annotated, Any, NoReturn

from daas_dist.documents.checked import Rule
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


def one_of(*choices: Any) -> Rule:
    return Rule(lambda value: value in choices, "one of " + ", ".join(map(str, choices)))


Text = Annotated[str, Rule(lambda text: text != "", "a text")]
Cells = Annotated[int, Rule(lambda n: n >= 3, "a whole number of at least 3, as two cells reduce")]
Positive = Annotated[float, Rule(lambda x: 0 < x < inf, "a number above 0")]
NotNegative = Annotated[float, Rule(lambda x: 0 <= x < inf, "a number of 0 or more")]
Share = Annotated[float, Rule(lambda x: 0 <= x < 1, "a number of 0 or more and below 1")]
OpenShare = Annotated[float, Rule(lambda x: 0 < x < 1, "a number between 0 and 1")]
DISTINCT = Rule(lambda v: v and len(set(v)) == len(v), "one or more, none of them twice")


def refuse(key: str, value: Any, allowed: str) -> NoReturn:
    told = f"{key}={redacted(shown(value))} is not possible: expected {allowed}"
    raise ConfigError(told, key)


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
