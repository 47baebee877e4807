"""Measure what pays: passes of the same sampled paths in several ways, in turn, each way's time as
a ratio to the first's of the same round."""

import statistics
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from unittest.mock import patch

import measure
import torch
import torch._dynamo
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from daas_dist.methods.passes import Batch, Forward, Weights, flat, forward_backward, functional
from daas_dist.models import depthwise
from daas_dist.models.recorded import Recorded
from daas_dist.models.supernet import SearchCell, Supernet
from daas_dist.rng import stream
from daas_dist.spaces.cells import KINDS, Path, path_of, random_genotype
from gpu.rows import NEEDS_CUDA, Rows, Settings, Skipped, Values, failure, precision

BATCH, PATHS, ROUNDS = 64, 6, 7
Passes = Callable[[], object]
Around = Callable[[], AbstractContextManager[object]]


@dataclass(frozen=True)
class Problem:
    """A supernet at its start, a batch of noise, some paths; the same whenever it is made."""

    network: Supernet
    paths: list[Path]
    batch: Batch

    @staticmethod
    def make(
        settings: Settings, paths: int = PATHS, layout: torch.memory_format = torch.channels_last
    ) -> "Problem":
        device, side = settings.device, settings.side
        torch.manual_seed(0)
        network = Supernet(4, 3) if settings.quick else Supernet()
        images = torch.randn(settings.batch(BATCH), 3, side, side)
        labels = torch.randint(10, (len(images),))
        return Problem(
            network.to(device, memory_format=layout),  # type: ignore[call-overload]
            [path_of(random_genotype(stream(i, "paths"))) for i in range(paths)],
            Batch(images.to(device, memory_format=layout), labels.to(device)),
        )

    def functional(self, forward: Forward) -> Passes:
        """Make passes as a search does, of weights that are given."""
        weights: Weights = dict(self.network.named_parameters())

        def run() -> None:
            for path in self.paths:
                theta = {name: weights[name] for name in self.network.active(path)}
                forward_backward(forward, theta, path, self.batch)

        return run

    def direct(self, network: Callable[[Tensor, Path], Tensor]) -> Passes:
        """Make passes of the network's own weights, which is all that some ways can do."""

        def run() -> None:
            for path in self.paths:
                self.network.zero_grad()
                cross_entropy(network(self.batch.images, path), self.batch.labels).backward()

        return run

    def gradient(self) -> Tensor:
        """Return the gradients of the last of `direct`'s passes."""
        names = self.network.active(self.paths[-1])
        weights = dict(self.network.named_parameters())
        return flat({name: weights[name].grad for name in names})  # type: ignore[misc]


