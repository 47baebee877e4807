"""Sample images as two strips of one page: the originals, and what the policy makes of them."""

import base64
import io

import numpy as np
from PIL import Image
from torch import Tensor

from daas_dist.report import markup
from daas_dist.report.samples import Samples

COLUMNS, DRAWS = 8, 6
LARGEST, SMALLEST, GAP = 112, 48, 4
"""Pixels: larger images are shrunk, small ones are magnified whole times."""


def view(samples: Samples) -> str:
    before = samples.before_NCHW[:COLUMNS]
    after = samples.after_MNCHW[:DRAWS, :COLUMNS]
    count = len(after)
    draws = "one draw" if count == 1 else f"{count} draws, a row each"
    return (
        "<div class='samples'>"
        + markup.figure("Before", "", _strip(before[None], "original images"))
        + markup.figure(
            "After",
            f"the same images under the found policy: {draws}",
            _strip(after, "the same images augmented by the found policy"),
        )
        + "</div>"
    )


def _strip(images_MNCHW: Tensor, words: str) -> str:
    """A grid of rows M × columns N as one PNG with transparent gaps."""
    rows, columns = images_MNCHW.shape[:2]
    tiles = [[_image(image) for image in row] for row in images_MNCHW]
    width, height = tiles[0][0].size
    sheet = Image.new("RGBA", ((width + GAP) * columns - GAP, (height + GAP) * rows - GAP))
    for y, row in enumerate(tiles):
        for x, tile in enumerate(row):
            sheet.paste(tile, (x * (width + GAP), y * (height + GAP)))
    written = io.BytesIO()
    sheet.save(written, format="png", optimize=True)
    data = base64.b64encode(written.getvalue()).decode()
    return f"<img alt='{markup.text(words)}' src='data:image/png;base64,{data}'>"


def _image(image_CHW: Tensor) -> Image.Image:
    pixels = np.ascontiguousarray(image_CHW.permute(1, 2, 0).numpy())
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).convert("RGB")
    longest = max(image.size)
    if longest > LARGEST:
        width, height = (max(1, side * LARGEST // longest) for side in image.size)
        return image.resize((width, height))
    times = -(-SMALLEST // longest)
    return image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)
