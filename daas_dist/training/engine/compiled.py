"""torch.compile, trusted only after it has computed the same."""

import torch
from torch import Tensor, nn

from daas_dist.config.rules import ConfigError

TOLERANCE = 1e-3
"""Of the largest logit. Kernels that are merged round otherwise, by about 1e-6 in float32."""


@torch.no_grad()
def compile_checked(network: nn.Module, images: Tensor) -> None:
    """Compile the network in place. ConfigError if it then has other logits for the images."""
    network.eval()
    expected = network(images)
    network.compile()
    given = network(images)
    apart = float((given - expected).abs().max() / expected.abs().max())
    if not apart < TOLERANCE:
        raise ConfigError(
            f"engine.compile=true is not possible here: logits differ by {apart:.1e} of the "
            "largest; expected false"
        )
