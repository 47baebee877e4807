"""Names, values and files as an attacker or a power cut makes them, and how they are put into the
documents of a run directory."""

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ESCAPES = (
    "\x1b]0;titled\x07", "\x1b[31mred", "\x9b2J", "\x90q\x9c", "a\rb", "two\nlines", "\x08\x08back",
    "\x00nul", "\x7fdel", "\u202etxt.exe", "\u2066in\u2069", "\u2028line", "\u200bzero",
    "\ufeffmark", "\U000e0041tag", "\ud800half",
)  # fmt: skip
"""None of these characters may reach a terminal, a page or a source file."""
MARKUP = (
    "<img src=x onerror=alert(7)>", "</style><script>alert(8)</script>", "'\"><b onmouseover=x>",
    "javascript:alert(9)", "]]><svg/onload=x>", "[red]red[/]", "[link=file:///etc]x[/link]",
    "$\\frac{a}{b}$", "`code`|x|](http://x)", "](javascript:x)", "'''\nimport os\n'''", "\\\"\n#",
    "=cmd|'/c x'!A0", "{0.__class__}", "%s%n", ":bomb:",
)  # fmt: skip
SECRET = "s3cr3t-in-a-url"
URLS = (f"https://user:{SECRET}@host/x", f"s3://b/x?X-Amz-Signature={SECRET}")
NAMES = (*ESCAPES, *MARKUP, *URLS, "x" * 3000)

VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**53, -(2**63), 10**300, 1e308, -1e308, 1e-320, 0.5, "", "x",
    "12", [], {}, [[]], [None], [1, "a"], {"a": 1}, {"": None}, [[[[1.0]]]], *NAMES,
)  # fmt: skip

FORBIDDEN = frozenset(c for text in ESCAPES for c in text if not c.isprintable() and c not in "\n")


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value inside, lists by their first three places."""
    if path:
        yield path
    if isinstance(value, dict):
        for key, part in value.items():
            yield from places(part, (*path, key))
    elif isinstance(value, list):
        for index, part in enumerate(value[:3]):
            yield from places(part, (*path, index))


def put(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy of the document with another value at a place."""
    copy = json.loads(json.dumps(document))
    inside = copy
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = value
    return copy


def renamed(document: Any, path: tuple[Any, ...], name: str) -> Any:
    """A copy in which a key is called something else."""
    copy = json.loads(json.dumps(document))
    inside = copy
    for key in path[:-1]:
        inside = inside[key]
    if isinstance(inside, dict):
        inside[name] = inside.pop(path[-1])
    return copy


def mutated(document: Any, rng: random.Random) -> Any:
    """A copy with one thing changed: a value, a missing key, another key."""
    found = list(places(document))
    if not found:
        return rng.choice(VALUES)
    path = rng.choice(found)
    way = rng.random()
    if way < 0.1:
        return renamed(document, path, rng.choice(NAMES))
    if way < 0.2:
        copy = put(document, path, None)
        inside = copy
        for key in path[:-1]:
            inside = inside[key]
        del inside[path[-1]]
        return copy
    return put(document, path, rng.choice(VALUES))


# --- Files ---------------------------------------------------------------------------------------


def bytes_of(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


def a_pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def a_folder(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


def a_link_to_nowhere(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("nowhere/at/all")


def a_link_to_itself(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(path.name)


def a_device(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")


def a_sparse_file(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


def cut(share: float) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def whole_with(change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(change(path.read_bytes()))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": bytes_of(b""),
    "null": bytes_of(b"null"),
    "a list": bytes_of(b"[1]\n"),
    "a text": bytes_of(b'"x"\n'),
    "an empty table": bytes_of(b"{}\n"),
    "deep lists": bytes_of(b"[" * 150_000),
    "deep tables": bytes_of(b'{"a":' * 40_000 + b"1" + b"}" * 40_000),
    "100 deep": bytes_of(b'{"a":' + b"[" * 100 + b"]" * 100 + b"}\n"),
    "not a number": bytes_of(b'{"time": NaN, "schema": Infinity}\n'),
    "a huge number": bytes_of(b'{"time": ' + b"9" * 5000 + b"}\n"),
    "too large a float": bytes_of(b'{"time": 1e999}\n'),
    "a key twice": bytes_of(b'{"kind": "search", "kind": "trained"}\n'),
    "not UTF-8": bytes_of(b'{"event": "\xff\xfe"}\n'),
    "UTF-16": bytes_of('{"event": "x"}\n'.encode("utf-16")),
    "zeros": bytes_of(b"\0" * 5000),
    "zeros behind": whole_with(lambda data: data + b"\0" * 4096),
    "a bad line behind": whole_with(lambda data: data + b'{"time": 17, "ev\n'),
    "a bad line before": whole_with(lambda data: b"nonsense\n" + data),
    "CRLF": whole_with(lambda data: data.replace(b"\n", b"\r\n")),
    "a byte order mark": whole_with(lambda data: b"\xef\xbb\xbf" + data),
    "a third": cut(0.33),
    "all but the end": cut(0.98),
    "a folder": a_folder,
    "a pipe": a_pipe,
    "a link to nowhere": a_link_to_nowhere,
    "a link to itself": a_link_to_itself,
    "a device": a_device,
    "a terabyte of holes": a_sparse_file,
}


def restore(run_dir: Path, kept: Path) -> None:
    shutil.rmtree(run_dir)
    shutil.copytree(kept, run_dir)
