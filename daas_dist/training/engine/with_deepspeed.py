"""The engine that DeepSpeed runs. Importing this module imports deepspeed."""

import logging
import os
import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import Any, final

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from daas_dist.config.rules import ConfigError
from daas_dist.distributed.cut import Cut
from daas_dist.distributed.faults import waiting
from daas_dist.distributed.mesh import Mesh
from daas_dist.runs.memory import within_memory
from daas_dist.training.engine.interface import LOWER, Engine, Pass

if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import deepspeed
    from deepspeed import ops
    from deepspeed.utils import logger

AUTOCAST = {"bf16": "bfloat16", "fp16": "float16"}


@final
class DeepSpeed(Engine):
    """ZeRO stage 0: every rank has all weights, and checkpoints are of no number of ranks."""

    def __init__(
        self,
        network: nn.Module,
        optimiser: Optimizer,
        mesh: Mesh,
        cut: Cut,
        *,
        clip: float | None,
        precision: str,
    ) -> None:
        super().__init__(network, optimiser, mesh, clip=clip, precision=precision)
        if not dist.is_initialized():
            raise ConfigError(
                "engine=deepspeed is not possible in a process of its own: expected ranks, as "
                "torchrun starts them, or engine=ddp"
            )
        logger.setLevel(logging.ERROR)
        # Otherwise a C++ operation for ranks on one host is compiled, which training never calls.
        ops.__dict__["__compatible_ops__"] = {}
        settings: dict[str, Any] = {
            "train_micro_batch_size_per_gpu": cut.micro_batch,
            "gradient_accumulation_steps": len(cut.own),
            "managed_gradient_accumulation": False,
            "gradient_clipping": clip or 0.0,  # 0 does not clip
            "zero_optimization": {"stage": 0},
            "steps_per_print": None,
        }
        if precision in AUTOCAST:
            settings["torch_autocast"] = {"enabled": True, "dtype": AUTOCAST[precision]}
        # DeepSpeed sends the weights as bytes, which channels_last is not laid out for.
        network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        self._deepspeed = deepspeed.initialize(
            model=network, optimizer=optimiser, config=settings, dist_init_required=False
        )[0]
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.scaler = self._deepspeed.torch_autocast_z0_gradscaler or self.scaler
        # Its own adds up in another order, and soon they are other networks.
        self._deepspeed.clip_fp32_gradients = self.clip_gradients

    def forward(self, images: Tensor) -> Any:
        return self._deepspeed(images)

    def begin(self, first: Pass) -> None:
        pass

    def passing(self, last: bool) -> AbstractContextManager[Any]:
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        with within_memory(LOWER):
            self._deepspeed.backward(loss, scale_wrt_gas=False)

    def update(self) -> None:
        with waiting(self.mesh.rank, "summing gradients"):
            self._deepspeed.step()
