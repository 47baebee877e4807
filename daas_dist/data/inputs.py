"""What a training does with an image that was cut and mirrored, in this order (peer: DADA's
evaluation, which puts the policy behind crop and flip):

    the policy · colour jitter · lighting · normalise · cutout

All of it is a function of the images, (seed, step) and which part of the batch they are: a rank or
a micro-batch that holds a part of a batch gets exactly its part of the whole batch's result. Draws
are made on the CPU, so policy and colour jitter may run where images are read, in a Feed's workers,
or on the device: the pixels are the same bits but for the hue, which is rounded from float32.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Generator, Tensor
from torchvision.transforms import v2

from daas_dist.rng import WHOLE, Part, stream
from daas_dist.spaces import operations as augment
from daas_dist.spaces.color_jitter import color_jitter, lighting
from daas_dist.spaces.policy import Policy

ImagePolicy = Callable[[Tensor, Generator, Part], Tensor]
"""(uint8 images [N, C, H, W], CPU generator, which part of a batch they are) -> uint8 [N, C, H, W].
The draws are the whole batch's: a part of it gets its part of them."""

PER: dict[str, Callable[[Policy, Tensor, Generator, Part], Tensor]] = {
    "iteration": Policy.apply_one,
    "image": Policy.apply,
}
"""What shares one draw of the found policy: the images of a step, as in the paper, or none."""


@dataclass(frozen=True)
class Inputs:
    """color_jitter: the four strengths. lighting: a standard deviation. cutout: pixels, 0 is none.
    mean and std: a number a channel, of pixels in [0, 1]."""

    policy: ImagePolicy
    color_jitter: Sequence[float] | None
    lighting: float | None
    mean: Sequence[float]
    std: Sequence[float]
    cutout: int

    def __call__(self, images_u8: Tensor, seed: int, step: int, part: Part = WHOLE) -> Tensor:
        """uint8 [N, C, H, W] as they were cut -> float32, as the network takes them."""
        return self.normalised(self.changed(images_u8, seed, step, part), seed, step, part)

    def changed(self, images_u8: Tensor, seed: int, step: int, part: Part = WHOLE) -> Tensor:
        """uint8 [N, C, H, W]: up to normalise."""
        generator = stream(seed, "training", "policy", step)
        images_u8 = self.policy(images_u8, generator, part)
        if self.color_jitter is None:
            return images_u8
        generator = stream(seed, "training", "color-jitter", step)
        return color_jitter(images_u8, self.color_jitter, generator, part)

    def normalised(self, images_u8: Tensor, seed: int, step: int, part: Part = WHOLE) -> Tensor:
        """float32 [N, C, H, W]: from normalise on."""
        images = self.test(images_u8)
        if self.lighting is not None:
            # Before normalise in the peers: the same, as both are sums.
            generator = stream(seed, "training", "lighting", step)
            images = lighting(images, self.lighting, self.std, generator, part)
        if self.cutout:
            generator = stream(seed, "training", "cutout", step)
            images = augment.cutout_square(images, self.cutout, generator, part)
        return images

    def test(self, images_u8: Tensor) -> Tensor:
        """The same for a test image: normalised, and nothing else."""
        return augment.normalise(images_u8, self.mean, self.std)


def named_policy(
    name: str, found: Policy | None, auto_augment: v2.AutoAugmentPolicy, *, per: str
) -> ImagePolicy:
    """Return what a name of train.compare adds to crop, flip and cutout: nothing for "default" and
    "none".

    auto_augment: which of AutoAugment's policies. per: a key of PER, for the found policy;
    torchvision's draw for every image, as published. ValueError for "found" without one, and for
    a name that is none.
    """
    if name == "found":
        if found is None:
            raise ValueError('no policy was found: "found" needs train.result')
        return partial(PER[per], found)
    if name in ("default", "none"):
        return unchanged
    made: dict[str, Callable[[], v2.Transform]] = {
        "trivial_augment": v2.TrivialAugmentWide,
        "rand_augment": v2.RandAugment,
        "auto_augment": lambda: v2.AutoAugment(auto_augment),
    }
    if name not in made:
        raise ValueError(f"unknown policy {name!r}; known: found, default, none, {', '.join(made)}")
    return torchvision_policy(made[name]())


def unchanged(images_u8: Tensor, _: Generator, __: Part = WHOLE) -> Tensor:
    return images_u8


def torchvision_policy(transform: v2.Transform) -> ImagePolicy:
    """One of torchvision's, image after image, since it draws one policy a call, and draws from
    torch's own generator: for each image that one is started from an address of the image's.

    For 96 images of 32 x 32 that is 8 ms (TrivialAugment, AutoAugment) to 15 ms (RandAugment) on
    one CPU core, where a training step of 20 cells of 36 channels takes 10 s.
    """

    def each_image(images_u8: Tensor, generator: Generator, part: Part = WHOLE) -> Tensor:
        whole = torch.randint(2**62, (len(images_u8) * part.of,), generator=generator)
        changed = []
        with torch.random.fork_rng(devices=[]):
            for image, address in zip(images_u8, part.take(whole).tolist(), strict=True):
                # Not torch.manual_seed, which would start the GPU's generators too.
                torch.default_generator.manual_seed(address)
                changed.append(transform(image))
        return torch.stack(changed)

    return each_image
