"""The architecture space: what a genotype may be, and how one is derived and drawn."""

from collections import Counter
from typing import Any

import pytest
import torch
from found_results import plain

from daas_dist.documents import checked
from daas_dist.documents.found import GenotypeDocument
from daas_dist.rng import stream
from daas_dist.spaces.cells import (
    DARTS_V2,
    EDGES,
    EVERYTHING,
    OPERATIONS,
    Genotype,
    cell_from_choice,
    derive,
    edge_indices,
    edges_into,
    in_words,
    operation_indices,
    path_of,
    random_genotype,
)

# ---------------------------------------------------------------- the space and its JSON


def test_the_edges_are_numbered_by_target_then_by_source() -> None:
    assert len(EDGES) == 2 + 3 + 4 + 5
    assert EDGES[edges_into(4)] == ((0, 4), (1, 4), (2, 4), (3, 4))
    assert edges_into(4) == slice(5, 9)


def read(value: Any) -> Genotype:
    return Genotype.from_document(checked(GenotypeDocument, value, "genotype"))


def test_a_genotype_survives_json() -> None:
    some = random_genotype(stream(4, "test"))
    other = Genotype(some.normal, some.reduce, concat=(3, 5))
    for genotype in (DARTS_V2, some, other):
        assert read(plain(genotype)) == genotype
    assert some != other


