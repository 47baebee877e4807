"""Sources against Pillow, torchvision, hashlib and numpy; the order against its definition."""

import gzip
import hashlib
import pickle
import struct
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from make_jpeg_tree import JpegTree, make
from PIL import Image, PngImagePlugin
from torchvision import transforms

from daas_dist.data import (
    FASHION_MNIST_ROOT,
    Batches,
    Images,
    cifar,
    digest,
    fashion_mnist,
    folder,
    folders,
    limit,
    measure,
    split,
)

NO_FASHION = not FASHION_MNIST_ROOT.is_dir()
needs_fashion = pytest.mark.skipif(NO_FASHION, reason="apt install dataset-fashion-mnist")


def made_up(counts: tuple[int, ...], channels: int = 3, side: int = 4) -> Images:
    """Random pixels, the classes interleaved at random."""
    draw = np.random.default_rng(sum(counts))
    labels = draw.permutation(np.repeat(np.arange(len(counts)), counts))
    pixels = draw.integers(0, 256, (len(labels), channels, side, side), dtype=np.uint8)
    names = tuple(f"class {i}" for i in range(len(counts)))
    return Images(torch.from_numpy(pixels), torch.from_numpy(labels), names)


# ---------------------------------------------------------------- reader

ORDERS = {
    "count": st.integers(1, 300),
    "batch": st.integers(1, 40),
    "seed": st.integers(0, 2**40),
    "epoch": st.integers(0, 50),
}


@settings(deadline=None, max_examples=60)
@given(**ORDERS)
def test_an_epoch_is_a_permutation_without_its_tail(
    count: int, batch: int, seed: int, epoch: int
) -> None:
    batches = Batches(max(count, batch), batch, seed, "train")
    steps = range(epoch * batches.steps_per_epoch, (epoch + 1) * batches.steps_per_epoch)
    seen = torch.cat([batches.indices(step) for step in steps])
    assert len(seen) == batches.count - batches.dropped
    assert len(set(seen.tolist())) == len(seen)
    assert set(seen.tolist()) <= set(range(batches.count))
    assert 0 <= batches.dropped < batch
    assert {batches.epoch(step) for step in steps} == {epoch}


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 100), min_size=1, max_size=12), st.integers(0, 9))
def test_a_batch_depends_on_its_step_alone(steps: list[int], seed: int) -> None:
    wandering = Batches(37, 8, seed, "train")
    for step in steps:
        assert torch.equal(wandering.indices(step), Batches(37, 8, seed, "train").indices(step))


def test_epochs_seeds_and_purposes_have_their_own_orders() -> None:
    orders = [
        Batches(1000, 64, seed, purpose).order(epoch)
        for seed in (3, 4)
        for purpose in ("train", "val")
        for epoch in (0, 1)
    ]
    agreeing = [int((a == b).sum()) for i, a in enumerate(orders) for b in orders[i + 1 :]]
    # Two random permutations agree in one place on average (Poisson): more than 8 is 1 in 10^6.
    assert max(agreeing) <= 8


def test_a_batch_may_be_changed_without_changing_the_next_reading() -> None:
    batches = Batches(20, 5, 1, "train")
    first = batches.indices(2)
    expected = first.clone()
    first.zero_()
    assert torch.equal(batches.indices(2), expected)


def test_a_batch_larger_than_the_data_is_refused() -> None:
    with pytest.raises(ValueError, match=r"63 images for 'val'.*64.*batch_size.*data\.limit"):
        Batches(63, 64, 0, "val")
    with pytest.raises(ValueError, match="count from 0"):
        Batches(64, 64, 0, "val").indices(-1)


