"""Which formats are read, and what a file that is none of them seems to be."""

from pathlib import PurePath


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""Pillow's names of what is read. Formats that call other programs (EPS) are left out."""

READ = ", ".join(FORMATS)

FULL = 16
"""Bits of a colour of which Pillow gives the upper 8."""

STARTS = {
    b"\xff\xd8\xff": "jpg",
    b"\x89PNG\r\n\x1a\n": "png",
    b"GIF8": "gif",
    b"BM": "bmp",
    b"II*\0": "tif",
    b"MM\0*": "tif",
    b"II+\0": "tif",
    b"MM\0+": "tif",
    b"P1": "pbm",
    b"P2": "pgm",
    b"P3": "ppm",
    b"P4": "pbm",
    b"P5": "pgm",
    b"P6": "ppm",
}
"""How the files that are read begin, and what each is called in a shard: ImageNet has a PNG that is
called JPEG."""

BRANDS = {
    **dict.fromkeys((b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"), "HEIC"),
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
    b"crx ": "a raw camera picture (CR3)",
}
"""By the brand of an ISO media file; any other one is a video."""

SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"8BPS", "Photoshop"),
    (0, b"%!PS", "PostScript"),
    (0, b"%PDF", "PDF"),
    (0, b"\0\0\1\0", "an icon (ICO)"),
    (0, b"DDS ", "DDS"),
    (0, b"v/1\x01", "OpenEXR"),
    (0, b"#?RADIANCE", "Radiance HDR"),
    (0, b"FUJIFILMCCD-RAW", "a raw camera picture (RAF)"),
    (0, b"IIRO", "a raw camera picture (ORF)"),
    (0, b"IIRS", "a raw camera picture (ORF)"),
    (0, b"IIU\0", "a raw camera picture (RW2)"),
    (128, b"DICM", "DICOM"),
    (0, b"SIMPLE  =", "FITS"),
    (0, b"\x89HDF", "HDF5"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"MATLAB 5", "a MATLAB file"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"BZh", "a bzip2 archive"),
    (0, b"\xfd7zXZ", "an xz archive"),
    (0, b"(\xb5/\xfd", "a zstd archive"),
    (0, b"7z\xbc\xaf", "a 7-Zip archive"),
    (0, b"Rar!", "a RAR archive"),
    (257, b"ustar", "a tar archive"),
    (8, b"AVI ", "a video (AVI)"),
    (8, b"WAVE", "a sound (WAV)"),
    (0, b"\x1aE\xdf\xa3", "a video (Matroska)"),
    (0, b"\0\0\1\xba", "a video (MPEG)"),
    (0, b"\0\0\1\xb3", "a video (MPEG)"),
    (0, b"FLV\x01", "a video (FLV)"),
    (0, b"0&\xb2u", "a video (WMV)"),
    (0, b"ID3", "a sound (MP3)"),
    (0, b"OggS", "a sound or video (Ogg)"),
    (0, b"SQLite format 3", "a database (SQLite)"),
    (0, b"\xd0\xcf\x11\xe0", "an Office document"),
    (0, b"\x7fELF", "a program"),
    (0, b"version https://git-lfs", "a pointer of Git LFS: get the picture by `git lfs pull`"),
)

WORDS: tuple[tuple[bytes, str], ...] = (
    (b"<svg", "SVG"),
    (b"<!doctype html", "a web page"),
    (b"<html", "a web page"),
)
"""Of text files: what is somewhere near their beginning."""

ENDINGS = {
    **dict.fromkeys(("heic", "heif", "hif"), "HEIC"),
    **dict.fromkeys(("avif", "avifs"), "AVIF"),
    **dict.fromkeys(("jp2", "j2k", "jpf", "jpx", "j2c", "jpc"), "JPEG 2000"),
    "jxl": "JPEG XL",
    **dict.fromkeys(("svg", "svgz"), "SVG"),
    **dict.fromkeys(("psd", "psb"), "Photoshop"),
    **dict.fromkeys(("tga", "icb", "vda"), "TGA"),
    **dict.fromkeys(("eps", "ai", "ps"), "PostScript"),
    **dict.fromkeys(("ico", "cur"), "an icon (ICO)"),
    **dict.fromkeys(("exr", "hdr", "dds", "pcx", "ras", "sgi", "xcf", "wmf", "emf"), "that"),
    **dict.fromkeys(("dcm", "dicom"), "DICOM"),
    **dict.fromkeys(("nii", "nrrd", "mhd", "mha"), "a medical volume"),
    **dict.fromkeys(
        _names("dng nef nrw cr2 cr3 crw arw sr2 srf orf rw2 raf pef srw raw rwl 3fr fff iiq mef "
               "mos erf kdc dcr mrw x3f gpr"),
        "a raw camera picture",
    ),
    **dict.fromkeys(
        _names("mp4 m4v mov avi mkv webm mpg mpeg wmv flv 3gp mts m2ts"), "a video"
    ),
}  # fmt: skip
"""What a name says, where the contents say nothing."""

PICTURE_ENDINGS = _names("jpg jpeg jpe jfif jif png apng webp bmp dib gif tif tiff ppm pgm pbm pnm")
"""Of the names of files that are read."""

TO_TELL = 512
"""Bytes from which seems() tells what a file is."""


def bits_for(greatest: int) -> int:
    """Return the bits of a data set whose greatest number of more than 8 bits this is."""
    return max(8, greatest.bit_length())


def ending(data: bytes | bytearray) -> str | None:
    """Return the ending that fits these bytes; None if they are no picture that is read."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    return next((name for start, name in STARTS.items() if data.startswith(start)), None)


def seems(data: bytes | bytearray, name: str = "") -> str:
    """Name the format that a file seems to have, by its first bytes or else by its name.

    Returns "" where neither tells.
    """
    start = bytes(data[:TO_TELL])
    if start[4:8] == b"ftyp":
        return BRANDS.get(start[8:12], "a video (MP4, MOV)")
    for offset, signature, kind in SIGNATURES:
        if start.startswith(signature, offset):
            return kind
    lower = start.lower()
    for word, kind in WORDS:
        if word in lower:
            return kind
    last = PurePath(name).suffix[1:].lower()
    by_name = ENDINGS.get(last, "")
    return last.upper() if by_name == "that" else by_name


def is_picture_name(name: str) -> bool:
    """Tell whether a name is that of a picture, of a format that is read or not."""
    last = PurePath(name).suffix[1:].lower()
    return last in PICTURE_ENDINGS or last in ENDINGS


def unread(data: bytes | bytearray, name: str = "") -> str:
    """Say why a file is no picture: its format, and those that are read."""
    if not data:
        return "empty"
    kind = seems(data, name)
    if ending(data) is not None:
        kind = "damaged, or of a kind of its format that Pillow does not read"
        return f"no picture that is read: {kind}"
    return f"no picture that is read ({READ})" + (f": it seems to be {kind}" if kind else "")