def changed(kind: str, position: int, pair: Any) -> dict[str, Any]:
    """DARTS_V2 with another pair at a position of a cell."""
    document = plain(DARTS_V2)
    document[kind][position] = pair
    return document


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (
            changed("reduce", 4, ["conv_7x7", 1]),
            "reduce node 4 names the unknown operation 'conv_7x7'; known: max_pool_3x3, ",
        ),
        (changed("normal", 0, ["none", 0]), "normal node 2 names the unknown operation 'none'"),
        (changed("normal", 3, ["skip_connect", 3]), "normal node 3 reads 3; it may read 0 to 2"),
        (changed("reduce", 7, ["skip_connect", -1]), "reduce node 5 reads -1; it may read 0 to 4"),
        (
            changed("reduce", 7, ["skip_connect", 1.0]),
            r"reduce\[7\]\[1\] is 1.0, expected a whole number",
        ),
        (
            changed("reduce", 7, ["skip_connect", True]),
            r"reduce\[7\]\[1\] is True, expected a whole number",
        ),
        (
            changed("normal", 5, ["dil_conv_5x5", 0]),
            r"normal node 4 reads \[0, 0\]; in-degree 2 needs different sources",
        ),
        (
            changed("normal", 1, ["skip_connect"]),
            r"normal\[1\] is \['skip_connect'\], expected a list of 2",
        ),
        (plain(DARTS_V2) | {"normal": 8}, "normal is 8, expected a list"),
        (
            plain(DARTS_V2) | {"reduce": plain(DARTS_V2)["reduce"][:7]},
            "reduce has 7 edges; 4 nodes of in-degree 2 need 8",
        ),
        (plain(DARTS_V2) | {"concat": [2, 3, 6]}, r"concat \[2, 3, 6\] must name nodes of"),
        (plain(DARTS_V2) | {"concat": [1, 3]}, r"concat \[1, 3\] must name"),
        (plain(DARTS_V2) | {"concat": [3, 3]}, "none of them twice"),
        (plain(DARTS_V2) | {"concat": []}, "one or more"),
        (plain(DARTS_V2) | {"concat": 4}, "concat is 4, expected a list"),
        (plain(DARTS_V2) | {"concat": [2.0, 3]}, r"concat\[0\] is 2.0, expected a whole number"),
        ({"normal": []}, "has no genotype.reduce"),
        ([], r"genotype is \[\], expected a table"),
    ],
)
def test_a_wrong_genotype_is_refused_with_what_is_wrong(document: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read(document)


# ---------------------------------------------------------------- deriving


BETA = [
    0.3, -0.2,  # into 2: both
    0.1, 0.9, 0.4,  # into 3: from 1 and 2
    -1.0, -0.5, -2.0, -0.7,  # into 4: from 1 and 3
    0.2, 0.8, 0.1, -0.3, 0.7,  # into 5: from 1 and 4
]  # fmt: skip


def test_edges_are_kept_by_beta_and_operations_by_alpha_alone() -> None:
    """By hand, in the normal cell. DARTS' rank, the largest α of an edge, would keep others."""
    alpha_EO = 0.05 * torch.arange(14 * 7).remainder(13).view(14, 7)
    for source, target, operation, value in (
        (0, 2, "dil_conv_3x3", 1.1), (1, 2, "skip_connect", 0.9),
        (0, 3, "sep_conv_3x3", 9.0),  # the surest operation of all, on an edge that β drops
        (1, 3, "avg_pool_3x3", 0.8), (2, 3, "sep_conv_5x5", 0.7),
        (1, 4, "max_pool_3x3", 0.9), (3, 4, "dil_conv_5x5", 1.3), (2, 4, "sep_conv_3x3", 7.0),
        (1, 5, "sep_conv_3x3", 0.8), (4, 5, "skip_connect", 0.8),
    ):  # fmt: skip
        alpha_EO[EDGES.index((source, target)), OPERATIONS.index(operation)] = value
    other_EO = alpha_EO.roll(1, dims=1)  # every operation becomes the next in the list
    found = derive(torch.stack([alpha_EO, other_EO]), torch.tensor([BETA, BETA[::-1]]))
    assert found.normal == (
        ("dil_conv_3x3", 0), ("skip_connect", 1), ("avg_pool_3x3", 1), ("sep_conv_5x5", 2),
        ("max_pool_3x3", 1), ("dil_conv_5x5", 3), ("sep_conv_3x3", 1), ("skip_connect", 4),
    )  # fmt: skip
    # The reduction cell, from BETA read backwards: 0.7 -0.3 | 0.1 0.8 0.2 | -0.7 -2.0 -0.5 -1.0 |
    # 0.4 0.9 0.1 -0.2 0.3.
    sources = [source for _, source in found.reduce]
    assert sources == [0, 1, 1, 2, 0, 2, 0, 1]
    assert found.reduce[0] == ("dil_conv_5x5", 0)
    assert found.reduce[2] == ("skip_connect", 1)
    assert found.reduce[5] == ("sep_conv_5x5", 2)


def test_indices_and_pairs_are_two_forms_of_one_cell() -> None:
    """DARTS_V2 (DARTS genotypes.py): into node 2 stand edges 0 and 1, into node 3 2 to 4, and so
    on."""
    assert edge_indices(DARTS_V2.normal) == [0, 1, 2, 3, 5, 6, 9, 11]
    assert operation_indices(DARTS_V2.normal) == [3, 3, 3, 3, 2, 3, 2, 5]
    assert edge_indices(DARTS_V2.reduce) == [0, 1, 3, 4, 5, 7, 10, 11]
    assert operation_indices(DARTS_V2.reduce) == [0, 0, 0, 2, 0, 2, 0, 2]
    kept_E = torch.zeros(14, dtype=torch.bool)
    kept_E[edge_indices(DARTS_V2.reduce)] = True
    operation_E = torch.full((14,), 5)
    operation_E[edge_indices(DARTS_V2.reduce)] = torch.tensor(operation_indices(DARTS_V2.reduce))
    assert cell_from_choice(kept_E, operation_E) == DARTS_V2.reduce


def test_a_path_is_told_in_words_unless_it_has_more_pairs_than_edges() -> None:
    words = in_words(path_of(DARTS_V2))
    assert words.startswith("normal: sep_conv_3x3 from 0, sep_conv_3x3 from 1, sep_conv_3x3 from 0")
    assert words.endswith("; " + f"reduce: {DARTS_V2.in_words('reduce')}")
    one_an_edge = tuple((edge, edge % 7) for edge in range(14))  # GDAS' most
    assert in_words((one_an_edge, ())).count(" from ") == 14
    assert in_words((one_an_edge, EVERYTHING[0])) == "" == in_words(EVERYTHING)


# ---------------------------------------------------------------- drawing


def test_a_random_genotype_is_uniform_over_the_space() -> None:
    """Constructing one checks that it is valid. Counts within 4 standard deviations of theirs."""
    count = 1500
    pairs, operations = Counter(), Counter()
    for seed in range(count):
        cell = random_genotype(stream(seed, "test")).reduce
        pairs[cell[6][1], cell[7][1]] += 1  # the sources of node 5
        operations[cell[6][0]] += 1
    for counts, choices in ((pairs, 10), (operations, 7)):
        p = 1 / choices
        assert len(counts) == choices
        for seen in counts.values():
            assert abs(seen - count * p) < 4 * (count * p * (1 - p)) ** 0.5


def test_a_random_genotype_is_a_function_of_its_generator() -> None:
    first, again, other = (random_genotype(stream(seed, "test")) for seed in (3, 3, 8))
    assert first == again != other
    assert first.normal != first.reduce
