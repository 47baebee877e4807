"""Is it right? The device against float64 on the CPU, against itself, and against two ranks."""

import importlib.util
import multiprocessing
import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from on_noise import search_on_noise
from torch import Tensor
from torch.utils._pytree import tree_leaves

from daas_dist.config.method_names import methods
from daas_dist.distributed.connect import connect
from daas_dist.distributed.mesh import Mesh, share_batches
from daas_dist.methods.interface import Contribution
from daas_dist.methods.passes import flat
from daas_dist.rng import stream
from daas_dist.runs import checkpoint
from daas_dist.runs.job import be_deterministic
from daas_dist.search.context import Context, Images
from daas_dist.search.steps import Search
from daas_dist.spaces import operations as augment
from gpu.rows import Rows, Settings, Skipped, Values, attempt, failure, precision

ROOT = Path(__file__).parents[2]
WAYS: dict[str, tuple[str, ...]] = {
    "daas": ("method=daas",),
    "ours": ("method=ours",),
    "darts": ("method=darts",),
    "darts, first order": ("method=darts", "search.xi=0"),
    **{name: (f"method={name}",) for name in methods() if name not in ("daas", "darts")},
}
GRAPHS = "search.cuda_graphs=true"
EPOCH = 8
"""Steps of an epoch of noise."""

# --- The suite -----------------------------------------------------------------------------------

GPU_TESTS = ("tests/models/test_recorded.py", "tests/spaces/test_augment.py")


def suite(settings: Settings) -> Rows:
    """The tests that need a GPU: all are skipped where there is none."""
    if importlib.util.find_spec("pytest") is None:
        raise Skipped("skipped: needs pytest")
    words = ["-q", "-rf", "-p", "no:cacheprovider", "-k", "graphs or a_gpu", *GPU_TESTS]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words], cwd=ROOT, text=True, stdout=subprocess.PIPE
    )
    last = done.stdout.strip().splitlines()[-1]
    counts = {name: int(count) for count, name in re.findall(r"(\d+) ([a-z]+)", last)}
    names = ("passed", "failed", "skipped", "error")
    yield "tests of GPUs", {name: counts.get(name, 0) for name in names}
    for line in re.findall(r"^FAILED (\S+)", done.stdout, re.MULTILINE):
        yield line, {"failed": True}


# --- Gradients -----------------------------------------------------------------------------------

REFERENCE = "CPU float64"


@dataclass(frozen=True)
class Kind:
    """How the same step is computed."""

    device: torch.device
    dtype: torch.dtype
    graphs: bool = False
    precision: str = "ieee"


def gradients(settings: Settings) -> Rows:
    """Relative errors, ‖a - b‖ / ‖b‖, b in float64 on the CPU, of a step's gradients by θ, by z (or
    the weights of a mixture), by the logits, and of its rewards, forward-mode ones where the method
    takes those. The device's float64 errs by rounding, 1e-10; its float32 may err as the CPU's."""
    cpu, device = torch.device("cpu"), settings.device
    kinds = {
        REFERENCE: Kind(cpu, torch.float64),
        "float64": Kind(device, torch.float64),
        "its graphs": Kind(device, torch.float64, graphs=True),
        "float32": Kind(device, torch.float32),
        "graphs": Kind(device, torch.float32, graphs=True),
        "CPU float32": Kind(cpu, torch.float32),
    }
    if settings.on_gpu:
        kinds["TF32"] = Kind(device, torch.float32, precision="tf32")
    for way, words in WAYS.items():
        found: dict[str, dict[str, Tensor]] = {}
        for column, kind in kinds.items():
            try:
                found[column] = step_of(words, settings, kind)
            except Exception as error:
                yield f"{way}: {column}", failure(error)
        expected = found.pop(REFERENCE, {})
        for what, value in expected.items():
            yield f"{way}: {what}", {c: _error(each[what], value) for c, each in found.items()}


def _error(found: Tensor, expected: Tensor) -> float | None:
    size = float(expected.norm())
    return float((found - expected).norm()) / size if size else None


