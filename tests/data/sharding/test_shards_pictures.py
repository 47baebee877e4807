"""Odd, bad and hostile pictures in shards, and shards that others wrote."""

import io
import pickle
import resource
import struct
import tarfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from spoil import (
    END,
    JPEG,
    NOT_WHOLE,
    ONE,
    TWO,
    Members,
    encoded,
    ends_within,
    extended,
    header,
    linked,
    listing,
    sample,
    square,
    write_tar,
)
from whole_runs import needs_fashion_mnist

from daas_dist.data import Crop, Shards, open_shards
from daas_dist.data.decode import quiet, resized_part
from daas_dist.data.manifest import INDEX, MANIFEST, NAMES, DataError
from daas_dist.data.sharding import build, sources, verify
from daas_dist.data.sharding.tars import BLOCK

pytestmark = needs_fashion_mnist

# --- Pictures ------------------------------------------------------------------------------------

CUT = Crop(padding=0, flip=True, scale=(0.2, 1.0))


def as_pillow_has_it(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as opened:
        return np.array(opened.convert("RGB"))


def lying() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(square(), "JPEG", exif=exif)


def turned(data: bytes) -> np.ndarray:
    return as_pillow_has_it(data).swapaxes(0, 1)[:, ::-1]


def lying_at_last() -> bytes:
    """What says so comes behind the segment of the size."""
    data = lying()
    at = data.index(b"\xff\xe1")
    length = 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    rest, scan = data[:at] + data[at + length :], b"\xff\xda"
    return rest.replace(scan, data[at : at + length] + scan, 1)


def sixteen_bits() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 1 << 16, (24, 24)).astype(np.uint16)


