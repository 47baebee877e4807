"""A step of the search against the plain step of benchmarks/plain.py, in one process, in turn.

    python benchmarks/step.py                            # batches of 16 and 64, two threads
    python benchmarks/step.py --device cuda --json step.json

On 32×32 noise, the networks of stage=search_cifar10 (any key=value replaces its own; but for what
benchmarks/plain.py does not have, as search.architecture_gradient_at=theta):

plain    Algorithm 1 as one writes it
paper    the product on the paper's settings: the gradients of plain, to rounding
ours     the product's fastest, method=ours: fewer passes, another estimator

and on CUDA both with search.cuda_graphs=true, as "paper, graphs" and "ours, graphs".

Printed: seconds of a step (median, least to most), of all threads' too (the ones to trust on a busy
machine), and their ratios to plain's of the same round; seconds by part, and the part's share;
multiply-adds, and bytes as sizes of the operators' tensors, against what the machine reaches; peak
memory over idle, on a CPU each in a process of its own; and hours of the whole search, 20 warm-up
and 30 joint epochs of 25,000 images. On CUDA the parts are those of steps of their own, as they
wait for the device, and kernel launches are counted.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import measure
import plain
import torch
from on_noise import search_on_noise
from torch import Tensor

from daas_dist.distributed.mesh import Mesh
from daas_dist.methods.daas import Daas
from daas_dist.methods.interface import policy_logits
from daas_dist.methods.passes import Batch
from daas_dist.runs.memory import keep_freed_memory
from daas_dist.search.context import Context
from daas_dist.search.steps import Search
from daas_dist.spaces.policy import Draws, PolicyLogits

SIDE = 32
STEPS = 16
"""Of an epoch of noise; nothing measured depends on it."""
WARM_UP = ["search.warmup_epochs=20"]
WARM_UP_ROUNDS = 3
IMAGES, WARM_UP_EPOCHS, JOINT_EPOCHS = 25_000, 20, 30
"""Of D_train, and the epochs of paper Sec. 5."""


class Steps(Protocol):
    def step(self) -> object: ...


class PlainSearch:
    """The plain step on what a search of the product draws. α, β, γ and their optimisers are that
    search's, the network, its gradients and its updates are not."""

    def __init__(self, source: Search) -> None:
        """source: makes no step of its own."""
        config, weights = source.config, source.config.search.weights
        assert isinstance(source.method, Daas)
        self.source, self.method = source, source.method
        self.network = plain.Supernet(
            config.model.channels,
            config.model.cells,
            len(source.data.train.classes),
            config.data.channels,
        ).to(source.device)
        self.network.load(source.theta.values())
        self.optimiser = torch.optim.SGD(
            self.network.parameters(),
            lr=weights.learning_rate,
            momentum=weights.momentum,
            weight_decay=weights.weight_decay,
        )

    def step(self) -> Tensor:
        """The rewards, (I, J)."""
        source, state, settings = self.source, self.source.state, self.source.config.search
        context, space = source.context(), self.method.space
        path_I = self._paths(context, "arch", settings.architectures)
        draws_I = [self._draws(context, "policy", i, self._policies) for i in range(len(path_I))]

        def views() -> Iterator[list[plain.Batch]]:
            for i, draws in enumerate(draws_I):
                draws_J = [
                    Draws(*(part[j : j + 1] for part in draws)) for j in range(self._policies)
                ]
                yield [
                    self._batch(context.augmented(each, space, f"policy-{i}", j))
                    for j, each in enumerate(draws_J)
                ]

        reward_IJ = plain.update_architecture_and_policy(
            self.network,
            path_I,
            views(),
            self._batch(context.val()),
            None if source.warming_up else self._log_prob(draws_I),
            source.learning_rate if settings.xi is None else settings.xi,
            state.optimisers["architecture"],
            state.optimisers["policy"],
        )
        draws = self._draws(context, "weights-policy", 0, 1)
        for group in self.optimiser.param_groups:
            group["lr"] = source.learning_rate
        plain.update_weights(
            self.network,
            self._paths(context, "weights-arch", settings.weight_architectures),
            self._batch(context.augmented(draws, space, "weights", 0)),
            settings.weights.clip,
            self.optimiser,
        )
        state.step += 1
        return reward_IJ

    @property
    def _policies(self) -> int:
        return 0 if self.source.warming_up else self.source.config.search.policies_per_architecture

    def _paths(self, context: Context, purpose: str, count: int) -> list[plain.Path]:
        sampled_I = self.method.sample(self.source.state.logits, context, purpose, count)
        return [plain.Path(*sampled) for sampled in sampled_I if sampled is not None]

    def _draws(self, context: Context, purpose: str, index: int, count: int) -> Draws:
        return self._gamma.sample(count, context.stream(purpose, index))

    def _log_prob(self, draws_I: Sequence[Draws]) -> Tensor:
        draws = Draws(*(torch.cat(part) for part in zip(*draws_I, strict=True)))
        return self._gamma.log_prob(draws)

    @property
    def _gamma(self) -> PolicyLogits:
        return policy_logits(self.source.state.logits, self.source.config.policy.parameters)

    @staticmethod
    def _batch(batch: Batch) -> plain.Batch:
        return plain.Batch(batch.images.contiguous(), batch.labels)


