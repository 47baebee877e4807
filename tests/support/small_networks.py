"""What the tests of the supernet and of the derived network start from."""

import pytest
import torch
from torch import Tensor

from daas_dist.models.supernet import Supernet
from daas_dist.spaces.cells import Genotype

# torch registers forward-mode decompositions with torch.jit at the first jvp of a process, and
# warns of its own use of it.
forward_mode = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")

# The losses have kinks (ReLU, maximum) about every 1e-7 along a random line, so finite differences
# must step less than usual; at this step rounding leaves a relative error of 1e-7.
KINK_FREE = 1e-9

# All seven operations in either kind, from inputs and from inner nodes.
EVERY_OPERATION = Genotype(
    normal=(
        ("skip_connect", 0), ("max_pool_3x3", 1), ("avg_pool_3x3", 0), ("sep_conv_3x3", 2),
        ("sep_conv_5x5", 1), ("skip_connect", 3), ("dil_conv_3x3", 2), ("dil_conv_5x5", 4),
    ),
    reduce=(
        ("dil_conv_5x5", 0), ("skip_connect", 1), ("max_pool_3x3", 0), ("sep_conv_5x5", 2),
        ("avg_pool_3x3", 1), ("skip_connect", 2), ("sep_conv_3x3", 0), ("dil_conv_3x3", 1),
    ),
)  # fmt: skip


def tiny(cells: int = 4, side: int = 13) -> tuple[Supernet, Tensor, Tensor]:
    """A float64 supernet with a batch of images and labels."""
    supernet = Supernet(channels=4, cells=cells, classes=5, in_channels=2).double()
    return supernet, torch.randn(3, 2, side, side, dtype=torch.float64), torch.tensor([0, 3, 1])