def on_white(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as opened:
        place = np.array(opened)
        colour = np.array(opened.getpalette(), np.uint8).reshape(-1, 3)
    colour[3] = 255
    return colour[place]


def faded() -> Image.Image:
    picture = square().convert("RGBA")
    picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    return picture


def over_white() -> np.ndarray:
    white = Image.new("RGBA", (24, 24), "white")
    return np.array(Image.alpha_composite(white, faded()).convert("RGB"))


def two_frames() -> bytes:
    return encoded(square(), "GIF", save_all=True, append_images=[Image.new("RGB", (24, 24))])


FINE: list[tuple[str, Callable[[], bytes], Callable[[bytes], np.ndarray]]] = [
    ("a JPEG", lambda: encoded(square(), "JPEG"), as_pillow_has_it),
    ("a PNG that is called JPEG", lambda: encoded(square(), "PNG"), as_pillow_has_it),
    ("CMYK", lambda: encoded(square().convert("CMYK"), "JPEG"), as_pillow_has_it),
    ("grey", lambda: encoded(square().convert("L"), "JPEG"), as_pillow_has_it),
    ("black and white", lambda: encoded(square().convert("1"), "PNG"), as_pillow_has_it),
    ("progressive", lambda: encoded(square(), "JPEG", progressive=True), as_pillow_has_it),
    ("lying", lying, turned),
    (
        "lying, told late",
        lying_at_last,
        lambda data: as_pillow_has_it(data).swapaxes(0, 1)[:, ::-1],
    ),
    (
        "16 bits",
        lambda: encoded(Image.fromarray(sixteen_bits()), "PNG"),
        lambda _: np.repeat((sixteen_bits() >> 8).astype(np.uint8)[..., None], 3, 2),
    ),
    ("transparent", lambda: encoded(square().quantize(9), "PNG", transparency=3), on_white),
    ("half transparent", lambda: encoded(faded(), "PNG"), lambda _: over_white()),
    ("moving", two_frames, as_pillow_has_it),
    ("a WEBP", lambda: encoded(square(), "WEBP"), as_pillow_has_it),
    ("with more behind its end", lambda: encoded(square(), "JPEG") + b"?" * 99, as_pillow_has_it),
]


def with_odd(data: bytes, tmp_path: Path) -> tuple[Shards, int]:
    """Shards of two classes with an odd picture, and where in the set that is."""
    for name in ("cat", "dog"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(3):
            (tmp_path / "pictures" / name / f"{i}.JPEG").write_bytes(encoded(square(), "JPEG"))
    (tmp_path / "pictures" / "dog" / "odd.JPEG").write_bytes(data)
    build.build(sources.from_folder(tmp_path / "pictures"), tmp_path / "shards")
    images = open_shards(tmp_path / "shards", size=24, channels=3)
    names = (tmp_path / "shards" / NAMES).read_text().splitlines()
    return images, names.index("dog/odd.JPEG")


@pytest.mark.parametrize(
    ("make", "expected"), [each[1:] for each in FINE], ids=[each[0] for each in FINE]
)
def test_an_odd_picture_is_read_as_pillow_reads_it(
    make: Callable[[], bytes], expected: Callable[[bytes], np.ndarray], tmp_path: Path
) -> None:
    """In training, where the part is the whole, and in testing."""
    data = make()
    images, odd = with_odd(data, tmp_path)
    assert images.folder.read(odd, images.reading) == data
    tested = images.central(torch.tensor([odd]))[0]
    trained = torch.zeros(3, 24, 24, dtype=torch.uint8)
    with quiet():
        resized_part(data, trained, lambda *size: (0, 0, *size), False, bits=images.bits)
    pixels = torch.from_numpy(expected(data).copy()).permute(2, 0, 1)
    assert torch.equal(trained, pixels) and torch.equal(tested, pixels)
    assert verify.verify(images.folder.root, full=True, decode=9) == []
    assert not images.reading.bad


def cut_jpeg() -> bytes:
    data = encoded(square(), "JPEG")
    return data[: len(data) * 9 // 10]


def png_of(width: int, height: int) -> bytes:
    """A few bytes that say so."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IEND", b"")


def jpeg_of(width: int, height: int) -> bytes:
    data = encoded(square(), "JPEG")
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">2H", height, width) + data[at + 4 :]


def jpeg_of_two_sizes() -> bytes:
    """The larger first, which Pillow forgets at the second."""
    large, small = jpeg_of(65_000, 65_000), encoded(square(), "JPEG")
    at = large.index(b"\xff\xc0")
    return large[: at + 19] + small[at:]


def gif_of(width: int, height: int) -> bytes:
    data = encoded(square(), "GIF")
    return data[:6] + struct.pack("<2H", width, height) + data[10:]


BOMB = "DecompressionBombError"

BAD: list[tuple[str, Callable[[], bytes], str]] = [
    ("a JPEG that was cut", cut_jpeg, "image file is truncated"),
    ("a JPEG that was cut in its header", lambda: cut_jpeg()[:40], "Truncated File Read"),
    ("a JPEG without its last byte", lambda: encoded(square(), "JPEG")[:-1], "is truncated"),
    ("the start of a PNG", lambda: b"\x89PNG\r\n\x1a\n" + bytes(99), "no picture that is read"),
    ("the start of a JPEG", lambda: b"\xff\xd8\xff" + bytes(99), "no picture that is read"),
    ("the start of a BMP", lambda: b"BM, as they say", "no picture that is read"),
    ("a PNG bomb", lambda: png_of(200_000, 200_000), BOMB),
    ("a PNG of two gigabytes", lambda: png_of(2**31 - 1, 1), BOMB),
    ("a smaller PNG bomb", lambda: png_of(12_000, 10_000), "12000 x 10000 pixels, more than"),
    ("a JPEG bomb", lambda: jpeg_of(65_000, 65_000), BOMB),
    ("a smaller JPEG bomb", lambda: jpeg_of(12_000, 10_000), "12000 x 10000 pixels, more than"),
    ("a JPEG of two sizes", jpeg_of_two_sizes, "OSError"),
    ("a GIF bomb", lambda: gif_of(65_000, 65_000), BOMB),
    ("a PPM bomb", lambda: b"P6 99999 99999 255 ", BOMB),
    (
        "a TIFF of fractions",
        lambda: encoded(Image.new("F", (8, 8)), "TIFF"),
        "floating-point numbers of unknown range",
    ),
]


@pytest.mark.parametrize(("make", "said"), [each[1:] for each in BAD], ids=[e[0] for e in BAD])
def test_a_bad_picture_is_refused_by_name_at_once(
    make: Callable[[], bytes], said: str, tmp_path: Path
) -> None:
    """In training, in testing and by verify --decode; little memory is taken."""
    images, odd = with_odd(make(), tmp_path)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.monotonic()
    told = "\n".join(verify.verify(images.folder.root, decode=9))
    with pytest.raises(DataError) as tested:
        images.central(torch.tensor([odd]))
    with pytest.raises(DataError) as trained:
        images.training(torch.tensor([odd]), CUT, torch.Generator())
    assert time.monotonic() - began < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - most < 60_000  # KiB
    name = f"shard-000000.tar: sample {odd} (dog/odd.JPEG): "
    for text in (told, str(tested.value), str(trained.value)):
        assert name in text and said in text and " at 0x" not in text
    assert "data.max_bad_files allows 0" in str(trained.value)
    assert verify.verify(images.folder.root, full=True) == []  # its bytes are as they were packed


class Harm:
    """Whoever unpickles it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


NO_PICTURES: list[tuple[str, bytes, str]] = [
    ("empty", b"", "empty"),
    ("random", np.random.default_rng(0).bytes(900), "no picture"),
    ("a text", b"to whom it may concern", "no picture"),
    ("a program", b"\x7fELF\2\1\1" + bytes(500), "no picture"),
    ("a pickle", pickle.dumps({"a": 1}), "no picture"),
    ("a page of PostScript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no picture"),
    ("a drawing", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no picture"),
]


@pytest.mark.parametrize(
    ("data", "said"), [each[1:] for each in NO_PICTURES], ids=[each[0] for each in NO_PICTURES]
)
def test_what_is_no_picture_goes_into_no_shard(data: bytes, said: str, tmp_path: Path) -> None:
    """Build leaves it out, by name, or ends; index names the sample of a foreign shard."""
    with pytest.raises(DataError) as refused:
        with_odd(data, tmp_path)
    assert f"1 files are no pictures, --max-bad-files allows 0: dog/odd.JPEG: {said}" in str(
        refused.value
    )
    recipe = build.Recipe(max_bad_files=1)
    source = sources.from_folder(tmp_path / "pictures")
    manifest = build.build(source, tmp_path / "shards", recipe)
    assert list(manifest.made["left_out"]) == ["dog/odd.JPEG"] and manifest.samples == 6
    assert verify.verify(tmp_path / "shards", full=True, decode=9) == []
    jpeg = encoded(square(), "JPEG")
    members = [("1.jpg", jpeg), ("1.cls", b"0"), ("2.jpg", data), ("2.cls", b"1")]
    write_tar(tmp_path / "foreign" / "x.tar", members)
    with pytest.raises(DataError, match=r"foreign/x\.tar: sample 2 has 0 pictures"):
        verify.index(tmp_path / "foreign")


# --- Shards that others wrote --------------------------------------------------------------------


FOLDER = ("a", b"", {"type": tarfile.DIRTYPE})


FOREIGN: list[tuple[str, Members, str]] = [
    ("as it should be", [*ONE, *TWO], ""),
    ("with folders", [FOLDER, *sample("a/1")], ""),
    ("with one name in two folders", [*sample("a/1"), *sample("b/1")], ""),
    ("with names that run together", [*sample("a/11"), *sample("a1/1")], ""),
    ("with a long name", sample("x" * 300), ""),
    ("a name that is too long", sample("x" * 5000), "a name of 500"),
    ("with odd names", sample("a\nb\udcff"), ""),
    ("with endings in capitals", [("1.JPEG", JPEG), ("1.CLS", b"0\n")], ""),
    ("with others that are stepped over", [*ONE, ("1.json", b"{}"), ("1.txt", b"?"), *TWO], ""),
    ("from the root", sample("/etc/1"), ""),
    ("outside", sample("../../1"), ""),
    ("a link", linked(tarfile.SYMTYPE), "2.jpg is a link, a device or the like, no plain file"),
    ("a hard link", linked(tarfile.LNKTYPE), "2.jpg is a link"),
    ("a device", linked(tarfile.CHRTYPE), "2.jpg is a link, a device"),
    ("a disk", linked(tarfile.BLKTYPE), "2.jpg is a link, a device"),
    ("a pipe", linked(tarfile.FIFOTYPE), "2.jpg is a link, a device"),
    ("a sparse file", linked(tarfile.GNUTYPE_SPARSE), "2.jpg is a link, a device or the like"),
    ("two samples mixed", [ONE[0], TWO[0], ONE[1], TWO[1]], "1 has 1 pictures and 0 classes"),
    ("a sample without a class", [*ONE, TWO[0]], "sample 2 has 1 pictures and 0 classes (.cls)"),
    ("a sample without a picture", [*ONE, TWO[1]], "sample 2 has 0 pictures and 1 classes"),
    ("two pictures", [*ONE, ("1.png", JPEG), *TWO], "sample 1 has 2 pictures and 1 classes"),
    ("two classes", [*ONE, ("1.cls", b"0")], "sample 1 has 1 pictures and 2 classes"),
    ("a sample twice", [*ONE, *TWO, *ONE], "sample 1 is there 2 times, or mixed with another"),
    ("a class in words", [*ONE, *sample("2", b"dog")], "sample 2 has the class b'dog', expected a"),
    ("a class below 0", sample("2", b"-1"), "sample 2 has the class b'-1'"),
    ("an empty class", sample("2", b""), "sample 2 has the class b''"),
    ("a class of other digits", sample("2", "\u0661".encode()), "sample 2 has the class"),
    ("a huge class", [*ONE, *sample("2", b"999999999")], "a number below 1000000"),
    ("a class of a megabyte", sample("2", b"1" * 10**6), "a number below 1000000"),
    ("nothing", [], "hold no samples"),
]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize(
    ("members", "said"), [each[1:] for each in FOREIGN], ids=[each[0] for each in FOREIGN]
)
def test_index_of_a_foreign_shard(members: Members, said: str, form: int, tmp_path: Path) -> None:
    """Read as it is, or refused by shard and sample. Nothing is written but manifest, index and
    names."""
    folder = tmp_path / "in" / "foreign"
    try:
        write_tar(folder / "x.tar", members, format=form)
    except ValueError:
        assert form == tarfile.USTAR_FORMAT  # which has no place for long names
        return
    before = listing(tmp_path)
    if said:
        with pytest.raises(DataError) as refused:
            verify.index(folder)
        assert said in str(refused.value) and str(folder) in str(refused.value)
        assert listing(tmp_path).keys() == before.keys()
        return
    verify.index(folder)
    made = {f"in/foreign/{name}" for name in (MANIFEST, INDEX, NAMES)}
    assert listing(tmp_path).keys() == before.keys() | made
    assert verify.verify(folder, full=True, decode=9) == []
    images = open_shards(folder, size=8, channels=3)
    assert len((folder / NAMES).read_bytes().decode().splitlines()) == len(images)
    with tarfile.open(folder / "x.tar") as tar:
        sizes = [len(JPEG) for each in tar if each.size == len(JPEG)]
    assert [len(images.folder.read(i, images.reading)) for i in range(len(images))] == sizes


def test_index_steps_over_a_pickle_which_nothing_unpickles(tmp_path: Path) -> None:
    """webdataset's own decoder loads .pyd and .pth."""
    harm = pickle.dumps(Harm(tmp_path / "harmed"))
    pickle.loads(harm)
    (tmp_path / "harmed").unlink()  # so it would
    members = [*ONE, ("1.pyd", harm), ("1.pth", harm), ("1.pickle", harm), *TWO]
    write_tar(tmp_path / "foreign" / "x.tar", members)
    verify.index(tmp_path / "foreign")
    assert verify.verify(tmp_path / "foreign", full=True, decode=2) == []
    open_shards(tmp_path / "foreign", size=8, channels=3).central(torch.arange(2))
    assert not (tmp_path / "harmed").exists()


RAW: list[tuple[str, bytes, str]] = [
    ("nothing at all", b"", NOT_WHOLE),
    ("one byte", b"x", NOT_WHOLE),
    ("a lone end", bytes(BLOCK), NOT_WHOLE),
    ("a zip file", b"PK\3\4" + bytes(600), NOT_WHOLE),
    ("compressed", b"\x1f\x8b\x08" + bytes(600), NOT_WHOLE),
    ("a size below 0", header(b"\xff" * 12) + END, "cut or changed in 1.jpg"),
    ("a size that goes back", header(b"\xff" * 10 + b"\xfe\0") + END, "cut or changed in 1.jpg"),
    ("a huge size", header(b"\x80" + b"\xff" * 11) + END, "cut or changed in 1.jpg"),
    ("a size in words", header(b"many") + END, "cut or changed in 1.jpg"),
    ("a signed size", header(b"-0000001000") + END, "cut or changed in 1.jpg"),
    ("a long name without end", header(b"77777777777", b"L") + END, NOT_WHOLE),
    (
        "an extended header without end",
        header(b"400000", b"L") + bytes(1 << 18),
        "an extended header of 131072 bytes",
    ),
    ("an extended header of zeros", extended(bytes(9)) + END, "damaged, or of no plain file"),
    ("an extended header of digits", extended(b"1" * 512) + END, "damaged"),
    ("an extended header that ends late", extended(b"99 path=x\n") + END, "damaged"),
    ("an extended size below 0", extended(b"11 size=-9\n") + END, "damaged"),
    ("an extended size in digits that are none", extended(b"12 size=1_0\n") + END, "damaged"),
    (
        "an extended size that is huge",
        extended(b"28 size=" + b"9" * 19 + b"\n") + header() + END,
        "cut or changed in 1.jpg",
    ),
    (
        "a sparse file of the newer kind",
        extended(b"22 GNU.sparse.major=1\n") + header() + END,
        "damaged, or of no plain file",
    ),
]


@pytest.mark.parametrize(("data", "said"), [each[1:] for each in RAW], ids=[e[0] for e in RAW])
def test_a_tar_that_only_its_headers_make_wrong(data: bytes, said: str, tmp_path: Path) -> None:
    """Python's own reader never ends on some of them."""
    (tmp_path / "x.tar").write_bytes(data)
    with ends_within(5), pytest.raises(DataError) as refused:
        verify.index(tmp_path)
    assert said in str(refused.value) and str(tmp_path / "x.tar") in str(refused.value)
