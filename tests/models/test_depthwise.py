"""Depthwise convolutions against torch's own, in both directions of differentiation."""

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad, gradcheck

from daas_dist.models import ops
from daas_dist.models.depthwise import Depthwise
from daas_dist.rng import stream

CASES = [
    (kernel, stride, dilation, sides)
    for kernel in (3, 5)
    for stride, dilation in ((1, 1), (2, 1), (1, 2))
    for sides in ((8, 8), (7, 9), (6, 5), (4, 3), (1, 6))
]


def both(kernel: int, stride: int, dilation: int) -> tuple[Depthwise, nn.Conv2d]:
    """Ours and torch's, with the same weights."""
    ours = Depthwise(3, kernel, stride, dilation).double()
    padding = dilation * (kernel // 2)
    theirs = nn.Conv2d(3, 3, kernel, stride, padding, dilation, groups=3, bias=False).double()
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def images(sides: tuple[int, int], key: str) -> Tensor:
    drawn = torch.randn(2, 3, *sides, generator=stream(0, key), dtype=torch.float64)
    return drawn.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("kernel", "stride", "dilation", "sides"), CASES)
def test_gradients_are_those_of_torch_s_convolution(
    kernel: int, stride: int, dilation: int, sides: tuple[int, int]
) -> None:
    results = []
    for convolution in both(kernel, stride, dilation):
        own = images(sides, "images").requires_grad_()
        result = convolution(own)
        weighting = torch.randn(result.shape, generator=stream(0, "grad"), dtype=torch.float64)
        (result * weighting).sum().backward()
        results.append((result, own.grad, convolution.weight.grad))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
        reached = (theirs != 0).double().mean()  # the rest of a kernel hangs over a small image
        assert reached == 1 if min(sides) > 4 else reached > 0.1


@pytest.mark.parametrize(("kernel", "stride", "dilation", "sides"), CASES)
def test_forward_mode_is_that_of_torch_s_convolution(
    kernel: int, stride: int, dilation: int, sides: tuple[int, int]
) -> None:
    tangents = []
    for convolution in both(kernel, stride, dilation):
        weight = convolution.weight.detach()
        along = torch.randn(weight.shape, generator=stream(0, "along"), dtype=torch.float64)
        with forward_ad.dual_level():
            image_dual = forward_ad.make_dual(images(sides, "images"), images(sides, "tangent"))
            given = {"weight": forward_ad.make_dual(weight, along)}
            for inputs in (image_dual, images(sides, "images")):
                result = torch.func.functional_call(convolution, given, (inputs,))
                tangents.append(forward_ad.unpack_dual(result).tangent)
    ours, theirs = tangents[:2], tangents[2:]
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_second_derivatives_are_right_too() -> None:
    ours, _ = both(5, 1, 2)
    own = images((6, 5), "images").requires_grad_()
    weight = ours.weight.detach().requires_grad_()

    def call(image: Tensor, weight: Tensor) -> Tensor:
        return torch.func.functional_call(ours, {"weight": weight}, (image,))

    assert gradcheck(call, (own, weight), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(call, (own, weight))


def test_under_autocast_it_is_torch_s_convolution() -> None:
    results = []
    for convolution in both(5, 1, 2):
        own = images((8, 8), "images").float().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            result = convolution.float()(own)
        result.float().square().sum().backward()
        assert result.dtype == torch.bfloat16
        results.append((result, own.grad, convolution.weight.grad))
    for ours, theirs in zip(*results, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_gradients_of_concatenated_nodes_lie_together(layout: torch.memory_format) -> None:
    seen: list[Tensor] = []
    nodes = []
    for key in "ab":
        leaf = images((4, 6), key).contiguous(memory_format=layout).requires_grad_()
        node = leaf * 2
        leaf.register_hook(seen.append)
        nodes.append(node)
    weighting = torch.randn(2, 6, 4, 6, generator=stream(0, "weighting"), dtype=torch.float64)
    weighting = weighting.contiguous(memory_format=layout)
    (ops.concatenate(nodes) * weighting).sum().backward()
    for grad, expected in zip(reversed(seen), weighting.split(3, dim=1), strict=True):
        assert grad.is_contiguous(memory_format=layout)
        assert torch.equal(grad, 2 * expected)