VARIANTS: dict[str, tuple[list[str], Callable[[Search], Steps]]] = {
    "plain": ([], PlainSearch),
    "paper": ([], lambda search: search),
    "ours": (["method=ours"], lambda search: search),
}
GRAPHS = ", graphs"
ON_GPU = {name + GRAPHS: ([*VARIANTS[name][0], "search.cuda_graphs=true"], VARIANTS[name][1])
          for name in ("paper", "ours")}  # fmt: skip
RECORDING_STEPS = 10
"""Until nearly all of a supernet's operations have been in a path."""


def build(name: str, overrides: Sequence[str], device: torch.device) -> Steps:
    own, make = (VARIANTS | ON_GPU)[name]
    given = [*overrides, *own]
    return make(search_on_noise(given, Mesh(), SIDE, STEPS, str(device)))


# --- Equality ------------------------------------------------------------------------------------


class Gradients:
    """What the optimisers of a step are given: of α and β, of γ, and (clipped) of θ; flattened, in
    the order of the parameters, 0 where a weight has none."""

    def __init__(self, variant: Search | PlainSearch) -> None:
        is_plain = isinstance(variant, PlainSearch)
        state = variant.source.state if is_plain else variant.state
        self.of: dict[str, Tensor] = {}
        self._keep("architecture", state.optimisers["architecture"])
        self._keep("policy", state.optimisers["policy"])
        self._keep("weights", variant.optimiser if is_plain else state.optimisers["weights"])

    def _keep(self, name: str, optimiser: torch.optim.Optimizer) -> None:
        def hook(*_: object) -> None:
            parameters = [p for group in optimiser.param_groups for p in group["params"]]
            parts = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters]
            self.of[name] = torch.cat([part.flatten() for part in parts])
            handle.remove()

        handle = optimiser.register_step_pre_hook(hook)

    def differences(self, other: "Gradients") -> dict[str, float]:
        """‖a - b‖ / ‖a‖ of each."""
        return {
            name: float((value - other.of[name]).norm() / value.norm())
            for name, value in self.of.items()
        }


# --- Measuring -----------------------------------------------------------------------------------


def spread(values: Sequence[float], digits: int = 2) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} [{low:.{digits}f}-{high:.{digits}f}]"


def timed(variant: Steps, device: torch.device) -> tuple[measure.Took, dict[str, float]]:
    """A step, and the seconds of its parts: on CUDA of the step after it."""
    undisturbed = None
    if device.type == "cuda":
        with measure.clock(device) as undisturbed:
            variant.step()
    watch = measure.Stopwatch(device)
    with watch.running(), measure.clock(device) as watched:
        variant.step()
    parts = watch.seconds | {"overhead": watched.seconds - sum(watch.seconds.values())}
    return undisturbed or watched, parts


def rounds(
    variants: dict[str, Steps], count: int, device: torch.device
) -> dict[str, list[tuple[measure.Took, dict[str, float]]]]:
    measured: dict[str, list[tuple[measure.Took, dict[str, float]]]] = {n: [] for n in variants}
    for _ in range(count):
        for name, variant in variants.items():
            measured[name].append(timed(variant, device))
    return measured


def warm_up(variants: dict[str, Steps]) -> None:
    """Make what is not measured: kernels are chosen, libraries loaded, operations recorded."""
    for name, variant in variants.items():
        for _ in range(RECORDING_STEPS if name in ON_GPU else 1):
            variant.step()


def peak_memory(name: str, arguments: argparse.Namespace, batch: int) -> int:
    """Bytes over idle, in a process of its own."""
    command = [sys.executable, __file__, "--memory", name, "--batch", str(batch)]
    command += ["--threads", str(arguments.threads), "--device", arguments.device]
    done = subprocess.run(
        [*command, *arguments.overrides], check=True, stdout=subprocess.PIPE, text=True
    )
    return int(done.stdout)


def work_of(variant: Steps) -> measure.Work:
    """Not of recorded ones, whose operators nobody sees: theirs are the same."""
    with measure.Work() as work:
        variant.step()
    return work