# ---------------------------------------------------------------- parts and sums


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(2, 40), min_size=2, max_size=6), st.floats(0.3, 0.7), st.integers(0, 5))
def test_split_parts_the_images_and_keeps_the_proportions(
    counts: list[int], share: float, seed: int
) -> None:
    data = made_up(tuple(counts), channels=1, side=1)
    # Pixels that tell the images apart, so that the parts can be compared as sets.
    numbers = torch.arange(len(data), dtype=torch.int16).view(torch.uint8).view(-1, 1, 1, 2)
    data = Images(numbers, data.labels, data.classes)
    try:
        train, val = split(data, share, seed)
    except ValueError:
        assert not len(counts) <= round(share * sum(counts)) <= sum(counts) - len(counts)
        return
    assert len(train) == round(share * len(data))
    rows = [part.images.contiguous().view(torch.int16).flatten().tolist() for part in (train, val)]
    assert sorted(rows[0] + rows[1]) == list(range(len(data)))
    assert rows == [sorted(rows[0]), sorted(rows[1])]
    for part, part_rows in zip((train, val), rows, strict=True):
        assert torch.equal(part.labels, data.labels[part_rows])
    exact_C = np.array(counts) * len(train) / len(data)
    got_C = np.bincount(train.labels.numpy(), minlength=len(counts))
    assert got_C.min() >= 1
    assert (np.array(counts) - got_C).min() >= 1
    # A whole image off at most, but where a class of two or three had to keep one on either side.
    assert np.abs(got_C - exact_C).max() <= 1 + (min(counts) <= 3)


def test_split_is_of_its_seed() -> None:
    data = made_up((50, 30, 20))
    one, again, other = (split(data, 0.5, seed)[0] for seed in (7, 7, 8))
    assert torch.equal(one.images, again.images)
    assert not torch.equal(one.images, other.images)
    assert Counter(one.labels.tolist()) == {0: 25, 1: 15, 2: 10}


def test_limits_are_nested_and_in_proportion() -> None:
    data = made_up((50, 30, 20))
    small, large = limit(data, 20, 3), limit(data, 40, 3)
    assert Counter(small.labels.tolist()) == {0: 10, 1: 6, 2: 4}
    assert Counter(large.labels.tolist()) == {0: 20, 1: 12, 2: 8}
    pictures = [{image.numpy().tobytes() for image in part.images} for part in (small, large)]
    assert pictures[0] < pictures[1]
    assert limit(data, 100, 3) is data


def test_impossible_parts_are_refused() -> None:
    data = made_up((50, 30, 1))
    with pytest.raises(ValueError, match="class 'class 2' has 1 images"):
        split(data, 0.5, 0)
    with pytest.raises(ValueError, match=r"data\.val_share"):
        split(data, 1.0, 0)
    with pytest.raises(ValueError, match=r"2 of 81 images.*3 classes.*data\.limit"):
        limit(data, 2, 0)
    with pytest.raises(ValueError, match=r"82 of 81.*data\.limit"):
        limit(data, 82, 0)


def test_measure_is_numpy_s_mean_and_deviation() -> None:
    data = made_up((9, 8))
    pixels = data.images.numpy() / 255
    mean, std = measure(data)
    np.testing.assert_allclose(mean, pixels.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std, pixels.std((0, 2, 3)), rtol=1e-12)
    data.images[:, 1] = 77
    with pytest.raises(ValueError, match=r"channels \[1\].*same value"):
        measure(data)


def test_digest_sees_every_pixel_and_label() -> None:
    data = made_up((5, 4))
    told = hashlib.sha256(b"(9, 3, 4, 4)")
    told.update(data.images.numpy().tobytes() + data.labels.numpy().tobytes())
    assert digest(data) == told.hexdigest()
    pixel, label = data.images.clone(), data.labels.clone()
    pixel[8, 2, 3, 3] ^= 1
    label[8] = 1 - label[8]
    others = (Images(pixel, data.labels, data.classes), Images(data.images, label, data.classes))
    assert len({digest(data), *map(digest, others)}) == 3
    reversed_rows = data.take(torch.arange(9).flip(0))
    strided = Images(reversed_rows.images.flip(0), reversed_rows.labels.flip(0), data.classes)
    assert digest(strided) == digest(data)


def test_images_are_checked() -> None:
    data = made_up((5, 4))
    with pytest.raises(ValueError, match="expected uint8"):
        Images(data.images.float(), data.labels, data.classes)
    with pytest.raises(ValueError, match=r"expected int64 \[9\]"):
        Images(data.images, data.labels[:8], data.classes)
    with pytest.raises(ValueError, match="from 0 to 1, outside the 1 classes"):
        Images(data.images, data.labels, data.classes[:1])


# ---------------------------------------------------------------- Fashion-MNIST


