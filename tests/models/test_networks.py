"""Derived and fixed networks: sizes that peers print, drop-path, auxiliary head, statistics."""

import copy

import pytest
import torch
from small_networks import EVERY_OPERATION, KINK_FREE, forward_mode, tiny
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.nn import functional as F

from daas_dist.models import build, cost
from daas_dist.models.network import AUXILIARY_STYLES, AuxiliaryTower, Network
from daas_dist.models.small import FixedNetwork, SmallConvNet
from daas_dist.rng import stream
from daas_dist.spaces.cells import DARTS_V2, EDGES, Genotype, path_of


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


# --- Derived network ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "stem,channels,cells,classes,side,parameters",
    [("cifar", 36, 20, 10, 32, 3_349_342), ("imagenet", 48, 14, 1000, 224, 4_718_752)],
)
def test_darts_v2_has_its_published_size(
    stem: str, channels: int, cells: int, classes: int, side: int, parameters: int
) -> None:
    with torch.device("meta"):
        network = Network(DARTS_V2, channels, cells, classes, stem=stem, auxiliary=True)
        counted, multiply_adds = cost(network, (3, side, side))
    assert counted == parameters
    if stem == "imagenet":
        # DARTS' paper prints 574 M, counted in a way that it does not give; see cost().
        assert multiply_adds == pytest.approx(574e6, rel=0.08)
        assert multiply_adds == darts_v2_multiply_adds_on_imagenet()


def darts_v2_multiply_adds_on_imagenet() -> int:
    """By hand: a normal cell has 5 separable and 1 dilated convolution, a reduce cell none."""
    total = 112**2 * 27 * 24 + 56**2 * 9 * 24 * 48 + 28**2 * 9 * 48 * 48
    before, last, channels, side = 48, 48, 48, 28
    for cell in range(14):
        if cell in (4, 9):
            channels *= 2
            total += (before + last) * channels * side**2
            side //= 2
        else:
            total += (before + last) * channels * side**2
            total += (5 * 2 + 1) * (9 * channels + channels**2) * side**2
        before, last = last, 4 * channels
    return total + last * 1000


def test_cost_leaves_the_network_as_it_was() -> None:
    network = Network(EVERY_OPERATION, channels=4, cells=3, in_channels=1, auxiliary=True)
    network.cells[1].eval()
    state = copy.deepcopy(network.state_dict())
    modes = [module.training for module in network.modules()]
    cost(network, (1, 16, 16))
    assert [module.training for module in network.modules()] == modes
    after = network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in state.items())
    assert not any(module._forward_hooks for module in network.modules())  # pyright: ignore


def test_derived_norms_are_affine_with_statistics_and_pools_have_none() -> None:
    network = Network(EVERY_OPERATION, channels=4, cells=3)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert all(norm.affine and norm.track_running_stats for norm in norms)
    pools = [
        type(edge) for cell in network.cells for edge in cell.get_submodule("edges").children()
    ]
    assert pools.count(nn.MaxPool2d) == pools.count(nn.AvgPool2d) == 3


