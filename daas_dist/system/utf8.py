"""Python's UTF-8 mode, in whatever locale a command is started.

Paths and documents are UTF-8. In an ASCII or Latin-1 locale Python would read arguments, name files
and open documents in that encoding: a path frozen on one machine would then be another on a node.
"""

import os
import sys

ENCODING = "utf-8"


def start() -> None:
    """Start this process anew in UTF-8 mode where its locale has another encoding.

    What a terminal cannot show, as a box in an ASCII locale, is escaped; it never ends a command.
    """
    if sys.getfilesystemencoding() != ENCODING:
        shown = getattr(sys.stdout, "encoding", None) or "ascii"
        os.environ.setdefault("PYTHONIOENCODING", f"{shown}:backslashreplace")
        os.environ["PYTHONUTF8"] = "1"  # for what it starts
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
