"""Training one network on many ranks: an Engine makes one optimiser step from micro-batches.

cut.py        how a step's batch is cut into micro-batches, and these dealt over the ranks
interface.py  Engine: the step, the same for all three
native.py     Alone, on one rank; Ddp, by torch's DistributedDataParallel
with_deepspeed.py  DeepSpeed, by deepspeed.initialize, ZeRO stage 0

Whatever the engine and however many the ranks: the gradient of a step is the mean over its
micro-batches, and so are the running statistics of batch norms.
"""

from torch import nn
from torch.optim import Optimizer

from daas_dist.distributed.cut import Cut
from daas_dist.distributed.mesh import Mesh
from daas_dist.training.engine.interface import Engine, Pass, Passed
from daas_dist.training.engine.native import Alone, Ddp

__all__ = ["SHARING", "Alone", "Cut", "Ddp", "Engine", "Pass", "Passed", "build"]


def build(
    name: str,
    network: nn.Module,
    optimiser: Optimizer,
    mesh: Mesh,
    cut: Cut,
    *,
    clip: float | None,
    precision: str,
) -> Engine:
    """Return the engine by that name. The network is on its device."""
    return ENGINES[name](network, optimiser, mesh, cut, clip, precision)


def _alone(
    network: nn.Module, optimiser: Optimizer, mesh: Mesh, _: Cut, clip: float | None, precision: str
) -> Engine:
    return Alone(network, optimiser, mesh, clip=clip, precision=precision)


def _ddp(
    network: nn.Module, optimiser: Optimizer, mesh: Mesh, _: Cut, clip: float | None, precision: str
) -> Engine:
    """A single rank has nobody to exchange with."""
    engine = Ddp if mesh.world > 1 else Alone
    return engine(network, optimiser, mesh, clip=clip, precision=precision)


def _deepspeed(
    network: nn.Module,
    optimiser: Optimizer,
    mesh: Mesh,
    cut: Cut,
    clip: float | None,
    precision: str,
) -> Engine:
    from daas_dist.training.engine.with_deepspeed import DeepSpeed  # only where it is chosen

    return DeepSpeed(network, optimiser, mesh, cut, clip=clip, precision=precision)


ENGINES = {"alone": _alone, "ddp": _ddp, "deepspeed": _deepspeed}
SHARING = frozenset(("ddp", "deepspeed"))
"""Engines whose ranks train one network together; of others each rank trains its own."""
