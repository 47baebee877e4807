"""The same pixels from a folder, from shards and from a trained network's preprocess(): every mode,
depth, format, size and orientation; and what is not read is named."""

import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from loading import load_images
from odd_files import exif, png16, tiff, with_exif
from own_pictures import picture, tree
from PIL import Image
from torch import Tensor

from daas_dist.config import load
from daas_dist.data import folder, open_shards
from daas_dist.data.decode import quiet, resized_part
from daas_dist.data.formats import seems
from daas_dist.data.manifest import DataError
from daas_dist.data.sharding import build, sources, verify
from daas_dist.data.sharding.tars import Sample, pack
from daas_dist.results.trained import Input, Preprocess

DRAW = np.random.default_rng(5)


def smooth(height: int, width: int, channels: int = 3) -> np.ndarray:
    """uint8 [H, W, C]: enlarged noise, as photographs are."""
    noise = DRAW.integers(0, 256, (7, 9, channels), dtype=np.uint8)
    bands = [Image.fromarray(noise[..., c]).resize((width, height)) for c in range(channels)]
    return np.stack([np.asarray(band) for band in bands], -1)


def encoded(image: Image.Image, kind: str, **how: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **how)
    return file.getvalue()


def put(root: Path, *files: bytes) -> Path:
    """The same files in two classes, each called so that nothing can be told from its name."""
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        for number, data in enumerate(files):
            (root / name / f"{number:02d}").write_bytes(data)
    return root


