"""Which rank is where. The ranks are a grid, arch × data: the architectures of a step are dealt
over `arch` (deal.py), and the batch of each is cut into equal parts over `data`.

Ranks that follow each other share an architecture: `data` is inside a node, `arch` across nodes.
What is summed over `arch` is summed in an order of its own and never depends on how many ranks
there are. Over `data` the backend sums: the same numbers up to rounding, the same bits on every
rank, and the same bits again for the same mesh.data.
"""

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from daas_dist.config import schema
from daas_dist.config.rules import ConfigError, shown
from daas_dist.distributed.faults import Refused, waiting
from daas_dist.rng import Part


@dataclass
class Traffic:
    """What a rank received from others, and how long it waited for it, by axis and purpose."""

    total: dict[str, tuple[int, float]] = field(default_factory=dict)
    busy: float = 0.0
    longest: float = 0.0

    def work(self, seconds: Sequence[float]) -> None:
        """Return how long every rank along arch computed, while the others waited for the
        longest."""
        self.busy += sum(seconds) / len(seconds)
        self.longest += max(seconds)

    def idle(self) -> float | None:
        """The share of the ranks' time since the last call that went by without an architecture."""
        share = 1 - self.busy / self.longest if self.longest else None
        self.busy = self.longest = 0.0
        return share

    def add(self, purpose: str, size: int, seconds: float) -> None:
        """size: in bytes."""
        before = self.total.get(purpose, (0, 0.0))
        self.total[purpose] = before[0] + size, before[1] + seconds

    def take(self) -> dict[str, dict[str, float]]:
        """Return what came together since the last call, for metrics.jsonl."""
        taken = {p: {"bytes": b, "seconds": s} for p, (b, s) in self.total.items()}
        self.total.clear()
        return taken


def gathered_bytes(ranks: int, tensor: Tensor) -> int:
    """Return what a rank receives where every rank tells every other its tensor."""
    return (ranks - 1) * tensor.numel() * tensor.element_size()


def reduced_bytes(ranks: int, tensor: Tensor) -> int:
    """Return what a rank receives where a ring sums a tensor: every part goes round twice."""
    return 2 * (ranks - 1) * tensor.numel() * tensor.element_size() // ranks


@dataclass(frozen=True)
class Mesh:
    """This process among the ranks of a run."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    data: int = 1
    """How many ranks share the batch of an architecture."""
    arch_group: Any = None
    data_group: Any = None
    traffic: Traffic = field(default_factory=Traffic, compare=False)

    @property
    def arch(self) -> int:
        """Return how many such groups there are, over which architectures are dealt."""
        return self.world // self.data

    @property
    def arch_rank(self) -> int:
        """This rank's place along arch."""
        return self.rank // self.data

    @property
    def part(self) -> Part:
        """This rank's part of every batch."""
        return Part(self.rank % self.data, self.data)

    @property
    def leads(self) -> bool:
        """Tell whether this rank writes files and prints."""
        return self.rank == 0

    def mine(self, count: int) -> range:
        """Return which of so many things that need no other rank are this one's."""
        return range(self.rank, count, self.world)

    # --- Over arch -------------------------------------------------------------------------------

    def gather_arch(self, own: Tensor, what: str) -> list[Tensor]:
        """The tensors along arch, in order; all of one shape. On the device of the backend."""
        if self.arch == 1:
            return [own]
        with self.counted(f"arch: {what}", gathered_bytes(self.arch, own)):
            return _all_gather(own.to(self.device), self.arch, self.arch_group)

    # --- Over data -------------------------------------------------------------------------------

    def mean_data(self, own: Tensor, what: str) -> Tensor:
        """The mean of the tensors of the ranks that share a batch, the same bits on all of them."""
        if self.data == 1:
            return own
        with self.counted(f"data: {what}", reduced_bytes(self.data, own)):
            total = own.detach().to(self.device, copy=True).contiguous()
            dist.all_reduce(total, group=self.data_group)
            return (total / self.data).to(own.device)

    def gather_data(self, own: Tensor, what: str) -> Tensor:
        """The whole of a tensor of which every rank that shares a batch has one part."""
        if self.data == 1:
            return own
        with self.counted(f"data: {what}", gathered_bytes(self.data, own)):
            parts = _all_gather(own.to(self.device), self.data, self.data_group)
            return torch.cat(parts).to(own.device)

    def statistics(self, own: Tensor) -> Tensor:
        """[data, …]: the tensors of the ranks that share a batch, differentiable in both modes."""
        return _Gathered.apply(own, self)  # type: ignore[no-any-return,no-untyped-call]

    # --- Over all --------------------------------------------------------------------------------

    def total(self, own: Tensor, what: str) -> Tensor:
        """The sum of the ranks' tensors, in an order that the backend chooses."""
        if self.world == 1:
            return own
        with self.counted(f"all: {what}", reduced_bytes(self.world, own)):
            total = own.to(self.device, copy=True)
            dist.all_reduce(total)
            return total.to(own.device)

    def highest(self, value: int) -> int:
        """The highest of the ranks' values, on every rank."""
        if self.world == 1:
            return value
        said = torch.tensor(value, device=self.device)
        with waiting(self.rank, "agreeing whether to stop"):
            dist.all_reduce(said, dist.ReduceOp.MAX)
        return int(said)

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, in the order of the ranks, on every rank."""
        values = [value] * self.world
        if self.world > 1:
            with waiting(self.rank, "gathering results"):
                dist.all_gather_object(values, value)
        return values

    def led(self, task: Callable[[], str | None]) -> str:
        """Return what rank 0's task returns, on every rank; its error too, so that all leave
        together."""
        answer = ""
        if self.leads:
            try:
                answer = "+" + (task() or "")
            except (ValueError, OSError) as error:
                self.agree(f"-{error}")
                raise
        answer = self.agree(answer)
        if answer.startswith("-"):
            raise Refused(answer[1:])
        return answer[1:]

    def agree(self, text: str) -> str:
        """Rank 0's text, on every rank."""
        if self.world == 1:
            return text
        said = [text]
        with waiting(self.rank, "hearing from rank 0"):
            dist.broadcast_object_list(said, 0)
        return said[0]

    def barrier(self) -> None:
        if self.world > 1:
            with waiting(self.rank, "meeting the others"):
                dist.barrier()

    def close(self) -> None:
        if self.world > 1:
            dist.destroy_process_group()

    @property
    def device(self) -> str:
        """Return where the backend wants its tensors."""
        nccl = self.world > 1 and dist.get_backend() == "nccl"
        return f"cuda:{self.local_rank}" if nccl else "cpu"

    @contextmanager
    def counted(self, purpose: str, size: int) -> Generator[None]:
        began = time.monotonic()
        with waiting(self.rank, f"exchanging {purpose}"):
            yield
        self.traffic.add(purpose, size, time.monotonic() - began)


