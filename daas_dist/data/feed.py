"""The batches of a run's steps, and of its tests, whatever they are read from."""

import os
from collections.abc import Iterator, Mapping

from daas_dist.data.manifest import DataError
from daas_dist.data.source import AnySource, Found, Plan, Read, Source

MOST_WORKERS = 16


def workers_for(images: Source, asked: int | None) -> int:
    """Return how many processes read ahead. None: for shards this rank's share of the cores but
    one, for images in memory none, as cutting them costs less than handing them over."""
    if asked is not None:
        return asked
    if images.in_memory:
        return 0
    cores = len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, min(MOST_WORKERS, cores - 1))


class Feed:
    """The batches of a run's steps, in whatever order they are asked for; in turn read ahead."""

    def __init__(self, sets: Mapping[str, AnySource], plan: Plan) -> None:
        """sets: by purpose, all of one kind; an epoch of the run is one of the first of them."""
        first = next(iter(sets.values()))
        self._plan, self._steps = plan, first.steps(sets, plan)
        self.batches = self._steps.batches
        self._next = -1
        self._most_bad = max(each.max_bad for each in sets.values())
        self._ahead: Iterator[Found] = iter(())
        self.bad: list[str] = []
        """What is wrong with each bad sample so far. Another of its class was read instead."""

    @property
    def warnings(self) -> list[str]:
        """What is to be told of the bad samples so far."""
        instead = "another picture of its class was read in the place of"
        return [f"{instead} {wrong}" for wrong in self.bad]

    def batch(self, step: int) -> dict[str, Read]:
        """Return the batch of a step by purpose; its memory is written again when the batch
        after the next is asked for. DataError names a bad sample that may not be replaced, or a
        shard that cannot be read."""
        if step != self._next:
            self._ahead = self._steps.ahead(step)
        self._next = step + 1
        return self._checked(next(self._ahead))

    def tests(self, images: Source, batch_size: int) -> Iterator[Read]:
        """All of another set in batches as they are tested, each image once."""
        for found in images.tests(batch_size, self._plan.workers, self._plan.pin):
            yield self._checked(found)["test"]

    def _checked(self, found: Found) -> dict[str, Read]:
        if isinstance(found, DataError):
            # The variable itself, raised, would refer to itself and keep the workers alive.
            raise type(found)(str(found))
        read, bad = found
        self.bad += [wrong for wrong in bad if wrong not in self.bad]
        if len(self.bad) > self._most_bad:  # each process has counted its own
            raise DataError(
                f"{len(self.bad)} samples are bad, data.max_bad_files allows {self._most_bad}: "
                + "; ".join(self.bad[:20])
            )
        return read
