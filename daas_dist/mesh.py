"""Which rank does what. The architectures of a step are dealt over the ranks; what they contribute
comes back to every rank in the order of the architectures, so that no result depends on the deal.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from daas_dist.daas import Contribution, Weights, flat, unflat
from daas_dist.faults import waiting


@dataclass(frozen=True)
class Mesh:
    """The ranks of a run. One axis so far: `arch`, over which architectures are dealt."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0

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
        with waiting(self.rank, "gathering what the architectures contribute"):
            rows = self._gather(count, {i: c.to_row() for i, c in done.items()})
            terms = [Contribution.from_row(row) for row in rows]
            for name in gradients:
                shared = [
                    self._share(i, getattr(done[i], name) if i in done else active(i))
                    for i in range(count)
                ]
                terms = [
                    replace(t, **{name: value}) for t, value in zip(terms, shared, strict=True)
                ]
        return terms

    def _gather(self, count: int, rows: dict[int, Tensor]) -> list[Tensor]:
        """One row of numbers for every index, from whichever rank has it."""
        device = self._device()
        length = torch.tensor(max((len(row) for row in rows.values()), default=0), device=device)
        dist.all_reduce(length, dist.ReduceOp.MAX)
        table = torch.zeros(-(-count // self.world), int(length), device=device)
        for slot, i in enumerate(self.mine(count)):
            table[slot] = rows[i]
        tables = [torch.empty_like(table) for _ in range(self.world)]
        dist.all_gather(tables, table)
        return [tables[self.owner(i)][i // self.world].cpu() for i in range(count)]

    def _share(self, index: int, gradient: Weights) -> Weights:
        """The gradient of one term, on every rank; where it is not known, anything of its shape."""
        buffer = flat(gradient).detach().clone()
        dist.broadcast(buffer, self.owner(index))
        return unflat(buffer, gradient)

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
        answer, fault = "", None
        if self.leads:
            try:
                answer = task() or ""
            except (ValueError, OSError) as error:
                fault = error
        refused = self.agree(str(fault) if fault else "")
        if fault is not None:
            raise fault
        if refused:
            raise ValueError(refused)
        return self.agree(answer)

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