def squares(root: Path, size: int, channels: int) -> tuple[Tensor, int | None]:
    """([N, C, size, size] of class a, bits) as a folder is tested."""
    with quiet():
        learns, _ = folder(root, root, size=size, channels=channels)
    return learns.images[: len(learns) // 2], learns.bits


def from_shards(root: Path, out: Path, size: int, channels: int) -> Tensor:
    build.build(sources.from_folder(root), out)
    shards = open_shards(out, size=size, channels=channels)
    order = {name: i for i, name in enumerate((out / "names.txt").read_text().splitlines())}
    rows = sorted((name, i) for name, i in order.items() if name.startswith("a/"))
    return shards.central(torch.tensor([i for _, i in rows]))


def levels(preprocess: Preprocess, given: Image.Image | Tensor) -> Tensor:
    """uint8 [C, size, size] of what preprocess gives, as it normalises by 0 and 1 here."""
    return (preprocess(given) * 255).round().to(torch.uint8)


def preprocessing(size: int, channels: int, bits: int | None) -> Preprocess:
    return Preprocess(
        Input((channels, size, size), (0.0,) * channels, (1.0,) * channels, None, bits)
    )


def with_alpha(array: np.ndarray) -> Image.Image:
    alpha = np.linspace(0, 255, array.shape[0] * array.shape[1]).reshape(*array.shape[:2], 1)
    return Image.fromarray(np.concatenate([array, alpha.astype(np.uint8)], -1))


RGB = smooth(50, 70)
GREY = RGB[..., 0]
FILES: dict[str, bytes] = {
    "JPEG": encoded(Image.fromarray(RGB), "JPEG", quality=90),
    "progressive JPEG": encoded(Image.fromarray(RGB), "JPEG", progressive=True),
    "large JPEG": encoded(Image.fromarray(smooth(900, 1300)), "JPEG"),
    "grey JPEG": encoded(Image.fromarray(GREY), "JPEG"),
    "CMYK JPEG": encoded(Image.fromarray(RGB).convert("CMYK"), "JPEG"),
    "JPEG with a profile": encoded(Image.fromarray(RGB), "JPEG", icc_profile=b"no profile" * 9),
    "PNG": encoded(Image.fromarray(RGB), "PNG"),
    "palette": encoded(Image.fromarray(RGB).quantize(50), "PNG"),
    "palette with a clear colour": encoded(
        Image.fromarray(RGB).quantize(50), "PNG", transparency=3
    ),
    "grey with a clear one": encoded(Image.fromarray(GREY), "PNG", transparency=90),
    "1 bit": encoded(Image.fromarray(GREY).convert("1"), "PNG"),
    "2 bits": encoded(Image.fromarray(RGB).quantize(4), "PNG", bits=2),
    "LA": encoded(Image.fromarray(RGB[..., :2]).convert("LA"), "PNG"),
    "RGBA": encoded(with_alpha(RGB), "PNG"),
    "WebP": encoded(Image.fromarray(RGB), "WEBP"),
    "WebP with alpha": encoded(with_alpha(RGB), "WEBP", lossless=True),
    "GIF": encoded(Image.fromarray(RGB), "GIF"),
    "BMP": encoded(Image.fromarray(RGB), "BMP"),
    "TIFF": encoded(Image.fromarray(RGB), "TIFF"),
    "TIFF, packed": encoded(Image.fromarray(RGB), "TIFF", compression="tiff_lzw"),
    "CMYK TIFF": encoded(Image.fromarray(RGB).convert("CMYK"), "TIFF"),
    "TIFF, 0 is white": tiff(GREY, photometric=0),
    "PGM": encoded(Image.fromarray(GREY), "PPM"),
    "PPM": encoded(Image.fromarray(RGB), "PPM"),
    "PGM of 12 bits": b"P5 70 50 4095\n" + (GREY.astype(">u2") * 16).tobytes(),
    "PPM of 12 bits": b"P6 70 50 4095\n" + (RGB.astype(">u2") * 16).tobytes(),
    "16 bits": png16(GREY.astype(np.uint16) * 257),
    "16 bits and alpha": png16(RGB[..., :2].astype(np.uint16) * 257),
    "16-bit RGB": png16(RGB.astype(np.uint16) * 257),
    "16-bit RGBA": png16(np.asarray(with_alpha(RGB)).astype(np.uint16) * 257),
    "16-bit RGB TIFF": tiff(RGB.astype(np.uint16) * 257),
    "12 of 16 bits": png16(GREY.astype(np.uint16) * 16),
    "10 of 16 bits, TIFF": tiff(GREY.astype(np.uint16) * 4),
    "8 of 32 bits": encoded(Image.fromarray(GREY.astype(np.int32)), "TIFF"),
    "20 of 32 bits": tiff(GREY.astype(np.uint32) * 4096),
}


@pytest.mark.parametrize("name", FILES)
def test_all_ways_give_the_same_pixels(name: str, tmp_path: Path) -> None:
    data = FILES[name]
    root = put(tmp_path / "in", data)
    for channels, size in ((3, 24), (1, 50)):
        (tested,), bits = squares(root, size, channels)
        preprocess = preprocessing(size, channels, bits)
        (packed,) = from_shards(root, tmp_path / f"out{channels}", size, channels)
        torch.testing.assert_close(packed, tested, atol=0, rtol=0)
        with Image.open(io.BytesIO(data)) as fresh:
            torch.testing.assert_close(levels(preprocess, fresh), tested, atol=0, rtol=0)
            # Now it is loaded; and a copy knows nothing of the file.
            torch.testing.assert_close(levels(preprocess, fresh), tested, atol=0, rtol=0)
            copied = levels(preprocess, fresh.copy())
            torch.testing.assert_close(copied, tested, atol=0, rtol=0)
            mode = {3: "RGB", 1: "L"}[channels]
            if fresh.mode == mode and not fresh.has_transparency_data:
                array = np.asarray(fresh).reshape(*fresh.size[::-1], -1)
                pixels = torch.from_numpy(array.copy()).permute(2, 0, 1)
                torch.testing.assert_close(levels(preprocess, pixels), tested, atol=0, rtol=0)
                pair = preprocess(torch.stack([pixels, pixels]))
                assert pair.shape == (2, channels, size, size)
                torch.testing.assert_close((pair[1] * 255).round().byte(), tested, atol=0, rtol=0)
    # And they are those of the picture: every file shows RGB, or its red part.
    shown, _ = squares(root, 50, 1)
    if "bit" in name and "RGB" not in name and "alpha" not in name and name[0] not in "P12 2":
        assert (shown[0].int() - torch.from_numpy(GREY[:, 10:60].copy()).int()).abs().max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "XMP"])
