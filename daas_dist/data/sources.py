"""Whole data sets as uint8 tensors in memory, from files that are checked before they are believed.

Shapes: images [N, C, H, W] uint8, labels [N] int64. Shares are of the first part returned.
No file is unpickled, with one exception: CIFAR's own format, by torchvision, after its md5 check.
"""

import gzip
import hashlib
import os
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ..rng import stream

Progress = Callable[[int, int], None]
"""Called with (files done, files in all)."""

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

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""Pillow's names of what a folder may hold. Formats that call other programs (EPS) are left out."""

MAX_PIXELS = 89_478_485
"""A quarter of a GiB of RGB, Pillow's limit. A larger picture is refused before it is decoded."""

LARGEST_IDX = 1 << 31
"""Bytes that an idx file may unpack to."""

NOT_IMAGES = frozenset({"Thumbs.db", "desktop.ini"})
"""What file managers leave behind; ignored, as are hidden files."""

NAMED_IN_ERRORS = 20


@dataclass(frozen=True, eq=False)
class Images:
    """A data set in memory."""

    images: Tensor  # uint8 [N, C, H, W]
    labels: Tensor  # int64 [N], an index into classes
    classes: tuple[str, ...]
    bad_files: tuple[str, ...] = ()  # "path: reason" of each file that was left out

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.dim() != 4:
            raise ValueError(
                f"images are {self.images.dtype} {list(self.images.shape)}, "
                "expected uint8 [N, C, H, W]"
            )
        if self.labels.dtype != torch.int64 or self.labels.shape != self.images.shape[:1]:
            raise ValueError(
                f"labels are {self.labels.dtype} {list(self.labels.shape)}; "
                f"expected int64 [{len(self.images)}]"
            )
        if len(self.labels) and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < len(
            self.classes
        ):
            raise ValueError(
                f"labels run from {int(self.labels.min())} to {int(self.labels.max())}, "
                f"outside the {len(self.classes)} classes"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: Tensor) -> "Images":
        """The images at these indices, in this order (a copy)."""
        return Images(self.images[index], self.labels[index], self.classes, self.bad_files)


# ---------------------------------------------------------------- Fashion-MNIST (idx files)


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
            if not 0 < size <= LARGEST_IDX:
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


# ---------------------------------------------------------------- CIFAR


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
        raise FileNotFoundError(
            f"CIFAR-{classes}: no whole {reader.base_folder} in {root} ({error}); unpack "
            f"{reader.url} there, name its folder by data.root=, or set data.download=true"
        ) from error
    images_NHWC = torch.from_numpy(data.data)
    images = images_NHWC.permute(0, 3, 1, 2).contiguous()
    return Images(images, torch.tensor(data.targets), tuple(data.classes))


# ---------------------------------------------------------------- folders of pictures


def folder(
    root: Path | str,
    val_root: Path | str | None = None,
    *,
    size: int,
    channels: int = 3,
    max_bad_files: int = 0,
    seed: int = 0,
    progress: Progress | None = None,
    memory: int | None = None,
) -> tuple[Images, Images]:
    """(train, test): pictures of any size, one folder a class, as squares of `size` pixels.

    The shorter side is resized to `size` (bilinear with antialias), the central square is kept.
    Without val_root, a fifth of each class becomes the test set, by (seed, file names): ours, and
    independent of which files turn out bad. At most `max_bad_files` unreadable files are left out,
    each named in bad_files; more are a ValueError. memory: bytes that may be used (None: half of
    what is free).
    """
    if channels not in (1, 3):
        raise ValueError(f"{channels} channels; set data.channels to 1 (grey) or 3 (RGB)")
    if size < 1:
        raise ValueError(f"pictures of {size} pixels; set data.size to 1 or more")
    classes, files, labels = _list_classes(Path(root), "data.root")
    if val_root is None:
        in_train = _choose(
            labels, round(0.8 * len(labels)), len(classes), seed, "folder", both=True
        )
        order = torch.cat([in_train.nonzero().flatten(), (~in_train).nonzero().flatten()])
        files, labels = [files[i] for i in order.tolist()], labels[order]
        trains = int(in_train.sum())
    else:
        trains = len(files)
        val_classes, val_files, val_labels = _list_classes(Path(val_root), "data.val_root")
        if val_classes != classes:
            differing = sorted(set(classes) ^ set(val_classes))
            raise ValueError(
                f"{root} and {val_root} do not hold the same classes: only one of them has "
                f"{_name_some(differing)}; set data.root and data.val_root"
            )
        files, labels = files + val_files, torch.cat([labels, val_labels])
    _check_memory(len(files), channels, size, memory)
    images, reasons = _decode_all(files, size, channels, progress)
    bad = {row: f"{_printable(files[row])}: {reasons[row]}" for row in sorted(reasons)}
    if len(bad) > max_bad_files:
        raise ValueError(
            f"{len(bad)} of {len(files)} files could not be read, data.max_bad_files allows "
            f"{max_bad_files}: {_name_some(list(bad.values()))}"
        )
    every = Images(images, labels, classes)
    train = _without_bad(every, range(trains), bad, "train")
    return train, _without_bad(every, range(trains, len(files)), bad, "test")


