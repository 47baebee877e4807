"""Text that this process did not make, made harmless for the place where it is shown.

Names, messages and rows come from files, folders and other programs. A terminal obeys control
sequences in them, a page obeys tags, Markdown its own marks, and a reader's eye the characters that
turn or hide text. What is not plain is shown as Python writes it: \\x1b, \\u202e, \\ud800.
"""

import html as _html
import re
import unicodedata
from pathlib import Path

from daas_dist.documents.redact import redacted

COLOUR = re.compile("(?:\x1b\\[|\x9b)[0-9;:]*m")
"""A sequence of colours, which programs write into their logs."""


CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""Characters that are no text, and all that end a line."""


def printable(name: Path | str) -> str:
    """Escape what is no text in the name of a file, and what ends a line; returns what is kept.

    Letters stay that join or turn others, as scripts need them; `visible` is for what is shown.
    """
    text = str(name).encode("utf-8", "backslashreplace").decode()
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def visible(text: object, keep: str = "") -> str:
    """Replace every control, format and half character but those in `keep`; returns one line.

    Spaces of other widths stay. `keep`: characters that stay all the same, such as a line feed.
    """
    shown = str(text)
    if shown.isascii() and shown.isprintable():
        return shown
    return "".join(c if _is_plain(c) or c in keep else _written(c) for c in shown)


def _is_plain(character: str) -> bool:
    return character.isprintable() or unicodedata.category(character) == "Zs"


def _written(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode()


def told(text: object) -> str:
    """A sentence for a terminal or a log, from whatever it was made: one line, without secrets."""
    return visible(redacted(str(text)))


def output(text: str) -> str:
    """Escape what another program printed, for a terminal: lines and tabs stay, colours go.

    A carriage return ends a line, as it does where a progress bar draws itself anew.
    """
    lines = COLOUR.sub("", redacted(text)).replace("\r\n", "\n").replace("\r", "\n")
    return visible(lines, keep="\n\t")


def html(value: object) -> str:
    """Escape a value for a page, in text and in quoted attributes alike; line feeds stay."""
    return _html.escape(visible(value, keep="\n\t"), quote=True)


def markdown_code(value: object, in_table: bool = False) -> str:
    """Put a value into a code span, in which Markdown and HTML mean nothing.

    The fence is longer than any run of backticks inside. in_table: a cell ends at a bare |.
    """
    shown = visible(value)
    if in_table:
        shown = shown.replace("|", "\\|")
    longest = max((len(run) for run in re.findall("`+", shown)), default=0)
    fence = "`" * (longest + 1)
    spaced = longest or not shown or shown != shown.strip()
    return f"{fence} {shown} {fence}" if spaced else f"{fence}{shown}{fence}"
