"""CIFAR-10 and CIFAR-100, from their authors' files, read by torchvision.

The one place where data is unpickled, and only after its md5 check.
"""

import warnings
from pathlib import Path

import torch

from daas_dist.data.images import Images


def cifar(root: Path | str, classes: int, train: bool = True, download: bool = False) -> Images:
    """CIFAR-10 or CIFAR-100 (fine labels): 50,000 or 10,000 pictures of 3 x 32 x 32.

    torchvision's classes read it: each file's md5 is checked before it is unpickled.
    """
    from torchvision import datasets  # slow to import, and only needed here

    readers = {10: datasets.CIFAR10, 100: datasets.CIFAR100}
    if classes not in readers:
        raise ValueError(f"CIFAR-{classes} does not exist; there are {sorted(readers)}")
    reader = readers[classes]
    try:
        with warnings.catch_warnings():
            # numpy 2.4 dislikes how the arrays inside the files were pickled in 2009.
            warnings.filterwarnings("ignore", message=r"dtype\(\): align should be passed")
            data = reader(root, train=train, download=download)
    except (OSError, RuntimeError) as error:
        also = "" if download else ", or set data.download=true"
        tried = " and no download" if download else ""
        raise FileNotFoundError(
            f"CIFAR-{classes}: no whole {reader.base_folder} in {root}{tried} ({error}); "
            f"unpack {reader.url} there, or name its folder by data.root={also}"
        ) from error
    images_NHWC = torch.from_numpy(data.data)
    images = images_NHWC.permute(0, 3, 1, 2).contiguous()
    return Images(images, torch.tensor(data.targets), tuple(data.classes))
