"""The command `daas`: run | shards | report | watch | explain | export | doctor."""

import errno
import gc
import os
import statistics
import sys
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from daas_dist import config, report
from daas_dist.config import explain, site
from daas_dist.config.overrides import to_path
from daas_dist.distributed.faults import PEER_LOST, NotConnected, PeerLost, Refused
from daas_dist.documents import events
from daas_dist.documents.escaping import told, visible
from daas_dist.documents.redact import redacted
from daas_dist.documents.results import COMPARISON
from daas_dist.documents.run import PROVENANCE
from daas_dist.report import watch
from daas_dist.runs import lock
from daas_dist.runs.lock import Occupied
from daas_dist.system import doctor, utf8

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
        return _watch(rest[0])
    if command == "run":
        return attempt(command, lambda: run(_load(rest)))[0]
    if command == "report" and rest:
        return attempt(command, lambda: _report(list(map(to_path, rest))))[0]
    print(USAGE, file=sys.stderr)
    return WRONG


def attempt(command: str, task: Callable[[], object]) -> tuple[int, str]:
    """(exit status, what was wrong): one line on stderr, and no traceback where a person or the
    machine is at fault. On several ranks it is told once for each host, or once."""
    # What warns names files and folders, and the line of code says nothing to a user.
    warnings.formatwarning = lambda message, *_, **__: f"warning: {told(message)}\n"
    try:
        task()
        return 0, ""
    except Refused:
        return WRONG, ""  # rank 0 says why
    except (Occupied, NotConnected) as error:
        print(f"daas {command}: {told(error)}", file=sys.stderr)
        return WRONG, ""  # of another's run there is nothing to note, nor of none
    except (ValueError, FileNotFoundError) as error:
        if os.environ.get("LOCAL_RANK", "0") == "0":  # a wrong value or file: once for each host
            print(f"daas {command}: {told(error)}", file=sys.stderr)
        return WRONG, redacted(str(error))
    except FloatingPointError as error:
        if _leads():  # every rank has seen the same number
            print(f"daas {command}: {told(error)}", file=sys.stderr)
        return FAILED, redacted(str(error))
    except (MemoryError, OSError) as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        hint = "; free some, the last good checkpoint stands and the same command goes on"
        said = (str(error) or "no memory left") + (hint if full else "")  # Python's has no words
        print(f"daas {command}: {told(said)}", file=sys.stderr)
        return FAILED, redacted(said)
    except PeerLost as error:
        print(f"daas {command}: {told(error)}", file=sys.stderr)
        return PEER_LOST, redacted(str(error))


def _load(words: Sequence[str]) -> config.Config:
    """Load a configuration that is run here: its images are to be here too."""
    settings, place = config.load_and_place(words)
    absent = None if place is None or settings.data.download else site.absent(place)
    if absent is not None:
        raise config.ConfigError(absent)
    return settings


@contextmanager
def _to_stay() -> Generator[None]:
    """Wrap imports of torch, which take seconds: only where they are needed, and what they make
    is kept from the garbage collector, which would look through it again and again, at the end of
    the process too: two fifths of one that does nothing else."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _watch(run: str) -> int:
    status = 0

    def task() -> None:
        nonlocal status
        status = watch.main(to_path(run))

    failed, _ = attempt("watch", task)
    return failed or status


def _shards(words: Sequence[str]) -> int:
    with _to_stay():
        from daas_dist.data.sharding import command

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
    # A rank that waits for another has a line for it; torch's own would come beside it, many times.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    if settings.run_dir is not None:
        _check_documents(Path(settings.run_dir))
    with _to_stay():
        from daas_dist.search.loop import run_search
        from daas_dist.training.comparison import run_training

    def page(run_dir: Path) -> Path:
        return report.write([run_dir])

    task = run_search if settings.kind == "search" else run_training
    run_dir = task(settings, page)
    if not _leads():
        return
    if not (run_dir / "DONE").exists():
        print(f"stopped; the same command with run_dir={visible(run_dir)} goes on")
        return
    if settings.kind == "search":
        _tell_found(run_dir / "result.json")
    else:
        _tell_comparison(run_dir)
    print(visible(run_dir / report.FILE))


def _check_documents(run_dir: Path) -> None:
    """Damaged if a small document of a run directory is: before torch, which takes seconds."""
    lock.held(run_dir)
    PROVENANCE.read(run_dir)
    events.ending(run_dir)
    events.trainings(run_dir)


def _report(run_dirs: Sequence[Path]) -> None:
    print(visible(report.write(run_dirs)))


def _leads() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _tell_found(path: Path) -> None:
    """The cells and the leading operations of the policy."""
    from daas_dist.results import searched
    from daas_dist.spaces.cells import KINDS

    found = searched.load(path)
    if found.genotype is not None:
        for kind in KINDS:
            print(f"{kind} cell: {found.genotype.in_words(kind)}")
    if found.policy is not None:
        leading = (f"{name} {weight:.2f}" for name, weight in found.policy.ranking()[:5])
        print(f"policy, probability x application: {', '.join(leading)}")


def _tell_comparison(run_dir: Path) -> None:
    """Mean and standard deviation over seeds of the last epoch's accuracy."""
    found = COMPARISON.read(run_dir)
    rows = [] if found is None else found.rows
    for name in dict.fromkeys((row.architecture, row.policy) for row in rows):
        last = [row.last for row in rows if (row.architecture, row.policy) == name]
        spread = f" ± {statistics.stdev(last):.2%}" if len(last) > 1 else ""
        print(
            f"{visible(name[0])} architecture, {visible(name[1])} policy: "
            f"{statistics.mean(last):.2%}{spread} "
            f"({len(last)} seed{'s' if len(last) > 1 else ''}, last epoch)"
        )


if __name__ == "__main__":
    sys.exit(main())