def in_turn(ways: dict[str, tuple[Passes, Around]], settings: Settings) -> Rows:
    """Seconds of a pass, and ratios to the first way's: median, least, most. A way that fails is
    left out of what follows."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    failed = dict[str, Values]()
    for turn in range(1 + (1 if settings.quick else ROUNDS)):
        for name, (run, around) in ways.items():
            if name in failed:
                continue
            try:
                with around(), measure.clock(settings.device) as took:
                    run()
            except Exception as error:
                failed[name] = failure(error)
                continue
            if turn:  # the first warms up, and records
                seconds[name].append(took.seconds)
    first = next(iter(ways))
    for name, each in seconds.items():
        if name in failed or first in failed:
            yield name, failed.get(name, failed.get(first, {}))
            continue
        ratios = [b / a for a, b in zip(seconds[first], each, strict=True)]
        yield (
            name,
            {
                "seconds": statistics.median(each),
                "ratio": statistics.median(ratios),
                "least": min(ratios),
                "most": max(ratios),
            },
        )


# --- Settings of kernels -------------------------------------------------------------------------


@contextmanager
def benchmarked() -> Generator[None]:
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = False


def settings_of_kernels(settings: Settings) -> Rows:
    """Beside IEEE float32 in channels_last: other layouts, precisions, kernels; called, and as
    graphs of operations, where launches do not hide it."""
    last, first = torch.channels_last, torch.contiguous_format
    ieee, tf32 = partial(precision, "ieee"), partial(precision, "tf32")
    others = ("cpu", "cuda") if settings.on_gpu else ()
    regrouped = partial(patch.object, depthwise, "REGROUPED", others)
    name = "depthwise regrouped" if settings.on_gpu else "depthwise as torch has it"
    ways: dict[str, tuple[torch.memory_format, Around]] = {
        "as it is": (last, ieee),
        "NCHW": (first, ieee),
        name: (last, regrouped),
    }
    if settings.on_gpu:
        ways |= {"TF32": (last, tf32), "cudnn.benchmark": (last, benchmarked)}
    else:
        yield "TF32, cudnn.benchmark", {"ratio": NEEDS_CUDA}
    with ieee():
        for graphs in (False, True):
            made = dict[str, tuple[Passes, Around]]()
            for name, (layout, around) in ways.items():
                problem = Problem.make(settings, layout=layout)
                network = problem.network
                forward = Recorded(network) if graphs else functional(network)
                name = f"{name}, graphs" if graphs else name
                made[name] = problem.functional(forward), around
            yield from in_turn(made, settings)


# --- Graphs --------------------------------------------------------------------------------------


def graphs(settings: Settings) -> Rows:
    """Paths called, as graphs of operations (models/recorded.py), and with each operation passed
    through torch.cuda.make_graphed_callables; MB: what each keeps. The last one takes the network's
    own weights, and is compared with such a call too; apart: its gradient."""
    kept, before = dict[str, float](), _reserved(settings)
    made = dict[str, tuple[Passes, Around]]()

    def add(name: str, passes: Passes) -> None:
        nonlocal before
        passes()
        now = _reserved(settings)
        kept[name], before = (now - before) / 1e6, now
        made[name] = passes, nullcontext

    called = Problem.make(settings)
    add("called", called.functional(functional(called.network)))
    recorded = Problem.make(settings)
    add("graphs of operations", recorded.functional(Recorded(recorded.network)))
    direct = Problem.make(settings)
    add("called, own weights", direct.direct(direct.network))
    if settings.on_gpu:
        graphed = Problem.make(settings)
        inputs = inputs_of_operations(graphed)
        for operation, given in inputs.items():
            sample = torch.randn_like(given).requires_grad_()
            torch.cuda.make_graphed_callables(operation, (sample,))
        add("make_graphed_callables", graphed.direct(graphed.network))
        yield "make_graphed_callables", {
            "operations": len(inputs), "apart": _apart(graphed.gradient(), direct.gradient()),
        }  # fmt: skip
    else:
        yield "make_graphed_callables", {"ratio": NEEDS_CUDA}
    for name, values in in_turn(made, settings):
        yield name, {**values, "MB": kept[name] if settings.on_gpu else None}


def inputs_of_operations(problem: Problem) -> dict[nn.Module, Tensor]:
    """Return what each operation of the paths reads, without those that do nothing."""
    inputs: dict[nn.Module, Tensor] = {}
    operations = operations_of(problem)

    def note(module: nn.Module, given: tuple[Tensor]) -> None:
        inputs[module] = given[0].detach()

    hooks = [operation.register_forward_pre_hook(note) for operation in operations]
    with torch.no_grad():
        for path in problem.paths:
            problem.network(problem.batch.images, path)
    for hook in hooks:
        hook.remove()
    return inputs


def operations_of(problem: Problem) -> list[nn.Module]:
    found: dict[nn.Module, None] = {}
    for path in problem.paths:
        for kind, cell in zip(problem.network.kinds, problem.network.cells, strict=True):
            assert isinstance(cell, SearchCell)
            found |= dict.fromkeys(cell.chosen(path[KINDS.index(kind)]))
    return [operation for operation in found if not isinstance(operation, nn.Identity)]


def _reserved(settings: Settings) -> int:
    return torch.cuda.memory_reserved(settings.device) if settings.on_gpu else 0


def _apart(own: Tensor, other: Tensor) -> float:
    return float((own - other).norm() / other.norm())


# --- Compiled ------------------------------------------------------------------------------------


def compiled(settings: Settings) -> Rows:
    """One path called, with each of its operations compiled (as a search could have them, whose
    paths are others at each step), and compiled as a whole (which it could not)."""
    torch._dynamo.config.recompile_limit = 1000  # of operations that share their code
    torch._dynamo.config.accumulated_recompile_limit = 10_000

    def apiece(problem: Problem) -> Passes:
        for operation in operations_of(problem):
            operation.compile()
        return problem.direct(problem.network)

    def whole(problem: Problem) -> Passes:
        network = problem.network
        return problem.direct(torch.compile(lambda images, path: network(images, path)))

    called = Problem.make(settings, paths=1)
    made: dict[str, tuple[Passes, Around]] = {
        "called": (called.direct(called.network), nullcontext)
    }
    made["called"][0]()
    for name, compile_it in {"operations compiled": apiece, "a whole path": whole}.items():
        problem, began = Problem.make(settings, paths=1), time.monotonic()
        try:
            passes = compile_it(problem)
            passes()
        except Exception as error:
            yield name, failure(error)
            continue
        measure.synchronise(settings.device)
        apart = _apart(problem.gradient(), called.gradient())
        yield f"{name}: compiling", {"seconds": time.monotonic() - began, "apart": apart}
        made[name] = passes, nullcontext
        yield from in_turn(made, settings)


# --- Streams -------------------------------------------------------------------------------------


def streams(settings: Settings) -> Rows:
    """Four paths as graphs of operations one after the other, and on streams of their own; each
    stream has feature maps of its own."""
    if not settings.on_gpu:
        raise Skipped(NEEDS_CUDA)
    one = Problem.make(settings, paths=4)
    made: dict[str, tuple[Passes, Around]] = {
        "one after the other": (one.functional(Recorded(one.network)), nullcontext)
    }
    for count in (2, 4):
        own = [torch.cuda.Stream(settings.device) for _ in range(count)]
        made[f"{count} streams"] = on_streams(one, own), nullcontext
    yield from in_turn(made, settings)


def on_streams(problem: Problem, own: Sequence[torch.cuda.Stream]) -> Passes:
    """Deal the paths over streams, in turn."""
    forwards = [Recorded(problem.network) for _ in own]
    weights: Weights = dict(problem.network.named_parameters())

    def run() -> None:
        current = torch.cuda.current_stream()
        for each in own:
            each.wait_stream(current)
        for i, path in enumerate(problem.paths):
            theta = {name: weights[name] for name in problem.network.active(path)}
            with torch.cuda.stream(own[i % len(own)]):
                forward_backward(forwards[i % len(own)], theta, path, problem.batch)
        for each in own:
            current.wait_stream(each)

    return run
