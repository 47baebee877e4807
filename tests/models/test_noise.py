"""Shake-Shake and ShakeDrop: their values, their gradients, their expectations, their addresses."""

from collections.abc import Callable

import pytest
import torch
from small_networks import EVERY_OPERATION
from torch import Tensor, nn

from daas_dist.models import set_noise
from daas_dist.models.network import Network
from daas_dist.models.noise import Noise, Noisy, scale
from daas_dist.models.pyramidnet import PyramidBlock, PyramidNet, shake_drop
from daas_dist.models.shake_shake import ShakeBlock, ShakeShake
from daas_dist.rng import WHOLE, Part, stream

NETWORKS = [
    lambda: Network(EVERY_OPERATION, channels=4, cells=3, classes=3, in_channels=1),
    lambda: ShakeShake(4, 3, 1),
    lambda: PyramidNet(29, 12, 3, 1),
]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def toy() -> tuple[ShakeBlock, Tensor, Tensor]:
    """A block whose branches are 1×1 convolutions, without norms; and the two matrices."""
    block = ShakeBlock(3, 3, 1).double()
    block.left, block.right = (nn.Sequential(nn.Conv2d(3, 3, 1, bias=False)) for _ in range(2))
    block = block.double()
    left, right = (each[:, :, 0, 0].detach() for each in block.parameters())
    return block, left, right


def test_a_shake_block_goes_forward_by_alpha_and_back_by_beta() -> None:
    block, left, right = toy()
    images = torch.randn(4, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    alpha_B = torch.tensor([0.1, 0.9, 0.35, 0.6], dtype=torch.float64)
    beta_B = torch.tensor([0.7, 0.2, 0.45, 0.05], dtype=torch.float64)
    output = block(images, torch.stack((alpha_B, beta_B)))
    each = alpha_B[:, None, None, None]
    by_left = torch.einsum("oi,bihw->bohw", left, images)
    by_right = torch.einsum("oi,bihw->bohw", right, images)
    torch.testing.assert_close(output, images + each * by_left + (1 - each) * by_right)

    seed = torch.randn_like(output)
    d_images, d_left, d_right = torch.autograd.grad(output, [images, *block.parameters()], seed)
    outer_B = torch.einsum("bohw,bihw->boi", seed, images.detach())
    torch.testing.assert_close(d_left[:, :, 0, 0], torch.einsum("b,boi->oi", beta_B, outer_B))
    torch.testing.assert_close(d_right[:, :, 0, 0], torch.einsum("b,boi->oi", 1 - beta_B, outer_B))
    mixed_B = beta_B[:, None, None] * left + (1 - beta_B)[:, None, None] * right
    torch.testing.assert_close(d_images, seed + torch.einsum("boi,bohw->bihw", mixed_B, seed))


def test_evaluation_is_what_shaking_is_on_average() -> None:
    block, _, _ = toy()
    images = torch.randn(1, 3, 2, 2, dtype=torch.float64)
    count = 20_000
    uniform_2B = Noise(0.0, stream(1, "shake"), WHOLE).uniform((2,), images.expand(count, -1, 2, 2))
    shaken = block(images.expand(count, -1, -1, -1), uniform_2B)
    # α is uniform: its standard deviation is 1 / √12; five standard errors.
    apart = (block.left(images) - block.right(images)).abs()
    error = (shaken.mean(0) - block(images, None)[0]).abs()
    assert (error <= 5 * apart[0] / (12 * count) ** 0.5).all()
    assert (shaken.std(0) - apart[0] / 12**0.5).abs().max() < 0.01


def test_shake_drops_factors_are_those_of_its_formula() -> None:
    """b + α - b α and b + β - b β from the same uniform numbers, written out."""
    uniform_K3B = torch.rand(5, 3, 40, dtype=torch.float64)
    drop_K = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5], dtype=torch.float64)
    forward_KB, backward_KB = shake_drop(uniform_K3B, drop_K).unbind(1)
    for k in range(5):
        b_B = (uniform_K3B[k, 0] >= drop_K[k]).double()
        alpha_B, beta_B = 2 * uniform_K3B[k, 1] - 1, uniform_K3B[k, 2]
        torch.testing.assert_close(forward_KB[k], b_B + alpha_B - b_B * alpha_B)
        torch.testing.assert_close(backward_KB[k], b_B + beta_B - b_B * beta_B)


def test_shake_drop_disturbs_as_often_as_it_should_and_evaluation_is_its_mean() -> None:
    count, drop = 40_000, 0.3
    like = torch.zeros(count, 1, 1, 1)
    uniform_K3B = Noise(0.0, stream(2, "drop"), WHOLE).uniform((1, 3), like)
    forward_B, backward_B = shake_drop(uniform_K3B, torch.tensor([drop]))[0]
    disturbed_B = forward_B != 1
    assert float(disturbed_B.float().mean()) == pytest.approx(drop, abs=0.012)
    alpha_B, beta_B = forward_B[disturbed_B], backward_B[disturbed_B]
    assert -1 <= float(alpha_B.min()) < -0.99 and 0.99 < float(alpha_B.max()) < 1
    assert 0 <= float(beta_B.min()) < 0.01 and 0.99 < float(beta_B.max()) < 1
    correlation = float(torch.corrcoef(torch.stack((alpha_B, beta_B)))[0, 1])
    assert abs(correlation) < 0.05

    block, images = PyramidBlock(12, 3, 1, drop).eval(), torch.randn(1, 12, 2, 2)
    output = block(images.expand(count, -1, -1, -1), torch.stack((forward_B, backward_B)))
    error = (output.mean(0) - block(images, None)[0]).abs()
    # Variance of the factor: drop / 3 + 1 - drop - (1 - drop)²; five standard errors.
    variance = 1 - 2 * drop / 3 - (1 - drop) ** 2
    assert (error <= 5 * (variance / count) ** 0.5 * block.residual(images)[0].abs() + 1e-6).all()
    assert float(backward_B.mean()) == pytest.approx(1 - drop / 2, abs=0.01)


