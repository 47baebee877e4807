"""What a rank receives in a step of the search, by axis, on grids of 1 to 64 ranks.

    python benchmarks/traffic.py
    python benchmarks/traffic.py method=ours mesh.reduction=fast

Real steps of the joint phase of stage=search_cifar10 (any key=value replaces its own), whose draws
say which weights are active; what the ranks would send is counted and not sent. Images are 8×8
noise, as no count depends on what they show. Beside it what torch's DDP, find_unused_parameters,
sums: all weights, active or not, once a step (no_sync before), or at every backward ("always").
"""

import argparse
from collections import defaultdict
from typing import Any
from unittest.mock import patch

import torch
from on_noise import search_on_noise

from daas_dist.distributed.mesh import Mesh, reduced_bytes

GRIDS = [(1, 1), (2, 1), (4, 1), (8, 1), (16, 1), (1, 2), (1, 4), (1, 8), (4, 2), (4, 4), (8, 4)]
GRIDS += [(4, 8), (8, 8), (16, 4)]
"""(arch, data)"""


class NoOneElse:
    """In place of torch.distributed: every other rank says what this one says."""

    def __init__(self) -> None:
        self.calls = 0

    def all_gather(self, everyone: list[torch.Tensor], own: torch.Tensor, group: Any) -> None:
        self.calls += 1
        for tensor in everyone:
            tensor.copy_(own)

    def all_reduce(self, tensor: torch.Tensor, group: Any = None) -> None:
        self.calls += 1

    @staticmethod
    def get_backend() -> str:
        return "gloo"


def step_bytes(arch: int, data: int, overrides: list[str], steps: int) -> dict[str, float]:
    """Bytes a step by axis ("arch", "data", "all") and of torch's DDP; "calls" of collectives."""
    mesh, no_one = Mesh(world=arch * data, data=data), NoOneElse()
    with patch("daas_dist.distributed.mesh.dist", no_one):
        search = search_on_noise(overrides, mesh, 8, steps)
        for _ in range(steps):
            search.step()
    found: dict[str, float] = defaultdict(float)
    for purpose, each in mesh.traffic.take().items():
        found[purpose.partition(":")[0]] += each["bytes"] / steps
    parameters = sum(weight.numel() for weight in search.theta.values())
    settings = search.config.search
    backwards = settings.architectures * (settings.policies_per_architecture + 1)
    backwards += 0 if settings.reuse_gradients else settings.weight_architectures
    found["DDP"] = reduced_bytes(arch * data, torch.empty(parameters, device="meta"))
    found["DDP always"] = backwards * found["DDP"]
    found["calls"] = no_one.calls / steps
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("overrides", nargs="*", help="key=value")
    parser.add_argument("--steps", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("MB received by a rank in a step\n")
    print("| ranks | arch × data | over arch | over data | over all | DDP once | DDP always |")
    print("|---|---|---|---|---|---|---|")
    for arch, data in GRIDS:
        found = step_bytes(arch, data, arguments.overrides, arguments.steps)
        columns = (found[name] / 1e6 for name in ("arch", "data", "all", "DDP", "DDP always"))
        numbers = " | ".join(f"{value:.2f}" for value in columns)
        print(f"| {arch * data} | {arch} × {data} | {numbers} |", flush=True)


if __name__ == "__main__":
    main()
