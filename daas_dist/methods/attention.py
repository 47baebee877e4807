"""Attention as products of matrices, which every mode of torch sees."""

from collections.abc import Generator
from contextlib import contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def plain_attention() -> Generator[None, None, None]:
    """Compute attention without torch's fused kernels: they have no forward mode, and no count
    (2.14)."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