def step_of(words: Sequence[str], settings: Settings, kind: Kind) -> dict[str, Tensor]:
    """Both halves of a method's first step on noise, away from where the logits start: what they
    would move, and what the paths contributed; float64 on the CPU."""
    normalised, dealt, terms = Images.normalised, Context.map, list[Contribution]()

    def in_dtype(images: Images, images_u8: Tensor) -> Tensor:
        return normalised(images, images_u8).to(kind.dtype)

    def kept(*arguments: Any, **options: Any) -> list[Contribution]:
        found = dealt(*arguments, **options)
        terms.extend(found)
        return found

    given = [*settings.network, *words, f"search.batch_size={settings.batch(16)}"]
    given += [GRAPHS] if kind.graphs else []
    with ExitStack() as stack:
        stack.enter_context(precision(kind.precision))
        stack.enter_context(patch.object(Images, "normalised", in_dtype))
        stack.enter_context(patch.object(Context, "map", kept))
        search = search_on_noise(given, Mesh(), settings.side, EPOCH, str(kind.device))
        search.state.network.to(kind.dtype)
        logits = search.state.logits
        for name, value in logits.items():
            noise = torch.randn(value.shape, generator=stream(0, "logits", name))
            value.data = value.data.double() + 0.5 * noise.double()
        context = search.context()
        halves = [search.method.search(logits, search.state.memory, context)]
        if halves[0].by_theta is None:
            halves.append(search.method.train(logits, search.state.memory, context))
    by_theta = halves[-1].by_theta
    assert by_theta is not None
    found = {"θ": torch.cat([by_theta[name].reshape(-1) for name in sorted(by_theta)])}
    for name, small in (("z", "z_grad"), ("rewards", "reward")):
        parts = [term.small[small].reshape(-1) for term in terms if small in term.small]
        found |= {name: torch.cat(parts)} if parts else {}
    by_logits = halves[0].by_logits
    for group in sorted({name.partition(".")[0] for name in by_logits}):
        parts = [v.reshape(-1) for name, v in by_logits.items() if name.partition(".")[0] == group]
        found[group] = torch.cat(parts)
    return {name: value.detach().cpu().double() for name, value in found.items()}


# --- Image operations ----------------------------------------------------------------------------


def operations(settings: Settings) -> Rows:
    """Pixels of the device that are not the CPU's, of all, and the largest difference; the same for
    what follows an operation."""
    count, side = (64, 24) if settings.quick else (1000, 45)
    for channels in (1, 3):
        g = stream(1, "pixels", channels)
        images = torch.randint(256, (count, channels, side, side), generator=g, dtype=torch.uint8)
        images[::2] = images[::2] // 4 + 90  # few levels: there is contrast to be gained
        drawn = (
            torch.arange(count) % augment.MAGNITUDES,
            torch.randint(2, (count,), generator=g) * 2 - 1,
            torch.rand(count, 2, generator=g),
        )
        for number, operation in enumerate(augment.TABLE):
            function = partial(_operated, number, drawn)
            name = f"{operation.name}, {'grey' if channels == 1 else 'colour'}"
            yield attempt(name, pixels_apart, function, images, settings.device)
    floats = torch.rand(count, 3, side, side, generator=stream(2, "pixels"))
    pixels = (floats * 255).to(torch.uint8)
    mean, std = [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]
    others: list[tuple[str, Callable[[Tensor], Tensor], Tensor]] = [
        ("crop and flip", lambda i: augment.crop_flip(i, 4, True, stream(3, "crop")), pixels),
        ("cutout square", lambda i: augment.cutout_square(i, 16, stream(4, "cut")), floats),
        ("normalise", lambda i: augment.normalise(i, mean, std), pixels),
    ]
    for name, function, given in others:
        yield attempt(name, pixels_apart, function, given, settings.device)


def _operated(number: int, drawn: tuple[Tensor, Tensor, Tensor], images: Tensor) -> Tensor:
    operation_N = torch.full((len(images),), number)
    having = augment.TABLE[number].ranges
    results = [augment.apply(images, operation_N, *drawn, ranges) for ranges in having]
    return torch.cat(results)


def pixels_apart(
    function: Callable[[Tensor], Tensor], images: Tensor, device: torch.device
) -> Values:
    here, there = function(images), function(images.to(device)).cpu()
    differ = (here.double() - there.double()).abs()
    return {
        "same bits": torch.equal(here, there),
        "differ": int((differ > 0).sum()),
        "of": differ.numel(),
        "largest": float(differ.max()),
    }