@needs_fashion
def test_fashion_mnist_is_what_its_authors_describe() -> None:
    train, test = fashion_mnist(), fashion_mnist(train=False)
    assert train.images.shape == (60_000, 1, 28, 28)
    assert test.images.shape == (10_000, 1, 28, 28)
    assert torch.bincount(train.labels).tolist() == [6_000] * 10
    assert train.classes[train.labels[0]] == "Ankle boot"
    # The two numbers that everyone uses for it.
    (mean,), (std,) = measure(train)
    assert (round(mean, 4), round(std, 4)) == (0.2860, 0.3530)


def idx(values: np.ndarray) -> bytes:
    return struct.pack(f">4B{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """torchvision's layout, with five pictures of 28 x 28, unpacked."""
    here = tmp_path / "FashionMNIST" / "raw"
    here.mkdir(parents=True)
    draw = np.random.default_rng(5)
    pixels = draw.integers(0, 256, (5, 28, 28), dtype=np.uint8)
    (here / "t10k-images-idx3-ubyte").write_bytes(idx(pixels))
    (here / "t10k-labels-idx1-ubyte").write_bytes(idx(np.array([3, 9, 0, 1, 3], np.uint8)))
    for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"):
        (here / name).write_bytes(b"")
    return here


def test_fashion_mnist_reads_what_torchvision_reads(tmp_path: Path, raw: Path) -> None:
    theirs = torchvision.datasets.FashionMNIST(tmp_path, train=False)
    for root in (tmp_path, raw):
        ours = fashion_mnist(root, train=False)
        assert torch.equal(ours.images[:, 0], theirs.data)
        assert torch.equal(ours.labels, theirs.targets)


def test_fashion_mnist_that_is_not_there_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        fashion_mnist(tmp_path)
    for said in (
        "train-images-idx3-ubyte",
        str(tmp_path),
        "apt install dataset-fashion-mnist",
        "data.root=",
        "data.download=true",
    ):
        assert said in str(caught.value)


def _images_file(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def apply(raw: Path) -> None:
        path = raw / "t10k-images-idx3-ubyte"
        path.write_bytes(change(path.read_bytes()))

    return apply


def _pack_and_cut(raw: Path) -> None:
    path = raw / "t10k-images-idx3-ubyte"
    (raw / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes())[:-50])


def _pack_and_flip(raw: Path) -> None:
    path = raw / "t10k-images-idx3-ubyte"
    packed = bytearray(gzip.compress(path.read_bytes(), compresslevel=0))
    packed[2000] ^= 1
    (raw / f"{path.name}.gz").write_bytes(packed)


def _labels_of_four(raw: Path) -> None:
    (raw / "t10k-labels-idx1-ubyte").write_bytes(idx(np.array([3, 9, 0, 1], np.uint8)))


def _label_ten(raw: Path) -> None:
    (raw / "t10k-labels-idx1-ubyte").write_bytes(idx(np.array([3, 9, 0, 10, 1], np.uint8)))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_images_file(lambda data: data[:-1]), "holds 3919 bytes where its header says 3920"),
        (_images_file(lambda data: data + b"x"), "holds more bytes"),
        (_images_file(lambda data: b"<html>" + data), "does not start as an idx file"),
        (_images_file(lambda data: data[:7]), "does not start as an idx file"),
        (_images_file(lambda data: data[:4] + b"\xff" * 12), "not believable"),
        (_pack_and_cut, "is damaged"),
        (_pack_and_flip, "is damaged .*CRC"),
        (_labels_of_four, "holds 5 images, but .* 4 labels"),
        (_label_ten, "from 0 to 10, outside the 10 classes"),
    ],
)
def test_a_damaged_idx_file_is_named(raw: Path, damage: Callable[[Path], None], said: str) -> None:
    damage(raw)
    with pytest.raises(ValueError, match=said):
        fashion_mnist(raw, train=False)


def test_a_download_that_fails_says_what_else_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Port 9 of this host: refused at once, so no network is needed for there to be none.
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "mirrors", ["http://127.0.0.1:9/"])
    monkeypatch.setattr("builtins.print", lambda *_: None)
    with pytest.raises(FileNotFoundError, match=r"(?s)could not be downloaded.*data\.root="):
        fashion_mnist(tmp_path, download=True)


