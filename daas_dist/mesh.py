"""Which rank does what. The architectures of a step are dealt over the ranks; what they contribute
comes back to every rank in the order of the architectures, so that no result depends on the deal.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from daas_dist.daas import Contribution, Weights, flat, unflat
from daas_dist.faults import Refused, waiting


@dataclass
class Traffic:
    """What a rank received from others, and how long it waited for it, by axis and purpose."""

    total: dict[str, tuple[int, float]] = field(default_factory=dict)

    def add(self, purpose: str, size: int, seconds: float) -> None:
        """size: in bytes."""
        before = self.total.get(purpose, (0, 0.0))
        self.total[purpose] = before[0] + size, before[1] + seconds

    def take(self) -> dict[str, dict[str, float]]:
        """What came together since the last call, for metrics.jsonl."""
        taken = {p: {"bytes": b, "seconds": s} for p, (b, s) in self.total.items()}
        self.total.clear()
        return taken


@dataclass(frozen=True)
class Mesh:
    """The ranks of a run. One axis so far: `arch`, over which architectures are dealt."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    traffic: Traffic = field(default_factory=Traffic, compare=False)

    @property
    def leads(self) -> bool:
        """Whether this rank writes files and prints."""
        return self.rank == 0

    def mine(self, count: int) -> range:
        return range(self.rank, count, self.world)

    def owner(self, index: int) -> int:
        return index % self.world

    def deal(
        self,
        count: int,
        term: Callable[[int], Contribution],
        gradients: Sequence[str],
        active: Callable[[int], Weights],
    ) -> list[Contribution]:
        """term(i) for i in 0..count-1, each computed by one rank, in the order of i.

        Returns, on every rank and bit for bit whatever the number of ranks, the small numbers of
        every term, and of its gradients by θ those that `gradients` names (theta_grad, val_grad).
        active(i): the weights of term i, for the shapes of their gradients.
        """
        done = {i: term(i) for i in self.mine(count)}
        if self.world == 1:
            return list(done.values())
        likes = [active(i) for i in range(count)]
        rows = self._exchange("numbers", count, {i: c.to_row() for i, c in done.items()})
        terms = [Contribution.from_row(row.cpu()) for row in rows]
        if not gradients:
            return terms
        length = [len(gradients) * sum(v.numel() for v in like.values()) for like in likes]
        mine = {i: torch.cat([flat(getattr(c, g)) for g in gradients]) for i, c in done.items()}
        rows = self._exchange("gradients by the weights", count, mine, length)
        for i, (row, like) in enumerate(zip(rows, likes, strict=True)):
            parts = zip(gradients, row.chunk(len(gradients)), strict=True)
            terms[i] = replace(terms[i], **{name: unflat(part, like) for name, part in parts})
        return terms

    def _exchange(
        self, what: str, count: int, mine: dict[int, Tensor], length: Sequence[int] | None = None
    ) -> list[Tensor]:
        """A row for every index, from whichever rank has it, by one collective call.

        length: of every row, where they differ; else they are as long as each other.
        """
        device, began = self._device(), time.monotonic()
        with waiting(self.rank, f"gathering {what} of the architectures"):
            if length is None:
                longest = torch.tensor(max(map(len, mine.values()), default=0), device=device)
                dist.all_reduce(longest, dist.ReduceOp.MAX)
                length = [int(longest)] * count
            sizes = [[length[i] for i in range(r, count, self.world)] for r in range(self.world)]
            own = torch.zeros(max(map(sum, sizes)), device=device)
            if mine:
                joined = torch.cat([mine[i] for i in self.mine(count)])
                own[: len(joined)] = joined
            everyone = [torch.empty_like(own) for _ in range(self.world)]
            dist.all_gather(everyone, own)
        size = (self.world - 1) * own.numel() * own.element_size()
        self.traffic.add(f"arch: {what}", size, time.monotonic() - began)
        rows = [
            part.split([*each, len(part) - sum(each)])
            for part, each in zip(everyone, sizes, strict=True)
        ]
        return [rows[self.owner(i)][i // self.world] for i in range(count)]

    def highest(self, value: int) -> int:
        """The highest of the ranks' values, on every rank."""
        if self.world == 1:
            return value
        said = torch.tensor(value, device=self._device())
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
        """What rank 0's task returns, on every rank; its error too, so that all leave together."""
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

    def _device(self) -> str:
        return f"cuda:{self.local_rank}" if dist.get_backend() == "nccl" else "cpu"


def connect(device: str, patience: timedelta | None = None) -> Mesh:
    """The mesh of this process: one rank, or the ranks that torchrun started.

    patience: how long a rank waits for another before it fails; None is torch's own limit.
    """
    if "RANK" not in os.environ:
        return Mesh()
    local_rank = int(os.environ["LOCAL_RANK"])
    backend = "nccl" if device == "cuda" else "gloo"
    if device == "cuda":
        torch.cuda.set_device(local_rank)
    dist.init_process_group(backend, timeout=patience)
    return Mesh(dist.get_rank(), dist.get_world_size(), local_rank)
