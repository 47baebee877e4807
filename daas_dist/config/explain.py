"""Where every value is from: the labels are the comments of configs/, read from the files.

`daas explain stage=NAME key=value …` prints every value of that configuration, `daas explain KEY`
one key or part of it; the two may be mixed.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from daas_dist.config.compose import composition, files, settings
from daas_dist.config.rules import ConfigError, shown
from daas_dist.config.schema.reads import unread
from daas_dist.config.schema_keys import GROUPS, directory, flat, keys, unknown
from daas_dist.documents.escaping import told

LABEL = re.compile(r"\s+# ((?:paper |peer |ours: ).+)")
YOURS = "your override"
SITE = "your site"


@dataclass(frozen=True)
class Row:
    """One value, its source as the file says it, and that file below configs/ (or YOURS, SITE)."""

    key: str
    value: str
    source: str
    file: str
    unread: tuple[str, ...] = ()
    """Settings under which it is not read; none where it is."""


def explain(arguments: Sequence[str]) -> list[Row]:
    """A row for every value, in the schema's order; arguments without "=" choose keys or parts.

    What a stage still needs of you (data.root of a folder) may be missing. Raises ConfigError.
    """
    overrides = [argument for argument in arguments if "=" in argument]
    found = composition(overrides)
    sources = {}
    for file in files(overrides):
        sources |= {key: (label, file) for key, label in labels(directory() / file).items()}
    if found.place is not None:
        sources |= {key: (found.place.origin, SITE) for key in found.place.values}
    for key in set(settings(overrides)) - set(GROUPS):
        sources[key] = (f"in place of {sources[key][0]}", YOURS)
    leaves = flat(found.values)
    rows = [
        Row(key, shown(leaves[key]), *sources[key], unread=tuple(unread(key, leaves)))
        for key in keys()
    ]
    asked = [argument for argument in arguments if "=" not in argument]
    for key in asked:
        if not any(_is_within(row.key, key) for row in rows):
            raise unknown(key)
    return [row for row in rows if not asked or any(_is_within(row.key, key) for key in asked)]


def labels(path: Path) -> dict[str, str]:
    """The label of every value in one file of configs/, by the value's full key.

    Raises ConfigError if a value has none: it must say "# paper …", "# peer …" or "# ours: …".
    """
    text = path.read_text(encoding="utf-8")
    is_global = path.parent == directory() or text.startswith("# @package _global_")
    root = yaml.compose(text)
    prefix = "" if is_global else f"{path.parent.name}."
    return {} if root is None else _labels(root, prefix, text.splitlines(), path)


def _labels(node: yaml.Node, prefix: str, lines: list[str], path: Path) -> dict[str, str]:
    found = {}
    for name, value in node.value:
        key = f"{prefix}{name.value}"
        if isinstance(value, yaml.MappingNode):
            found |= _labels(value, f"{key}.", lines, path)
        elif key != "defaults":
            rest = lines[value.end_mark.line :][:1]
            match = LABEL.fullmatch(rest[0][value.end_mark.column :]) if rest else None
            if match is None:
                kinds = '"# paper …", "# peer …" or "# ours: …"'
                raise ConfigError(f"{path.name}: {key} does not say its source: expected {kinds}")
            found[key] = match[1]
    return found


def _is_within(key: str, part: str) -> bool:
    return key == part or key.startswith(f"{part}.")


def table(rows: Sequence[Row]) -> Table:
    """Draw the rows, those that the configuration reads before the others."""
    drawn = Table(box=None, header_style="bold", pad_edge=False)
    drawn.add_column("value", overflow="fold", max_width=48)
    drawn.add_column("source (file)", overflow="fold")
    for row in sorted(rows, key=lambda row: bool(row.unread)):
        style = "bold yellow" if row.file in (YOURS, SITE) else ""
        mark = f"not read, as {' and '.join(row.unread)}: " if row.unread else ""
        source = Text.assemble(mark, (told(row.source), style), (f" ({row.file})", style or "dim"))
        drawn.add_row(Text(told(f"{row.key}={row.value}"), style), source)
    return drawn


def main(argv: Sequence[str]) -> int:
    """`daas explain`: prints the table; returns 0, or 2 after a ConfigError's sentence."""
    parser = argparse.ArgumentParser(prog="daas explain", description="Where every value is from.")
    parser.add_argument("arguments", nargs="*", metavar="stage=NAME|key=value|KEY")
    arguments = parser.parse_args(argv).arguments
    try:
        rows = explain(arguments)
    except ConfigError as error:
        print(f"daas explain: {told(error)}", file=sys.stderr)
        return 2
    console = Console() if sys.stdout.isatty() else Console(width=160)
    console.print(table(rows))
    return 0
