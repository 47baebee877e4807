"""The engines that need torch alone: Alone and Ddp."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, final

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from daas_dist.distributed.faults import waiting
from daas_dist.distributed.mesh import Mesh
from daas_dist.runs.memory import within_memory
from daas_dist.training.engine.interface import LOWER, Engine, Pass


class Native(Engine):
    """Backward pass and optimiser step as torch has them."""

    def backward(self, loss: Tensor) -> None:
        with within_memory(LOWER):
            self.scaler.scale(loss).backward()

    def update(self) -> None:
        self.scaler.unscale_(self.optimiser)
        self.clip_gradients()
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad()


@final
class Alone(Native):
    """One rank."""

    def forward(self, images: Tensor) -> Any:
        with self.autocast():
            return self.network(images)

    def begin(self, first: Pass) -> None:
        pass

    def passing(self, last: bool) -> AbstractContextManager[Any]:
        return nullcontext()


@final
class Ddp(Native):
    """Several ranks, by torch's DDP: gradients are summed in buckets while others are computed."""

    def __init__(
        self,
        network: nn.Module,
        optimiser: Optimizer,
        mesh: Mesh,
        *,
        clip: float | None,
        precision: str,
    ) -> None:
        super().__init__(network, optimiser, mesh, clip=clip, precision=precision)
        self._wrapped = DistributedDataParallel(network, gradient_as_bucket_view=True)
        self._wrapped.broadcast_buffers = False  # Engine.step's work; as an argument deprecated

    def forward(self, images: Tensor) -> Any:
        with self.autocast():
            return self._wrapped(images)

    def begin(self, first: Pass) -> None:
        """DDP lays its buckets out anew after its first backward pass, in the order in which the
        gradients came; and where a gradient lies decides in which order ranks are summed. A run
        that resumes has to have that layout from its first step on, as one left in peace has."""
        with waiting(self.mesh.rank, "laying out gradients"):
            with within_memory(LOWER):
                first().minimised.backward()
            with self._wrapped.no_sync():
                first()  # the new layout is made at the next forward pass
        self.optimiser.zero_grad()

    def passing(self, last: bool) -> AbstractContextManager[Any]:
        return nullcontext() if last else self._wrapped.no_sync()

    def backward(self, loss: Tensor) -> None:
        with waiting(self.mesh.rank, "summing gradients"):
            super().backward(loss)
