"""Images in memory, where they come from, and the order in which a run reads them.

images.py       a data set in memory: its parts, its mean and deviation, its digest
idx_files.py    Fashion-MNIST
cifar_files.py  CIFAR-10 and CIFAR-100
folders.py      your own pictures, one folder a class; decode.py reads one of them
reader.py       the batches of a run
"""

from daas_dist.data.cifar_files import cifar
from daas_dist.data.folders import folder
from daas_dist.data.idx_files import FASHION_MNIST_ROOT, fashion_mnist
from daas_dist.data.images import Images, digest, limit, measure, split
from daas_dist.data.reader import Batches

__all__ = [
    "FASHION_MNIST_ROOT",
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
