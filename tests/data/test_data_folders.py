"""Folders of pictures against Pillow and torchvision; what cannot be read is named."""

import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from make_jpeg_tree import JpegTree, make
from PIL import Image, PngImagePlugin
from torchvision import transforms

from daas_dist.data import (
    FASHION_MNIST_ROOT,
    folder,
    folders,
)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> JpegTree:
    if not FASHION_MNIST_ROOT.is_dir():
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
    assert again[0].digest() == train.digest()
    other = folder(tree.root, size=32, max_bad_files=1, seed=1)
    assert other[0].digest() != train.digest()
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
        (lambda path: path.write_text("no picture"), "no picture that is read (JPEG, PNG, "),
        (lambda path: path.write_bytes(b""), "empty"),
        (lambda path: Image.new("L", (8, 8)).save(path, format="EPS"), "seems to be PostScript"),
        (lambda path: path.symlink_to("nowhere"), "a link to nowhere, which is not there"),
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
    with pytest.raises(ValueError, match=r"holds 5 pictures and 0 class folders.*data\.root"):
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
