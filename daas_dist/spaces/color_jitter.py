"""Random colour for a whole batch: brightness, contrast, saturation, hue; and AlexNet's lighting.

Brightness, contrast and saturation are augment's, PIL's own results bit for bit; hue is a turn in
HSV. Every image has its own strengths and its own order of the four, as torchvision's ColorJitter
gives them, whose distribution this is.

Axes: N images, C channels, H rows, W columns.
"""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from daas_dist.rng import WHOLE, Part
from daas_dist.spaces import operations as augment

EIGENVALUES = (0.2175, 0.0188, 0.0045)
EIGENVECTORS = (
    (-0.5675, 0.7192, 0.4009),
    (-0.5808, -0.0045, -0.8140),
    (-0.5836, -0.6948, 0.4203),
)
"""Of the covariance of ImageNet's (R, G, B), pixels in [0, 1]; a column is a vector (peer: DADA
data.py, after Krizhevsky et al. 2012, Sec. 4.1)."""


def color_jitter(
    images: Tensor, strengths: Sequence[float], generator: Generator, part: Part = WHOLE
) -> Tensor:
    """A new batch; uint8 [N, 1 or 3, H, W]. strengths: (brightness, contrast, saturation, hue).

    A factor is uniform in [max(0, 1 - s), 1 + s], a turn of the hue in [-s, s] of the circle; 0
    leaves that one out. Saturation and hue do nothing to grey images. The draws are each image's
    own, from a CPU generator wherever the images are.
    """
    batch = len(images) * part.of
    uniform_N4 = part.take(torch.rand(batch, 4, generator=generator, dtype=torch.float64))
    order_N4 = part.take(torch.rand(batch, 4, generator=generator).argsort(1))
    brightness, contrast, saturation, hue = strengths
    factors = [(max(0.0, 1 - s), 1 + s) for s in (brightness, contrast, saturation)]
    low_4, high_4 = torch.tensor([*factors, (-hue, hue)], dtype=torch.float64).unbind(1)
    value_N4 = low_4 + (high_4 - low_4) * uniform_N4
    changed = images.clone()
    for place in range(4):
        for number, strength in enumerate(strengths):
            chosen = (order_N4[:, place] == number).nonzero()[:, 0]
            if strength and len(chosen):
                there = chosen.to(images.device)
                changed[there] = _change(changed[there], number, value_N4[chosen, number])
    return changed


def _change(images: Tensor, number: int, value_N: Tensor) -> Tensor:
    if number == 3:
        return shift_hue(images, value_N)
    function = (augment.brightness, augment.contrast, augment.color)[number]
    return function(images, value_N, value_N)  # the last is for operations that have a centre


def shift_hue(images: Tensor, turn_N: Tensor) -> Tensor:
    """uint8 [N, C, H, W], the hue of image n turned by turn_N[n] of the circle, to the nearest
    level. Value and saturation (in HSV) stay; torchvision and PIL go by rounder ways, and may
    differ by a few levels."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.float().unbind(1)
    value, chroma = images.float().amax(1), images.float().amax(1) - images.float().amin(1)
    over = chroma.clamp(min=1)  # levels are whole: below 1 is 0, and the pixel grey
    sixths = torch.where(
        value == red,
        (green - blue) / over,
        torch.where(value == green, 2 + (blue - red) / over, 4 + (red - green) / over),
    )
    sixths = sixths + 6 * turn_N.float().to(images.device)[:, None, None]

    def channel(offset: int) -> Tensor:
        """Full within a sixth of the circle, empty from two on: 5, 3, 1 are R, G, B."""
        k = (sixths + offset).remainder(6)
        return value - chroma * torch.minimum(k, 4 - k).clamp(0, 1)

    return torch.stack([channel(5), channel(3), channel(1)], 1).round().to(torch.uint8)


def lighting(
    images: Tensor, deviation: float, std: Sequence[float], generator: Generator, part: Part = WHOLE
) -> Tensor:
    """Normalised float [N, 3, H, W], each image with a colour of its own added: along each
    eigenvector, its eigenvalue times a normal draw of that standard deviation."""
    draw_N3 = part.take(torch.randn(len(images) * part.of, 3, generator=generator)) * deviation
    weight_N3 = draw_N3 * torch.tensor(EIGENVALUES)
    # Not a matrix product: some CPUs round it otherwise for more or for fewer images.
    color_N3 = sum(
        (weight_N3[:, i, None] * vector_3)
        for i, vector_3 in enumerate(torch.tensor(EIGENVECTORS).unbind(1))
    )
    return images + (color_N3 / torch.tensor(std)).to(images.device)[:, :, None, None]
