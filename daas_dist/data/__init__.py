"""Images in memory (sources), and the order in which a run reads them (reader)."""

from .reader import Batches
from .sources import Images, cifar, digest, fashion_mnist, folder, limit, measure, split

__all__ = [
    "Batches",
    "Images",
    "cifar",
    "digest",
    "fashion_mnist",
    "folder",
    "limit",
    "measure",
    "split",
]
