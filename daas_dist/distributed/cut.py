"""How a step's batch is cut: into micro-batches, of which each rank has a run of neighbours.

Batch norm is over a micro-batch, so its size is part of what is trained, as the number of ranks is
not: 1,024 images in micro-batches of 256 are the same training on 1, 2 and 4 ranks.
"""

from dataclasses import dataclass

from daas_dist.config.rules import ConfigError, nearest_divisors, nearest_multiples
from daas_dist.rng import Part


@dataclass(frozen=True)
class Cut:
    """A batch as one rank sees it."""

    micro_batch: int
    """Images."""
    count: int
    """Micro-batches of a step, of all ranks together."""
    part: Part
    """Which of the ranks this one is, and the part of every batch that it reads."""

    @property
    def own(self) -> range:
        """The numbers of this rank's micro-batches in a step."""
        each = self.count // self.part.of
        return range(self.part.number * each, (self.part.number + 1) * each)


def cut(batch_size: int, micro_batch: int | None, part: Part) -> Cut:
    """micro_batch None: a micro-batch a rank. ConfigError, with what would go, where the batch
    cannot be cut so."""
    ranks = part.of
    if micro_batch is None:
        if batch_size % ranks:
            batches = nearest_multiples(batch_size, ranks)
            raise ConfigError(
                f"train.batch_size={batch_size} cannot be shared by {ranks} ranks: expected "
                f"{batches}, or {nearest_divisors(batch_size, ranks)} as the number of ranks"
            )
        micro_batch = batch_size // ranks
    if batch_size % micro_batch:
        raise ConfigError(
            f"train.batch_size={batch_size} is no whole number of micro-batches of {micro_batch}: "
            f"expected {nearest_multiples(batch_size, micro_batch)}"
        )
    count = batch_size // micro_batch
    if count % ranks:
        raise ConfigError(
            f"train.batch_size={batch_size} is {count} micro-batches of {micro_batch}, which "
            f"{ranks} ranks cannot share: expected {nearest_divisors(count, ranks)} as the number "
            f"of ranks, or {nearest_multiples(batch_size, ranks * micro_batch)} as the batch size"
        )
    return Cut(micro_batch, count, part)
