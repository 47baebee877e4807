"""What the paper says that a search takes."""

GPU_DAYS = {"search_cifar10": 1.0, "search_cifar100": 1.0, "search_imagenet": 1.8}
"""On one NVIDIA 2080 Ti (paper Tables 2 and 3)."""


def pace(stage: str, images: int) -> float | None:
    """Images of both halves that such a search reads a second; None where the paper says nothing.

    images: of both halves, each read once an epoch, in the paper's 50 epochs.
    """
    return 50 * images / (86400 * GPU_DAYS[stage]) if stage in GPU_DAYS else None