def test_a_picture_is_stood_up_alike_everywhere(
    kind: str, orientation: int, tmp_path: Path
) -> None:
    """Against turns made by hand, as EXIF's table has them."""
    stored = smooth(40, 64)
    upright = {
        1: stored, 2: stored[:, ::-1], 3: stored[::-1, ::-1], 4: stored[::-1],
        5: stored.swapaxes(0, 1), 6: np.rot90(stored, -1),
        7: np.rot90(stored, -1)[:, ::-1][::-1, ::-1].copy()[:, :], 8: np.rot90(stored),
    }[orientation]  # fmt: skip
    if orientation == 7:
        upright = np.rot90(stored, 2).swapaxes(0, 1)
    how: dict[str, object] = {}
    if kind == "XMP":
        told = f'<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="{orientation}"/>'
        kind, how = "WEBP", {"xmp": told.encode()}
    else:
        block = Image.Exif()
        block[0x0112] = orientation
        how = {"exif": block}
    if kind == "WEBP":
        how["lossless"] = True
    if kind == "JPEG":
        how |= {"quality": 97, "subsampling": 0}
    data = encoded(Image.fromarray(stored), kind, **how)
    root = put(tmp_path / "in", data)
    (tested,), _ = squares(root, 40, 3)
    wanted = Image.fromarray(np.ascontiguousarray(upright))
    plain = put(tmp_path / "plain", encoded(wanted, "PNG"))
    (expected,), _ = squares(plain, 40, 3)
    away = (tested.int() - expected.int()).abs().float().mean()
    assert away < (2 if kind == "JPEG" else 1e-9)
    (packed,) = from_shards(root, tmp_path / "out", 40, 3)
    assert torch.equal(packed, tested)
    preprocess = preprocessing(40, 3, None)
    for change in (lambda p: p, lambda p: p.copy(), lambda p: p.convert("RGB")):
        with Image.open(io.BytesIO(data)) as opened:
            assert torch.equal(levels(preprocess, change(opened)), tested)
    into = torch.zeros(3, *upright.shape[:2], dtype=torch.uint8)
    resized_part(data, into, lambda width, height: (0, 0, width, height), False)
    away = (into.permute(1, 2, 0).numpy().astype(int) - upright.astype(int)).__abs__().mean()
    assert away < 2


