"""A folder of real pictures as users have them: every size, some odd modes, one broken file.

    python tests/support/make_jpeg_tree.py OUT [--classes 3] [--images 40]

The pictures are Fashion-MNIST's, enlarged, and parts of the photograph that matplotlib ships.
The same arguments make the same pixels.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import matplotlib.cbook
import numpy as np
from PIL import Image

from daas_dist.data import fashion_mnist

PHOTOGRAPHS = "photograph"
ORIENTATION = 0x0112
"""The EXIF tag; 6 says: turn by 90 degrees clockwise to show it."""


@dataclass(frozen=True)
class JpegTree:
    """Where the odd ones are."""

    root: Path
    grey: Path
    cmyk: Path
    rotated: Path  # stored lying, shown upright
    palette: Path  # a PNG
    broken: Path  # a JPEG that ends half way


def make(out: Path | str, classes: int = 3, images: int = 40, seed: int = 0) -> JpegTree:
    """`images` pictures in each of `classes` folders, the last of which holds photographs."""
    if not 2 <= classes <= 11 or images < 6:
        raise ValueError(f"{classes} classes of {images}: there are 2 to 11, of 6 images or more")
    root = Path(out)
    draw = np.random.default_rng(seed)
    garments = fashion_mnist(None, train=False)
    for label in range(classes - 1):
        here = root / garments.classes[label].replace("/", "-")
        here.mkdir(parents=True)
        chosen = (garments.labels == label).nonzero().flatten()[:images]
        for number, index in enumerate(chosen.tolist()):
            grey = Image.fromarray(garments.images[index, 0].numpy())
            picture = _tinted(_resized(grey, draw), draw)
            picture.save(here / f"{number:04d}.jpg", quality=int(draw.integers(60, 96)))
    here = root / PHOTOGRAPHS
    here.mkdir(parents=True)
    for number in range(images):
        picture = _resized(_part_of_photograph(draw), draw)
        picture.save(here / f"{number:04d}.jpg", quality=int(draw.integers(60, 96)))
    return _make_odd(JpegTree(root, *(here / f"{number:04d}.jpg" for number in range(5))))


def _make_odd(tree: JpegTree) -> JpegTree:
    """Five of the photographs become what a loader may stumble over."""
    Image.open(tree.grey).convert("L").save(tree.grey)
    Image.open(tree.cmyk).convert("CMYK").save(tree.cmyk)
    upright = Image.open(tree.rotated).convert("RGB")
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    lying = upright.transpose(Image.Transpose.ROTATE_90)
    lying.save(tree.rotated, exif=exif, quality=95)
    palette = tree.palette.with_suffix(".png")
    Image.open(tree.palette).quantize(64).save(palette)
    tree.palette.unlink()
    data = tree.broken.read_bytes()
    tree.broken.write_bytes(data[: len(data) // 2])
    return JpegTree(tree.root, tree.grey, tree.cmyk, tree.rotated, palette, tree.broken)


def _resized(picture: Image.Image, draw: np.random.Generator) -> Image.Image:
    width, height = (int(side) for side in draw.integers(40, 200, size=2))
    return picture.resize((width, height), Image.Resampling.BICUBIC)


def _tinted(grey: Image.Image, draw: np.random.Generator) -> Image.Image:
    """A grey picture as a coloured one, black staying black."""
    tint = draw.uniform(0.5, 1.0, size=3)
    return Image.fromarray((np.asarray(grey)[:, :, None] * tint).astype(np.uint8))


def _part_of_photograph(draw: np.random.Generator) -> Image.Image:
    path = matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)
    with Image.open(str(path)) as opened:
        photograph = opened.convert("RGB")
    side = int(draw.integers(100, min(photograph.size)))
    left, top = (int(draw.integers(0, length - side + 1)) for length in photograph.size)
    return photograph.crop((left, top, left + side, top + side))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, help="a folder to make")
    parser.add_argument("--classes", type=int, default=3)
    parser.add_argument("--images", type=int, default=40, help="in each class")
    options = parser.parse_args()
    tree = make(options.out, options.classes, options.images)
    print(f"{options.classes} classes of {options.images} pictures in {tree.root}")
    print(f"broken, so data.max_bad_files=1: {tree.broken}")


if __name__ == "__main__":
    main()
