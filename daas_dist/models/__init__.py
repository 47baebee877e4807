"""Networks: what one costs, and the fixed ones by name.

Supernet (supernet.py) is searched, Network (network.py) is what a genotype stands for, and a fixed
network has no architecture to search. cost_table.py has what all architectures cost at once.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from daas_dist.models.small import SmallConvNet

FIXED: dict[str, Callable[[int, int], nn.Module]] = {
    "small": lambda classes, in_channels: SmallConvNet(classes=classes, in_channels=in_channels),
}
"""name -> (classes, in_channels) -> module."""


def build(name: str, *, classes: int, in_channels: int) -> nn.Module:
    """The fixed network by that name."""
    if name not in FIXED:
        raise ValueError(f"unknown network {name!r}; known: {', '.join(FIXED)}")
    return FIXED[name](classes, in_channels)


def cost(network: nn.Module, image_shape: tuple[int, int, int]) -> tuple[int, int]:
    """(parameters, multiply-adds of one image [C, H, W]), both without the auxiliary tower.

    Parameters are everything whose name has no "auxiliary" (DARTS). Multiply-adds are those of
    convolutions and linear layers in evaluation; biases, norms, pools and activations are free. So
    counted, DARTS_V2 on ImageNet has 529.9 M where DARTS' paper prints 574 M by an unpublished
    count: others who ran its code got 523 M, and 545 M with norms and activations
    (quark0/darts#46).
    """
    parameters = sum(
        parameter.numel()
        for name, parameter in network.named_parameters()
        if "auxiliary" not in name
    )
    multiply_adds = 0

    def count(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        # One output value takes one multiply-add for each weight of its row: in_channels / groups
        # × kernel area of a convolution, in_features of a linear layer.
        nonlocal multiply_adds
        weight = module.get_parameter("weight")
        multiply_adds += output[0].numel() * weight[0].numel()

    counted = [m for m in network.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    hooks = [module.register_forward_hook(count) for module in counted]
    modes = [(module, module.training) for module in network.modules()]
    # A pool, as a part of a network, has no parameter to be like.
    like = next(network.parameters(), torch.zeros(()))
    try:
        network.eval()
        with torch.no_grad():
            # Two images, since a norm without running statistics refuses one value a channel.
            network(torch.zeros((2, *image_shape), dtype=like.dtype, device=like.device))
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes:
            module.training = mode
    return parameters, multiply_adds