def test_a_pyramid_blocks_residual_goes_forward_and_back_by_its_factors() -> None:
    block = PyramidBlock(12, 3, 1, drop=0.4).double().eval()
    images = torch.randn(3, 12, 2, 2, dtype=torch.float64, requires_grad=True)
    factors_2B = torch.tensor([[-0.6, 1.0, 0.2], [0.3, 1.0, 0.8]], dtype=torch.float64)
    residual, seed = block.residual(images), torch.randn(3, 12, 2, 2, dtype=torch.float64)
    output = block(images, factors_2B)
    forward, backward = factors_2B[:, :, None, None, None]
    torch.testing.assert_close(output, images + forward * residual)
    (gradient,) = torch.autograd.grad(output, images, seed)
    (through,) = torch.autograd.grad(residual, images, backward * seed)
    torch.testing.assert_close(gradient, seed + through)


def test_scale_keeps_the_type_of_what_it_scales() -> None:
    features = torch.randn(2, 1, 1, 1, dtype=torch.bfloat16, requires_grad=True)
    scaled = scale(features, torch.tensor([0.25, -0.5]), torch.tensor([2.0, 0.125]))
    scaled.sum().backward()
    assert scaled.dtype == torch.bfloat16 and features.grad is not None
    assert features.grad.flatten().tolist() == [2.0, 0.125]


@pytest.mark.parametrize("make", NETWORKS)
def test_noise_is_a_function_of_its_address_and_of_training_only(make: Callable[[], Noisy]) -> None:
    network, images = make(), torch.randn(6, 1, 12, 12)

    def run(step: int) -> Tensor:
        set_noise(network, 0.4, stream(1, "noise", step))
        return network(images)

    torch.manual_seed(1)
    first = run(7)
    torch.manual_seed(2)  # torch's own generator is nothing to it
    assert torch.equal(first, run(7))
    assert not torch.allclose(first, run(8))
    network.eval()
    assert torch.equal(run(7), run(8))
    set_noise(network, 0.4, None)
    network(images)
    network.train()
    with pytest.raises(ValueError, match="needs a generator"):
        network(images)


@pytest.mark.parametrize("make", NETWORKS)
def test_parts_of_a_batch_draw_what_the_whole_draws(make: Callable[[], Noisy]) -> None:
    """In training, but for the norms, whose statistics are another matter."""
    network, images = make().double(), torch.randn(6, 1, 12, 12, dtype=torch.float64)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()

    def run(part: Part) -> Tensor:
        set_noise(network, 0.4, stream(1, "noise", 7), part)
        return network(part.take(images))

    whole, parts = run(WHOLE), [run(Part(number, 3)) for number in range(3)]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-9, atol=1e-9)
    set_noise(network, 0.4, stream(1, "noise", 7))
    assert not torch.allclose(network(images[2:4]), parts[1])  # they are not all alike


def test_noise_is_set_inside_a_wrapper_and_others_are_left_alone() -> None:
    network = ShakeShake(4, 3, 1)
    wrapped = nn.Sequential(network, nn.Dropout(0.0))
    generator = stream(1, "noise")
    set_noise(wrapped, 0.2, generator, Part(1, 2))
    assert network.noise == Noise(0.2, generator, Part(1, 2))
    set_noise(nn.Linear(2, 2), 0.2, generator)
    with pytest.raises(ValueError, match=r"probability in \[0, 1\)"):
        set_noise(wrapped, 1.0, generator)


@pytest.mark.parametrize("make", NETWORKS[1:])
def test_noise_keeps_no_feature_map_for_the_backward_pass(make: Callable[[], Noisy]) -> None:
    network, images = make(), torch.randn(16, 1, 16, 16)
    weights = {value.untyped_storage().data_ptr() for value in network.parameters()}

    def kept() -> int:
        """Bytes, each storage once."""
        sizes: dict[int, int] = {}
        alive: list[Tensor] = []

        def pack(value: Tensor) -> Tensor:
            storage = value.untyped_storage()
            if storage.data_ptr() not in weights:
                sizes[storage.data_ptr()] = storage.nbytes()
                alive.append(value)
            return value

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
            network(images).sum().backward()
        return sum(sizes.values())

    set_noise(network, 0.0, stream(1, "noise"))
    shaken, calm = kept(), network.eval() and kept()
    assert abs(shaken - calm) < 0.01 * calm
