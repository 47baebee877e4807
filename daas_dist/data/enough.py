"""Whether a stage's images suffice, said before anything is computed: how many there are, where the
others went, and which key helps."""

from dataclasses import dataclass

from daas_dist.config.schema import Data
from daas_dist.data import ImageSet
from daas_dist.data.words import pictures

CARVED = ("folder", "shards")
"""What data.* may name of whose images some are put aside to test on, if data.val_root is null."""


@dataclass(frozen=True)
class Use:
    """What a stage makes of its training images."""

    splits: int
    """1, or 2 of a search, which trains on one and validates on the other."""
    key: str
    """Of batch_size."""
    batch_size: int


def check_classes(
    data: Data, splits: int, found: tuple[ImageSet, ImageSet], train: ImageSet
) -> None:
    """ValueError if a class is too small for a search to split it.

    found: (train, test) before data.limit; train: what that leaves.
    """
    counts = train.counts()
    least = counts.index(min(counts))
    if splits == 1 or counts[least] >= splits:
        return
    before, aside = found[0].counts()[least], 0
    if data.val_root is None and data.name in CARVED:
        aside = found[1].counts()[least]
    limited = counts[least] < before
    told = [f"class {train.classes[least]!r} has {pictures(before + aside)}"]
    told += [f"of which {aside} put aside to test on"] if aside else []
    told += [f"of the rest data.limit={data.limit} takes {counts[least]}"] if limited else []
    help = ["raise data.limit"] if limited else ["add pictures to it"]
    help += ["set data.val_root to a folder of test pictures"] if aside else []
    raise ValueError(
        f"{', '.join(told)}: a search needs 2 or more beside those, one to train and one to "
        f"validate on; {' or '.join(help)}"
    )


def check_batch(data: Data, use: Use, train: int, test: int) -> None:
    """ValueError if so many images to learn from do not fill a batch. test: how many there are to
    test on."""
    searches, parts = use.splits > 1, {"train": train}
    if searches:
        trains = round((1 - data.val_share) * train)
        parts = {"train": trains, "validate": train - trains}
    what, fewest = min(parts.items(), key=lambda part: part[1])
    if fewest >= use.batch_size:
        return
    told = [f"{pictures(train)} to learn from"]
    told += [f"{test} more put aside to test on"] if data.val_root is None else []
    told += [f"data.limit={data.limit}"] if data.limit == train else []
    told += [f"data.val_share={data.val_share:g}"] if searches else []
    help = [f"lower {use.key} to {fewest}"] if fewest else []
    help += ["raise data.limit"] if data.limit == train else ["add pictures"]
    raise ValueError(
        f"{pictures(fewest)} to {what} on ({', '.join(told)}) do not fill a batch of "
        f"{use.key}={use.batch_size}; {' or '.join(help)}"
    )
