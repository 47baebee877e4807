"""What the choices of the grid of ranks cost: a step of each, in turn, in one run.

    OMP_NUM_THREADS=1 torchrun --standalone --nproc-per-node 2 benchmarks/ranks.py
    OMP_NUM_THREADS=1 torchrun --standalone --nproc-per-node 4 benchmarks/ranks.py method=ours

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
from on_noise import search_on_noise

from daas_dist.distributed.connect import connect
from daas_dist.distributed.mesh import Mesh, share_batches
from daas_dist.models.supernet import Supernet
from daas_dist.search.steps import Search

Patch = Callable[[], AbstractContextManager[object]]


def by_count() -> AbstractContextManager[object]:
    """Every path is taken to cost the same."""
    return patch.object(Supernet, "cost", lambda self, path: 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("overrides", nargs="*", help="key=value")
    parser.add_argument("--rounds", type=int, default=6)
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    def build(overrides: list[str], mesh: Mesh) -> Search:
        return search_on_noise([*arguments.overrides, *overrides], mesh, 32, 4)

    alone = connect("cpu")
    variants: dict[str, tuple[Search, Patch]] = {
        "exact, dealt by cost": (build([], alone), nullcontext),
        "exact, dealt by count": (build([], alone), by_count),
        "fast": (build(["mesh.reduction=fast"], alone), nullcontext),
    }
    if alone.world % 2 == 0:
        pairs = share_batches(alone, 2)
        variants["mesh.data=2"] = build([], pairs), nullcontext
        local = build(["mesh.data=2", "mesh.norm=local"], pairs)
        variants["mesh.data=2, local norms"] = local, nullcontext
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
