"""What a step of the search would take on 1 to 64 GPUs: a model, fed with measured parts.

    python benchmarks/step.py --device cuda --json step.json
    python benchmarks/scaling.py step.json --gigabytes 20 --microseconds 30

From step.json: seconds of a pass at two batch sizes, hence of a batch of any (a + b × images), of
augmentation, of the optimisers and of the rest. Counted: the bytes and calls between ranks (of real
steps, as benchmarks/traffic.py counts them) and how evenly architectures deal (drawn as at the
start of a search, dealt by their costs). Assumed: --gigabytes a second and --microseconds a call.

Strong: the paper's step (5 architectures, 10 for the weights, batch 64) on more ranks; mesh.data is
that of the shortest step. Weak: as many architectures more as ranks. Printed: seconds, what they
are of one rank's, and the share of a rank's time that computes, waits for others, and travels.
"""

import argparse
import json
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from traffic import step_bytes

from daas_dist.distributed.deal import assign, sums
from daas_dist.models.supernet import Supernet
from daas_dist.spaces.cells import path_of, random_genotype

RANKS = (1, 2, 4, 8, 16, 32, 64)
BATCH = 64
ARCHITECTURES, PASSES, WEIGHT_ARCHITECTURES = 5, 3, 10
"""Paper Sec. 5 and 4.2; two training passes and a validation pass an architecture."""
ALL_PASSES = ARCHITECTURES * PASSES + WEIGHT_ARCHITECTURES
DRAWS = 200


@dataclass(frozen=True)
class Parts:
    """Measured seconds: of a pass, `launch` + `image` × images; of a step, augmenting an image of
    all its views, and what every rank does again."""

    launch: float
    image: float
    augmentation: float
    again: float

    @staticmethod
    def read(path: Path) -> "Parts":
        batches = {b["batch"]: b for b in json.loads(path.read_text())["batches"]}
        if len(batches) < 2 or BATCH not in batches:
            raise SystemExit(f"{path}: batches {sorted(batches)}; expected {BATCH} and another")
        other = next(size for size in batches if size != BATCH)
        one, two = (_medians(batches[size]) for size in (other, BATCH))
        each = [(m["forward"] + m["backward"]) / ALL_PASSES for m in (one, two)]
        image = (each[1] - each[0]) / (BATCH - other)
        again = two["optimisers"] + two["overhead"]
        return Parts(each[1] - BATCH * image, image, two["augmentation"] / BATCH, again)


def _medians(batch: dict[str, Any]) -> dict[str, float]:
    parts = batch["variants"]["paper"]["parts"]
    return {name: statistics.median(seconds) for name, seconds in parts.items()}


@dataclass(frozen=True)
class Step:
    """Seconds of the slowest rank, in parts."""

    computes: float
    waits: float
    travels: float

    @property
    def seconds(self) -> float:
        return self.computes + self.waits + self.travels


def step(parts: Parts, arch: int, data: int, more: int, between: float) -> Step:
    """more: times as many architectures as the paper's. between: seconds that travel."""
    one_pass = parts.launch + parts.image * BATCH / data
    mean, longest = 0.0, 0.0
    for count, passes in ((ARCHITECTURES, PASSES), (WEIGHT_ARCHITECTURES, 1)):
        dealt = [_shares(count * more, arch, draw) for draw in range(DRAWS)]
        mean += one_pass * passes * count * more / arch
        longest += one_pass * passes * statistics.mean(max(shares) for shares in dealt)
    augments = parts.augmentation * BATCH / data * more / min(arch, ARCHITECTURES * more)
    return Step(mean + augments + parts.again, longest - mean, between)


def _shares(count: int, ranks: int, draw: int) -> list[float]:
    """What each rank has to do, in passes of a mean path."""
    generator = torch.Generator().manual_seed(draw)
    costs = [NETWORK.cost(path_of(random_genotype(generator))) for _ in range(count)]
    mean = statistics.mean(costs)
    return [load / mean for load in sums(assign(costs, ranks), costs, ranks)]


with torch.device("meta"):
    NETWORK = Supernet()


def grids(ranks: int) -> Iterator[tuple[int, int]]:
    """(arch, data), at most 8 ranks along data: those of a node."""
    return ((ranks // d, d) for d in (1, 2, 4, 8) if ranks % d == 0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("step", type=Path, help="what benchmarks/step.py --json has written")
    parser.add_argument("--gigabytes", type=float, default=20.0, help="a second, into a rank")
    parser.add_argument("--microseconds", type=float, default=30.0, help="of a collective call")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    parts = Parts.read(arguments.step)

    def between(arch: int, data: int) -> tuple[float, float]:
        """Seconds of the bytes of a step and of its calls."""
        found = step_bytes(arch, data, [], 1)
        moved = sum(found[axis] for axis in ("arch", "data", "all"))
        calls = found["calls"] * arguments.microseconds / 1e6
        return moved / (arguments.gigabytes * 1e9), calls

    travels = {grid: between(*grid) for ranks in RANKS for grid in grids(ranks)}
    alone = step(parts, 1, 1, 1, 0.0).seconds
    for title, weak in (("strong", False), ("weak", True)):
        columns = ("ranks", "arch × data", "seconds", "of one rank's")
        print(f"\n{title}\n| {' | '.join(columns)} | computes | waits | travels |")
        print("|---|---|---|---|---|---|---|")
        for ranks in RANKS:
            more = ranks if weak else 1
            steps: dict[tuple[int, int], Step] = {}
            for arch, data in grids(ranks):
                if data == 1 or not weak:
                    moving, calling = travels[arch, data]
                    # Every term's gradients travel, so their bytes grow with the architectures.
                    steps[arch, data] = step(parts, arch, data, more, moving * more + calling)
            (arch, data), best = min(steps.items(), key=lambda each: each[1].seconds)
            shares = (best.computes, best.waits, best.travels)
            cells = [f"{best.seconds:.4g}", f"{best.seconds / alone:.2f}"]
            cells += [f"{share / best.seconds:.0%}" for share in shares]
            print(f"| {ranks} | {arch} × {data} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
