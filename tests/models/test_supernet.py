"""The supernet against its plain computation and finite differences."""

import copy
import re
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from small_networks import EVERY_OPERATION, KINK_FREE, forward_mode, tiny
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.nn import functional as F

from daas_dist.models import ops
from daas_dist.models.supernet import SearchCell, Supernet
from daas_dist.rng import stream
from daas_dist.spaces.cells import (
    DARTS_V2,
    EDGES,
    EVERYTHING,
    KINDS,
    OPERATIONS,
    Pair,
    Path,
    path_of,
    random_genotype,
)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def plain_norm(x: Tensor) -> Tensor:
    mean = x.mean((0, 2, 3), keepdim=True)
    variance = ((x - mean) ** 2).mean((0, 2, 3), keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt()


def plain_reduce(w: dict[str, Tensor], at: str, x: Tensor) -> Tensor:
    """Pixels (2i, 2j) to one half of the channels, (2i + 1, 2j + 1), or zero beyond the edge, to
    the other."""
    x = F.pad(x.clamp(min=0), (0, 1, 0, 1))
    rows, columns = x.shape[-2] // 2, x.shape[-1] // 2
    halves = []
    for name, shift in (("even", 0), ("odd", 1)):
        pixels = x[:, :, shift::2, shift::2][:, :, :rows, :columns]
        halves.append(torch.einsum("oi,bihw->bohw", w[f"{at}.{name}.weight"][:, :, 0, 0], pixels))
    return plain_norm(torch.cat(halves, 1))


def plain_operation(w: dict[str, Tensor], at: str, name: str, x: Tensor, stride: int) -> Tensor:
    channels = x.shape[1]
    match name.split("_"):
        case ["skip", _]:
            return x if stride == 1 else plain_reduce(w, at, x)
        case ["max", _, _]:
            return plain_norm(F.max_pool2d(F.pad(x, (1, 1, 1, 1), value=-1e9), 3, stride))
        case ["avg", _, _]:
            ones = F.pad(torch.ones_like(x), (1, 1, 1, 1))
            sums = F.avg_pool2d(F.pad(x, (1, 1, 1, 1)), 3, stride)
            return plain_norm(sums / F.avg_pool2d(ones, 3, stride))
        case ["dil", _, size]:
            pad = 2 * (int(size[0]) // 2)
            x = F.conv2d(
                x.relu(), w[f"{at}.depthwise.weight"], None, stride, pad, 2, groups=channels
            )
            return plain_norm(F.conv2d(x, w[f"{at}.pointwise.weight"]))
        case ["sep", _, size]:
            pad = int(size[0]) // 2
            for number, its_stride in ((1, stride), (2, 1)):
                depthwise = w[f"{at}.depthwise_{number}.weight"]
                x = F.conv2d(x.relu(), depthwise, None, its_stride, pad, groups=channels)
                x = plain_norm(F.conv2d(x, w[f"{at}.pointwise_{number}.weight"]))
            return x
    raise AssertionError(name)


Choice = tuple[str, int, int]
"""An operation, the node that it reads and the node that it adds to."""
EVERY_CHOICE: list[Choice] = [
    (name, source, target) for source, target in EDGES for name in OPERATIONS
]


def choices(pairs: Sequence[Pair]) -> list[Choice]:
    """Say where a genotype's pairs are: two a node, in order."""
    return [(name, source, 2 + k // 2) for k, (name, source) in enumerate(pairs)]


def plain_nodes(
    w: dict[str, Tensor],
    at: str,
    inputs: tuple[Tensor, Tensor],
    chosen: Sequence[Choice],
    gates: Tensor,
    reduces: bool,
) -> list[Tensor]:
    """Compute the four nodes of a cell: each the sum of gate × operation; zeros without any."""
    states = list(inputs)
    images, channels, height, width = inputs[1].shape
    if reduces:
        height, width = (height + 1) // 2, (width + 1) // 2
    for node in range(2, 6):
        total = inputs[1].new_zeros(images, channels, height, width)
        for k, (name, source, target) in enumerate(chosen):
            if target == node:
                here = f"{at}.edges.{EDGES.index((source, target))}.{name}"
                stride = 2 if reduces and source < 2 else 1
                result = plain_operation(w, here, name, states[source], stride)
                total = total + gates[k] * result
        states.append(total)
    return states[2:]


def plain_forward(
    w: dict[str, Tensor],
    images: Tensor,
    chosen: Sequence[Sequence[Choice]],
    gates: Sequence[Tensor] | Tensor,
    cells: int,
) -> Tensor:
    """Compute the CIFAR supernet from its weights' names alone. chosen, gates: of each kind."""
    stem = plain_norm(F.conv2d(images, w["stem.conv.weight"], padding=1))
    stem = stem * w["stem.norm.weight"][:, None, None] + w["stem.norm.bias"][:, None, None]
    before = last = stem
    reduced_before = False
    for cell in range(cells):
        reduces = cell in (cells // 3, 2 * cells // 3)
        at = f"cells.{cell}"
        if reduced_before:
            first = plain_reduce(w, f"{at}.before", before)
        else:
            first = plain_norm(F.conv2d(before.relu(), w[f"{at}.before.pointwise.weight"]))
        second = plain_norm(F.conv2d(last.relu(), w[f"{at}.last.pointwise.weight"]))
        kind = int(reduces)
        nodes = plain_nodes(w, at, (first, second), chosen[kind], gates[kind], reduces)
        before, last, reduced_before = last, torch.cat(nodes, 1), reduces
    return last.mean((2, 3)) @ w["classifier.weight"].T + w["classifier.bias"]


def with_any_norm(supernet: Supernet) -> dict[str, Tensor]:
    """Return its weights, after the stem's norm was moved away from where it starts."""
    with torch.no_grad():
        nn.init.normal_(supernet.get_parameter("stem.norm.weight"))
        nn.init.normal_(supernet.get_parameter("stem.norm.bias"))
    return dict(supernet.named_parameters())


@pytest.mark.parametrize("side", [8, 9, 14])
def test_supernet_path_is_the_plain_computation(side: int) -> None:
    supernet, images, _ = tiny(cells=5, side=side)
    weights = with_any_norm(supernet)
    for genotype in (EVERY_OPERATION, random_genotype(stream(7, "genotype"))):
        chosen, path = [choices(genotype.cell(kind)) for kind in KINDS], path_of(genotype)
        ones = torch.ones(2, 8, dtype=torch.float64)
        expected = plain_forward(weights, images, chosen, ones, cells=5)
        torch.testing.assert_close(supernet(images, path), expected, rtol=1e-8, atol=1e-8)
        gates = torch.rand(2, 8, dtype=torch.float64)
        expected = plain_forward(weights, images, chosen, gates, cells=5)
        result = supernet(images, path, gates.flatten())
        torch.testing.assert_close(result, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("side", [8, 9])
def test_the_path_of_everything_is_the_plain_computation(side: int) -> None:
    """Gates kind after kind, edge after edge, in the order of the operations."""
    supernet, images, _ = tiny(cells=3, side=side)
    weights, chosen = with_any_norm(supernet), [EVERY_CHOICE, EVERY_CHOICE]
    ones = torch.ones(2, 14 * 7, dtype=torch.float64)
    expected = plain_forward(weights, images, chosen, ones, cells=3)
    torch.testing.assert_close(supernet(images, EVERYTHING), expected, rtol=1e-8, atol=1e-8)
    gates = torch.rand(2, 14 * 7, dtype=torch.float64)
    expected = plain_forward(weights, images, chosen, gates, cells=3)
    result = supernet(images, EVERYTHING, gates.flatten())
    torch.testing.assert_close(result, expected, rtol=1e-8, atol=1e-8)


def one_cell(kind: str, side: int) -> tuple[nn.Module, dict[str, Tensor], tuple[Tensor, Tensor]]:
    """Return a cell, the network's weights, and what that cell's preprocessings may return."""
    supernet, _, _ = tiny(cells=3)
    index = KINDS.index(kind)
    assert supernet.kinds[index] == kind
    shape = 3, 4 * (index + 1), side, side + 2
    first, second = (
        torch.randn(shape, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
        for _ in range(2)
    )
    return supernet.cells[index], dict(supernet.named_parameters()), (first, second)


def run_cell(
    cell: nn.Module, inputs: tuple[Tensor, Tensor], pairs: Sequence[tuple[int, int]], gates: Tensor
) -> list[Tensor]:
    """Compute the nodes behind its inputs by run_nodes."""
    assert isinstance(cell, SearchCell)
    edges = [edge for edge, _ in pairs]
    operations = cell.chosen(pairs)
    nodes = ops.run_nodes(
        *inputs, edges, operations, lambda k, result: result * gates[k], cell.kind
    )
    assert nodes[0] is inputs[0] and nodes[1] is inputs[1]
    return nodes[2:]


@pytest.mark.parametrize("side", [6, 7])
@pytest.mark.parametrize("kind", KINDS)
def test_a_node_is_the_sum_of_gate_times_operation_of_all_pairs(kind: str, side: int) -> None:
    """In one cell, by hand: 7 operations on each of 2, 3, 4 and 5 edges."""
    cell, weights, inputs = one_cell(kind, side)
    index, gates = KINDS.index(kind), torch.rand(14 * 7, dtype=torch.float64)
    found = run_cell(cell, inputs, EVERYTHING[index], gates)
    expected = plain_nodes(weights, f"cells.{index}", inputs, EVERY_CHOICE, gates, index == 1)
    for node, (own, other) in enumerate(zip(found, expected, strict=True)):
        torch.testing.assert_close(own, other, rtol=1e-8, atol=1e-8, msg=f"node {node + 2}")


@pytest.mark.parametrize("side", [6, 7])
@pytest.mark.parametrize("kind", KINDS)
def test_a_node_without_an_operation_is_zeros_of_the_others_size(kind: str, side: int) -> None:
    """None into nodes 3 and 5, of which node 4 reads one; then none at all."""
    cell, weights, inputs = one_cell(kind, side)
    index = KINDS.index(kind)
    some: list[Choice] = [
        ("skip_connect", 0, 2), ("sep_conv_3x3", 1, 2), ("max_pool_3x3", 1, 4),
        ("skip_connect", 3, 4), ("dil_conv_5x5", 3, 4),
    ]  # fmt: skip
    pairs = [(EDGES.index((a, b)), OPERATIONS.index(name)) for name, a, b in some]
    gates = torch.rand(len(some), dtype=torch.float64)
    found = run_cell(cell, inputs, pairs, gates)
    expected = plain_nodes(weights, f"cells.{index}", inputs, some, gates, index == 1)
    for own, other in zip(found, expected, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-8, atol=1e-8)
    assert [bool(node.any()) for node in found] == [True, False, True, False]

    halved = [(side + 1) // 2, (side + 3) // 2] if kind == "reduce" else [side, side + 2]
    for nodes in (found, run_cell(cell, inputs, [], gates)):
        for node in nodes:
            assert list(node.shape) == [*inputs[1].shape[:2], *halved]
            assert node.dtype == torch.float64 and node.is_contiguous(
                memory_format=torch.channels_last
            )
    assert not any(bool(node.any()) for node in nodes)


NORMAL: list[Choice] = [("sep_conv_3x3", 0, 3), ("skip_connect", 2, 3), ("avg_pool_3x3", 3, 5)]
REDUCE: list[Choice] = [("skip_connect", 1, 2), ("sep_conv_5x5", 0, 2), ("dil_conv_3x3", 4, 5)]


@pytest.mark.parametrize("chosen", [(NORMAL, REDUCE), ([], REDUCE), (NORMAL, [])])
@pytest.mark.parametrize("side", [8, 9])
def test_a_path_with_nodes_that_have_no_operation_is_the_plain_computation(
    chosen: tuple[list[Choice], list[Choice]], side: int
) -> None:
    supernet, images, _ = tiny(cells=4, side=side)
    weights = with_any_norm(supernet)
    path: Path = tuple(
        tuple((EDGES.index((a, b)), OPERATIONS.index(name)) for name, a, b in of_kind)
        for of_kind in chosen
    )
    gates = torch.rand(sum(map(len, chosen)), dtype=torch.float64)
    own = gates.split([len(of_kind) for of_kind in chosen])
    expected = plain_forward(weights, images, chosen, own, cells=4)
    result = supernet(images, path, gates)
    torch.testing.assert_close(result, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("seed", range(4))
def test_only_the_sampled_operations_run_and_active_names_their_weights(seed: int) -> None:
    supernet = Supernet(channels=4, cells=5, classes=3, in_channels=1)
    genotype = random_genotype(stream(seed, "genotype"))
    ran: list[str] = []
    for name, module in supernet.named_modules():
        parts = name.split(".")
        if "edges" in parts and parts[-1] in OPERATIONS:
            module.register_forward_hook(lambda *_, name=name: ran.append(name))
    supernet(torch.randn(2, 1, 12, 12), path_of(genotype)).square().sum().backward()

    assert len(ran) == len(set(ran)) == 5 * 8
    expected = []
    for cell, kind in enumerate(("normal", "reduce", "normal", "reduce", "normal")):
        for k, (operation, source) in enumerate(genotype.cell(kind)):
            edge = EDGES.index((source, 2 + k // 2))
            expected.append(f"cells.{cell}.edges.{edge}.{operation}")
    assert sorted(ran) == sorted(expected)
    touched = [name for name, p in supernet.named_parameters() if p.grad is not None]
    assert supernet.active(path_of(genotype)) == touched


def test_everything_runs_every_operation_once_and_uses_every_weight() -> None:
    supernet = Supernet(channels=4, cells=3, classes=3, in_channels=1)
    ran: list[str] = []
    for name, module in supernet.named_modules():
        if "edges" in name and name.split(".")[-1] in OPERATIONS:
            module.register_forward_hook(lambda *_, name=name: ran.append(name))
    supernet(torch.randn(2, 1, 12, 12), EVERYTHING).square().sum().backward()
    assert len(ran) == len(set(ran)) == 3 * 14 * 7
    touched = [name for name, p in supernet.named_parameters() if p.grad is not None]
    assert supernet.active(EVERYTHING) == touched == list(dict(supernet.named_parameters()))


def test_gate_gradients_are_finite_differences_shared_by_the_cells_of_a_kind() -> None:
    supernet, images, labels = tiny(cells=5)
    gates = (1 + 0.1 * torch.randn(16, dtype=torch.float64)).requires_grad_()

    def loss(gates: Tensor) -> Tensor:
        return F.cross_entropy(supernet(images, path_of(EVERY_OPERATION), gates), labels)

    loss(gates).backward()
    assert gates.grad is not None
    step = 10 * KINK_FREE
    with torch.no_grad():
        for entry in range(16):
            shift = step * F.one_hot(torch.tensor(entry), 16)
            difference = (loss(gates + shift) - loss(gates - shift)) / (2 * step)
            assert difference.item() == pytest.approx(gates.grad[entry].item(), rel=1e-4, abs=1e-6)
    assert (gates.grad.abs() > 1e-4).sum() >= 12


def test_gates_at_one_change_nothing() -> None:
    supernet, images, _ = tiny()
    for path in (path_of(EVERY_OPERATION), EVERYTHING):
        ones = torch.ones(sum(map(len, path)), dtype=torch.float64)
        torch.testing.assert_close(
            supernet(images, path), supernet(images, path, ones), rtol=0, atol=0
        )


@forward_mode
@pytest.mark.parametrize("side", [13, 28])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_forward_mode_is_finite_difference_and_reverse_mode(
    side: int, layout: torch.memory_format
) -> None:
    supernet, images, labels = tiny(side=side)
    supernet, images = supernet.to(memory_format=layout), images.contiguous(memory_format=layout)
    for path in map(path_of, (EVERY_OPERATION, random_genotype(stream(3, "genotype")))):
        parameters = dict(supernet.named_parameters())
        weights = {name: parameters[name].detach() for name in supernet.active(path)}
        tangent = {name: torch.randn_like(weight) for name, weight in weights.items()}

        def losses(weights: dict[str, Tensor], path: Path = path) -> Tensor:
            logits = functional_call(supernet, weights, (images, path))
            return F.cross_entropy(logits, labels, reduction="none")

        derivative_B = jvp(losses, (weights,), (tangent,))[1]
        step = KINK_FREE
        ahead = losses({name: weights[name] + step * tangent[name] for name in weights})
        behind = losses({name: weights[name] - step * tangent[name] for name in weights})
        torch.testing.assert_close(
            derivative_B, (ahead - behind) / (2 * step), rtol=1e-5, atol=1e-5
        )

        total = F.cross_entropy(supernet(images, path), labels, reduction="sum")
        gradients = torch.autograd.grad(total, [parameters[name] for name in weights])
        product = sum((g * tangent[n]).sum() for n, g in zip(weights, gradients, strict=True))
        torch.testing.assert_close(derivative_B.sum(), product, rtol=1e-10, atol=1e-10)


def test_functional_call_uses_the_given_weights_and_changes_nothing() -> None:
    supernet, images, _ = tiny()
    path = path_of(EVERY_OPERATION)
    before = copy.deepcopy(supernet.state_dict())
    other = Supernet(channels=4, cells=4, classes=5, in_channels=2).double()
    given = dict(other.named_parameters())
    weights = {name: given[name].detach() for name in supernet.active(path)}
    result = functional_call(supernet, weights, (images, path))
    torch.testing.assert_close(result, other(images, path), rtol=0, atol=0)
    assert not list(supernet.buffers())
    for name, value in supernet.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("stem,side", [("cifar", 28), ("cifar", 15), ("imagenet", 71)])
def test_channels_last_agrees_and_is_kept_through_the_network(stem: str, side: int) -> None:
    supernet = Supernet(channels=4, cells=4, classes=5, in_channels=3, stem=stem).double()
    images = torch.randn(2, 3, side, side, dtype=torch.float64)
    path = path_of(EVERY_OPERATION)
    expected = supernet(images, path)

    supernet = supernet.to(memory_format=torch.channels_last)
    kept = []
    for cell in supernet.cells:
        cell.register_forward_hook(
            lambda _, __, output: kept.append(
                output.is_contiguous(memory_format=torch.channels_last)
            )
        )
    result = supernet(images.contiguous(memory_format=torch.channels_last), path)
    torch.testing.assert_close(result, expected, rtol=1e-7, atol=1e-7)
    assert kept == [True] * 4


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("height,width", [(8, 8), (7, 7), (6, 9), (5, 4), (1, 3)])
def test_stride_two_halves_any_side_upwards(name: str, height: int, width: int) -> None:
    operation = ops.build(name, 6, 2, affine=False, running=False, pool_norm=True)
    result = operation(torch.randn(4, 6, height, width))
    assert result.shape == (4, 6, (height + 1) // 2, (width + 1) // 2)


def test_supernet_errors_say_what_was_expected() -> None:
    supernet, images, _ = tiny()
    path = path_of(DARTS_V2)
    for shape in ([14], [2, 8], [1]):
        with pytest.raises(ValueError, match=re.escape(f"{shape}; expected [16]")):
            supernet(images, path, torch.ones(shape))
    with pytest.raises(ValueError, match=re.escape("[16]; expected [196]")):
        supernet(images, EVERYTHING, torch.ones(16))
    for short in ((), path[:1], (*path, path[0])):
        with pytest.raises(ValueError, match=rf"a path of {len(short)} kinds.*'normal', 'reduce'"):
            supernet(images, short)
    with pytest.raises(ValueError, match="known: cifar, imagenet"):
        Supernet(stem="resnet")
    with pytest.raises(ValueError, match="channels even"):
        Supernet(channels=3)
    with pytest.raises(ValueError, match="unknown operation 'none'; known: max_pool_3x3"):
        ops.build("none", 4, 1, affine=True, running=True, pool_norm=False)


def test_a_genotype_that_leaves_a_node_out_has_no_path() -> None:
    with pytest.raises(ValueError, match="concatenate all 4 nodes"):
        path_of(replace(DARTS_V2, concat=(3, 4, 5)))