# ---------------------------------------------------------------- CIFAR


def write_cifar(root: Path, classes: int, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Files in CIFAR's format, few pictures each, whose md5 torchvision is told to expect."""
    reader = torchvision.datasets.CIFAR10 if classes == 10 else torchvision.datasets.CIFAR100
    here = root / reader.base_folder
    here.mkdir()
    draw = np.random.default_rng(classes)
    rows: list[np.ndarray] = []

    def put(name: str, content: dict[str, Any]) -> list[str]:
        data = pickle.dumps(content)
        (here / name).write_bytes(data)
        return [name, hashlib.md5(data).hexdigest()]

    label_key = "labels" if classes == 10 else "fine_labels"
    lists = {}
    for kind, names in (("train_list", reader.train_list), ("test_list", reader.test_list)):
        lists[kind] = []
        for name, _ in names:
            rows.append(draw.integers(0, 256, (4, 3072), dtype=np.uint8))
            labels = draw.integers(0, classes, 4).tolist()
            lists[kind].append(put(name, {"data": rows[-1], label_key: labels}))
        monkeypatch.setattr(reader, kind, lists[kind])
    key = reader.meta["key"]
    name, md5 = put(reader.meta["filename"], {key: [f"thing {i}" for i in range(classes)]})
    monkeypatch.setattr(reader, "meta", {"filename": name, "key": key, "md5": md5})
    return np.concatenate(rows)


@pytest.mark.parametrize("classes", [10, 100])
def test_cifar_comes_channels_first(
    classes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = write_cifar(tmp_path, classes, monkeypatch)
    train, test = (cifar(tmp_path, classes, part) for part in (True, False))
    # A row is 1,024 red, then green, then blue pixels, as the authors describe it.
    both = torch.cat([train.images, test.images]).numpy()
    np.testing.assert_array_equal(both, rows.reshape(-1, 3, 32, 32))
    assert len(test) == 4
    assert train.classes[-1] == f"thing {classes - 1}"
    assert train.images.is_contiguous()


def test_a_changed_cifar_file_is_not_unpickled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cifar(tmp_path, 10, monkeypatch)
    marker = tmp_path / "executed"

    class Attack:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (marker,)

    (tmp_path / "cifar-10-batches-py" / "data_batch_3").write_bytes(pickle.dumps(Attack()))
    with pytest.raises(FileNotFoundError, match=r"no whole cifar-10-batches-py.*data\.root="):
        cifar(tmp_path, 10)
    assert not marker.exists()


def test_cifar_that_is_not_there_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"cifar-100-python\.tar\.gz.*data\.download=true"):
        cifar(tmp_path, 100)
    with pytest.raises(ValueError, match=r"CIFAR-11 does not exist.*\[10, 100\]"):
        cifar(tmp_path, 11)


# ---------------------------------------------------------------- folders


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> JpegTree:
    if NO_FASHION:
        pytest.skip("apt install dataset-fashion-mnist")
    return make(tmp_path_factory.mktemp("pictures") / "tree", classes=3, images=20)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Two classes of five coloured PNGs of 12 x 10."""
    draw = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for number in range(5):
            pixels = draw.integers(0, 256, (10, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
    return tmp_path


def read_one(path: Path, tmp_path: Path, size: int, channels: int = 3) -> torch.Tensor:
    """[C, size, size]: a picture on its own, through folder()."""
    root = Path(tempfile.mkdtemp(dir=tmp_path))
    for name in ("a", "b"):
        (root / name).mkdir()
        (root / name / path.name).symlink_to(path)
    train, _ = folder(root, root, size=size, channels=channels)
    return train.images[0]


def test_a_tree_of_real_pictures_is_read_but_for_its_broken_file(tree: JpegTree) -> None:
    train, test = folder(tree.root, size=32, max_bad_files=1)
    assert train.classes == ("T-shirt-top", "Trouser", "photograph")
    assert len(train) + len(test) == 59
    bad = train.bad_files + test.bad_files
    assert len(bad) == 1
    assert bad[0].startswith(str(tree.broken))
    assert "truncated" in bad[0]
    again = folder(tree.root, size=32, max_bad_files=1)
    assert digest(again[0]) == digest(train)
    other = folder(tree.root, size=32, max_bad_files=1, seed=1)
    assert digest(other[0]) != digest(train)
    # A fifth of each class, whichever file is bad.
    missing = len(test.bad_files)
    assert sorted(torch.bincount(test.labels).tolist()) == sorted([4, 4, 4 - missing])


def test_bad_files_are_refused_by_name(tree: JpegTree) -> None:
    with pytest.raises(ValueError, match=r"1 of 60 .*data\.max_bad_files allows 0.*0004\.jpg"):
        folder(tree.root, size=32)


@pytest.mark.parametrize(("width", "height"), [(60, 41), (37, 90), (48, 48), (21, 33)])
def test_a_picture_is_resized_and_cropped_as_torchvision_does(
    width: int, height: int, tree: JpegTree, tmp_path: Path
) -> None:
    with Image.open(tree.root / "photograph" / "0007.jpg") as opened:
        picture = opened.resize((width, height))
    picture.save(tmp_path / "one.png")
    ours = read_one(tmp_path / "one.png", tmp_path, size=24)
    resized = transforms.CenterCrop(24)(transforms.Resize(24)(picture))
    theirs = torch.from_numpy(np.array(resized)).permute(2, 0, 1)
    # One rounding apart at most: they resize what they then cut away.
    assert (ours.int() - theirs.int()).abs().max() <= 1
    assert torch.eq(ours, theirs).float().mean() > 0.7


def test_the_central_square_is_cut_exactly(tmp_path: Path) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (10, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "one.png")
    ours = read_one(tmp_path / "one.png", tmp_path, size=10)
    np.testing.assert_array_equal(ours.permute(1, 2, 0).numpy(), pixels[:, 3:13])


def test_grey_cmyk_and_palette_pictures_keep_their_look(tree: JpegTree, tmp_path: Path) -> None:
    for path in (tree.grey, tree.cmyk, tree.palette):
        with Image.open(path) as opened:
            assert opened.mode == {tree.grey: "L", tree.cmyk: "CMYK", tree.palette: "P"}[path]
            side = min(opened.size)
            square = transforms.CenterCrop(side)(opened.convert("RGB"))
        expected = np.asarray(square).astype(float)
        ours = read_one(path, tmp_path, size=side)
        difference = np.abs(ours.permute(1, 2, 0).numpy() - expected)
        assert difference.mean() < 1, path
        grey = read_one(path, tmp_path, size=side, channels=1)
        weights = (0.299, 0.587, 0.114)  # ITU-R 601, which Pillow documents for "L"
        difference = np.abs(grey[0].numpy() - expected @ weights)
        assert difference.mean() < 1.5, path


def test_a_lying_picture_is_stood_up(tree: JpegTree, tmp_path: Path) -> None:
    with Image.open(tree.rotated) as opened:
        stored = opened.convert("RGB")
        assert opened.getexif()[0x0112] == 6
    upright = stored.transpose(Image.Transpose.ROTATE_270)
    upright.save(tmp_path / "upright.png")
    ours = read_one(tree.rotated, tmp_path, size=40).float()
    expected = read_one(tmp_path / "upright.png", tmp_path, size=40).float()
    assert (ours - expected).abs().mean() < 2
    assert (ours - expected.rot90(1, (1, 2))).abs().mean() > 10


def test_a_large_jpeg_is_read_smaller_without_looking_different(
    tree: JpegTree, tmp_path: Path
) -> None:
    with Image.open(tree.root / "photograph" / "0009.jpg") as opened:
        large = opened.resize((1100, 900), Image.Resampling.BICUBIC)
    large.save(tmp_path / "large.jpg", quality=95)
    large.save(tmp_path / "large.png")
    jpeg, png = (read_one(tmp_path / name, tmp_path, 32) for name in ("large.jpg", "large.png"))
    assert (jpeg.float() - png.float()).abs().mean() < 3


def test_transparent_and_sixteen_bit_pictures(tmp_path: Path) -> None:
    pixels = np.full((8, 8, 4), (200, 100, 50, 0), dtype=np.uint8)
    pixels[:, :4, 3] = 255
    Image.fromarray(pixels).save(tmp_path / "clear.png")
    ours = read_one(tmp_path / "clear.png", tmp_path, size=8)
    assert ours[:, 3, 0].tolist() == [200, 100, 50]
    assert ours[:, 3, 7].tolist() == [255, 255, 255]
    deep = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    grey = read_one(tmp_path / "deep.png", tmp_path, size=8, channels=1)
    np.testing.assert_array_equal(grey[0].numpy(), deep // 256)


def _bomb(path: Path) -> None:
    """A PNG of a few bytes that says it is 200,000 x 200,000."""
    header = struct.pack(">2I5B", 200_000, 200_000, 8, 2, 0, 0, 0)
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        PngImagePlugin.putchunk(file, b"IHDR", header)
        PngImagePlugin.putchunk(file, b"IEND", b"")


def _almost_bomb(path: Path) -> None:
    """Between Pillow's warning and its error."""
    Image.new("1", (12_000, 8_000)).save(path)


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (_bomb, "DecompressionBombError"),
        (_almost_bomb, "12000 x 8000 pixels"),
        (lambda path: path.write_text("no picture"), "cannot identify image file"),
        (lambda path: path.write_bytes(b""), "cannot identify image file"),
        (lambda path: Image.new("L", (8, 8)).save(path, format="EPS"), "cannot identify image"),
        (lambda path: path.symlink_to("nowhere"), "No such file"),
    ],
)
def test_what_is_no_picture_is_left_out_and_named(
    write: Callable[[Path], Any], said: str, small: Path
) -> None:
    write(small / "dog" / "odd.png")
    train, test = folder(small, size=8, max_bad_files=1)
    assert len(train) + len(test) == 10
    (bad,) = train.bad_files + test.bad_files
    assert bad.startswith(str(small / "dog" / "odd.png"))
    assert said in bad


