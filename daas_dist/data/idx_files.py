"""Fashion-MNIST, from idx files that are checked before they are believed."""

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from daas_dist.data.images import Images

FASHION_MNIST_ROOT = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's and Ubuntu's package dataset-fashion-mnist puts its files."""

FASHION_MNIST_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

LARGEST = 1 << 31
"""Bytes that an idx file may unpack to."""


def fashion_mnist(
    root: Path | str | None = None, train: bool = True, download: bool = False
) -> Images:
    """Zalando's 60,000 or 10,000 grey pictures of 28 x 28, from idx files, packed or not.

    root: the folder of the four files, or one that torchvision has filled; None is Debian's.
    FileNotFoundError when there are none, ValueError when a file is not what it should be.
    With several ranks, let one of them download first.
    """
    name = "train" if train else "t10k"
    wanted = (f"{name}-images-idx3-ubyte", f"{name}-labels-idx1-ubyte")
    folders = _fashion_mnist_folders(root)
    if download and not any(_find_idx(folder, wanted) for folder in folders):
        if root is None:
            raise ValueError("data.download=true needs a folder to download to; set data.root")
        _download_fashion_mnist(Path(root))
    for folder in folders:
        found = _find_idx(folder, wanted)
        if found:
            images = _read_idx(found[0], dimensions=3).unsqueeze(1)
            labels = _read_idx(found[1], dimensions=1).long()
            if len(images) != len(labels):
                raise ValueError(
                    f"{found[0]} holds {len(images)} images, but {found[1]} {len(labels)} labels; "
                    "get both again"
                )
            return Images(images, labels, FASHION_MNIST_CLASSES)
    raise FileNotFoundError(
        f"Fashion-MNIST: no {wanted[0]}[.gz] and {wanted[1]}[.gz] in "
        + " or ".join(str(folder) for folder in folders)
        + "; get them by `apt install dataset-fashion-mnist`, name their folder by data.root=, "
        "or set data.download=true"
    )


def _fashion_mnist_folders(root: Path | str | None) -> tuple[Path, ...]:
    if root is None:
        return (FASHION_MNIST_ROOT,)
    return (Path(root), Path(root) / "FashionMNIST" / "raw")


def _find_idx(folder: Path, names: tuple[str, ...]) -> list[Path]:
    """The files of these names, or none if one lacks; packed ones first: they are checksummed."""
    found: list[Path] = []
    for name in names:
        candidates = [folder / f"{name}.gz", folder / name]
        found += [path for path in candidates if path.is_file()][:1]
    return found if len(found) == len(names) else []


def _download_fashion_mnist(root: Path) -> None:
    from torchvision.datasets import FashionMNIST  # slow to import, and rarely needed

    try:
        FashionMNIST(root, download=True)
    except (OSError, RuntimeError) as error:
        raise FileNotFoundError(
            f"Fashion-MNIST could not be downloaded to {root} ({error}); "
            "get it by `apt install dataset-fashion-mnist`, or name its folder by data.root="
        ) from error


def _read_idx(path: Path, dimensions: int) -> Tensor:
    """An idx file of bytes: magic 00 00 08 <dimensions>, big-endian sizes, then the data."""
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:
            header = file.read(4 + 4 * dimensions)
            if len(header) < 4 + 4 * dimensions or header[:4] != bytes((0, 0, 8, dimensions)):
                raise ValueError(
                    f"{path} does not start as an idx file of bytes in {dimensions} dimensions; "
                    "delete it and get it again, or set data.root"
                )
            shape = struct.unpack(f">{dimensions}I", header[4:])
            size = int(np.prod(shape, dtype=object))
            if not 0 < size <= LARGEST:
                raise ValueError(f"{path} says it holds {shape} bytes, which is not believable")
            data = bytearray(file.read(size))
            surplus = len(file.read(1))  # reading to the end also checks gzip's checksum
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is damaged ({error}); delete it and get it again") from error
    if len(data) != size or surplus:
        raise ValueError(
            f"{path} holds {'more' if surplus else len(data)} bytes where its header says {size}; "
            "delete it and get it again"
        )
    return torch.frombuffer(data, dtype=torch.uint8).reshape(shape)
