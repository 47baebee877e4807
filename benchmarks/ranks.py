"""What the choices of the grid of ranks cost: a step of each, in turn, in one run.

    OMP_NUM_THREADS=1 torchrun --standalone --nproc-per-node 2 benchmarks/ranks.py
    OMP_NUM_THREADS=1 torchrun --standalone --nproc-per-node 4 benchmarks/ranks.py preset=ours

Steps of the joint phase of stage=search_cifar10 on 32×32 noise (any key=value replaces its own).
Printed: the median of a step's seconds on the slowest rank, its ratio to that of the first line in
the same round (median, least to most), and the share of the ranks' time without an architecture.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from unittest.mock import patch

import torch

from daas_dist import config as configuration
from daas_dist.data import Images
from daas_dist.mesh import Mesh, connect, share_batches
from daas_dist.models.supernet import Supernet
from daas_dist.models.sync_norm import synchronise
from daas_dist.rng import stream
from daas_dist.run import build_network
from daas_dist.search import Search, SearchData

Patch = Callable[[], AbstractContextManager[object]]


def by_count() -> AbstractContextManager[object]:
    """Every path is taken to cost the same."""
    return patch.object(Supernet, "cost", lambda self, genotype: 1.0)


def noise(count: int, seed: int, channels: int) -> Images:
    g = stream(seed, "noise")
    pixels = torch.randint(256, (count, channels, 32, 32), generator=g, dtype=torch.uint8)
    return Images(pixels, torch.randint(10, (count,), generator=g), tuple("0123456789"))


def build(overrides: list[str], mesh: Mesh) -> Search:
    config = configuration.load(
        ["stage=search_cifar10", "data.root=none", "search.warmup_epochs=0", *overrides]
    )
    network = build_network(config, 10)
    if mesh.data > 1 and config.mesh.norm == "synchronised":
        network = synchronise(network, mesh.statistics)
    channels = config.data.channels
    train, val = (noise(4 * config.search.batch_size, seed, channels) for seed in (1, 2))
    given = SearchData(train, val, [0.5] * channels, [0.3] * channels)
    return Search(config, given, network, mesh, torch.device("cpu"))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("overrides", nargs="*", help="key=value")
    parser.add_argument("--rounds", type=int, default=6)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    alone = connect("cpu")
    variants: dict[str, tuple[Search, Patch]] = {
        "exact, dealt by cost": (build(arguments.overrides, alone), nullcontext),
        "exact, dealt by count": (build(arguments.overrides, alone), by_count),
        "fast": (build([*arguments.overrides, "mesh.reduction=fast"], alone), nullcontext),
    }
    if alone.world % 2 == 0:
        pairs = share_batches(alone, 2)
        variants["mesh.data=2"] = build(arguments.overrides, pairs), nullcontext
        local = [*arguments.overrides, "mesh.norm=local"]
        variants["mesh.data=2, local norms"] = build(local, pairs), nullcontext
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    idle: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(arguments.rounds + 1):
        for name, (search, patched) in variants.items():
            alone.barrier()
            began = time.monotonic()
            with patched():
                search.step()
            took = max(alone.gather(time.monotonic() - began))
            share = search.mesh.traffic.idle()
            if turn:  # the first warms up
                seconds[name].append(took)
                idle[name].append(share or 0.0)
    first = next(iter(seconds.values()))
    for name, each in seconds.items() if alone.leads else ():
        ratios = sorted(b / a for a, b in zip(first, each, strict=True))
        spread = f"{statistics.median(ratios):.2f} [{ratios[0]:.2f}-{ratios[-1]:.2f}]"
        waits = f"idle {statistics.mean(idle[name]):.0%}"
        print(f"{name:<26} {statistics.median(each):.2f} s  ×{spread}  {waits}")
    alone.close()


if __name__ == "__main__":
    main()
