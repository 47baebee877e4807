"""Which images a step reads: a pure function of (seed, purpose, step).

The cursor of a run is its global step and nothing else, so a resume needs no reader state, and the
number of ranks plays no part: a rank takes its slice of the batch that everyone can compute.
"""

import torch
from torch import Tensor

from daas_dist.rng import stream


class Batches:
    """Batches of indices into `count` images, every epoch in another order.

    The tail of an epoch that does not fill a batch is left out; `dropped` says how many images that
    is (another tail every epoch, since the order changes).
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        seed: int,
        purpose: str,
        window: tuple[Tensor, int] | None = None,
    ) -> None:
        """window: (the file [count] that each image lies in, how many files are read at a time),
        where jumping between all of them would be slow."""
        if batch_size < 1:
            raise ValueError(f"a batch of {batch_size} images; set batch_size to 1 or more")
        if count < batch_size:
            raise ValueError(
                f"{count} images for {purpose!r} do not fill one batch of {batch_size}; "
                "lower search.batch_size or train.batch_size, or raise data.limit"
            )
        self.count = count
        self.batch_size = batch_size
        self.seed = seed
        self.purpose = purpose
        self.window = window
        self.steps_per_epoch = count // batch_size
        self.dropped = count % batch_size
        # Only a saving of time: indices() gives the same answer without it.
        self._cached: tuple[int, Tensor] | None = None

    def epoch(self, step: int) -> int:
        """The epoch that a global step belongs to, from 0."""
        return step // self.steps_per_epoch

    def order(self, epoch: int) -> Tensor:
        """[count] the permutation of an epoch, the dropped tail included."""
        generator = stream(self.seed, "order", self.purpose, epoch)
        order = torch.randperm(self.count, generator=generator)
        if self.window is None:
            return order
        file_N, width = self.window
        place = torch.randperm(int(file_N.max()) + 1, generator=generator)
        # Stable: inside a window the images stay in the order that was just drawn.
        return order[(place[file_N[order]] // width).argsort(stable=True)]

    def indices(self, step: int) -> Tensor:
        """[batch_size] int64, the images of a global step (from 0, over all epochs)."""
        if step < 0:
            raise ValueError(f"step {step}: steps count from 0")
        epoch = self.epoch(step)
        if self._cached is None or self._cached[0] != epoch:
            self._cached = (epoch, self.order(epoch))
        start = (step % self.steps_per_epoch) * self.batch_size
        return self._cached[1][start : start + self.batch_size].clone()
