"""The engines that need torch alone: Alone and Ddp."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from daas_dist.engine.interface import Engine, Pass, within_memory
from daas_dist.faults import waiting
from daas_dist.mesh import Mesh


@final
class ScaledStep:
    """Backward pass and optimiser step, with the scale of the loss that fp16 needs and no other."""

    def __init__(
        self, network: nn.Module, optimiser: Optimizer, *, clip: float | None, precision: str
    ) -> None:
        device = next(network.parameters()).device.type
        self.network, self.optimiser, self.clip = network, optimiser, clip
        self.scaler = torch.amp.GradScaler(device, enabled=precision == "fp16")

    def backward(self, loss: Tensor) -> None:
        within_memory(self.scaler.scale(loss).backward)

    def update(self) -> None:
        self.scaler.unscale_(self.optimiser)
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.clip)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad()

    def save(self) -> dict[str, Any]:
        return {"optimiser": self.optimiser.state_dict(), "scaler": self.scaler.state_dict()}

    def load(self, saved: dict[str, Any]) -> None:
        self.optimiser.load_state_dict(saved["optimiser"])
        self.scaler.load_state_dict(saved["scaler"])


@final
class Alone(Engine):
    """One rank."""

    def __init__(
        self,
        network: nn.Module,
        optimiser: Optimizer,
        mesh: Mesh,
        *,
        clip: float | None,
        precision: str,
    ) -> None:
        super().__init__(network, optimiser, mesh, precision)
        self._scaled = ScaledStep(network, optimiser, clip=clip, precision=precision)

    def forward(self, images: Tensor) -> Any:
        with self.autocast():
            return self.network(images)

    def begin(self, first: Pass) -> None:
        pass

    def passing(self, last: bool) -> AbstractContextManager[Any]:
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        self._scaled.backward(loss)

    def update(self) -> None:
        self._scaled.update()

    def save(self) -> dict[str, Any]:
        return self._scaled.save()

    def load(self, saved: dict[str, Any]) -> None:
        self._scaled.load(saved)


@final
class Ddp(Engine):
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
        super().__init__(network, optimiser, mesh, precision)
        self._scaled = ScaledStep(network, optimiser, clip=clip, precision=precision)
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
            within_memory(lambda: first().minimised.backward())
            with self._wrapped.no_sync():
                first()  # the new layout is made at the next forward pass
        self.optimiser.zero_grad()

    def passing(self, last: bool) -> AbstractContextManager[Any]:
        return nullcontext() if last else self._wrapped.no_sync()

    def backward(self, loss: Tensor) -> None:
        with waiting(self.mesh.rank, "summing gradients"):
            self._scaled.backward(loss)

    def update(self) -> None:
        self._scaled.update()

    def save(self) -> dict[str, Any]:
        return self._scaled.save()

    def load(self, saved: dict[str, Any]) -> None:
        self._scaled.load(saved)
