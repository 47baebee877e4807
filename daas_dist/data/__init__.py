"""Images in memory, where they come from, and the order in which a run reads them.

source.py       what a run reads: a Source, and how its steps read it
indexed.py      an ImageSet, a Source of which any image can be read at any time: its parts, its
                batches; strata.py says which images a part gets
images.py       the one in memory, and the mean and deviation of its pixels
idx_files.py    Fashion-MNIST
cifar_files.py  CIFAR-10 and CIFAR-100
folders.py      your own pictures, one folder a class: listing.py says which files they are,
                layout.py whether the root is of the right level, leftovers.py what is none;
                decode.py reads one picture, formats.py says of which kinds
shards.py       pictures in shards on a disk, an ImageSet too; manifest.py is what a folder of them
                holds, surrogate.py which classes are wanted, cache.py brings them from another
                machine, by remote.py; sharded.py opens those of a stage
stream.py       shards of others that have no index: a Source that is read in turn, without an
                exact position
crops.py        how a training image is cut
reader.py       the order of a run's batches
ring.py         images read ahead by other processes
feed.py         the batches themselves, whatever the Source
dataset.py      all of it for a stage
enough.py       whether the images of a stage suffice
"""

from daas_dist.data.cache import Cache
from daas_dist.data.cifar_files import cifar
from daas_dist.data.crops import Crop
from daas_dist.data.feed import Feed, workers_for
from daas_dist.data.folders import folder
from daas_dist.data.idx_files import FASHION_MNIST_ROOT, fashion_mnist
from daas_dist.data.images import Images, measure
from daas_dist.data.indexed import ImageSet
from daas_dist.data.listing import list_classes
from daas_dist.data.manifest import DataError
from daas_dist.data.reader import Batches
from daas_dist.data.shards import Shards, open_shards
from daas_dist.data.source import Account, Change, Plan, Read, Source
from daas_dist.data.strata import put_aside
from daas_dist.data.stream import Stream, open_stream

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
    "Plan",
    "Read",
    "Shards",
    "Source",
    "Stream",
    "cifar",
    "fashion_mnist",
    "folder",
    "list_classes",
    "measure",
    "open_shards",
    "open_stream",
    "put_aside",
    "workers_for",
]
