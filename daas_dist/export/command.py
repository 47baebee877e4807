"""`daas export RESULT --to TARGET … [--out FOLDER]`."""

import argparse
from collections.abc import Sequence

from daas_dist.config.overrides import to_path
from daas_dist.documents.escaping import told
from daas_dist.export import ALL, TARGETS, export


def main(words: Sequence[str]) -> None:
    """ValueError and OSError are the caller's."""
    given = _parser().parse_args(words)
    out = given.out or given.result.parent / "export"
    for line in export(given.result, given.to, out):
        print(told(line))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="daas export", description="Hand over what was found.")
    parser.add_argument(
        "result",
        type=to_path,
        metavar="RESULT",
        help="result.json of a search or of a trained row",
    )
    parser.add_argument(
        "--to", nargs="+", required=True, metavar="TARGET", help=" | ".join((*TARGETS, ALL))
    )
    parser.add_argument(
        "--out", type=to_path, metavar="FOLDER", help="gets the files (export, beside RESULT)"
    )
    return parser
