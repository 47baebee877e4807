"""DDP against DeepSpeed on the ranks it is started on: the same losses?, and how fast.

    OMP_NUM_THREADS=1 torchrun --standalone --nproc-per-node 2 benchmarks/engines.py [key=value ...]

Fashion-MNIST; of --networks, random is a derived network (a random genotype, 4 cells of 8 channels,
drop-path, auxiliary head), the others are those of train.compare. Both engines make the same steps
in turn, so that both meet the same noise of the machine. Printed: the largest relative
difference of a loss over all steps and over the first 10; the same for DDP against DDP with one
weight that starts one rounding (1 + 2⁻²³) away, which is what rounding alone becomes; images a
second of the slowest rank (median of the steps); DeepSpeed's ratio to DDP's step by step (median,
least to most); and the mean loss of DDP's first ten steps, which is the same on any number of ranks
if train.micro_batch is given.
"""

import argparse
import dataclasses
import statistics
import time

import torch
from planted_truth import smaller

from daas_dist import config as configuration
from daas_dist.config.schema import ARCHITECTURES
from daas_dist.data import Images
from daas_dist.data.dataset import DataSet, load_data
from daas_dist.distributed.connect import connect
from daas_dist.distributed.cut import cut
from daas_dist.distributed.mesh import Mesh
from daas_dist.rng import Part
from daas_dist.training.loop import Training
from daas_dist.training.rows import Row

STAGE = (
    "stage=train_fashion", "train.epochs=1000", "data.limit=2048", "data.test_limit=100",
)  # fmt: skip
CELLS = ("train.channels=8", "train.cells=4", "train.drop_path=0.2")
"""Of a network of cells; the fixed ones have sizes of their own."""
RANDOM = "train.compare=[random/default]"
ENGINES = ("ddp", "deepspeed")
NUDGED = "ddp, nudged"


def training(engine: str, data: DataSet, mesh: Mesh, given: list[str]) -> Training:
    config = configuration.load([*STAGE, f"engine={engine}", *given])
    shared = cut(config.train.batch_size, config.train.micro_batch, Part(mesh.rank, mesh.world))
    row = Row(config.train.compare[0], 0)
    device = torch.device(f"cuda:{mesh.local_rank}" if torch.cuda.is_available() else "cpu")
    started = Training(config, data, row, mesh, shared, device)
    started.network.train()
    return started


def step(training: Training, mesh: Mesh) -> tuple[float, float]:
    """(loss, seconds of the slowest rank)."""
    mesh.barrier()
    before, began = training.sums, time.monotonic()
    training.train_step()
    seconds = max(mesh.gather(time.monotonic() - began))
    return float((training.sums - before)[0]), seconds


def report(name: str, steps: int, mesh: Mesh, data: DataSet, given: list[str]) -> None:
    trainings = {engine: training(engine, data, mesh, given) for engine in ENGINES}
    trainings[NUDGED] = training("ddp", data, mesh, given)
    with torch.no_grad():
        next(trainings[NUDGED].network.parameters()).view(-1)[0] *= 1 + 2**-23
    made: dict[str, list[tuple[float, float]]] = {name: [] for name in trainings}
    for _ in range(steps):
        for engine, each in trainings.items():
            made[engine].append(step(each, mesh))
    if not mesh.leads:
        return
    losses, seconds = (
        {name: torch.tensor([each[i] for each in its]) for name, its in made.items()}
        for i in (0, 1)
    )
    apart, nudged = ((losses[name] / losses["ddp"] - 1).abs() for name in ("deepspeed", NUDGED))
    batch = trainings["ddp"].settings.batch_size
    speed = {e: batch / statistics.median(seconds[e][1:].tolist()) for e in ENGINES}
    ratios = sorted((seconds["ddp"] / seconds["deepspeed"])[1:].tolist())
    spread = f"{statistics.median(ratios):.2f} [{ratios[0]:.2f}-{ratios[-1]:.2f}]"
    print(
        f"{name:<16} {float(apart.max()):.0e} ({float(apart[:10].max()):.0e})   "
        f"{float(nudged.max()):.0e} ({float(nudged[:10].max()):.0e})  "
        f"{speed['ddp']:7.0f} {speed['deepspeed']:10.0f}   ×{spread}  "
        f"{float(losses['ddp'][:10].mean()):.6f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("overrides", nargs="*", help="key=value")
    parser.add_argument("--networks", nargs="+", default=["random", "wide_resnet_40_2"])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--side", type=int, help="of the images, in pixels, if not 28")
    arguments = parser.parse_args()
    for text in arguments.networks:
        if "=" in text:
            parser.error(f"--networks {text}: expected a network; key=value goes before it")
    torch.set_num_threads(1)
    mesh = connect("cuda" if torch.cuda.is_available() else "cpu")
    config = configuration.load([*STAGE, RANDOM, *arguments.overrides])
    data = load_data(config.data, config.seed)
    if arguments.side:
        assert isinstance(data.train, Images)
        data = dataclasses.replace(data, train=smaller(data.train, arguments.side))
    if mesh.leads:
        ranks = f"{mesh.world} ranks"
        print(f"{ranks:<16} apart (first 10)  nudged (first 10)  DDP/s  DeepSpeed/s  ratio  loss")
    for name in arguments.networks:
        sizes = CELLS if name in ARCHITECTURES else ()
        given = [*sizes, *arguments.overrides, f"train.compare=[{name}/default]"]
        report(name, arguments.steps, mesh, data, given)
    mesh.close()


if __name__ == "__main__":
    main()
