"""The optimiser of a training: SGD, and which weights decay."""

from collections.abc import Iterator

import torch
from torch import nn

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm)


def sgd(
    network: nn.Module,
    learning_rate: float,
    *,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
    decay_norms: bool,
    fused: bool = False,
) -> torch.optim.SGD:
    """decay_norms: norms' weights and biases decay as all others do (DARTS, DADA); else they alone
    are spared (Fast AutoAugment, which adds the decay to the loss and so clips it too)."""
    optimiser = torch.optim.SGD(
        _decaying(network, decay_norms),
        lr=learning_rate,
        momentum=momentum,
        nesterov=nesterov,
        weight_decay=weight_decay,
        fused=fused,
    )
    if not decay_norms:
        optimiser.add_param_group({"params": list(_of_norms(network)), "weight_decay": 0.0})
    return optimiser


def _decaying(network: nn.Module, decay_norms: bool) -> list[nn.Parameter]:
    spared = set() if decay_norms else {id(parameter) for parameter in _of_norms(network)}
    return [parameter for parameter in network.parameters() if id(parameter) not in spared]


def _of_norms(network: nn.Module) -> Iterator[nn.Parameter]:
    for module in network.modules():
        if isinstance(module, NORMS):
            yield from module.parameters(recurse=False)
