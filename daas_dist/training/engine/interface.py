"""The step that every engine makes, and what an engine is."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from daas_dist.distributed.mesh import Mesh
from daas_dist.runs.memory import within_memory

LOWER = "train.micro_batch"
"""What helps where a device has too little memory."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Passed(NamedTuple):
    """What a forward pass over one micro-batch gives."""

    minimised: Tensor
    """The loss whose gradient is taken, a mean over images; a scalar."""
    reported: Tensor
    """Means over the images of what is told of a step, as loss and accuracy: [R]."""


Pass = Callable[[], Passed]
"""A forward pass through Engine.forward. Called again it gives the same: what it draws has an
address."""


class Engine(ABC):
    """Makes optimiser steps of one network together with the other ranks of a mesh."""

    def __init__(
        self,
        network: nn.Module,
        optimiser: Optimizer,
        mesh: Mesh,
        *,
        clip: float | None,
        precision: str,
    ) -> None:
        """clip: the largest norm of a gradient. precision: fp32, bf16 or fp16, of the forward pass;
        the weights are float32 always."""
        self.network, self.optimiser, self.mesh, self.clip = network, optimiser, mesh, clip
        self.device = next(network.parameters()).device
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "fp16")
        self._dtype = DTYPES[precision]
        self._began = False
        if precision != "fp16":  # there too large a gradient is part of the method: scaler.step
            optimiser.register_step_pre_hook(_refuse_non_finite)

    @final
    def step(self, passes: Sequence[Pass]) -> Tensor:
        """One optimiser step from this rank's micro-batches; all ranks have as many.

        The gradient is the mean over all micro-batches, clipped by its norm. So are the buffers
        afterwards: the mean of what each micro-batch would have made of those before the step.
        Gives the mean of what the passes report, [R] float64 on the CPU. FloatingPointError on all
        ranks, before a weight is changed, if a loss or the gradient is not finite.
        """
        buffers = list(self.network.buffers())
        before = [buffer.clone() for buffer in buffers]
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        if not self._began:
            self.begin(passes[0])
            self._began = True
        for number, forward in enumerate(passes, start=1):
            _copy(buffers, before)
            with self.passing(last=number == len(passes)):
                with within_memory(LOWER):
                    passed = forward()
                self.backward(passed.minimised / len(passes))
                total = total + _flat([passed.minimised, *buffers, passed.reported])
        mean = self.mesh.total(total, "losses and buffers") / (len(passes) * self.mesh.world)
        sizes = [1, *(buffer.numel() for buffer in buffers)]
        minimised, *means = mean[: sum(sizes)].split(sizes)
        if not bool(minimised.isfinite()):
            raise FloatingPointError("the loss is not finite")
        _copy(buffers, means)
        self.update()
        return mean[sum(sizes) :].cpu()

    @final
    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context in which the network computes in the engine's precision."""
        enabled = self._dtype != torch.float32
        return torch.autocast(self.device.type, self._dtype, enabled=enabled)

    @abstractmethod
    def forward(self, images: Tensor) -> Any:
        """The network's output, in training."""

    @abstractmethod
    def begin(self, first: Pass) -> None:
        """Before the first step of this process. What a pass leaves is forgotten."""

    @abstractmethod
    def passing(self, last: bool) -> AbstractContextManager[Any]:
        """Wrap the passes of each micro-batch. last: it is this rank's last of the step."""

    @abstractmethod
    def backward(self, loss: Tensor) -> None:
        """Add to the gradients."""

    @abstractmethod
    def update(self) -> None:
        """The optimiser's step by the mean of all ranks' gradients, clipped; gradients are 0
        again."""

    @final
    def clip_gradients(self) -> None:
        """Clip gradients by the norm of all together, added up in one order whatever the engine."""
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.clip)

    @final
    def save(self) -> dict[str, Any]:
        """The state of the optimiser and of the loss scale, the same for every engine."""
        return {"optimiser": self.optimiser.state_dict(), "scaler": self.scaler.state_dict()}

    @final
    def load(self, saved: dict[str, Any]) -> None:
        self.optimiser.load_state_dict(saved["optimiser"])
        self.scaler.load_state_dict(saved["scaler"])


@torch.no_grad()
def _copy(buffers: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    for buffer, value in zip(buffers, values, strict=True):
        buffer.copy_(value.view_as(buffer))


def _flat(values: Sequence[Tensor]) -> Tensor:
    return torch.cat([value.detach().flatten().double() for value in values])


def _refuse_non_finite(optimiser: Optimizer, *_: object) -> None:
    weights = [weight for group in optimiser.param_groups for weight in group["params"]]
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    if not bool(nn.utils.get_total_norm(gradients).isfinite()):
        raise FloatingPointError("the gradient is not finite")
