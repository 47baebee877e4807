"""How the fixed networks of Table 5 start."""

from torch import nn


def he_normal(network: nn.Module) -> None:
    """Convolutions normal with variance 2 / (kernel area × output channels), classifiers without
    bias at first, the rest as torch has it: what the authors of all three networks do (He et al.,
    2015, by fan-out; linear weights uniform within 1 / √inputs, norms 1 and 0).
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
