"""A search that is killed again and again, on other numbers of ranks, against one left in peace.

    python tests/support/torture.py --kills 50 --seed 0 --out /tmp/torture

Every life starts on 1 to 4 ranks; at a random moment, from its start on, kill -9 ends a random
rank, or the launcher with all of them. Every step is saved, so many kills meet a checkpoint half
written. At the end the search's part of result.json, the weights, α, β, γ and every line of
metrics.jsonl (times and traffic aside) have to be the same bits.
"""

import argparse
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
from whole_runs import column, finish, read, start

from daas_dist.runs import checkpoint
from daas_dist.runs.log import read_metrics

STAGE = ("daas_dist", "stage=search_fashion", "preset=tiny", "data.limit=128")
TIMES = ("time", "images_per_second", "communication", "idle_share")
FOUND = ("genotype", "policy", "alpha", "beta", "evidence")


def words(run_dir: Path, epochs: int, ranks: int) -> list[str]:
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks), "-m"]
    return [
        *(launcher if ranks > 1 else []), *STAGE, f"search.joint_epochs={epochs}",
        "search.checkpoint_every=1", "search.log_every=1", f"run_dir={run_dir}",
    ]  # fmt: skip


def children(pid: int) -> list[int]:
    """The living children of a process."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == pid and fields[0] not in "ZX":
            found.append(int(path.parent.name))
    return sorted(found)


def life(run_dir: Path, epochs: int, longest: float, chance: random.Random) -> str:
    """Start, kill at a random moment, wait for the end; what was done to it."""
    ranks, moment = chance.randint(1, 4), chance.uniform(0, longest)
    process = start(*words(run_dir, epochs, ranks))
    time.sleep(moment)
    before = len(checkpoint.steps(run_dir / "checkpoints"))
    ended = process.poll() is not None
    workers = children(process.pid) if ranks > 1 else [process.pid]
    if not ended and workers:
        victim = chance.choice([*workers, process.pid])
        for pid in [victim, *(workers if victim == process.pid else [])]:
            os.kill(pid, signal.SIGKILL)
    process.communicate()
    return "" if ended else f"{ranks} ranks, killed after {moment:.1f} s, {before} checkpoints kept"


def same(run_dir: Path, peaceful: Path) -> None:
    """AssertionError with what differs."""
    for key in FOUND:
        assert read(run_dir / "result.json")[key] == read(peaceful / "result.json")[key], key
    metrics, expected = (
        [{k: v for k, v in row.items() if k not in TIMES} for row in read_metrics(each)]
        for each in (run_dir, peaceful)
    )
    assert metrics == expected, "metrics.jsonl"
    _same_bits(last(run_dir), last(peaceful), "checkpoint")


def last(run_dir: Path) -> dict[str, Any]:
    """The state at the end of a run."""
    folder = run_dir / "checkpoints"
    return checkpoint.load(folder, checkpoint.steps(folder)[-1])


def _same_bits(ours: Any, theirs: Any, name: str) -> None:
    if name in ("checkpoint.seconds",):
        return
    assert type(ours) is type(theirs), name
    if isinstance(ours, torch.Tensor):
        assert ours.dtype == theirs.dtype and torch.equal(ours, theirs), name
    elif isinstance(ours, dict):
        assert list(ours) == list(theirs), name
        for key in ours:
            _same_bits(ours[key], theirs[key], f"{name}.{key}")
    elif isinstance(ours, list | tuple):
        assert len(ours) == len(theirs), name
        for index, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            _same_bits(a, b, f"{name}[{index}]")
    else:
        assert ours == theirs, name


def torture(out: Path, kills: int, seed: int, epochs: int, longest: float) -> int:
    """AssertionError unless the killed search ends as the peaceful one. How often it was killed:
    less than `kills` where it came to its end before."""
    chance, tortured, peaceful = random.Random(seed), out / "killed", out / "peaceful"
    done = 0
    while done < kills and not (tortured / "DONE").exists():
        what = life(tortured, epochs, longest, chance)
        if what:
            done += 1
            print(f"{done}: {what}", flush=True)
    finish(*words(tortured, epochs, 1))
    finish(*words(peaceful, epochs, 1))
    same(tortured, peaceful)
    steps = len(column(peaceful / "metrics.jsonl", "step"))
    events = column(tortured / "events.jsonl", "event")
    print(f"{done} kills, {events.count('resumed')} resumes, {steps} steps: the same bits")
    return done


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=400, help="of the search; 1 is a few steps")
    parser.add_argument("--longest", type=float, default=30.0, help="seconds that a life may last")
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    given = parser.parse_args()
    done = torture(given.out, given.kills, given.seed, given.epochs, given.longest)
    if done < given.kills:
        sys.exit(f"it ended after {done} of {given.kills} kills; take more --epochs")


if __name__ == "__main__":
    main()
