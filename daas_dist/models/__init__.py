"""Networks: what one costs, and the fixed ones by name.

Supernet (supernet.py) is searched, Network (network.py) is what a genotype stands for, and a fixed
network has no architecture to search: those of the paper's Table 5, and torchvision's.
cost_table.py has what all architectures cost at once.
"""

from collections.abc import Callable

import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from daas_dist.methods.attention import plain_attention
from daas_dist.models.noise import set_noise
from daas_dist.models.pyramidnet import PyramidNet
from daas_dist.models.shake_shake import ShakeShake
from daas_dist.models.small import SmallConvNet
from daas_dist.models.wide_resnet import WideResNet

__all__ = ["FIXED", "build", "cost", "set_noise"]

FIXED: dict[str, Callable[[int, int], nn.Module]] = {
    "small": lambda classes, channels: SmallConvNet(classes=classes, in_channels=channels),
    "wide_resnet_40_2": lambda classes, channels: WideResNet(40, 2, classes, channels),
    "wide_resnet_28_10": lambda classes, channels: WideResNet(28, 10, classes, channels),
    "shake_shake_32d": lambda classes, channels: ShakeShake(32, classes, channels),
    "shake_shake_96d": lambda classes, channels: ShakeShake(96, classes, channels),
    "shake_shake_112d": lambda classes, channels: ShakeShake(112, classes, channels),
    "pyramidnet_272": lambda classes, channels: PyramidNet(272, 200, classes, channels),
}
"""name -> (classes, in_channels) -> module."""

TORCHVISION_NEEDS = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}
"""What a model needs so that it returns logits alone and does not warn."""


def build(name: str, *, classes: int, in_channels: int) -> nn.Module:
    """The fixed network by that name: one of FIXED, or a classification model of torchvision.

    torchvision's start without weights and take what they take: 3 channels, most of them at least
    32 pixels, transformers their one size.
    """
    if name in FIXED:
        return FIXED[name](classes, in_channels)
    if name not in torchvision.models.list_models(module=torchvision.models):
        known = f"{', '.join(FIXED)}, and torchvision's classification models"
        raise ValueError(f"unknown network {name!r}; known: {known}")
    if in_channels != 3:
        raise ValueError(f"torchvision's {name} takes 3 channels, not {in_channels}")
    needs = TORCHVISION_NEEDS.get(name, {})
    return torchvision.models.get_model(name, weights=None, num_classes=classes, **needs)


def cost(network: nn.Module, image_shape: tuple[int, int, int]) -> tuple[int, int]:
    """(parameters, multiply-adds of one image [C, H, W]), both without the auxiliary tower.

    Parameters are everything whose name has no "auxiliary" (DARTS). Multiply-adds are those of
    convolutions and products of matrices in evaluation; biases, norms, pools and activations are
    free. So counted, DARTS_V2 on ImageNet has 529.9 M where DARTS' paper prints 574 M by an
    unpublished count: others who ran its code got 523 M, and 545 M with norms and activations
    (quark0/darts#46).
    """
    parameters = sum(
        parameter.numel()
        for name, parameter in network.named_parameters()
        if "auxiliary" not in name
    )
    modes = [(module, module.training) for module in network.modules()]
    # A pool, as a part of a network, has no parameter to be like.
    like = next(network.parameters(), torch.zeros(()))
    # Two images, since a norm without running statistics refuses one value a channel.
    images = torch.zeros((2, *image_shape), dtype=like.dtype, device=like.device)
    try:
        network.eval()
        with torch.no_grad(), plain_attention(), FlopCounterMode(display=False) as counter:
            network(images)
    finally:
        for module, mode in modes:
            module.training = mode
    # torch counts two operations for a multiply-add.
    return parameters, counter.get_total_flops() // (2 * len(images))
