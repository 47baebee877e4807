"""A search of stage=search_cifar10, joint phase, on images of noise: for what does not look."""

import torch

from daas_dist import config as configuration
from daas_dist.data import Images
from daas_dist.distributed.mesh import Mesh
from daas_dist.models.sync_norm import synchronise
from daas_dist.rng import stream
from daas_dist.search.loop import build_network
from daas_dist.search.steps import Search, SearchData


def search_on_noise(
    overrides: list[str], mesh: Mesh, side: int, steps: int, device: str = "cpu"
) -> Search:
    """The search and an epoch of so many steps. side: of the images, in pixels."""
    config = configuration.load(
        ["stage=search_cifar10", "data.root=none", "search.warmup_epochs=0", *overrides]
    )
    network = build_network(config, 10)
    if mesh.data > 1 and config.mesh.norm == "synchronised":
        network = synchronise(network, mesh.statistics)
    count = steps * config.search.batch_size
    train, val = (_noise(count, seed, config.data.channels, side) for seed in (1, 2))
    given = SearchData(train, val, [0.5] * config.data.channels, [0.3] * config.data.channels)
    return Search(config, given, network, mesh, torch.device(device))


def _noise(count: int, seed: int, channels: int, side: int) -> Images:
    g = stream(seed, "noise")
    pixels = torch.randint(256, (count, channels, side, side), generator=g, dtype=torch.uint8)
    return Images(pixels, torch.randint(10, (count,), generator=g), tuple("0123456789"))
