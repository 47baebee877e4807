"""Images in memory, where they come from, and the order in which a run reads them.

images.py       what a run reads, an ImageSet, and the one in memory: its parts, mean and deviation
idx_files.py    Fashion-MNIST
cifar_files.py  CIFAR-10 and CIFAR-100
folders.py      your own pictures, one folder a class: listing.py says which files they are,
                layout.py whether the root is of the right level, leftovers.py what is none;
                decode.py reads one picture, formats.py says of which kinds
shards.py       pictures in shards on a disk, an ImageSet too; manifest.py is what a folder of them
                holds, surrogate.py which classes are wanted, cache.py brings them from another
                machine, by remote.py
crops.py        how a training image is cut
reader.py       the order of a run's batches
feed.py         the batches themselves, read ahead
stream.py       shards of others that have no index: read in turn, without an exact position
"""

from daas_dist.data.cache import Cache
from daas_dist.data.cifar_files import cifar
from daas_dist.data.crops import Crop
from daas_dist.data.feed import Change, Feed, Order, Read, workers_for
from daas_dist.data.folders import folder
from daas_dist.data.idx_files import FASHION_MNIST_ROOT, fashion_mnist
from daas_dist.data.images import Account, Images, ImageSet, limit, measure, put_aside, split
from daas_dist.data.listing import list_classes
from daas_dist.data.manifest import DataError
from daas_dist.data.reader import Batches
from daas_dist.data.shards import Shards, limit_classes, open_shards
from daas_dist.data.stream import Stream, StreamFeed, StreamOrder, open_stream

__all__ = [
    "FASHION_MNIST_ROOT",
    "Account",
    "Batches",
    "Cache",
    "Change",
    "Crop",
    "DataError",
    "Feed",
    "ImageSet",
    "Images",
    "Order",
    "Read",
    "Shards",
    "Stream",
    "StreamFeed",
    "StreamOrder",
    "cifar",
    "fashion_mnist",
    "folder",
    "limit",
    "limit_classes",
    "list_classes",
    "measure",
    "open_shards",
    "open_stream",
    "put_aside",
    "split",
    "workers_for",
]
