"""How near another library's operations come to ours, measured on photographs, as Markdown."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from daas_dist.export import photographs, stages
from daas_dist.rng import stream
from daas_dist.spaces import operations as augment
from daas_dist.spaces.policy import Policy

IMAGES = 32

Apply = Callable[[str, float, Tensor], Tensor]
"""(operation, value, uint8 [N, C, H, W]) -> the other library's result, always applied, its sign
and its place drawn."""

PLACED = "cutout"
DRAWN = (PLACED, "noise", "perspective")
"""What they do is drawn, so pixels cannot be compared one by one."""

HEAD = """# How near the operations of {library} come to ours

| operation | at the policy's magnitudes | verdict | mean difference | largest | why |
|---|---|---|---|---|---|
"""

TAIL = """
Differences are of pixels in 0 to 255, absolute, {measured}
"""


def report(
    library: str,
    policy: Policy,
    shape: tuple[int, int, int],
    apply: Apply | None,
    why: Mapping[str, str],
    lacking: tuple[str, ...],
) -> str:
    """why: of the operations that differ; lacking: those that the library does not have; apply is
    None where it is not installed."""
    ranges, names = policy.space.ranges, policy.space.operations
    used = {name: set[int]() for name in names}
    for stage in stages.of(policy):
        for sequence in stage:
            for step in sequence.steps:
                used[step.operation].add(step.magnitude)
    images = photographs.crops(IMAGES, shape)
    lines = []
    for name in names:
        magnitudes = sorted(used[name])
        described = [augment.describe(name, m, ranges) for m in magnitudes]
        words = ", ".join(dict.fromkeys(described))
        if name in lacking:
            cells = ["impossible", "", ""]
        elif apply is None:
            cells = ["not measured here", "", ""]
        elif name in DRAWN:
            cells = ["approximate", "", ""]
        else:
            cells = _measured(name, magnitudes, ranges, images, apply)
        reason = "" if cells[0] == "exact" else why.get(name, "")
        if name == PLACED and apply is not None and name not in lacking:
            reason += f"; {_covered(magnitudes, ranges, images, apply)}"
        lines += [f"| {' | '.join([name, words, *cells, reason])} |"]
    size = "x".join(map(str, shape))
    measured = (
        f"over {IMAGES} crops of one photograph at {size}; of the two signs the nearer one counts."
        if apply is not None
        else f"and were not measured here, because {library} is not installed."
    )
    return HEAD.format(library=library) + "\n".join(lines) + "\n" + TAIL.format(measured=measured)


def _measured(
    name: str, magnitudes: list[int], ranges: str, images: Tensor, apply: Apply
) -> list[str]:
    """[verdict, mean difference, largest], over all the magnitudes."""
    differences = torch.stack(
        [difference(name, magnitude, ranges, images, apply) for magnitude in magnitudes]
    )
    if not differences.any():
        return ["exact", "0", "0"]
    return ["approximate", f"{float(differences.mean()):.2f}", f"{int(differences.max())}"]


def difference(name: str, magnitude: int, ranges: str, images: Tensor, apply: Apply) -> Tensor:
    """[N, C, H, W]: |theirs - ours|, with whichever sign of ours is nearer in each image."""
    operation = augment.TABLE[augment.NAMES.index(name)]
    value = operation.value(magnitude, ranges)
    signs = (1, -1) if operation.signed else (1,)
    ours_SN = torch.stack([_ours(name, magnitude, ranges, images, sign) for sign in signs])
    theirs_N = apply(name, abs(value) if operation.signed else value, images)
    off_SN = (ours_SN.float() - theirs_N.float()).abs()
    nearer_N = off_SN.flatten(2).mean(2).argmin(0)
    return off_SN[nearer_N, torch.arange(len(images))]


def _covered(magnitudes: list[int], ranges: str, images: Tensor, apply: Apply) -> str:
    """The mean share of the image that is painted, ours and theirs, in words."""
    blank = torch.zeros_like(images)
    centre_N2 = torch.rand(len(images), 2, generator=stream(0, "parity"))
    ours, theirs = 0.0, 0.0
    for magnitude in magnitudes:
        value = augment.TABLE[augment.NAMES.index(PLACED)].value(magnitude, ranges)
        own = _ours(PLACED, magnitude, ranges, blank, 1, centre_N2)
        ours += float((own > 0).float().mean()) / len(magnitudes)
        theirs += float((apply(PLACED, value, blank) > 0).float().mean()) / len(magnitudes)
    return f"it covers {theirs:.1%} of the image on average, ours {ours:.1%}"


def _ours(
    name: str,
    magnitude: int,
    ranges: str,
    images: Tensor,
    sign: int,
    centre_N2: Tensor | None = None,
) -> Tensor:
    count = len(images)
    return augment.apply(
        images,
        torch.full((count,), augment.NAMES.index(name)),
        torch.full((count,), magnitude),
        torch.full((count,), sign),
        torch.full((count, 2), 0.5) if centre_N2 is None else centre_N2,
        ranges,
    )
