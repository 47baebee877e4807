"""The supernet against its plain computation and finite differences."""

import copy

import pytest
import torch
from small_networks import EVERY_OPERATION, KINK_FREE, forward_mode, tiny
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.nn import functional as F

from daas_dist.models import ops
from daas_dist.models.supernet import Supernet
from daas_dist.rng import stream
from daas_dist.spaces.cells import DARTS_V2, EDGES, OPERATIONS, Genotype, random_genotype


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


def plain_forward(
    w: dict[str, Tensor], images: Tensor, genotype: Genotype, gates: Tensor, cells: int
) -> Tensor:
    """The CIFAR supernet from its weights' names alone."""
    stem = plain_norm(F.conv2d(images, w["stem.conv.weight"], padding=1))
    stem = stem * w["stem.norm.weight"][:, None, None] + w["stem.norm.bias"][:, None, None]
    before = last = stem
    reduced_before = False
    for cell in range(cells):
        reduces = cell in (cells // 3, 2 * cells // 3)
        pairs = genotype.reduce if reduces else genotype.normal
        at = f"cells.{cell}"
        if reduced_before:
            first = plain_reduce(w, f"{at}.before", before)
        else:
            first = plain_norm(F.conv2d(before.relu(), w[f"{at}.before.pointwise.weight"]))
        states = [first, plain_norm(F.conv2d(last.relu(), w[f"{at}.last.pointwise.weight"]))]
        for node in range(4):
            total = torch.zeros(())
            for k in (2 * node, 2 * node + 1):
                name, source = pairs[k]
                edge = EDGES.index((source, 2 + node))
                stride = 2 if reduces and source < 2 else 1
                here = f"{at}.edges.{edge}.{name}"
                result = plain_operation(w, here, name, states[source], stride)
                total = total + gates[1 if reduces else 0, k] * result
            states.append(total)
        before, last, reduced_before = last, torch.cat(states[2:], 1), reduces
    return last.mean((2, 3)) @ w["classifier.weight"].T + w["classifier.bias"]


@pytest.mark.parametrize("side", [8, 9, 14])
def test_supernet_path_is_the_plain_computation(side: int) -> None:
    supernet, images, _ = tiny(cells=5, side=side)
    with torch.no_grad():
        nn.init.normal_(supernet.get_parameter("stem.norm.weight"))
        nn.init.normal_(supernet.get_parameter("stem.norm.bias"))
    weights: dict[str, Tensor] = dict(supernet.named_parameters())
    for genotype in (EVERY_OPERATION, random_genotype(stream(7, "genotype"))):
        ones = torch.ones(2, 8, dtype=torch.float64)
        expected = plain_forward(weights, images, genotype, ones, cells=5)
        torch.testing.assert_close(supernet(images, genotype), expected, rtol=1e-8, atol=1e-8)
        gates = torch.rand(2, 8, dtype=torch.float64)
        expected = plain_forward(weights, images, genotype, gates, cells=5)
        result = supernet(images, genotype, gates)
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
    supernet(torch.randn(2, 1, 12, 12), genotype).square().sum().backward()

    assert len(ran) == len(set(ran)) == 5 * 8
    expected = []
    for cell, kind in enumerate(("normal", "reduce", "normal", "reduce", "normal")):
        for k, (operation, source) in enumerate(genotype.cell(kind)):
            edge = EDGES.index((source, 2 + k // 2))
            expected.append(f"cells.{cell}.edges.{edge}.{operation}")
    assert sorted(ran) == sorted(expected)
    touched = [name for name, p in supernet.named_parameters() if p.grad is not None]
    assert supernet.active(genotype) == touched


def test_gate_gradients_are_finite_differences_shared_by_the_cells_of_a_kind() -> None:
    supernet, images, labels = tiny(cells=5)
    gates = (1 + 0.1 * torch.randn(2, 8, dtype=torch.float64)).requires_grad_()

    def loss(gates: Tensor) -> Tensor:
        return F.cross_entropy(supernet(images, EVERY_OPERATION, gates), labels)

    loss(gates).backward()
    assert gates.grad is not None
    step = 10 * KINK_FREE
    with torch.no_grad():
        for entry in range(16):
            shift = step * F.one_hot(torch.tensor(entry), 16).view(2, 8)
            difference = (loss(gates + shift) - loss(gates - shift)) / (2 * step)
            assert difference.item() == pytest.approx(
                gates.grad.flatten()[entry].item(), rel=1e-4, abs=1e-6
            )
    assert (gates.grad.abs() > 1e-4).sum() >= 12


def test_gates_at_one_change_nothing() -> None:
    supernet, images, _ = tiny()
    ones = torch.ones(2, 8, dtype=torch.float64)
    torch.testing.assert_close(
        supernet(images, EVERY_OPERATION), supernet(images, EVERY_OPERATION, ones), rtol=0, atol=0
    )


@forward_mode
@pytest.mark.parametrize("side", [13, 28])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_forward_mode_is_finite_difference_and_reverse_mode(
    side: int, layout: torch.memory_format
) -> None:
    supernet, images, labels = tiny(side=side)
    supernet, images = supernet.to(memory_format=layout), images.contiguous(memory_format=layout)
    for genotype in (EVERY_OPERATION, random_genotype(stream(3, "genotype"))):
        parameters = dict(supernet.named_parameters())
        weights = {name: parameters[name].detach() for name in supernet.active(genotype)}
        tangent = {name: torch.randn_like(weight) for name, weight in weights.items()}

        def losses(weights: dict[str, Tensor], genotype: Genotype = genotype) -> Tensor:
            logits = functional_call(supernet, weights, (images, genotype))
            return F.cross_entropy(logits, labels, reduction="none")

        derivative_B = jvp(losses, (weights,), (tangent,))[1]
        step = KINK_FREE
        ahead = losses({name: weights[name] + step * tangent[name] for name in weights})
        behind = losses({name: weights[name] - step * tangent[name] for name in weights})
        torch.testing.assert_close(
            derivative_B, (ahead - behind) / (2 * step), rtol=1e-5, atol=1e-5
        )

        total = F.cross_entropy(supernet(images, genotype), labels, reduction="sum")
        gradients = torch.autograd.grad(total, [parameters[name] for name in weights])
        product = sum((g * tangent[n]).sum() for n, g in zip(weights, gradients, strict=True))
        torch.testing.assert_close(derivative_B.sum(), product, rtol=1e-10, atol=1e-10)


def test_functional_call_uses_the_given_weights_and_changes_nothing() -> None:
    supernet, images, _ = tiny()
    before = copy.deepcopy(supernet.state_dict())
    other = Supernet(channels=4, cells=4, classes=5, in_channels=2).double()
    given = dict(other.named_parameters())
    weights = {name: given[name].detach() for name in supernet.active(EVERY_OPERATION)}
    result = functional_call(supernet, weights, (images, EVERY_OPERATION))
    torch.testing.assert_close(result, other(images, EVERY_OPERATION), rtol=0, atol=0)
    assert not list(supernet.buffers())
    for name, value in supernet.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("stem,side", [("cifar", 28), ("cifar", 15), ("imagenet", 71)])
def test_channels_last_agrees_and_is_kept_through_the_network(stem: str, side: int) -> None:
    supernet = Supernet(channels=4, cells=4, classes=5, in_channels=3, stem=stem).double()
    images = torch.randn(2, 3, side, side, dtype=torch.float64)
    expected = supernet(images, EVERY_OPERATION)

    supernet = supernet.to(memory_format=torch.channels_last)
    kept = []
    for cell in supernet.cells:
        cell.register_forward_hook(
            lambda _, __, output: kept.append(
                output.is_contiguous(memory_format=torch.channels_last)
            )
        )
    result = supernet(images.contiguous(memory_format=torch.channels_last), EVERY_OPERATION)
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
    with pytest.raises(ValueError, match=r"\[2, 7\]; expected \[2, 8\]"):
        supernet(images, DARTS_V2, torch.ones(2, 7))
    with pytest.raises(ValueError, match="concatenate all 4 nodes"):
        supernet(images, Genotype(DARTS_V2.normal, DARTS_V2.reduce, concat=(4, 5)))
    with pytest.raises(ValueError, match="known: cifar, imagenet"):
        Supernet(stem="resnet")
    with pytest.raises(ValueError, match="channels even"):
        Supernet(channels=3)
    with pytest.raises(ValueError, match="unknown operation 'none'; known: max_pool_3x3"):
        ops.build("none", 4, 1, affine=True, running=True, pool_norm=False)