# --- The same bits -------------------------------------------------------------------------------

STEPS = 4


def deterministic(settings: Settings) -> Rows:
    """Whether two searches with deterministic=true end with the same bits, and one that was stopped
    in the middle, its checkpoint on the disk."""
    be_deterministic()
    for way, words in WAYS.items():
        yield attempt(way, _again, words, settings)
        yield attempt(f"{way}, graphs", _again, [*words, GRAPHS], settings)


def _again(words: Sequence[str], settings: Settings) -> Values:
    whole, again = (leaves(_go(_start(words, settings), STEPS)) for _ in range(2))
    resumed = _start(words, settings)
    with tempfile.TemporaryDirectory() as folder:
        stopped = _go(_start(words, settings), STEPS // 2).state
        checkpoint.save(folder, stopped.step, stopped.save(), keep=1)
        resumed.state.load(checkpoint.load(folder, stopped.step))
    rest = leaves(_go(resumed, STEPS))
    return {"again": same(whole, again), "stopped and resumed": same(whole, rest)}


def _start(words: Sequence[str], settings: Settings, mesh: Mesh | None = None) -> Search:
    given = [*settings.network, *words, f"search.batch_size={settings.batch(16)}"]
    return search_on_noise(given, mesh or Mesh(), settings.side, EPOCH, str(settings.device))


def _go(search: Search, steps: int) -> Search:
    while search.state.step < steps:
        search.step()
    return search


def leaves(search: Search) -> list[Any]:
    """All that a checkpoint holds, tensors on the CPU."""
    saved = tree_leaves(search.state.save())
    return [each.detach().cpu() if isinstance(each, Tensor) else each for each in saved]


def same(own: Sequence[Any], other: Sequence[Any]) -> bool:
    """Bit for bit; NaNs are never the same."""
    if len(own) != len(other):
        return False
    return all(
        torch.equal(a, b) if isinstance(a, Tensor) else a == b
        for a, b in zip(own, other, strict=True)
    )


# --- Ranks ---------------------------------------------------------------------------------------


def ranks(settings: Settings) -> Rows:
    """One process against two on the same device, by gloo: architectures dealt (the same bits), and
    batches shared (another rounding)."""
    for way in ("daas", "ours"):
        (alone,) = _in_ranks(1, WAYS[way], settings, 1)
        for name, data in ((way, 1), (f"{way}, mesh.data=2", 2)):
            yield attempt(name, _on_two, WAYS[way], settings, data, alone)


@dataclass(frozen=True)
class End:
    """All that a rank's checkpoint would hold, and θ of it."""

    state: list[Any]
    theta: Tensor


def _on_two(words: Sequence[str], settings: Settings, data: int, alone: End) -> Values:
    first, second = _in_ranks(2, words, settings, data)
    return {
        "ranks agree": same(first.state, second.state),
        "same bits as one": same(first.state, alone.state),
        "θ apart": _error(first.theta, alone.theta),
    }


def _in_ranks(world: int, words: Sequence[str], settings: Settings, data: int) -> list[End]:
    """Where a search is on each rank after some steps. A process that has used CUDA cannot fork."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(world, mp_context=context) as pool:
        given = (world, port, words, settings, data, torch.get_num_threads())
        jobs = [pool.submit(_of_rank, rank, *given) for rank in range(world)]
        return [job.result() for job in jobs]


def _of_rank(
    rank: int,
    world: int,
    port: int,
    words: Sequence[str],
    settings: Settings,
    data: int,
    threads: int,
) -> End:
    torch.set_num_threads(threads)
    be_deterministic()
    if world > 1:
        told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
        told |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in told.items()})
    mesh = share_batches(connect("cpu"), data)  # gloo; NCCL refuses two ranks on one device
    gathered = Mesh.gather_arch

    def on_device(mesh: Mesh, own: Tensor, what: str) -> list[Tensor]:
        return [each.to(settings.device) for each in gathered(mesh, own, what)]

    on_gpu = patch.object(Mesh, "gather_arch", on_device) if settings.on_gpu else nullcontext()
    with on_gpu:
        search = _go(_start([*words, f"mesh.data={data}"], settings, mesh), STEPS // 2)
    mesh.close()
    return End(leaves(search), flat(search.theta).detach().cpu())
