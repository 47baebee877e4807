"""Fashion-MNIST and CIFAR against torchvision's readers; damaged and missing files are named."""

import gzip
import hashlib
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision

from daas_dist.data import (
    FASHION_MNIST_ROOT,
    cifar,
    fashion_mnist,
    measure,
)

NO_FASHION = not FASHION_MNIST_ROOT.is_dir()
needs_fashion = pytest.mark.skipif(NO_FASHION, reason="apt install dataset-fashion-mnist")


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
