"""The copy of the code that a run was submitted with: its digest, and running what is in it.

    python CODE/launch/snapshot.py CODE DIGEST                  prints DIGEST, or what differs
    python -P CODE/launch/snapshot.py CODE DIGEST MODULE WORD…  runs a module of it, as -m does

Every process of a job starts here, from the copy itself, so that no other code can run in its
place: where the copy is gone Python finds no file to start, and where it differs this ends with 2.
Needs Python's own library alone. What Python and systems leave (__pycache__, names with a dot in
front) is no part of a copy.
"""

import hashlib
import os
import runpy
import sys
from collections.abc import Iterator, Sequence

SUMS = "SHA256SUMS"
"""In the copy: `sha256sum --check` reads it. The digest is that of this file."""
REFUSED = 2
SHOWN = 3


def sums(folder: str) -> dict[str, str]:
    """Hash every file of a copy; returns sha256 by relative path, in their order. OSError."""
    return {name: _sha256(os.path.join(folder, name)) for name in sorted(_files(folder))}


def text_of(found: dict[str, str]) -> str:
    """Write sums as sha256sum does; returns the content of SUMS."""
    return "".join(f"{sha256}  {name}\n" for name, sha256 in found.items())


def digest_of(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def difference(folder: str, digest: str) -> str | None:
    """Compare a copy with the digest that it had; returns in words what differs, else None."""
    if not os.path.isdir(folder):
        return "it is gone"
    try:
        found = sums(folder)
    except OSError as error:
        return f"{error.filename} cannot be read: {error.strerror}"
    if digest_of(text_of(found)) == digest:
        return None
    recorded = _recorded(folder)
    if digest_of(text_of(recorded)) != digest:
        return f"its {SUMS} is not the one that it was submitted with"
    told = [
        *(f"{name} is gone" for name in recorded if name not in found),
        *(f"{name} was added" for name in found if name not in recorded),
        *(f"{n} was changed" for n in found if found[n] != recorded.get(n, found[n])),
    ]
    more = f" and {len(told) - SHOWN} more" if len(told) > SHOWN else ""
    return ", ".join(map(_printable, told[:SHOWN])) + more


def refusal(folder: str, differs: str) -> str:
    return (
        f"{_printable(folder)} is not the code that was submitted ({differs}); restore it, or "
        "remove it and `resume` the run to go on with the code as it is now"
    )


def _files(folder: str) -> Iterator[str]:
    for path, folders, names in os.walk(folder, onerror=_raise):
        folders[:] = [name for name in folders if not _ignored(name)]
        links = [name for name in folders if os.path.islink(os.path.join(path, name))]
        for name in (*names, *links):
            relative = os.path.relpath(os.path.join(path, name), folder)
            if not _ignored(name) and relative != SUMS:
                yield relative


def _raise(error: OSError) -> None:
    raise error


def _ignored(name: str) -> bool:
    return name == "__pycache__" or name.startswith(".")


def _sha256(path: str) -> str:
    if os.path.islink(path):  # a copy has none, and where one leads is somebody else's
        return f"link to {os.readlink(path)}"
    if not os.path.isfile(path):
        return "no file"
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def _recorded(folder: str) -> dict[str, str]:
    try:
        with open(os.path.join(folder, SUMS), encoding="utf-8", errors="surrogateescape") as file:
            lines = [line.rstrip("\n").partition("  ") for line in file]
    except OSError:
        return {}
    return {name: sha256 for sha256, _, name in lines}


def _printable(text: str) -> str:
    """Escape what no name of ours has: control characters, and bytes that are not UTF-8."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def main(arguments: Sequence[str]) -> int:
    folder, digest, *rest = arguments
    differs = difference(folder, digest)
    if not rest:
        print(differs or digest)
        return REFUSED if differs else 0
    if differs:
        print(refusal(folder, differs), file=sys.stderr)
        return REFUSED
    module, *words = rest
    own = os.path.dirname(os.path.abspath(__file__))  # where Python looks first without -P
    sys.path[:] = [folder, *(place for place in sys.path if place != own)]
    sys.argv = [module, *words]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
