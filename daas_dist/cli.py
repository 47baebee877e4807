"""The command `daas`: run | report | watch | explain."""

import sys
from collections.abc import Sequence
from pathlib import Path

from daas_dist import config, explain, report, watch

USAGE = """usage: daas run stage=NAME [key=value …]
       daas report RUN…
       daas watch RUN
       daas explain KEY | stage=NAME"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 failed, 2 a wrong call or configuration."""
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
    except (ValueError, FileNotFoundError) as error:
        print(f"daas {command}: {error}", file=sys.stderr)
        return 2
    except FloatingPointError as error:
        print(f"daas {command}: {error}", file=sys.stderr)
        return 1
    print(USAGE, file=sys.stderr)
    return 2


def _run(settings: config.Config) -> int:
    # Only here: torch.distributed and the networks take seconds to import.
    from daas_dist.run import run_search
    from daas_dist.train import run_training

    run_dir = run_search(settings) if settings.kind == "search" else run_training(settings)
    if settings.kind == "train" or (run_dir / "DONE").exists():
        print(report.write([run_dir]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