ODD = {
    "a rational of a text": (0x011A, 2, 4, b"abc\0"),
    "a pointer to nowhere": (0x8769, 4, 1, struct.pack("<I", 1 << 30)),
    "GPS that is a number": (0x8825, 3, 1, struct.pack("<HH", 7, 0)),
    "a signed height": (0x0101, 9, 1, struct.pack("<i", -9)),
    "a kind that is none": (0x010F, 99, 1, b"abcd"),
    "a maker's note that is cut": (0x927C, 7, 1 << 20, struct.pack("<I", 20)),
    "a double": (0x013E, 12, 1, struct.pack("<I", 8)),
    "more values than bytes": (0x0110, 2, 1 << 31, struct.pack("<I", 8)),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_odd_exif_costs_no_picture(kind: str, name: str, tmp_path: Path) -> None:
    plain = encoded(Image.fromarray(smooth(30, 44)), kind)
    odd, good = with_exif(plain, exif(6, ODD[name])), with_exif(plain, exif(6))
    images, _ = squares(put(tmp_path / "in", odd, good, plain), 30, 3)
    assert torch.equal(images[0], images[1]) and not torch.equal(images[0], images[2])
    into = torch.zeros(3, 30, 30, dtype=torch.uint8)
    with quiet():
        resized_part(odd, into, lambda width, height: (0, 0, width, height), False)
        opened = Image.open(io.BytesIO(odd))
    with opened:
        assert torch.equal(levels(preprocessing(30, 3, None), opened), images[0])


@pytest.mark.parametrize("block", [b"", b"x", b"II*\0", b"MM\0*\0\0\0\x08\xff\xff", exif(6)[:-9],
                                   b"Exif\0\0Exif\0\0", exif(9), exif(0)])  # fmt: skip
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_exif_that_says_nothing_turns_nothing(kind: str, block: bytes, tmp_path: Path) -> None:
    plain = encoded(Image.fromarray(smooth(30, 44)), kind)
    images, _ = squares(put(tmp_path / "in", with_exif(plain, block), plain), 30, 3)
    assert torch.equal(images[0], images[1]) or block == exif(6)[:-9]


# --- More than 8 bits ----------------------------------------------------------------------------


def ramp(top: int, side: int = 32) -> np.ndarray:
    return np.linspace(0, top, side * side).reshape(side, side)


@pytest.mark.parametrize(
    ("top", "bits", "file"),
    [
        (1023, 10, lambda a: png16(a.astype(np.uint16))),
        (16383, 14, lambda a: tiff(a.astype(np.uint16))),
        (255, 8, lambda a: png16(a.astype(np.uint16))),
        (65535, 16, lambda a: tiff(a.astype(np.uint16))),
        (600, 10, lambda a: tiff(a.astype(np.uint32))),
        (90_000, 17, lambda a: tiff(a.astype(np.int32), sample_format=2)),
    ],
)
def test_the_bits_that_a_set_uses_are_kept(
    top: int, bits: int, file: Callable[[np.ndarray], bytes], tmp_path: Path
) -> None:
    root = put(tmp_path / "in", file(ramp(top)), file(ramp(top // 9)))
    images, found = squares(root, 32, 1)
    assert found == bits
    expected = ramp(top).astype(np.int64) >> (bits - 8)
    assert np.array_equal(images[0, 0].numpy(), expected)
    # One rule for the set: a dark picture stays as much darker as it was.
    assert np.array_equal(images[1, 0].numpy(), ramp(top // 9).astype(np.int64) >> (bits - 8))
    learns, _ = folder(root, root, size=32, channels=1)
    (said,) = (each for each in learns.account.remarks if "more than 8 bits" in each)
    assert str(top) in said and f"{bits} bits" in said


def test_training_testing_and_shards_have_one_depth(tmp_path: Path) -> None:
    """The greatest number may be in either part; shards of others get theirs by the index."""
    dark = put(tmp_path / "train", *(tiff(ramp(900 + i).astype(np.uint16)) for i in range(3)))
    light = put(tmp_path / "val", tiff(ramp(4000).astype(np.uint16)))
    learns, tests = folder(dark, light, size=32, channels=1)
    assert learns.bits == tests.bits == 12
    for part, root in (("train", dark), ("val", light)):
        build.build(sources.from_folder(root), tmp_path / "shards" / part)
    words = ["stage=search_folder", "data=shards", f"data.root={tmp_path}/shards",
             "data.channels=1", "data.size=32", "data.crop_scale=null",
             "data.test_resize=null"]  # fmt: skip
    data = load_images(load(words))
    assert data.train.bits == data.test.bits == 12
    everything = torch.arange(6)
    assert torch.equal(data.train.central(everything).sort(0).values, learns.images.sort(0).values)
    samples = (Sample(f"{i}", i % 2, tiff(ramp(900).astype(np.uint16))) for i in range(4))
    (tmp_path / "others").mkdir()
    pack(tmp_path / "others" / "x.tar", samples)
    assert verify.index(tmp_path / "others").bits == 10
    assert verify.verify(tmp_path / "others", full=True, decode=4) == []


def test_shards_that_do_not_say_their_depth_refuse_it(tmp_path: Path) -> None:
    """As those of earlier versions; which are made anew when they are built again."""
    import json

    from daas_dist.data.manifest import MANIFEST, _own_sha256  # pyright: ignore[reportPrivateUsage]

    root = put(tmp_path / "in", png16(ramp(4095).astype(np.uint16)))
    out = tmp_path / "out"
    build.build(sources.from_folder(root), out)
    document = json.loads((out / MANIFEST).read_text())
    (key,) = (name for name in document["made"] if "8 bits" in name)
    del document["made"][key]
    document["sha256"] = _own_sha256(document)
    (out / MANIFEST).write_text(json.dumps(document))
    with pytest.raises(DataError, match="more than 8 bits .they go up to 4095.*shards build"):
        open_shards(out, size=8, channels=1).central(torch.arange(1))
    build.build(sources.from_folder(root), out)
    assert len(open_shards(out, size=32, channels=1).central(torch.arange(1)).unique()) > 200


@pytest.mark.parametrize(
    "data",
    [
        png16(smooth(20, 20).astype(np.uint16) * 16),
        png16(np.asarray(with_alpha(smooth(20, 20))).astype(np.uint16) * 8),
        tiff(smooth(20, 20).astype(np.uint16) * 4),
    ],
)
def test_colours_of_which_nothing_would_be_left_are_refused(data: bytes, tmp_path: Path) -> None:
    root = put(tmp_path / "in", data)
    with pytest.raises(ValueError, match="16 bits a colour.* 1[0-6]? bits|8 bits a colour"):
        folder(root, root, size=8)
    with pytest.raises(DataError, match="16 bits a colour.*save such pictures with 8 bits"):
        build.build(sources.from_folder(root), tmp_path / "out")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (tiff(ramp(1).astype(np.float32), sample_format=3), "floating-point"),
        (tiff((ramp(255) - 99).astype(np.int16), sample_format=2), "from -99 to 156"),
        (tiff((ramp(255) - 99).astype(np.int8), sample_format=2), "signed"),
        (tiff(ramp(60000).astype(np.uint16), photometric=0), "0 is white"),
        (tiff(ramp(1).astype(np.float16), sample_format=3), "Pillow does not read"),
    ],
)
def test_numbers_whose_white_is_not_known_are_refused(
    data: bytes, said: str, tmp_path: Path
) -> None:
    root = put(tmp_path / "in", data)
    with pytest.raises(ValueError, match=said):
        folder(root, root, size=8)
    if "Pillow" in said:
        return
    with Image.open(io.BytesIO(data)) as given, pytest.raises(ValueError, match=said):
        preprocessing(8, 1, 16)(given)


def test_preprocess_refuses_a_depth_that_the_training_had_not(tmp_path: Path) -> None:
    with Image.open(io.BytesIO(png16(ramp(4095).astype(np.uint16)))) as deep:
        with pytest.raises(ValueError, match="up to 4095.*those of the training had 8"):
            preprocessing(8, 1, None)(deep)
        with pytest.raises(ValueError, match="up to 4095, those of the data set have 10 bits"):
            preprocessing(8, 1, 10)(deep)
        preprocessing(8, 1, 12)(deep)


def test_pictures_that_are_nearly_black_are_told(tmp_path: Path) -> None:
    """Masks of a few labels, for instance."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(3):
            mask = DRAW.integers(0, 40, (9, 9), dtype=np.uint8)
            Image.fromarray(mask).save(tmp_path / name / f"{i}.png")
    learns, _ = folder(tmp_path, size=9)
    assert any("the pictures are nearly black" in said for said in learns.account.remarks)
    build.build(sources.from_folder(tmp_path), tmp_path / "shards")
    words = ["stage=search_folder", "data=shards", f"data.root={tmp_path}/shards", "data.size=9"]
    assert any(
        "the pictures are nearly black" in said for said in load_images(load(words)).warnings
    )


def test_a_part_of_a_set_with_fewer_bits_is_told(tmp_path: Path) -> None:
    """Two cameras: the one of 12 bits gives dark pictures beside the one of 16."""
    files = [tiff(ramp(top).astype(np.uint16)) for top in (65535, 60000, 4095)]
    root = put(tmp_path / "in", *files)
    learns, _ = folder(root, root, size=32)
    assert learns.bits == 16
    (said,) = (each for each in learns.account.remarks if "nearly black" in each)
    assert said.startswith("4 pictures") and "below 4096" in said and "/a/02" in said


# --- Several frames ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_several_frames_the_first_is_read_and_that_is_told(kind: str, tmp_path: Path) -> None:
    frames = [Image.fromarray(smooth(16, 16)).quantize(200).convert("RGB") for _ in range(3)]
    how: dict[str, object] = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **how)
    root = put(tmp_path / "in", data, encoded(frames[0], "PNG"), encoded(frames[1], "PNG"))
    learns, _ = folder(root, root, size=16)
    images = learns.images[:3].int()
    assert (images[0] - images[1]).abs().float().mean() < 2
    assert (images[0] - images[2]).abs().float().mean() > 20
    (said,) = (each for each in learns.account.remarks if "first frame" in each)
    assert said.startswith("4 pictures animations") and f"{root}/a/00" in said


# --- Formats that are not read -------------------------------------------------------------------

UNREAD = {
    "x.avif": (b"\0\0\0\x1cftypavif" + bytes(40), "AVIF"),
    "x.heif": (b"\0\0\0\x18ftypmif1" + bytes(40), "HEIC"),
    "x.jp2": (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40), "JPEG 2000"),
    "x.jxl": (b"\xff\x0a" + bytes(40), "JPEG XL"),
    "x.svg": (b'<?xml version="1.0"?>\n<svg width="9"/>', "SVG"),
    "x.pdf": (b"%PDF-1.7\n", "PDF"),
    "x.mp4": (b"\0\0\0\x18ftypisom" + bytes(40), "a video"),
    "x.mkv": (b"\x1aE\xdf\xa3" + bytes(40), "a video"),
    "x.avi": (b"RIFF\0\0\0\0AVI LIST", "a video"),
    "x.cr3": (b"\0\0\0\x18ftypcrx " + bytes(40), "raw camera"),
    "x.NEF": (bytes(300), "raw camera"),
    "x.dcm": (bytes(128) + b"DICM" + bytes(40), "DICOM"),
    "x.psd": (b"8BPS\0\1" + bytes(40), "Photoshop"),
    "x.tga": (bytes(60), "TGA"),
    "x.zip": (b"PK\x03\x04" + bytes(40), "ZIP"),
    "x.jpg": (b"<!DOCTYPE html><html>404</html>", "web page"),
    "y.jpg": (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
    "x.npy": (b"\x93NUMPY\1\0" + bytes(40), "NumPy"),
}


@pytest.mark.parametrize("name", UNREAD)
def test_a_format_that_is_not_read_is_named_with_those_that_are(name: str, tmp_path: Path) -> None:
    tree(tmp_path, {"a": 3, "b": 3})
    data, kind = UNREAD[name]
    (tmp_path / "a" / name).write_bytes(data)
    with pytest.raises(ValueError) as refused:
        folder(tmp_path, size=8)
    said = str(refused.value)
    assert f"{tmp_path}/a/{name}: " in said and kind in said
    assert "JPEG, PNG, WEBP, BMP, GIF, TIFF, PPM" in said
    with pytest.raises(DataError) as built:
        build.build(sources.from_folder(tmp_path), tmp_path / "out")
    assert kind in str(built.value) and "JPEG, PNG" in str(built.value)


def test_formats_that_pillow_writes_and_we_do_not_read(tmp_path: Path) -> None:
    image = Image.fromarray(smooth(20, 20))
    for kind, named in (("JPEG2000", "JPEG 2000"), ("ICO", "ICO"), ("DDS", "DDS"), ("PDF", "PDF")):
        assert named in seems(encoded(image, kind))


@pytest.mark.parametrize(
    "extra",
    [[(50706, 3, [1, 4])], [(254, 4, [1]), (330, 4, [8, 8])]],
)
def test_a_raw_picture_is_not_taken_for_its_preview(
    extra: list[tuple[int, int, list[int]]], tmp_path: Path
) -> None:
    root = put(tmp_path / "in", tiff(smooth(12, 16), extra=extra))
    with pytest.raises(ValueError, match="a raw camera picture.*JPEG, PNG"):
        folder(root, root, size=8)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "BMP", "WEBP", "PPM"])
def test_a_picture_that_was_cut_off_is_named(kind: str, tmp_path: Path) -> None:
    data = encoded(Image.fromarray(smooth(40, 40)), kind)
    tree(tmp_path, {"a": 3, "b": 3})
    (tmp_path / "a" / "cut").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=f"1 of 7 files.*{tmp_path}/a/cut: "):
        folder(tmp_path, size=8)


def test_the_ending_of_a_name_plays_no_part(tmp_path: Path) -> None:
    picture(tmp_path / "x.png")
    data = (tmp_path / "x.png").read_bytes()
    for name in ("a", "b"):
        (tmp_path / "in" / name).mkdir(parents=True)
        for odd in ("1.jpg", "2", "3.JPEG", "4.png~", "5.tmp"):
            (tmp_path / "in" / name / odd).write_bytes(data)
    learns, tests = folder(tmp_path / "in", size=8)
    assert len(learns) + len(tests) == 10
