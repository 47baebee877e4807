"""Where a step's time goes, what it computes and moves, how much memory it takes, what the machine
can do. Nothing here changes what is measured."""

import os
import re
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import plain
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import conv_flop_count, flop_registry

from daas_dist.distributed.mesh import Mesh
from daas_dist.models.recorded import Recorded
from daas_dist.models.supernet import Supernet
from daas_dist.search.context import Context, Images

PARTS: dict[str, list[tuple[Any, str]]] = {
    "augmentation": [(Context, "augmented"), (Images, "normalised")],
    "forward": [(Supernet, "forward"), (Recorded, "__call__"), (plain.Supernet, "forward")],
    "backward": [(torch.autograd, "grad"), (Tensor, "backward")],
    "reductions": [
        (Mesh, name) for name in ("mean_data", "gather_data", "gather_arch", "total", "gather")
    ],
    "optimisers": [
        (torch.optim.SGD, "step"), (torch.optim.Adam, "step"), (nn.utils, "clip_grad_norm_"),
    ],
}  # fmt: skip
"""The functions whose time is a part's; the rest of a step is overhead."""


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@dataclass
class Took:
    """seconds: on the wall. cpu_seconds: of all threads of this process together."""

    seconds: float
    cpu_seconds: float


@contextmanager
def clock(device: torch.device) -> Generator[Took]:
    synchronise(device)
    took = Took(time.perf_counter(), time.process_time())
    yield took
    synchronise(device)
    took.seconds = time.perf_counter() - took.seconds
    took.cpu_seconds = time.process_time() - took.cpu_seconds


@dataclass
class Stopwatch:
    """The seconds of each part while `running`. A part inside another is the outer one's."""

    device: torch.device
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    inside: bool = False

    @contextmanager
    def running(self) -> Generator[None]:
        with ExitStack() as stack:
            for part, functions in PARTS.items():
                for owner, name in functions:
                    timed = self._timed(part, getattr(owner, name))
                    stack.enter_context(patch.object(owner, name, timed))
            yield

    def _timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if self.inside:
                return function(*arguments, **options)
            self.inside = True
            try:
                with clock(self.device) as took:
                    result = function(*arguments, **options)
            finally:
                self.inside = False
            self.seconds[part] += took.seconds
            return result

        return call


# --- What is computed and moved ------------------------------------------------------------------


def _convolution_backward_flops(
    grad_out: Tensor, x: Tensor, weight: Tensor, *others: Any, **_: Any
) -> int:
    """As much as forward for each gradient that is wanted. torch's own formula (2.14) takes every
    group of a depthwise convolution for a dense one."""
    transposed, wanted = others[4], others[7]
    shapes = list(x.shape), list(weight.shape), list(grad_out.shape)
    return conv_flop_count(*shapes, transposed=transposed) * sum(wanted[:2])


FLOPS = flop_registry | {torch.ops.aten.convolution_backward: _convolution_backward_flops}


class Work(TorchDispatchMode):
    """multiply_adds: of convolutions and matrix products. bytes: of every operator's tensors, read
    and written, of views none; an estimate, as caches keep some of it from memory, and an operator
    may read twice."""

    multiply_adds = 0.0
    bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = kwargs or {}
        result = func(*args, **options)
        if func.overloadpacket in FLOPS:
            flops = FLOPS[func.overloadpacket](*args, **options, out_val=result)
            self.multiply_adds += flops / 2
        if not func.is_view:
            leaves = tree_leaves((args, options, result))
            tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
            self.bytes += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        return result


class Launches(NamedTuple):
    """kernels: that run on the GPU, copies and fills left out. calls: that launch one, or a graph
    of many."""

    kernels: int
    calls: int


def launches(step: Callable[[], object]) -> Launches:
    """Count what a step sends to the GPU."""
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        step()
        torch.cuda.synchronize()
    events = profile.events() or ()
    names = [event.name for event in events if event.device_type.name == "CUDA"]
    return Launches(
        sum(not re.match("Mem(cpy|set)", name) for name in names),
        sum(bool(re.match("cu(da)?(LaunchKernel|GraphLaunch)", event.name)) for event in events),
    )


# --- What the machine can do ---------------------------------------------------------------------


def _least_seconds(run: Callable[[], object], device: torch.device) -> float:
    """Of eight: what the machine can, not what it does while others are at work."""
    seconds = []
    for _ in range(8):
        with clock(device) as took:
            run()
        seconds.append(took.seconds)
    return min(seconds)


def dense_convolution(batch: int, device: torch.device) -> float:
    """Multiply-adds a second of a 3×3 convolution, 64 to 64 channels, 32×32, channels_last."""
    layout = torch.channels_last
    x = torch.randn(batch, 64, 32, 32, device=device).contiguous(memory_format=layout)
    weight = torch.randn(64, 64, 3, 3, device=device).contiguous(memory_format=layout)
    with torch.no_grad():
        seconds = _least_seconds(lambda: F.conv2d(x, weight, padding=1), device)
    return batch * 64 * 64 * 9 * 32 * 32 / seconds


def matrix_product(size: int, dtype: torch.dtype, device: torch.device) -> float:
    """Multiply-adds a second of a product of two square matrices."""
    a, b = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))
    return size**3 / _least_seconds(lambda: a @ b, device)


def copy(device: torch.device) -> float:
    """Bytes a second, read and written, of a copy of 256 MiB."""
    there = torch.zeros(2**26, device=device)
    here = torch.empty_like(there)
    return 2 * 2**28 / _least_seconds(lambda: here.copy_(there), device)


def small_call(device: torch.device) -> float:
    """Seconds of an operator that has next to nothing to do, one of many."""
    number = torch.zeros(1, device=device)

    def run() -> None:
        for _ in range(1000):
            number.add_(1)

    return _least_seconds(run, device) / 1000


# --- Memory --------------------------------------------------------------------------------------


def peak_bytes(step: Callable[[], object], steps: int, device: torch.device) -> int:
    """The most that so many steps take over what there was before, what graphs keep included. On a
    CPU of the whole process (Linux): one that has made no step yet."""
    if device.type == "cuda":
        before = torch.cuda.memory_reserved(device)
        torch.cuda.reset_peak_memory_stats(device)
    else:
        before = _kilobytes("VmRSS") * 1024
        Path("/proc/self/clear_refs").write_text("5")
    for _ in range(steps):
        step()
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) - before
    return _kilobytes("VmHWM") * 1024 - before


def _kilobytes(name: str) -> int:
    status = Path("/proc/self/status").read_text()
    found = re.search(rf"^{name}:\s+(\d+) kB", status, re.MULTILINE)
    assert found
    return int(found[1])


def machine(device: torch.device) -> dict[str, Any]:
    """What the numbers were measured on, and how busy it was."""
    models = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    cuda = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if cuda else models[0],
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "load": os.getloadavg()[0],
    }