def _without_bad(every: Images, rows: range, bad: dict[int, str], part: str) -> Images:
    """The rows of one part; a view where nothing is bad."""
    images, labels = every.images[rows.start : rows.stop], every.labels[rows.start : rows.stop]
    named = tuple(bad[row] for row in rows if row in bad)
    if named:
        good = torch.tensor([row not in bad for row in rows])
        images, labels = images[good], labels[good]
    count_C = torch.bincount(labels, minlength=len(every.classes))
    empty = [every.classes[i] for i in (count_C == 0).nonzero().flatten().tolist()]
    if empty:
        raise ValueError(
            f"no readable picture for {part} in {_name_some(empty)}; "
            "add pictures, or set data.root and data.val_root"
        )
    return Images(images, labels, every.classes, named)


def _name_some(names: list[str]) -> str:
    rest = len(names) - NAMED_IN_ERRORS
    return "; ".join(names[:NAMED_IN_ERRORS]) + (f"; and {rest} more" if rest > 0 else "")


def _list_classes(root: Path, key: str) -> tuple[tuple[str, ...], list[Path], Tensor]:
    """Class names (sorted), every picture file below them (sorted), and its label [N]."""
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {root}; set {key} to a folder with one folder a class")
    names = sorted(
        entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")
    )
    if len(names) < 2:
        raise ValueError(
            f"{root} holds {len(names)} class folders, expected 2 or more "
            f"(root/cat/1.jpg, root/dog/2.jpg); set {key}"
        )
    files_C = [sorted(_walk(root / name)) for name in names]
    empty = [name for name, files in zip(names, files_C, strict=True) if not files]
    if empty:
        raise ValueError(f"class folders without a file in {root}: {_name_some(empty)}; see {key}")
    labels = torch.repeat_interleave(torch.tensor([len(files) for files in files_C]))
    return tuple(map(_printable, names)), [path for files in files_C for path in files], labels


