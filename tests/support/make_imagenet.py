"""A small ImageNet: the layout and the picture sizes of ILSVRC2012, from real pictures.

    python tests/support/make_imagenet.py OUT [--classes 120] [--train 30] [--val 5]

OUT/train and OUT/val are folders with one sub-folder a class; OUT/archives holds the same pictures
as the three archives, tars in a tar, with a development kit. Every class is a garment of
Fashion-MNIST in a colour of its own before a part of the photograph that matplotlib ships.
The same arguments make the same bytes.
"""

import argparse
import io
import tarfile
from dataclasses import dataclass
from pathlib import Path

import matplotlib.cbook
import numpy as np
from PIL import Image
from scipy.io import savemat

from daas_dist.data import fashion_mnist
from daas_dist.data.sharding import build, sources
from daas_dist.data.sharding.sources import DEVKIT_ARCHIVE, TRAIN_ARCHIVE, VAL_ARCHIVE

SIDES = (375, 500)
"""ImageNet's most frequent height and width."""


@dataclass(frozen=True)
class SmallImageNet:
    train: Path
    val: Path
    archives: Path
    ids: tuple[str, ...]
    words: tuple[str, ...]


def make(
    out: Path | str, classes: int = 120, train: int = 30, val: int = 5, side: float = 1.0
) -> SmallImageNet:
    """side: of the pictures, as a share of ImageNet's."""
    out = Path(out)
    # Sorted ids whose ILSVRC2012_ID is not their place, as in the original.
    ids = tuple(f"n{1000000 + 977 * i:08d}" for i in range(classes))
    words = tuple(f"garment {i % 10}, colour {i // 10}" for i in range(classes))
    found = SmallImageNet(out / "train", out / "val", out / "archives", ids, words)
    pictures = _Pictures(side)
    validation: list[tuple[str, int, bytes]] = []
    for label, class_id in enumerate(ids):
        for part, count in ((found.train, train), (found.val, val)):
            here = part / class_id
            here.mkdir(parents=True)
            for i in range(count):
                data = pictures.make(label, part.name, i)
                if part == found.val:
                    number = 1 + i * classes + label
                    validation.append((f"ILSVRC2012_val_{number:08d}.JPEG", label, data))
                    (here / validation[-1][0]).write_bytes(data)
                else:
                    (here / f"{class_id}_{7 * i + 3}.JPEG").write_bytes(data)
    found.archives.mkdir()
    _pack(found, sorted(validation))
    return found


def shards_of_all_classes(out: Path) -> None:
    """Shards of as many classes as ImageNet has, a few plain pictures each, where searches look."""
    for part, count in (("train", 2), ("val", 1)):
        for label in range(1000):
            folder = out.parent / f"{out.name} pictures" / part / f"n{label:08d}"
            folder.mkdir(parents=True)
            for i in range(count):
                colour = (label % 256, label // 4, 90 * i)
                Image.new("RGB", (24, 20), colour).save(folder / f"{i}.jpg")
        pictures = out.parent / f"{out.name} pictures" / part
        build.build(sources.from_folder(pictures), out / part, build.Recipe(part))


class _Pictures:
    def __init__(self, side: float) -> None:
        path = matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)
        with Image.open(path) as opened:
            self._photograph = opened.convert("RGB")
        self._garments = fashion_mnist(None, train=False)
        self._height, self._width = (max(8, int(side * each)) for each in SIDES)

    def make(self, label: int, part: str, i: int) -> bytes:
        draw = np.random.default_rng([label, len(part), i])
        width, height = (int(each * draw.uniform(0.8, 1.2)) for each in (self._width, self._height))
        wide, high = self._photograph.size
        left, top = int(draw.integers(0, wide // 2)), int(draw.integers(0, high // 2))
        behind = self._photograph.crop((left, top, left + wide // 2, top + high // 2))
        pixels = np.asarray(behind.resize((width, height), Image.Resampling.BICUBIC), float)
        chosen = (self._garments.labels == label % 10).nonzero().flatten()
        garment = Image.fromarray(self._garments.images[chosen[int(draw.integers(900))], 0].numpy())
        mask = np.asarray(garment.resize((width, height), Image.Resampling.BICUBIC), float) / 255
        tint = np.random.default_rng(label // 10).uniform(40, 255, 3)
        mixed = pixels * (1 - mask[..., None]) + mask[..., None] * tint
        mixed += draw.normal(0, 6, mixed.shape)  # without a camera's noise a JPEG is half as long
        file = io.BytesIO()
        Image.fromarray(mixed.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
        return file.getvalue()


def _pack(found: SmallImageNet, validation: list[tuple[str, int, bytes]]) -> None:
    with tarfile.open(found.archives / TRAIN_ARCHIVE, "w") as outer:
        for class_id in found.ids:
            inner = io.BytesIO()
            with tarfile.open(fileobj=inner, mode="w") as tar:
                for path in sorted((found.train / class_id).iterdir()):
                    tar.add(path, path.name)
            _add(outer, f"{class_id}.tar", inner.getvalue())
    with tarfile.open(found.archives / VAL_ARCHIVE, "w") as tar:
        for name, _, data in validation:
            _add(tar, name, data)
    number = {label: 1 + (7 * label + 3) % len(found.ids) for label in range(len(found.ids))}
    assert len(set(number.values())) == len(found.ids), "7 divides the number of classes"
    truth = "".join(f"{number[label]}\n" for _, label, _ in validation)
    root = "ILSVRC2012_devkit_t12/data"
    with tarfile.open(found.archives / DEVKIT_ARCHIVE, "w:gz") as tar:
        _add(tar, f"{root}/meta.mat", _meta(found, number))
        _add(tar, f"{root}/ILSVRC2012_validation_ground_truth.txt", truth.encode())


def _meta(found: SmallImageNet, number: dict[int, int]) -> bytes:
    """The classes as ILSVRC2012's meta.mat has them, and a hypernym, which is no class."""
    fields = ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children")
    rows = [
        (number[i], found.ids[i], found.words[i], "a picture", 0) for i in range(len(found.ids))
    ]
    rows = [*sorted(rows), (len(rows) + 1, "n00001740", "entity", "anything", len(rows))]
    synsets = np.zeros((len(rows), 1), dtype=[(name, object) for name in fields])
    for place, row in enumerate(rows):
        synsets[place, 0] = row
    file = io.BytesIO()
    savemat(file, {"synsets": synsets})
    return file.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out")
    for name, count in (("classes", 120), ("train", 30), ("val", 5)):
        parser.add_argument(f"--{name}", type=int, default=count)
    given = parser.parse_args()
    print(make(given.out, given.classes, given.train, given.val).archives)
