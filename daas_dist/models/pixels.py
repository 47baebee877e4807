"""Every other pixel of every other row, with one backward pass.

Slices have one each, for rows and for columns: it makes zeros for all pixels and copies the
gradient among them, and then these maps are added up.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def every_other(images: Tensor, starts: Sequence[int]) -> tuple[Tensor, ...]:
    """[B, C, H, W] to the pixels from row and column `start` on, for each of the starts (0 or 1):
    [B, C, ceil((H - start) / 2), ceil((W - start) / 2)]."""
    if torch.compiler.is_compiling():
        return _taken(images, starts)
    return _EveryOther.apply(images, *starts)  # type: ignore[no-any-return]


def _taken(images: Tensor, starts: Sequence[int]) -> tuple[Tensor, ...]:
    # Copied, as what reads them would do, for an output may not be a view.
    return tuple(images[:, :, start::2, start::2].clone() for start in starts)


class _EveryOther(torch.autograd.Function):
    @staticmethod
    def forward(images: Tensor, *starts: int) -> tuple[Tensor, ...]:
        return _taken(images, starts)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        images, *ctx.starts = inputs
        ctx.save_for_backward(images)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (images,) = ctx.saved_tensors
        by_images = torch.zeros_like(images)
        for start, grad in zip(ctx.starts, grads, strict=True):
            by_images[:, :, start::2, start::2] = grad
        return by_images, *(None for _ in ctx.starts)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor, ...]:
        return _taken(tangents[0], ctx.starts)
