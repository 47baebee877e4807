"""`--to albumentations`: the policy by albumentations' transforms, and how near they come."""

import os

import torch
from torch import Tensor

from daas_dist.export import parity, stages
from daas_dist.export.literals import assignment
from daas_dist.export.standalone import Copy
from daas_dist.spaces import operations as augment
from daas_dist.spaces.policy import Policy

FILE, PARITY = "albumentations_policy.py", "albumentations_parity.md"

HEAD = f'''"""An augmentation policy that was searched by DAAS, by albumentations' transforms.

Needs albumentations 2.0. policy()(image=array)["image"] takes [H, W, 3] or [H, W] uint8, whichever
the policy was searched on; it stands after crop and flip. {PARITY} beside this file says, operation
by operation, how near it comes to the policy that was searched.
"""
'''

TAIL = '''

def policy(seed: int | None = None) -> A.Compose:
    """The policy. With a seed it draws the same again."""
    return composed(STAGES, FILL, seed)
'''

OPERATIONS = "daas_dist.export.albumentations_operations"
COPY = Copy(entries=((OPERATIONS, "composed"),), reserved=("ORIGIN", "STAGES", "FILL", "policy"))
MOVED = "whole pixels, truncated where ours are rounded, so up to a pixel off"
WHY = {
    "shear_x": f"about the centre; brought back by {MOVED}",
    "shear_y": f"about the centre; brought back by {MOVED}",
    "translate_x": MOVED,
    "translate_y": MOVED,
    "rotate": "OpenCV's nearest pixel is decided in other fixed-point numbers",
    "auto_contrast": "rounded, where Pillow truncates",
    "equalize": "counts a level's own pixels below it, which Pillow does not",
    "contrast": "rounded, where Pillow truncates",
    "color": "rounded, where Pillow truncates; another grey",
    "brightness": "rounded, where Pillow truncates",
    "sharpness": "above 1 Pillow's kernel but another border; below 1 a Gaussian blur as wide as "
    "Pillow's",
    "scale": "OpenCV's bilinear pixels, in other fixed-point numbers",
    "blur": "OpenCV's, by A.Lambda: A.GaussianBlur takes pixels, not a share of the width",
    "noise": "Gaussian, of the same deviation; ours is drawn from other numbers",
    "perspective": "each corner moves at random, where ours leans to one side",
    "pixelate": "OpenCV's, by A.Lambda: A.Downscale truncates sizes; the small image is rounded",
    "cutout": "a square of whole pixels inside the image, where ours may be cut by its border",
}


def source(policy: Policy, origin: dict[str, object], channels: int) -> str:
    imports, _, code = COPY.source().partition("\n\n\n")
    numbers = [assignment("ORIGIN", origin), assignment("FILL", _fill(channels))]
    parts = [HEAD, imports, "", *numbers, "", stages.literal(policy), "", "", code]
    return "\n".join(parts) + TAIL


def _fill(channels: int) -> float | tuple[float, float, float]:
    grey = augment.CUTOUT_FILL
    return grey if channels == 3 else round(sum(grey) / 3)


def report(policy: Policy, shape: tuple[int, int, int]) -> str:
    apply = _apply(shape[0])
    return parity.report("albumentations", policy, shape, apply, WHY, lacking=())


def _apply(channels: int) -> parity.Apply | None:
    """albumentations' transforms on a batch; None if it is not installed."""
    # Otherwise it asks a package registry for a newer version when it is imported.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    try:
        from daas_dist.export import albumentations_operations
    except ImportError:
        return None

    def apply(name: str, value: float, images: Tensor) -> Tensor:
        stage = ((1.0, ((name, 1.0, value),)),)
        transform = albumentations_operations.composed((stage,), _fill(channels), seed=0)
        arrays = [image.permute(1, 2, 0).numpy().copy() for image in images]
        if channels == 1:
            arrays = [array[:, :, 0] for array in arrays]
        given = [torch.from_numpy(transform(image=array)["image"]) for array in arrays]
        return torch.stack([each.reshape(*each.shape[:2], -1).permute(2, 0, 1) for each in given])

    return apply
