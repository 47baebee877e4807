"""`--to timm`: the policy by timm's auto-augment operations, and how near they come to ours."""

import random

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from daas_dist.export import parity, stages
from daas_dist.export.literals import assignment
from daas_dist.export.standalone import Copy
from daas_dist.spaces.policy import Policy

FILE, PARITY = "timm_policy.py", "timm_parity.md"

HEAD = f'''"""An augmentation policy that was searched by DAAS, by timm's auto-augment operations.

Needs timm >= 1.0. policy() takes a PIL image (L or RGB) and gives one; in a timm pipeline it stands
where create_transform's auto_augment stands: after crop and flip. {PARITY} beside this file
says, operation by operation, how near it comes to the policy that was searched.
"""
'''

TAIL = '''

def policy() -> StagedPolicy:
    """The policy; its draws come from Python's random."""
    return StagedPolicy(STAGES)
'''

OPERATIONS = "daas_dist.export.timm_operations"
COPY = Copy(entries=((OPERATIONS, "StagedPolicy"),), reserved=("ORIGIN", "STAGES", "policy"))
LACKING = ("cutout", "scale", "blur", "noise", "perspective", "pixelate")
LEFT_OUT = "no operation of timm's auto-augment; left out, so where it is drawn nothing happens"
WHY = {
    **dict.fromkeys(LACKING, LEFT_OUT),
    "blur": f"{LEFT_OUT} (timm's blurs by pixels, ours by a share of the width)",
    "cutout": f"{LEFT_OUT} "
    "(timm's RandomErasing is another thing: a random size, after normalisation)",
}


def source(policy: Policy, origin: dict[str, object]) -> str:
    imports, _, code = COPY.source().partition("\n\n\n")
    numbers = [assignment("ORIGIN", origin), "", stages.literal(policy)]
    return "\n".join([HEAD, imports, "", *numbers, "", "", code]) + TAIL


def report(policy: Policy, shape: tuple[int, int, int]) -> str:
    return parity.report("timm", policy, shape, _apply(), WHY, LACKING)


def _apply() -> parity.Apply | None:
    """timm's operations on a batch; None if it is not installed."""
    try:
        from daas_dist.export import timm_operations
    except ImportError:
        return None

    def apply(name: str, value: float, images: Tensor) -> Tensor:
        operation = timm_operations.operation(name, 1.0, value)
        state = random.getstate()
        random.seed(0)
        given = [operation(tv.to_pil_image(image)) for image in images]
        random.setstate(state)
        return torch.stack([tv.pil_to_tensor(image) for image in given])

    return apply
