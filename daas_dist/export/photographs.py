"""Real pictures for the checks at export, on any machine: crops of the photograph that matplotlib
ships."""

import matplotlib.cbook
import numpy as np
import torch
from PIL import Image
from torch import Tensor


def crops(count: int, shape: tuple[int, int, int]) -> Tensor:
    """uint8 [count, *shape]: different places and scales, resized."""
    channels, height, width = shape
    path = matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)
    with Image.open(str(path)) as opened:
        whole = opened.convert("RGB" if channels == 3 else "L")
    pictures = []
    for k in range(count):
        side = 100 + 53 * k % 240
        left, top = 71 * k % (whole.width - side), 97 * k % (whole.height - side)
        part = whole.crop((left, top, left + side, top + side))
        pixels = np.array(part.resize((width, height), Image.Resampling.BILINEAR))
        pictures.append(torch.from_numpy(pixels).reshape(height, width, -1).permute(2, 0, 1))
    return torch.stack(pictures)
