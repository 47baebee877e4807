"""The cost of every architecture as one sum, against the networks themselves."""

import pytest
import torch

from daas_dist.models import cost
from daas_dist.models.cost_table import Size, costs_of
from daas_dist.models.network import Network
from daas_dist.rng import stream
from daas_dist.spaces.cells import (
    DARTS_V2,
    EDGES,
    INPUTS,
    KINDS,
    OPERATIONS,
    Genotype,
    random_genotype,
)

SIZES = [
    Size(36, 20, 10, (3, 32, 32), "cifar"),
    Size(48, 14, 1000, (3, 224, 224), "imagenet"),
    Size(6, 4, 10, (1, 28, 28), "cifar"),
    Size(10, 7, 5, (2, 37, 51), "imagenet"),
    Size(2, 3, 3, (1, 9, 7), "cifar"),
    Size(18, 8, 100, (3, 64, 48), "imagenet"),
]
"""Stems, widths, depths, odd and unequal sides."""


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_sum_is_what_the_network_has(size: Size) -> None:
    costs = costs_of(size)
    for i in range(6):
        genotype = random_genotype(stream(i, "cost table"))
        with torch.device("meta"):
            network = Network(
                genotype, size.channels, size.cells, size.classes, size.image[0], size.stem
            )
        counted = costs.parameters.of(genotype), costs.multiply_adds.of(genotype)
        assert counted == cost(network, size.image)


def test_darts_v2_has_its_published_costs() -> None:
    """Its papers' and others' counts (models.cost says whose), from the table alone."""
    cifar, imagenet = (costs_of(size) for size in SIZES[:2])
    assert cifar.parameters.of(DARTS_V2) == 3_349_342
    assert imagenet.parameters.of(DARTS_V2) == 4_718_752
    assert imagenet.multiply_adds.of(DARTS_V2) == 529_911_552


def test_an_edges_cost_by_hand() -> None:
    """2 channels, 3 cells: one normal cell at 9 × 7, reduce cells of 4 and 8 channels behind."""
    table = costs_of(SIZES[4]).multiply_adds.cost_KEO
    inner = EDGES.index((INPUTS, INPUTS + 1))
    sep_3, dil_5, skip = map(OPERATIONS.index, ("sep_conv_3x3", "dil_conv_5x5", "skip_connect"))
    normal, reduce = map(KINDS.index, ("normal", "reduce"))
    assert table[normal, 0, sep_3] == 9 * 7 * 2 * (9 * 2 + 2**2)
    assert table[normal, 0, skip] == table[reduce, inner, skip] == 0
    # Sides 9 × 7, 5 × 4, 3 × 2: both halves of a skip of stride 2 make half of the channels.
    assert table[reduce, 0, skip] == 5 * 4 * 4**2 + 3 * 2 * 8**2
    assert table[reduce, inner, dil_5] == 5 * 4 * (25 * 4 + 4**2) + 3 * 2 * (25 * 8 + 8**2)


def test_no_architecture_costs_less_than_the_constant_and_pools_cost_no_more() -> None:
    for size in SIZES:
        costs = costs_of(size)
        pairs = (("avg_pool_3x3", 1), ("max_pool_3x3", 0)) * 4
        for table in (costs.parameters, costs.multiply_adds):
            assert table.of(Genotype(pairs, pairs)) == table.constant
            assert bool((table.cost_KEO >= 0).all())
