"""How fast pictures come: this reader, a bare loop, webdataset, and torchvision's ImageFolder.

    python benchmarks/input.py [--images 7200] [--rounds 5] [--workers 1]

Every way but the first, which throws its crops away, gives batches of 64 random resized crops of
224 pixels, mirrored at random, as uint8, of the same JPEGs of ImageNet's size
(tests/support/make_imagenet.py); the ways take turns, and the ratios to the bare loops are medians
over the rounds. Then how long a start and a resume in mid-epoch take with a manifest of 1,281,167
samples (its shards have holes where pictures would be).
"""

import argparse
import hashlib
import io
import os
import random
import statistics
import sys
import tempfile
import time
import warnings
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms import v2
from webdataset.compat import WebDataset

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import make_imagenet

from daas_dist.data import Crop, Feed, Plan, open_shards
from daas_dist.data.crops import Parts
from daas_dist.data.decode import quiet
from daas_dist.data.manifest import ROW, Manifest, Shard, publish
from daas_dist.data.sharding import build, sources
from daas_dist.rng import stream

SIZE, BATCH = 224, 64
IMAGENET, PER_SHARD = 1_281_167, 1250


def cut() -> v2.Compose:
    """As (c) and (d) have it: torchvision's transforms on Pillow's pictures."""
    return v2.Compose([v2.RandomResizedCrop(SIZE), v2.RandomHorizontalFlip(), v2.PILToTensor()])


def bare(root: Path, keep: bool) -> Iterator[Tensor]:
    """(a) The fastest decoder and resizer we know, one picture after the other in this process:
    nothing is read, checked, looked up or handed over. keep: the crops are made a batch."""
    encoded = [path.read_bytes() for path in sorted(root.rglob("*.JPEG"))]
    random.Random(0).shuffle(encoded)
    parts = Parts.draw(len(encoded), (0.08, 1.0), True, stream(0, "parts"))

    def crop(i: int, data: bytes) -> Tensor:
        tensor = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        pixels = decode_jpeg(tensor, ImageReadMode.RGB)
        assert isinstance(pixels, Tensor)  # a list for a list
        left, top, width, height = parts.box(i, pixels.shape[2], pixels.shape[1])
        cut = pixels[None, :, top : top + height, left : left + width]
        image = interpolate(cut, (SIZE, SIZE), mode="bilinear", antialias=True)
        return image.flip(-1) if parts.mirror_B[i] else image

    with quiet():
        for first in range(0, len(encoded) - BATCH + 1, BATCH):
            crops = (crop(i, encoded[i]) for i in range(first, first + BATCH))
            if keep:
                yield torch.cat(list(crops))
            else:
                deque(crops, maxlen=0)
                yield torch.empty(BATCH)


def ours(root: Path, workers: int) -> Iterator[Tensor]:
    """(b) The reader of a search."""
    images = open_shards(root, size=SIZE, channels=3)
    seed, crop = random.randrange(1000), Crop(0, True, (0.08, 1.0))
    plan = Plan(batch_size=BATCH, epochs=1, seed=seed, crop=crop, workers=workers)
    feed = Feed({"train": images}, plan)
    for step in range(feed.batches.steps_per_epoch):
        yield feed.batch(step)["train"].images


def stock(root: Path, workers: int) -> Iterator[Tensor]:
    """(c) webdataset as its documentation has it."""
    urls = [str(path) for path in sorted(root.glob("*.tar"))]
    data = WebDataset(urls, shardshuffle=100).shuffle(1000).decode("pil").to_tuple("jpg", "cls")
    samples: Any = data.map_tuple(cut(), int)  # an IterableDataset, but not by its type
    loader = DataLoader(samples, batch_size=BATCH, num_workers=workers)
    for images, _ in loader:
        yield images


def image_folder(root: Path, workers: int) -> Iterator[Tensor]:
    """(d) torchvision's ImageFolder."""
    loader = DataLoader(
        ImageFolder(str(root), cut()), BATCH, shuffle=True, num_workers=workers, drop_last=True
    )
    for images, _ in loader:
        yield images


def rate(way: Callable[[], Iterator[Tensor]]) -> float:
    """Images a second, from the first batch on: a start is another matter."""
    count, began = 0, None
    for images in way():
        if began is None:
            began = time.perf_counter()
        else:
            count += len(images)
    assert began is not None
    return count / (time.perf_counter() - began)


