"""Gumbel noise, by which a choice is drawn and differentiated (Jang et al. 2017)."""

from collections.abc import Sequence

import torch
from torch import Tensor


def gumbel(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Draw g ~ Gumbel(0, 1) = -log(Exponential(1))."""
    exponential = torch.empty(*shape, dtype=torch.float64).exponential_(generator=generator)
    return -exponential.clamp_min(torch.finfo(torch.float64).tiny).log().float()