def _walk(top: Path) -> Iterator[Path]:
    """Files below a folder, links followed, each folder once (links may form a ring)."""
    seen: set[str] = set()
    for here, folders, files in os.walk(top, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        wanted = (name for name in files if not name.startswith(".") and name not in NOT_IMAGES)
        yield from (Path(here) / name for name in wanted)


def _printable(name: Path | str) -> str:
    """A file name may hold bytes that are no text; printing it must not fail."""
    return str(name).encode("utf-8", "backslashreplace").decode()


def _check_memory(count: int, channels: int, size: int, memory: int | None) -> None:
    needed = count * channels * size * size
    allowed = _free_memory() // 2 if memory is None else memory
    if needed > allowed:
        fitting = int((allowed / (count * channels)) ** 0.5)
        raise ValueError(
            f"{count} pictures of {channels} x {size} x {size} need {needed / 2**30:.2f} GiB of "
            f"memory, {allowed / 2**30:.2f} GiB may be used; set data.size to {fitting} or less"
        )


def _free_memory() -> int:
    """Bytes that this process may still take: of the machine, or of the job's control group."""
    free = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        # Counts the page cache, which gives way.
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        free = [int(lines["MemAvailable"].split()[0]) * 1024]
    for used, most in (
        ("memory.current", "memory.max"),
        ("memory/memory.usage_in_bytes", "memory/memory.limit_in_bytes"),
    ):
        group = Path("/sys/fs/cgroup")
        if (group / used).is_file() and (group / most).is_file():
            bound = (group / most).read_text().strip()
            if bound != "max":
                free.append(max(0, int(bound) - int((group / used).read_text())))
    return min(free)


def _decode_all(
    files: list[Path], size: int, channels: int, progress: Progress | None
) -> tuple[Tensor, dict[int, str]]:
    """(images [N, C, size, size] uint8, why row n could not be read); bad rows are undefined."""
    images = torch.empty(len(files), channels, size, size, dtype=torch.uint8)
    array_NCHW = images.numpy()  # shares the memory; threads fill their own rows
    reasons: dict[int, str] = {}

    def decode_some(rows: range) -> int:
        for row in rows:
            try:
                array_NCHW[row] = _decode(files[row], size, channels)
            except MemoryError:
                raise
            # Pillow raises nearly anything on broken files. Nothing is hidden: each one is named.
            except Exception as error:
                reasons[row] = f"{type(error).__name__}: {error}"
        return len(rows)

    chunks = [range(i, min(i + 64, len(files))) for i in range(0, len(files), 64)]
    done = 0
    Image.init()  # loads the plugins here, as two threads that do it at once find some lacking
    # Threads suffice: Pillow decodes and resizes without holding the interpreter's lock.
    with warnings.catch_warnings(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        # The pixels of a picture with odd metadata are still its pixels.
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
        # _decode refuses what this warns of.
        warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
        for count in pool.map(decode_some, chunks):
            done += count
            if progress is not None:
                progress(done, len(files))
    return images, reasons


def _decode(path: Path, size: int, channels: int) -> np.ndarray:
    """[C, size, size] uint8: upright, the central square, in grey or RGB."""
    with Image.open(path, formats=FORMATS) as opened:
        width, height = opened.size
        if width * height > MAX_PIXELS:
            raise ValueError(f"{width} x {height} pixels, more than {MAX_PIXELS}")
        # JPEG can be decoded at 1/2, 1/4 or 1/8; twice the size wanted keeps the quality.
        opened.draft(None, (2 * size, 2 * size))
        picture = ImageOps.exif_transpose(opened)
    picture = _to_channels(picture, channels)
    square = _central_square(*picture.size, size)
    picture = picture.resize((size, size), Image.Resampling.BILINEAR, box=square)
    array = np.asarray(picture)
    return array[None] if channels == 1 else array.transpose(2, 0, 1)


def _central_square(width: int, height: int, size: int) -> tuple[float, float, float, float]:
    """The box of the original that becomes the central square once the shorter side is `size`.

    The same pixels as torchvision's Resize(size), CenterCrop(size), whose roundings these are, but
    a strip of 1 x 1,000,000 pixels is not blown up before it is cut.
    """
    shorter = min(width, height)
    scaled_width, scaled_height = int(size * width / shorter), int(size * height / shorter)
    left, top = round((scaled_width - size) / 2), round((scaled_height - size) / 2)
    across, down = width / scaled_width, height / scaled_height
    return left * across, top * down, (left + size) * across, (top + size) * down


def _to_channels(picture: Image.Image, channels: int) -> Image.Image:
    """Any mode to L or RGB. Transparent parts show white, as most viewers show them."""
    mode = "L" if channels == 1 else "RGB"
    if picture.mode == "F":
        raise ValueError("pixels are floating-point numbers of unknown range")
    if picture.mode.startswith("I"):
        # 16-bit grey. Pillow's own conversion clips at 255 in some versions.
        values = np.asarray(picture).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("pixels are integers outside 0 to 65535")
        picture = Image.fromarray((values >> 8).astype(np.uint8))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return picture if picture.mode == mode else picture.convert(mode)


# ---------------------------------------------------------------- parts and sums


def split(images: Images, share: float, seed: int) -> tuple[Images, Images]:
    """(train, val): `share` of the images to train, as much of every class as whole images allow.

    Drawn by stream(seed, "split"); both parts keep the order of the data set.
    """
    if not 0 < share < 1:
        raise ValueError(f"a share of {share} for training; set data.val_share between 0 and 1")
    in_train = _choose(
        images.labels, round(share * len(images)), len(images.classes), seed, "split", both=True
    )
    return images.take(in_train), images.take(~in_train)


def limit(images: Images, count: int, seed: int) -> Images:
    """`count` of the images, the classes in their proportions; a smaller count gives a subset.

    Drawn by stream(seed, "limit"); the order of the data set is kept.
    """
    if not 1 <= count <= len(images):
        raise ValueError(
            f"{count} of {len(images)} images wanted; set data.limit or data.test_limit to "
            f"{len(images)} or less, or null for all"
        )
    if count == len(images):
        return images
    return images.take(
        _choose(images.labels, count, len(images.classes), seed, "limit", both=False)
    )


def _choose(
    labels: Tensor, total: int, classes: int, seed: int, purpose: str, *, both: bool
) -> Tensor:
    """[N] bool with `total` true, stratified; `both`: no class may lack on either side."""
    count_C = torch.bincount(labels, minlength=classes)
    if int(count_C.min()) < (2 if both else 1):
        lacking = int(count_C.argmin())
        raise ValueError(
            f"class {lacking} has {int(count_C.min())} images, too few to take a share of; "
            "add images, raise data.limit, or set data.val_root"
        )
    quota_C = _apportion(count_C, total, both)
    order = torch.randperm(len(labels), generator=stream(seed, purpose))
    by_class = order[labels[order].argsort(stable=True)]
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for members, quota in zip(by_class.split(count_C.tolist()), quota_C.tolist(), strict=True):
        chosen[members[:quota]] = True
    return chosen


def _apportion(count_C: Tensor, total: int, both: bool) -> Tensor:
    """[C] whole numbers near total * count_C / N, summing to total (largest remainders)."""
    least_C = torch.ones_like(count_C)
    most_C = count_C - 1 if both else count_C
    if not int(least_C.sum()) <= total <= int(most_C.sum()):
        raise ValueError(
            f"{total} of {int(count_C.sum())} images cannot leave every one of {len(count_C)} "
            "classes an image; change data.limit, data.test_limit or data.val_share"
        )
    exact_C = count_C.double() * total / count_C.sum()
    quota_C = exact_C.floor().long().clamp(least_C, most_C)
    while int(quota_C.sum()) != total:
        # One at a time to the class that is furthest from its due, ties to the first.
        missing = total - int(quota_C.sum())
        due_C = (exact_C - quota_C) if missing > 0 else (quota_C - exact_C)
        movable_C = quota_C < most_C if missing > 0 else quota_C > least_C
        due_C = due_C.masked_fill(~movable_C, -torch.inf)
        quota_C[due_C.argmax()] += 1 if missing > 0 else -1
    return quota_C


def measure(images: Images) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, standard deviation) of each channel, of pixels in [0, 1], over all N H W of them.

    From exact integer histograms, so the order of summation plays no part.
    """
    if not len(images):
        raise ValueError("no images to measure; raise data.limit")
    channels = images.images.shape[1]
    histogram_CV = torch.zeros(channels, 256, dtype=torch.int64)
    for part in images.images.split(2048):
        for channel in range(channels):
            values = part[:, channel].flatten().int()
            histogram_CV[channel] += torch.bincount(values, minlength=256)
    value_V = torch.arange(256, dtype=torch.float64) / 255
    share_CV = histogram_CV.double() / histogram_CV.sum(1, keepdim=True)
    mean_C = share_CV @ value_V
    std_C = (share_CV * (value_V - mean_C[:, None]) ** 2).sum(1).sqrt()
    if bool((std_C == 0).any()):
        constant = (std_C == 0).nonzero().flatten().tolist()
        raise ValueError(
            f"channels {constant} have the same value everywhere, so they cannot be normalised; "
            "check data.root and data.channels"
        )
    return tuple(mean_C.tolist()), tuple(std_C.tolist())


def digest(images: Images) -> str:
    """sha256 (hex) of the shape, the pixels and the labels: what a run says it was trained on."""
    total = hashlib.sha256(repr(tuple(images.images.shape)).encode())
    total.update(images.images.contiguous().numpy().data)
    total.update(images.labels.contiguous().numpy().astype("<i8").data)
    return total.hexdigest()