def million(folder: Path) -> None:
    """A folder of shards as ImageNet's, in which every sample of a shard is the same picture."""
    file = io.BytesIO()
    Image.effect_noise((64, 64), 40).convert("RGB").save(file, "JPEG")
    data = file.getvalue()
    counts = [PER_SHARD] * (IMAGENET // PER_SHARD) + [IMAGENET % PER_SHARD]
    rows = np.zeros(IMAGENET, ROW)
    rows["offset"], rows["size"], rows["crc"] = 512, len(data), zlib.crc32(data)
    rows["label"] = np.random.default_rng(0).integers(1000, size=IMAGENET)
    shards, first, size = [], 0, 137_000_000
    for number, count in enumerate(counts):
        name = f"shard-{number:06d}.tar"
        with (folder / name).open("wb") as file:
            file.truncate(size)
            os.pwrite(file.fileno(), data, 512)
        labels, held = np.unique(rows["label"][first : first + count], return_counts=True)
        histogram = {str(label): int(n) for label, n in zip(labels, held, strict=True)}
        shards.append(Shard(name, size, "0" * 64, count, histogram))
        first += count
    ids = tuple(f"n{i:08d}" for i in range(1000))
    index, names = rows.tobytes(), b"".join(b"n/%d\n" % i for i in range(IMAGENET))
    sums = [hashlib.sha256(each).hexdigest() for each in (index, names)]
    publish(
        folder,
        Manifest("train", ids, ids, 0, None, tuple(shards), sums[0], sums[1], {}),
        index,
        names,
    )


def starts(folder: Path, workers: int) -> tuple[float, float]:
    """Seconds until the first batch of a start, and of a resume in the middle of epoch 7."""
    seconds = []
    for place in (0.0, 7.5):
        began = time.perf_counter()
        images = open_shards(folder, size=SIZE, channels=3)
        crop = Crop(0, True, (0.08, 1.0))
        plan = Plan(batch_size=BATCH, epochs=100, seed=0, crop=crop, workers=workers)
        feed = Feed({"train": images}, plan)
        feed.batch(int(place * feed.batches.steps_per_epoch))
        seconds.append(time.perf_counter() - began)
    return seconds[0], seconds[1]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--images", type=int, default=7200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1, help="processes of (b), (c) and (d)")
    parser.add_argument("--data", type=Path, help="where the pictures are or go; else temporary")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", ResourceWarning)
    with tempfile.TemporaryDirectory() as temporary:
        data = given.data or Path(temporary)
        if not (data / "shards").exists():
            make_imagenet.make(data / "pictures", 120, given.images // 120, 1)
            source = sources.from_folder(data / "pictures" / "train")
            build.build(source, data / "shards", build.Recipe(per_shard=200))
        compare(data, given.rounds, given.workers)
        folder = data / "million"
        folder.mkdir(exist_ok=True)
        million(folder)
        start, resume = starts(folder, given.workers)
        print(f"{IMAGENET:,} samples: first batch of a start after {start:.2f} s, of a resume in "
              f"mid-epoch after {resume:.2f} s")  # fmt: skip


def compare(data: Path, rounds: int, workers: int) -> None:
    pictures, shards = data / "pictures" / "train", data / "shards"
    ways: dict[str, Callable[[], Iterator[Tensor]]] = {
        "(a) bare loop": lambda: bare(pictures, keep=False),
        "(a) bare loop, its crops kept in batches": lambda: bare(pictures, keep=True),
        f"(b) this reader, {workers} workers": lambda: ours(shards, workers),
        f"(c) webdataset + DataLoader, {workers} workers": lambda: stock(shards, workers),
        f"(d) ImageFolder + DataLoader, {workers} workers": lambda: image_folder(pictures, workers),
    }
    size = statistics.mean(path.stat().st_size for path in pictures.rglob("*.JPEG"))
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name, way in ways.items():
            cores = 1 if name.startswith("(a)") else workers
            rates[name].append(rate(way) / cores)
            print(f"round {number + 1}: {name}: {rates[name][-1]:.0f}", file=sys.stderr)
    loops = list(rates.values())[:2]
    table = Table(
        "way",
        "images a second a core",
        "ratio to (a)",
        "to (a) kept",
        title=f"{size / 1e3:.0f} kB each",
    )
    for name, own in rates.items():
        ratios = [
            f"{statistics.median(a / b for a, b in zip(own, loop, strict=True)):.2f}"
            for loop in loops
        ]
        table.add_row(name, f"{statistics.median(own):.0f}", *ratios)
    Console().print(table)


if __name__ == "__main__":
    main()
