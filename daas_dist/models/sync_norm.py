"""Batch norm over a batch that several ranks share."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

Everyone = Callable[[Tensor], Tensor]
"""(C, …) of this rank -> (ranks, C, …), differentiable in both modes."""


class SyncNorm(nn.Module):
    """nn.BatchNorm2d of a batch in equal parts, by the statistics of all of it.

    torch's SyncBatchNorm runs on GPUs alone and has no forward mode, which per-image rewards take.
    """

    def __init__(self, norm: nn.BatchNorm2d, everyone: Everyone) -> None:
        """norm: its weights are kept. It must have no running statistics."""
        super().__init__()
        if norm.running_mean is not None:
            raise ValueError("a norm with running statistics is not for a search")
        self.weight: nn.Parameter | None = norm.weight
        self.bias: nn.Parameter | None = norm.bias
        self.eps, self.everyone = norm.eps, everyone

    def forward(self, images: Tensor) -> Tensor:
        """[B, C, H, W] to the same shape."""
        variance_C, mean_C = torch.var_mean(images, (0, 2, 3), correction=0)
        # The mean variance and the variance of the means: no difference of large squares.
        means_RC, variances_RC = self.everyone(torch.stack((mean_C, variance_C), 1)).unbind(2)
        mean_C = means_RC.mean(0)
        variance_C = variances_RC.mean(0) + (means_RC - mean_C).square().mean(0)
        scale_C = (variance_C + self.eps).rsqrt()
        if self.weight is not None:
            scale_C = scale_C * self.weight
        shift_C = -mean_C * scale_C
        if self.bias is not None:
            shift_C = shift_C + self.bias
        return images * scale_C[:, None, None] + shift_C[:, None, None]


def synchronise(network: nn.Module, everyone: Everyone) -> nn.Module:
    """The network with every batch norm over the ranks that share a batch; the same weights."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, SyncNorm(child, everyone))
    return network
