"""The command `daas`: run | report | watch | explain."""

import errno
import json
import os
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from daas_dist import config, explain, report, watch
from daas_dist.faults import PEER_LOST, PeerLost, Refused
from daas_dist.space import KINDS, Genotype

USAGE = """usage: daas run stage=NAME [key=value …]
       daas report RUN…
       daas watch RUN
       daas explain KEY | stage=NAME"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done or stopped, 1 failed, 2 a wrong call or value, else as in faults.py."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] not in ("run", "report", "watch", "explain"):
        print(USAGE, file=sys.stderr)
        return 2
    command, rest = words[0], words[1:]
    if command == "explain":
        return explain.main(rest)
    if command == "watch" and len(rest) == 1:
        return watch.main(Path(rest[0]))
    try:
        if command == "report" and rest:
            print(report.write([Path(name) for name in rest]))
            return 0
        if command == "run":
            return _run(config.load(rest))
    except Refused:
        return 2
    except (ValueError, FileNotFoundError) as error:
        if os.environ.get("LOCAL_RANK", "0") == "0":  # a wrong value or file: once for each host
            print(f"daas {command}: {error}", file=sys.stderr)
        return 2
    except FloatingPointError as error:
        if _leads():  # every rank has seen the same number
            print(f"daas {command}: {error}", file=sys.stderr)
        return 1
    except (MemoryError, OSError) as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        hint = "; free some, the last good checkpoint stands and the same command goes on"
        said = str(error) or "no memory left"  # Python's own error is without words
        print(f"daas {command}: {said}{hint if full else ''}", file=sys.stderr)
        return 1
    except PeerLost as error:
        print(f"daas {command}: {error}", file=sys.stderr)
        return PEER_LOST
    print(USAGE, file=sys.stderr)
    return 2


def _run(settings: config.Config) -> int:
    # Only here: torch.distributed and the networks take seconds to import.
    from daas_dist.run import run_search
    from daas_dist.train import run_training

    run_dir = run_search(settings) if settings.kind == "search" else run_training(settings)
    if not _leads():
        return 0
    if not (run_dir / "DONE").exists():
        print(f"stopped; the same command with run_dir={run_dir} goes on")
        return 0
    if settings.kind == "search":
        _tell_found(json.loads((run_dir / "result.json").read_text()))
    else:
        _tell_comparison(json.loads((run_dir / "comparison.json").read_text())["rows"])
    print(report.write([run_dir]))
    return 0


def _leads() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _tell_found(result: dict[str, Any]) -> None:
    """The cells and the leading operations of the policy."""
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