def test_a_strip_is_not_blown_up(tmp_path: Path) -> None:
    Image.new("L", (1, 60_000), 90).save(tmp_path / "strip.png")
    ours = read_one(tmp_path / "strip.png", tmp_path, size=32, channels=1)
    assert ours.unique().tolist() == [90]


def test_folders_in_folders_links_and_hidden_files(small: Path) -> None:
    (small / "dog" / "deep").mkdir()
    (small / "dog" / "0.png").rename(small / "dog" / "deep" / "0.png")
    (small / "dog" / "deep" / "ring").symlink_to(small / "dog")
    (small / "dog" / ".DS_Store").write_text("x")
    (small / "dog" / "Thumbs.db").write_text("x")
    (small / "notes.txt").write_text("x")
    train, test = folder(small, size=8)
    assert torch.bincount(torch.cat([train.labels, test.labels])).tolist() == [5, 5]


def test_memory_is_counted_before_anything_is_read(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "_decode_all", lambda *_: pytest.fail("decoded"))
    with pytest.raises(ValueError, match=r"10 pictures of 3 x 500 x 500.*data\.size to 182 or"):
        folder(small, size=500, memory=1_000_000)
    with pytest.raises(ValueError, match=r"data\.size"):
        folder(small, size=10**7)


def test_trees_that_cannot_be_used_say_why(
    small: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere.*data\.root"):
        folder(small / "nowhere", size=8)
    with pytest.raises(ValueError, match=r"holds 0 class folders.*data\.root"):
        folder(small / "cat", size=8)
    with pytest.raises(ValueError, match=r"data\.channels"):
        folder(small, size=8, channels=4)
    other = tmp_path_factory.mktemp("other")
    for name in ("cat", "cow"):
        (other / name).mkdir()
    with pytest.raises(ValueError, match="without a file.*cat; cow"):
        folder(small, other, size=8)
    for name in ("cat", "cow"):
        (other / name / "0.png").write_bytes((small / "cat" / "0.png").read_bytes())
    with pytest.raises(ValueError, match="same classes.*cow; dog;"):
        folder(small, other, size=8)


def test_a_class_without_a_readable_picture_is_refused(small: Path) -> None:
    for path in (small / "dog").iterdir():
        path.write_text("broken")
    with pytest.raises(ValueError, match="no readable picture for train in dog"):
        folder(small, size=8, max_bad_files=5)
