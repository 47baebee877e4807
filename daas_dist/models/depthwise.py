"""Depthwise convolutions whose gradients take the CPU's fast kernels: the same function, regrouped.

oneDNN (as torch 2.14 brings it) is fast in a depthwise convolution forward, and backward only by
the weights of a kernel without dilation that is at most 3 wide; the rest takes 2 to 40 times as
long. So, where either is missing,

- the gradient by the images is computed at stride 1 as the convolution that it is, with the kernel
  turned;
- with dilation 2, the gradient by the weights is that of an ordinary convolution of four images,
  the pixels of even and odd rows and columns, as a kernel of dilation 2 sees one of them at a time;
- by a kernel 5 wide, it is that of its first three columns, then that of its last three;
- by a kernel taller than the image, it is that on the image with its zeros around it.

Not in the paper, and not for GPUs nor under autocast: there the convolution is torch's own.
"""

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

REGROUPED = ("cpu",)
"""The devices whose kernels want it."""


class Depthwise(nn.Conv2d):
    """A depthwise convolution that keeps the side (or halves it), kernel 3 or 5, dilation 1 or 2.

    [B, C, H, W] to [B, C, ceil(H / stride), ceil(W / stride)]; dilation 2 is for stride 1.
    """

    def __init__(self, channels: int, kernel: int, stride: int = 1, dilation: int = 1) -> None:
        padding = dilation * (kernel - 1) // 2
        super().__init__(
            channels, channels, kernel, stride, padding, dilation, groups=channels, bias=False
        )

    def forward(self, input: Tensor) -> Tensor:
        slow = self.kernel_size[0] > 3 or self.dilation[0] > 1
        device = input.device.type
        regrouped = device in REGROUPED and not torch.is_autocast_enabled(device)
        if not slow or not regrouped or torch.compiler.is_compiling():
            return super().forward(input)
        result = _Depthwise.apply(input, self.weight, self.stride[0], self.dilation[0])
        return result  # type: ignore[no-any-return]


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(images: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
        return _convolve(images, weight, stride, dilation)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        images, weight, ctx.stride, ctx.dilation = inputs
        ctx.save_for_backward(images, weight)
        ctx.save_for_forward(images, weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (images, weight), (grad,) = ctx.saved_tensors, grads
        by_images = by_weight = None
        if ctx.needs_input_grad[0]:
            if ctx.stride == 1:
                by_images = _convolve(grad, weight.flip(-2, -1), 1, ctx.dilation)
            else:
                middle = weight.shape[-1] // 2
                by_images = _backward(images, weight, grad, ctx.stride, (middle, middle), 0)
        if ctx.needs_input_grad[1]:
            if ctx.dilation == 2:
                images, grad = _quarters(images), _quarters(grad)
            by_weight = _by_weight(images, weight, grad, ctx.stride)
        return by_images, by_weight, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        (images, weight), (along_images, along_weight, *_) = ctx.saved_tensors, tangents
        parts = []
        if along_images is not None:
            parts.append(_convolve(along_images, weight, ctx.stride, ctx.dilation))
        if along_weight is not None:
            parts.append(_convolve(images, along_weight, ctx.stride, ctx.dilation))
        return sum(parts[1:], parts[0])


# torch looks it up at every call: 50 µs each, if it has to be made from the source again.
_Depthwise.forward.__signature__ = inspect.signature(_Depthwise.forward)  # type: ignore[attr-defined]


def _convolve(images: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
    padding = dilation * (weight.shape[-1] // 2)
    return F.conv2d(images, weight, None, stride, padding, dilation, groups=len(weight))


def _by_weight(images: Tensor, weight: Tensor, grad: Tensor, stride: int) -> Tensor:
    """The gradient by a kernel 3 wide, or in two parts by one 5 wide, which share a column."""
    rows = weight.shape[-2] // 2
    if images.shape[-2] < weight.shape[-2]:
        images, rows = F.pad(images, (0, 0, rows, rows)), 0
    if weight.shape[-1] == 3:
        return _backward(images, weight, grad, stride, (rows, 1), 1)
    first, last = (
        _backward(F.pad(images, beyond), weight[..., :3], grad, stride, (rows, 0), 1)
        for beyond in ([2, 0], [0, 2])
    )
    return torch.cat([first, last[..., 1:]], dim=-1)


def _backward(
    images: Tensor, weight: Tensor, grad: Tensor, stride: int, padding: tuple[int, int], which: int
) -> Tensor:
    """The gradient by images (which 0) or weight (1): what torch's own convolution calls;
    torch.nn.grad calls it with images of no memory format, which is slow."""
    found: tuple[Tensor, ...] = torch.ops.aten.convolution_backward(
        grad, images, weight, None, (stride, stride), padding, (1, 1), False, (0, 0), len(weight),
        (which == 0, which == 1, False),
    )  # fmt: skip
    return found[which]


def _quarters(images: Tensor) -> Tensor:
    """[B, C, H, W] to [4 B, C, ceil(H / 2), ceil(W / 2)], zeros beyond an odd side."""
    batch, channels, height, width = images.shape
    if height % 2 or width % 2:
        images = F.pad(images, (0, width % 2, 0, height % 2))
    rows, columns = (images.shape[-2] // 2, images.shape[-1] // 2)
    split = images.view(batch, channels, rows, 2, columns, 2).permute(3, 5, 0, 2, 4, 1)
    return split.reshape(4 * batch, rows, columns, channels).permute(0, 3, 1, 2)