def measure_batch(batch: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """All numbers of one batch size, for the tables and for JSON."""
    device = torch.device(arguments.device)
    overrides = [*arguments.overrides, f"search.batch_size={batch}"]
    on_gpu = device.type == "cuda"
    names = [*VARIANTS, *(ON_GPU if on_gpu else ())]
    variants = {name: build(name, overrides, device) for name in names}
    exact = {n: Gradients(v) for n, v in variants.items() if isinstance(v, Search | PlainSearch)}
    warm_up(variants)
    measured = rounds(variants, arguments.rounds, device)
    warming = {name: build(name, [*overrides, *WARM_UP], device) for name in names}
    if on_gpu:
        warm_up(warming)
    warm = rounds(warming, min(WARM_UP_ROUNDS, arguments.rounds), device)
    works = {name: work_of(variants[name]) for name in VARIANTS}
    found: dict[str, Any] = {
        "batch": batch,
        "limits": {
            "multiply_adds_per_second": measure.dense_convolution(batch, device),
            "bytes_per_second": measure.copy(device),
        },
        "difference_of_paper": exact["plain"].differences(exact["paper"]),
        "variants": {},
    }
    for name, variant in variants.items():
        work = works[name.removesuffix(GRAPHS)]
        warm_seconds = [took.seconds for took, _ in warm[name]]
        seconds = [took.seconds for took, _ in measured[name]]
        epochs = (WARM_UP_EPOCHS, warm_seconds), (JOINT_EPOCHS, seconds)
        hours = sum(n * statistics.median(each) for n, each in epochs) * (IMAGES // batch) / 3600
        found["variants"][name] = {
            "seconds": seconds,
            "cpu_seconds": [took.cpu_seconds for took, _ in measured[name]],
            "warm_up_seconds": warm_seconds,
            "parts": {p: [parts[p] for _, parts in measured[name]] for p in measured[name][0][1]},
            "multiply_adds": work.multiply_adds,
            "bytes": work.bytes,
            "peak_bytes": peak_memory(name, arguments, batch),
            "launches": measure.launches(variant.step) if on_gpu else None,
            "hours": hours,
        }
    return found


# --- Tables --------------------------------------------------------------------------------------


def show(found: dict[str, Any]) -> None:
    limits, variants = found["limits"], found["variants"]
    print(f"\nbatch {found['batch']}")
    print(f"{'':<15}{'seconds':<22}{'÷ plain':<20}{'CPU seconds':<22}{'÷ plain':<20}peak MB")
    for name, of in variants.items():
        columns = []
        for key in ("seconds", "cpu_seconds"):
            ratios = [b / a for a, b in zip(variants["plain"][key], of[key], strict=True)]
            columns += [f"{spread(of[key]):<22}{spread(ratios):<20}"]
        print(f"{name:<15}{''.join(columns)}{of['peak_bytes'] / 1e6:.0f}")
    print(f"{'seconds of':<14}" + "".join(f"{name:<28}" for name in variants))
    for part in variants["plain"]["parts"]:
        columns = []
        for of in variants.values():
            medians = {name: statistics.median(each) for name, each in of["parts"].items()}
            share = medians[part] / sum(medians.values())
            columns.append(f"{spread(of['parts'][part], 3)} {share:.0%}")
        print(f"{part:<14}" + "".join(f"{column:<28}" for column in columns))
    dense, copied = limits["multiply_adds_per_second"], limits["bytes_per_second"]
    print(
        f"work; a dense convolution reaches {dense / 1e9:.1f} G multiply-adds/s, "
        f"a copy {copied / 1e9:.1f} GB/s"
    )
    for name, of in variants.items():
        seconds = statistics.median(of["seconds"])
        adds, moved = of["multiply_adds"], of["bytes"]
        print(
            f"{name:<15}{adds / 1e9:.2f} G multiply-adds, {adds / seconds / 1e9:.2f} G/s, "
            f"{adds / seconds / dense:.1%} of the convolution; about {moved / 1e9:.2f} GB, "
            f"{moved / seconds / 1e9:.2f} GB/s, {moved / seconds / copied:.0%} of the copy"
            + ("; {} kernels by {} launches".format(*of["launches"]) if of["launches"] else "")
        )
    warm = (f"{n} {spread(of['warm_up_seconds'])}" for n, of in variants.items())
    print(f"a warm-up step, seconds: {', '.join(warm)}")
    hours = (f"{n} {of['hours']:.1f}" for n, of in variants.items())
    print(f"the whole search, hours: {', '.join(hours)}")
    gradients = (f"{n} {value:.1e}" for n, value in found["difference_of_paper"].items())
    print(f"gradients of paper, relative difference from plain's: {', '.join(gradients)}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("overrides", nargs="*", help="key=value")
    parser.add_argument("--batch", nargs="+", type=int, default=[16, 64])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--memory", choices=VARIANTS | ON_GPU, help=argparse.SUPPRESS)
    arguments = parser.parse_intermixed_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    if device.type == "cpu":
        keep_freed_memory()  # for plain too
    if arguments.memory:
        overrides = [*arguments.overrides, f"search.batch_size={arguments.batch[0]}"]
        steps = RECORDING_STEPS if arguments.memory in ON_GPU else 2
        step = build(arguments.memory, overrides, device).step
        print(measure.peak_bytes(step, steps, device))
        return
    machine = measure.machine(device)
    print(", ".join(f"{name} {value}" for name, value in machine.items()), flush=True)
    batches = []
    for batch in arguments.batch:
        batches.append(measure_batch(batch, arguments))
        show(batches[-1])
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine, "batches": batches}, indent=1))


if __name__ == "__main__":
    main()