class _Gathered(torch.autograd.Function):
    """The tensors of the ranks that share a batch, stacked. What comes back to a tensor is what
    every rank owes to it: the loss of an image hangs on the images of all."""

    @staticmethod
    def forward(own: Tensor, mesh: Mesh) -> Tensor:
        return _stacked(own, mesh)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Mesh], output: Tensor) -> None:
        ctx.mesh = inputs[1]

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *gradients: Tensor
    ) -> tuple[Tensor, None]:
        mesh: Mesh = ctx.mesh
        total = gradients[0].contiguous().clone()
        with mesh.counted("data: norm statistics", reduced_bytes(mesh.data, total)):
            dist.all_reduce(total, group=mesh.data_group)
        return total[mesh.part.number], None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        return _stacked(tangents[0], ctx.mesh)


def _stacked(own: Tensor, mesh: Mesh) -> Tensor:
    own = own.contiguous()
    with mesh.counted("data: norm statistics", gathered_bytes(mesh.data, own)):
        return torch.stack(_all_gather(own, mesh.data, mesh.data_group))


def _all_gather(own: Tensor, ranks: int, group: Any) -> list[Tensor]:
    everyone = [torch.empty_like(own) for _ in range(ranks)]
    dist.all_gather(everyone, own, group=group)
    return everyone


# --- Sharing -------------------------------------------------------------------------------------


def share_batches(mesh: Mesh, data: int, patience: timedelta | None = None) -> Mesh:
    """The same ranks, as many as `data` to a batch; a divisor of their number."""
    if data == 1:
        return mesh
    grid = torch.arange(mesh.world).view(-1, data)
    across, inside = (
        dist.new_subgroups_by_enumeration(each.tolist(), timeout=patience)[0]
        for each in (grid.T, grid)
    )
    return replace(mesh, data=data, arch_group=across, data_group=inside)


def choose_data(
    wanted: schema.Mesh, world: int, node: int, architectures: int, batch_size: int
) -> int:
    """Return how many ranks share a batch. ConfigError where the numbers do not go together.

    node: ranks a node. With neither number given, the fewest ranks, inside a node, that leave no
    rank without one of the architectures of a step's search terms; if none do, the most.
    """
    ranks = "1 rank" if world == 1 else f"{world} ranks"
    ranks += f" ({world // node} nodes × {node})" if node < world else ""
    arch, data = wanted.arch, wanted.data
    if arch is None and data is None:
        fits = [d for d in range(1, node + 1) if not (node % d or world % d or batch_size % d)]
        return next((d for d in fits if world // d <= architectures), fits[-1])
    if data is None:
        data = world // arch if arch and world % arch == 0 else 0
    elif arch is None:
        arch = world // data if world % data == 0 else 0
    if arch is None or arch * data != world:
        raise ConfigError(
            f"mesh.arch={shown(wanted.arch)} × mesh.data={shown(wanted.data)} does not make "
            f"{ranks}: expected two numbers whose product is {world}, or null for one of them"
        )
    if batch_size % data:
        raise ConfigError(
            f"mesh.data={data} cannot share search.batch_size={batch_size}: expected a divisor"
        )
    return data
