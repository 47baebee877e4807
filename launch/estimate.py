"""What a run will cost: passes, time and disk, as far as can be known before it starts."""

import statistics
from pathlib import Path
from typing import TYPE_CHECKING

from daas_dist import config as configuration
from daas_dist.config import Config
from daas_dist.config.schema import ARCHITECTURES
from daas_dist.documents import events, lines
from daas_dist.documents.events import Event
from daas_dist.documents.run import KEPT_CHECKPOINTS
from daas_dist.system.published import GPU_DAYS

if TYPE_CHECKING:
    from torch.nn import Module

SAME = (
    "seed",
    "search.log_every",
    "search.checkpoint_every",
    "stage",
    "data.root",
    "data.val_root",
    "data.workers",
    "data.cache",
    "data.cache_gb",
)
"""Keys that do not change what a step costs."""
LOGS_BYTES = 100 * 2**20
STATES = 3
"""What a search's checkpoint holds, in networks: weights, momentum, and a mean of gradients."""
CLASSES = {"fashion_mnist": 10, "cifar10": 10, "cifar100": 100}
MOST_CLASSES = 1000
"""Of other data, which nobody has read yet."""


def passes(config: Config) -> float:
    """Forward-backward passes of a step of the search, in its joint phase; 1 of a training.

    What SearchState.passes counts.
    """
    if config.kind != "search":
        return 1.0
    from daas_dist.search.method import build_method  # torch takes seconds

    search = config.search
    return build_method(config).passes(search.warmup_epochs + search.joint_epochs - 1)


def hours(config: Config, near: Path) -> str:
    """Return how long, and where that is from: an earlier run of the same configuration, or the
    paper."""
    seconds = _seconds_before(config, near)
    if seconds is not None:
        return f"about {seconds / 3600:.1f} h, as an earlier run below {near} took"
    if config.stage in GPU_DAYS and not _changed(config):
        days = GPU_DAYS[config.stage]
        return f"{days:g} day{'s' if days > 1 else ''} on one 2080 Ti (paper Tables 2 and 3)"
    return "not known: no earlier run of this configuration; `status` tells after two lines"


def disk(config: Config) -> int:
    """Bytes that a run needs: the checkpoints that it keeps, one that is being written (of a
    training, one a row), a training's weights files, logs."""
    if config.kind == "search":
        states = STATES * (KEPT_CHECKPOINTS + 2)
        return states * _searched_bytes(config) + LOGS_BYTES
    average = config.train.ema_decay is not None
    # A checkpoint: weights, momentum, the running mean. Files: weights, the best, the mean.
    states = (KEPT_CHECKPOINTS + 1) * (2 + average) + 2 + average
    architectures = [row.partition("/")[0] for row in config.train.compare]
    each = {name: _row_bytes(config, name) for name in set(architectures)}
    rows = len(config.train.seeds) * sum(each[name] for name in architectures)
    return states * rows + LOGS_BYTES


def _searched_bytes(config: Config) -> int:
    """Count the bytes of the network that is searched on."""
    import torch  # takes seconds

    from daas_dist.search.loop import build_network

    model = config.model
    if model.name == "genotype":
        return _derived_bytes(config, model.channels, model.cells, auxiliary=False)
    # torchvision computes some of its networks' widths by tensors.
    with torch.device("meta" if model.network is None else "cpu"):
        return _bytes(build_network(config, _classes(config)))


def _row_bytes(config: Config, architecture: str) -> int:
    """Count the bytes of a network of train.compare."""
    import torch

    from daas_dist import models

    train = config.train
    if architecture in ARCHITECTURES:
        auxiliary = train.auxiliary_weight > 0
        return _derived_bytes(config, train.channels, train.cells, auxiliary=auxiliary)
    with torch.device("meta" if architecture in models.FIXED else "cpu"):
        classes, channels = _classes(config), config.data.channels
        return _bytes(models.build(architecture, classes=classes, in_channels=channels))


def _derived_bytes(config: Config, channels: int, cells: int, *, auxiliary: bool) -> int:
    import torch

    from daas_dist.models.network import Network
    from daas_dist.spaces.cells import random_genotype

    genotype = random_genotype(torch.Generator())  # any: they differ by a factor of two
    images = _classes(config), config.data.channels
    with torch.device("meta"):
        return _bytes(Network(genotype, channels, cells, *images, config.model.stem, auxiliary))


def _classes(config: Config) -> int:
    return CLASSES.get(config.data.name, MOST_CLASSES)


def _bytes(network: "Module") -> int:
    return sum(each.numel() * each.element_size() for each in network.parameters())


def _changed(config: Config) -> bool:
    plain = configuration.load([f"stage={config.stage}", "data.root=anywhere"])
    return any(key not in SAME for key in configuration.difference(plain, config))


def _seconds_before(config: Config, near: Path) -> float | None:
    """The median of earlier runs of the same configuration, whatever they ran on."""
    depths = ("config.yaml", "*/config.yaml", "*/*/config.yaml")
    found = [
        seconds
        for depth in depths
        for path in near.glob(depth)
        if (seconds := _took(config, path)) is not None
    ]
    return statistics.median(found) if found else None


def _took(config: Config, path: Path) -> float | None:
    file = path.with_name(events.FILE)
    try:
        if not (path.parent / "DONE").exists():
            return None
        before = configuration.load_frozen(path)
        if any(key not in SAME for key in configuration.difference(before, config)):
            return None
        first = next(lines.stream(file, Event.parse), None)
        last = next(iter(lines.backward(file, Event.parse)), None)
    except (ValueError, OSError):
        return None  # of another version, damaged, not to be read: a neighbour tells what it can
    return None if first is None or last is None or last == first else last.time - first.time
