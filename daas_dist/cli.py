"""The command `daas`: run | shards | report | watch | explain | export | doctor."""

import errno
import gc
import json
import os
import statistics
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from daas_dist import config, doctor, explain, report, site, utf8, watch
from daas_dist.faults import PEER_LOST, PeerLost, Refused

USAGE = """usage: daas run stage=NAME [key=value …]
       daas shards build | index | verify | list …
       daas report RUN…
       daas export RESULT --to TARGET…
       daas watch RUN
       daas explain KEY | stage=NAME
       daas doctor [--json] [stage=NAME key=value …]"""

FAILED = 1
WRONG = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done or stopped, FAILED, WRONG (a call or a value), else as in faults.py."""
    if arguments is None:
        utf8.start()
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words:
        print(USAGE, file=sys.stderr)
        return WRONG
    command, rest = words[0], words[1:]
    if command == "explain":
        return explain.main(rest)
    if command == "doctor":
        return doctor.main(rest)
    if command == "shards":
        return _shards(rest)
    if command == "export":
        return attempt(command, lambda: _export(rest))[0]
    if command == "watch" and len(rest) == 1:
        return watch.main(Path(rest[0]))
    if command == "run":
        return attempt(command, lambda: run(_load(rest)))[0]
    if command == "report" and rest:
        return attempt(command, lambda: print(report.write([Path(name) for name in rest])))[0]
    print(USAGE, file=sys.stderr)
    return WRONG


def attempt(command: str, task: Callable[[], object]) -> tuple[int, str]:
    """(exit status, what was wrong): one line on stderr, and no traceback where a person or the
    machine is at fault. On several ranks it is told once for each host, or once."""
    try:
        task()
        return 0, ""
    except Refused:
        return WRONG, ""  # rank 0 says why
    except (ValueError, FileNotFoundError) as error:
        if os.environ.get("LOCAL_RANK", "0") == "0":  # a wrong value or file: once for each host
            print(f"daas {command}: {error}", file=sys.stderr)
        return WRONG, str(error)
    except FloatingPointError as error:
        if _leads():  # every rank has seen the same number
            print(f"daas {command}: {error}", file=sys.stderr)
        return FAILED, str(error)
    except (MemoryError, OSError) as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        hint = "; free some, the last good checkpoint stands and the same command goes on"
        said = (str(error) or "no memory left") + (hint if full else "")  # Python's has no words
        print(f"daas {command}: {said}", file=sys.stderr)
        return FAILED, said
    except PeerLost as error:
        print(f"daas {command}: {error}", file=sys.stderr)
        return PEER_LOST, str(error)


def _load(words: Sequence[str]) -> config.Config:
    """Load a configuration that is run here: its images are to be here too."""
    settings, place = config.load_and_place(words)
    absent = None if place is None or settings.data.download else site.absent(place)
    if absent is not None:
        raise config.ConfigError(absent)
    return settings


@contextmanager
def _to_stay() -> Generator[None]:
    """Around imports of torch, which take seconds: only where they are needed, and what they make
    is kept from the garbage collector, which would look through it again and again, at the end of
    the process too: two fifths of one that does nothing else."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _shards(words: Sequence[str]) -> int:
    with _to_stay():
        from daas_dist.shards import command

    status = 0

    def task() -> None:
        nonlocal status
        status = command.main(words)

    failed, _ = attempt("shards", task)
    return failed or status


def _export(words: Sequence[str]) -> None:
    with _to_stay():
        from daas_dist.export import command

    command.main(words)


def run(settings: config.Config) -> None:
    """A search or a training, to its end or until it is stopped, and what it found in words."""
    with _to_stay():
        from daas_dist.run import run_search
        from daas_dist.train import run_training

    run_dir = run_search(settings) if settings.kind == "search" else run_training(settings)
    if not _leads():
        return
    if not (run_dir / "DONE").exists():
        print(f"stopped; the same command with run_dir={run_dir} goes on")
        return
    if settings.kind == "search":
        _tell_found(json.loads((run_dir / "result.json").read_text(encoding="utf-8")))
    else:
        _tell_comparison(
            json.loads((run_dir / "comparison.json").read_text(encoding="utf-8"))["rows"]
        )
    print(report.write([run_dir]))


def _leads() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _tell_found(result: dict[str, Any]) -> None:
    """The cells and the leading operations of the policy."""
    from daas_dist.space import KINDS, Genotype

    if result["genotype"] is not None:
        genotype = Genotype.from_json(result["genotype"])
        for kind in KINDS:
            print(f"{kind} cell: {genotype.in_words(kind)}")
    if result["policy"] is not None:
        leading = (
            f"{row['operation']} {row['weight']:.2f}" for row in result["policy"]["ranking"][:5]
        )
        print(f"policy, probability x application: {', '.join(leading)}")


def _tell_comparison(rows: list[dict[str, Any]]) -> None:
    """Mean and standard deviation over seeds of the last epoch's accuracy."""
    for name in dict.fromkeys((row["architecture"], row["policy"]) for row in rows):
        last = [row["last"] for row in rows if (row["architecture"], row["policy"]) == name]
        spread = f" ± {statistics.stdev(last):.2%}" if len(last) > 1 else ""
        print(
            f"{name[0]} architecture, {name[1]} policy: {statistics.mean(last):.2%}{spread} "
            f"({len(last)} seed{'s' if len(last) > 1 else ''}, last epoch)"
        )


if __name__ == "__main__":
    sys.exit(main())
