"""KEY=VALUE as people type it, where the value is a text.

A text is taken as it was typed. Hydra's grammar would make numbers of names (2024_01_15 becomes
20240115) and refuses what paths are full of: spaces, brackets, letters of other languages. Shells
eat quotes, so a value seldom has any left; one that is in quotes as a whole stands for what is
between them, which is how the text null or a literal ${…} is written.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from daas_dist.config.rules import refuse
from daas_dist.documents.escaping import CONTROL

NULL = "null"
"""The only text that is none."""

QUOTED = re.compile(r"""(?P<quote>["'])(?P<inside>.*)(?P=quote)""", re.DOTALL)
LIST = re.compile(r"\[.*\]|\{\s*(\w+\s*:.*)?\}", re.DOTALL)
BEFORE_QUOTE = re.compile(r"""(\\*)(["']|$)""")
INTERPOLATION = re.compile(r"(\\*)\$\{")


def read_text(key: str, typed: str, kind: str) -> str | None:
    """Read a text as it was typed after KEY=; returns it as OmegaConf takes it, None for null.

    kind: the key's type in words, for the ConfigError of what is no text. An interpolation ${…}
    stays one outside quotes.
    """
    if typed == NULL:
        return None
    if LIST.fullmatch(typed):
        refuse(key, typed, kind)
    quoted = QUOTED.fullmatch(typed) if len(typed) > 1 else None
    text = typed if quoted is None else _unquoted(quoted, key, typed)
    if not text.strip():
        refuse(key, typed, kind)
    if CONTROL.search(text):
        refuse(key, ascii(text)[1:-1], "a text without control characters")
    if any("\ud800" <= character <= "\udfff" for character in text):
        refuse(key, ascii(text)[1:-1], "a text in UTF-8; rename it, or name a link to it")
    return text if quoted is None else literal(text)


def _unquoted(quoted: re.Match[str], key: str, typed: str) -> str:
    """Return what is between the quotes; there a backslash counts only before a quote and at the
    end."""
    quote, inside = quoted["quote"], quoted["inside"]
    for found in BEFORE_QUOTE.finditer(inside):
        if found[2] in ("", quote) and len(found[1]) % 2 != (found[2] == quote):
            refuse(key, typed, f"a text in one pair of quotes, each {quote} inside as \\{quote}")
    return BEFORE_QUOTE.sub(
        lambda found: (
            "\\" * (len(found[1]) // 2 if found[2] in ("", quote) else len(found[1])) + found[2]
        ),
        inside,
    )


def quoted(text: str) -> str:
    """Write a text as a value that read_text takes for this very text."""
    escaped = BEFORE_QUOTE.sub(
        lambda found: found[0] if found[2] == "'" else found[1] * 2 + found[2].replace('"', '\\"'),
        text,
    )
    return f'"{escaped}"'


def literal(text: str) -> str:
    """Escape a text such that OmegaConf resolves it to itself, whatever ${…} it holds."""
    return INTERPOLATION.sub(lambda found: rf"{found[1]}{found[1]}\${{", text)


def all_literal(values: Any) -> Any:
    """Escape every text of nested values, as literal does."""
    if isinstance(values, Mapping):
        return {key: all_literal(value) for key, value in values.items()}
    if isinstance(values, list):
        return [all_literal(value) for value in values]
    return literal(values) if isinstance(values, str) else values


def at_home(key: str, path: str) -> str:
    """Expand a ~ or ~user at the start of a path. ConfigError for a user who is not known."""
    if not path.startswith("~"):
        return path
    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):
        wanted = f"~ or the ~ of a known user; a folder of that name is ./{path}"
        refuse(key, path, wanted)
    return expanded


def to_path(typed: str) -> Path:
    """Read a path that stands for itself on a command line, ~ and ~user expanded."""
    return Path(at_home("PATH", typed))