def test_derived_network_of_one_architecture_is_the_supernet_path() -> None:
    """Without pools (which have a norm in the supernet only), in training, only names differ."""
    pairs = tuple(
        ("sep_conv_5x5", source) if "pool" in name else (name, source)
        for name, source in EVERY_OPERATION.normal
    )
    genotype = Genotype(normal=pairs, reduce=pairs)
    supernet, images, _ = tiny(cells=3)
    network = Network(genotype, channels=4, cells=3, classes=5, in_channels=2).double()
    path = path_of(genotype)
    names = supernet.active(path)
    source = dict(supernet.named_parameters())
    renamed = {}
    for name in names:
        parts = name.split(".")
        if parts[2:3] == ["edges"]:
            start, target = EDGES[int(parts[3])]
            k = next(k for k, (_, s) in enumerate(pairs) if s == start and 2 + k // 2 == target)
            parts[3:5] = [str(k)]
        renamed[".".join(parts)] = source[name]
    assert set(renamed) <= set(dict(network.named_parameters()))
    missing, _ = network.load_state_dict(renamed, strict=False)
    assert all("norm" in name for name in missing)
    torch.testing.assert_close(network(images), supernet(images, path), rtol=1e-9, atol=1e-9)


def first_cell(network: Network, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(its output [B, nodes, C, H, W], its two preprocessed inputs) in one forward."""
    seen: dict[str, Tensor] = {}
    cell = network.cells[0]
    hooks = [
        module.register_forward_hook(lambda _, __, output, name=name: seen.update({name: output}))
        for name, module in (
            ("output", cell),
            ("before", cell.get_submodule("before")),
            ("last", cell.get_submodule("last")),
        )
    ]
    network(images)
    for hook in hooks:
        hook.remove()
    return seen["output"].unflatten(1, (4, -1)), seen["before"], seen["last"]


def test_drop_path_keeps_the_expectation_drops_images_and_never_identities() -> None:
    skips = ("skip_connect", 0), ("skip_connect", 1)
    pairs = (*skips, ("skip_connect", 0), ("sep_conv_3x3", 1), *skips, *skips)
    network = Network(Genotype(normal=pairs, reduce=pairs), channels=2, cells=3, in_channels=1)
    network = network.double()
    images = torch.randn(4000, 1, 4, 4, dtype=torch.float64)
    full, before, last = first_cell(network, images)
    network.set_noise(0.3, stream(1, "drop-path"))
    dropped, _, _ = first_cell(network, images)

    for node in (0, 2, 3):
        torch.testing.assert_close(dropped[:, node], before + last)
    operation = full[:, 1] - before
    factor_B = ((dropped[:, 1] - before) * operation).sum((1, 2, 3)) / (operation**2).sum((1, 2, 3))
    is_dropped_B = factor_B.abs() < 1e-9
    torch.testing.assert_close(
        factor_B[~is_dropped_B], torch.full_like(factor_B, 1 / 0.7)[~is_dropped_B]
    )
    # Four standard errors of the mean of 4000 factors: 4 * sqrt(0.3 / 0.7 / 4000).
    assert factor_B.mean().item() == pytest.approx(1.0, abs=0.042)
    assert 0.27 < is_dropped_B.double().mean().item() < 0.33


def test_drop_path_is_a_function_of_its_generator_and_of_training_only() -> None:
    network = Network(EVERY_OPERATION, channels=4, cells=3, in_channels=1)
    images = torch.randn(8, 1, 12, 12)

    def run(seed: int) -> Tensor:
        network.set_noise(0.4, stream(seed, "drop-path"))
        return network(images)

    assert torch.equal(run(1), run(1))
    assert not torch.allclose(run(1), run(2))
    network.eval()
    assert torch.equal(run(1), run(2))
    network.train()
    network.set_noise(0.4, None)
    with pytest.raises(ValueError, match="needs a generator"):
        network(images)
    with pytest.raises(ValueError, match=r"probability in \[0, 1\)"):
        network.set_noise(1.0, None)


@pytest.mark.parametrize(
    "stem,side", [("cifar", 28), ("cifar", 32), ("cifar", 64), ("imagenet", 224), ("imagenet", 160)]
)
def test_auxiliary_logits_come_in_training_only(stem: str, side: int) -> None:
    with torch.device("meta"):
        network = Network(DARTS_V2, 4, 6, 7, stem=stem, auxiliary=True)
        images = torch.zeros(2, 3, side, side)
        logits, auxiliary_logits = network(images)
        assert logits.shape == auxiliary_logits.shape == (2, 7)
        assert network.eval()(images).shape == (2, 7)


@pytest.mark.parametrize(
    "stem,side,expected",
    [
        ("cifar", 8, nn.AvgPool2d(5, 3)),
        ("cifar", 10, nn.AvgPool2d(5, 3)),
        ("cifar", 7, nn.AdaptiveAvgPool2d(2)),
        ("cifar", 16, nn.AdaptiveAvgPool2d(2)),
        ("imagenet", 7, nn.AvgPool2d(5, 2)),
        ("imagenet", 5, nn.AdaptiveAvgPool2d(2)),
    ],
)
def test_auxiliary_pool_is_darts_where_it_fits_and_four_quarters_elsewhere(
    stem: str, side: int, expected: nn.Module
) -> None:
    tower = AuxiliaryTower(6, 5, AUXILIARY_STYLES[stem])
    features = torch.randn(3, 6, side, side)
    pooled = expected(features.relu())
    hidden = F.conv2d(pooled, tower.conv_1.weight)
    hidden = F.conv2d(F.batch_norm(hidden, None, None, training=True).relu(), tower.conv_2.weight)
    if stem == "cifar":
        hidden = F.batch_norm(hidden, None, None, training=True)
    expected_logits = tower.classifier(hidden.relu().flatten(1))
    torch.testing.assert_close(tower(features.relu()), expected_logits, rtol=1e-4, atol=1e-4)


def test_auxiliary_tower_refuses_a_single_pixel() -> None:
    with pytest.raises(ValueError, match="1x1, expected at least 2x2"):
        Network(DARTS_V2, 4, 3, auxiliary=True)(torch.randn(2, 3, 4, 4))


# --- Fixed networks -------------------------------------------------------------------------------


@forward_mode
def test_fixed_network_has_no_statistics_and_is_differentiable_forwards() -> None:
    original = Network(EVERY_OPERATION, channels=4, cells=3, classes=5, in_channels=2).double()
    state = copy.deepcopy(original.state_dict())
    _, images, labels = tiny()
    fixed = FixedNetwork(original)
    assert not list(fixed.buffers())
    torch.testing.assert_close(fixed(images), fixed.eval()(images), rtol=0, atol=0)
    after = original.state_dict()
    assert all(torch.equal(after[name], value) for name, value in state.items())
    torch.testing.assert_close(fixed(images), original(images), rtol=1e-12, atol=1e-12)

    weights = {name: value.detach() for name, value in fixed.named_parameters()}
    assert fixed.active() == fixed.active(()) == list(weights)
    tangent = {name: torch.randn_like(weight) for name, weight in weights.items()}

    def losses(weights: dict[str, Tensor]) -> Tensor:
        return F.cross_entropy(functional_call(fixed, weights, (images,)), labels, reduction="none")

    derivative_B = jvp(losses, (weights,), (tangent,))[1]
    step = KINK_FREE
    ahead = losses({name: weights[name] + step * tangent[name] for name in weights})
    behind = losses({name: weights[name] - step * tangent[name] for name in weights})
    torch.testing.assert_close(derivative_B, (ahead - behind) / (2 * step), rtol=1e-5, atol=1e-5)


def test_fixed_network_refuses_an_architecture() -> None:
    fixed = FixedNetwork(SmallConvNet(classes=3))
    images, path = torch.randn(2, 3, 8, 8), path_of(DARTS_V2)
    with pytest.raises(ValueError, match="no gates: leave it out"):
        fixed(images, (), torch.ones(16))
    for refused in (lambda: fixed(images, path), lambda: fixed.active(path)):
        with pytest.raises(ValueError, match="no path: leave it out"):
            refused()
    with pytest.raises(ValueError, match="no path: leave it out"):
        fixed.cost(path)


def test_small_network_is_the_plain_computation() -> None:
    network = SmallConvNet(channels=4, classes=3, in_channels=2).double()
    images = torch.randn(5, 2, 56, 56, dtype=torch.float64)
    w1, b1, w2, b2, w3, b3, w4, b4 = network.parameters()
    hidden = F.conv2d(images, w1, b1, stride=2, padding=1).clamp(min=0)
    hidden = F.conv2d(hidden, w2, b2, stride=2, padding=1).clamp(min=0)  # 14 x 14: 2 x 2 a place
    places = hidden.unfold(2, 2, 2).unfold(3, 2, 2).mean((-2, -1)).reshape(5, 8 * 7 * 7)
    expected = (places @ w3.T + b3).clamp(min=0) @ w4.T + b4
    torch.testing.assert_close(network(images), expected, rtol=1e-9, atol=1e-9)


def test_small_network_sees_a_shift_and_the_brightness_of_a_whole_batch() -> None:
    network = SmallConvNet(channels=4, classes=3, in_channels=1)
    images = torch.rand(4, 1, 28, 28)
    for changed in (images.roll(8, -1), images * 0.2):
        assert (network(changed) - network(images)).abs().max() > 1e-3


def test_build_names_what_it_knows() -> None:
    network = build("small", classes=7, in_channels=1)
    assert network(torch.randn(2, 1, 28, 28)).shape == (2, 7)
    weights = 9 * (16 + 16 * 32) + 32 * 49 * 64 + 64 * 7
    assert cost(network, (1, 28, 28)) == (
        weights + 16 + 32 + 64 + 7,
        9 * (14**2 * 16 + 7**2 * 16 * 32) + 32 * 49 * 64 + 64 * 7,
    )
    with pytest.raises(ValueError, match="unknown network 'large'; known: small"):
        build("large", classes=7, in_channels=1)
