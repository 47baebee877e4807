"""The pieces of a DARTS cell network: seven operations, two preprocessings, two stems, one plan.

The supernet and the derived networks differ only in their batch norms (peer: DARTS,
cnn/operations.py and cnn/model_search.py): a supernet builds with affine=False, running=False,
pool_norm=True, a derived network with True, True, False. Without running statistics a norm has no
buffers and always normalises by its batch, so a functional forward changes nothing and forward-mode
AD sees the whole function.

Images are [B, C, H, W]; every operation of stride 2 returns ceil(H / 2) × ceil(W / 2). Nothing here
reshapes or copies for a memory format: channels_last in, channels_last out.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from daas_dist.models.depthwise import Depthwise
from daas_dist.models.pixels import every_other
from daas_dist.spaces.cells import EDGES, INPUTS, NODES, OPERATIONS


def norm(channels: int, affine: bool, running: bool) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, affine=affine, track_running_stats=running)


def conv_norm(channels_in: int, channels_out: int, *, affine: bool, running: bool) -> nn.Sequential:
    """1×1 convolution, norm."""
    return nn.Sequential(
        OrderedDict(
            pointwise=nn.Conv2d(channels_in, channels_out, 1, bias=False),
            norm=norm(channels_out, affine, running),
        )
    )


class FactorizedReduce(nn.Module):
    """Two 1×1 convolutions of stride 2 (one a pixel further down and right), norm.

    DARTS requires even sides. At an odd side the shifted half would be one pixel short, so it is
    padded with one row or column of zeros at the far edge (ours): both halves are then ceil(H / 2),
    as large as what the 3×3 operations of stride 2 return.
    """

    def __init__(self, channels_in: int, channels_out: int, *, affine: bool, running: bool) -> None:
        super().__init__()
        half = channels_out // 2
        self.even = nn.Conv2d(channels_in, half, 1, bias=False)
        self.odd = nn.Conv2d(channels_in, channels_out - half, 1, bias=False)
        self.norm = norm(channels_out, affine, running)

    def forward(self, images: Tensor) -> Tensor:
        # Taking the pixels first and convolving at stride 1 is the same function; forward and
        # backward take half the time on a CPU (32 channels, 28×28, either memory format).
        even, odd = every_other(images, (0, 1))
        height, width = images.shape[-2:]
        if height % 2 or width % 2:
            odd = F.pad(odd, (0, width % 2, 0, height % 2))
        return self.norm(torch.cat([self.even(even), self.odd(odd)], dim=1))


class EvenPixels(nn.Module):
    """[B, C, H, W] to the pixels of even row and column, [B, C, ceil(H / 2), ceil(W / 2)]."""

    def forward(self, images: Tensor) -> Tensor:
        (even,) = every_other(images, (0,))
        return even


class Rectified(nn.Sequential):
    """What an operation does behind its ReLU. That is run_nodes', which takes it of a node once,
    however many operations begin with it."""


BEHIND_RELU = (Rectified, FactorizedReduce)

Builder = Callable[[int, int, bool, bool, bool], nn.Module]
"""(channels, stride, affine, running, pool_norm) -> module."""


def _separable(kernel: int) -> Builder:
    """(ReLU, depthwise, pointwise, norm) twice; only the first depthwise takes the stride."""

    def build_it(
        channels: int, stride: int, affine: bool, running: bool, pool_norm: bool
    ) -> nn.Module:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for number, its_stride in ((1, stride), (2, 1)):
            if number == 2:
                layers["relu_2"] = nn.ReLU(inplace=True)  # a norm's result is its alone
            layers[f"depthwise_{number}"] = Depthwise(channels, kernel, its_stride)
            layers[f"pointwise_{number}"] = nn.Conv2d(channels, channels, 1, bias=False)
            layers[f"norm_{number}"] = norm(channels, affine, running)
        return Rectified(layers)

    return build_it


def _dilated(kernel: int) -> Builder:
    """ReLU, depthwise with dilation 2, pointwise, norm.

    At stride 2 a kernel of dilation 2 and even padding reads pixels of even row and column only, so
    it is an ordinary kernel on those: the same function, and forward and backward are a tenth of
    the time in channels_last on a CPU, where the dilated stride has no fast kernel.
    """

    def build_it(
        channels: int, stride: int, affine: bool, running: bool, pool_norm: bool
    ) -> nn.Module:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        if stride == 2:
            layers["even_pixels"] = EvenPixels()
        layers["depthwise"] = Depthwise(channels, kernel, dilation=1 if stride == 2 else 2)
        layers["pointwise"] = nn.Conv2d(channels, channels, 1, bias=False)
        layers["norm"] = norm(channels, affine, running)
        return Rectified(layers)

    return build_it


def _pool(make: Callable[[int], nn.Module]) -> Builder:
    def build_it(
        channels: int, stride: int, affine: bool, running: bool, pool_norm: bool
    ) -> nn.Module:
        if not pool_norm:
            return make(stride)
        return nn.Sequential(
            OrderedDict(pool=make(stride), norm=norm(channels, affine=False, running=running))
        )

    return build_it


def _skip(channels: int, stride: int, affine: bool, running: bool, pool_norm: bool) -> nn.Module:
    if stride == 1:
        return nn.Identity()
    return FactorizedReduce(channels, channels, affine=affine, running=running)


_BUILDERS: dict[str, Builder] = {
    "max_pool_3x3": _pool(lambda stride: nn.MaxPool2d(3, stride, padding=1)),
    "avg_pool_3x3": _pool(
        lambda stride: nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)
    ),
    "skip_connect": _skip,
    "sep_conv_3x3": _separable(3),
    "sep_conv_5x5": _separable(5),
    "dil_conv_3x3": _dilated(3),
    "dil_conv_5x5": _dilated(5),
}
assert tuple(_BUILDERS) == OPERATIONS


def build(
    name: str, channels: int, stride: int, *, affine: bool, running: bool, pool_norm: bool
) -> nn.Module:
    """The operation by that name, [B, channels, H, W] to the same channels; stride 1 or 2. Of
    BEHIND_RELU: what it is behind its ReLU."""
    if name not in _BUILDERS:
        raise ValueError(f"unknown operation {name!r}; known: {', '.join(_BUILDERS)}")
    if stride not in (1, 2):
        raise ValueError(f"operation {name}: stride {stride}; expected 1 or 2")
    return _BUILDERS[name](channels, stride, affine, running, pool_norm)


class CifarStem(nn.Module):
    """3×3 convolution to 3 × channels, norm; rectified, as cells take it. Both inputs of the first
    cell are its result."""

    halves = False

    def __init__(self, in_channels: int, channels: int, *, running: bool) -> None:
        super().__init__()
        self.widths = (3 * channels, 3 * channels)
        self.conv = nn.Conv2d(in_channels, 3 * channels, 3, padding=1, bias=False)
        self.norm = norm(3 * channels, True, running)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = F.relu(self.norm(self.conv(images)))
        return features, features


def _halving_conv(channels_in: int, channels_out: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 3, stride=2, padding=1, bias=False)


class ImagenetStem(nn.Module):
    """Three 3×3 convolutions of stride 2: the cells start at an eighth of the side.

    The first cell's inputs are what the second and the third return (halves: the older one is
    twice as large, so the first cell reduces it), rectified.
    """

    halves = True

    def __init__(self, in_channels: int, channels: int, *, running: bool) -> None:
        super().__init__()
        self.widths = (channels, channels)
        self.conv_1 = _halving_conv(in_channels, channels // 2)
        self.norm_1 = norm(channels // 2, True, running)
        self.conv_2 = _halving_conv(channels // 2, channels)
        self.norm_2 = norm(channels, True, running)
        self.conv_3 = _halving_conv(channels, channels)
        self.norm_3 = norm(channels, True, running)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        half = F.relu(self.norm_1(self.conv_1(images)))
        quarter = F.relu(self.norm_2(self.conv_2(half)))
        return quarter, F.relu(self.norm_3(self.conv_3(quarter)))


STEMS: dict[str, type[CifarStem] | type[ImagenetStem]] = {
    "cifar": CifarStem,
    "imagenet": ImagenetStem,
}


def build_stem(
    name: str, in_channels: int, channels: int, *, running: bool
) -> CifarStem | ImagenetStem:
    """The stem by that name. Its norms stay affine in the supernet too, as in DARTS."""
    if name not in STEMS:
        raise ValueError(f"unknown stem {name!r}; known: {', '.join(STEMS)}")
    return STEMS[name](in_channels, channels, running=running)


@dataclass(frozen=True)
class CellPlan:
    """Where a cell stands: its kind and width, and the widths of the two feature maps it reads."""

    kind: str
    channels: int
    before_channels: int
    last_channels: int
    halve_before: bool
    """The older input is twice as large, because the cell (or stem) between them halved it."""


def plan_cells(
    cells: int, channels: int, stem: CifarStem | ImagenetStem, multiplier: int
) -> Iterator[CellPlan]:
    """DARTS' chain: cells cells // 3 and 2 * cells // 3 reduce, and the width doubles there.

    multiplier: how many nodes a cell concatenates, so what it returns has multiplier × channels.
    """
    if cells < 1 or channels < 2 or channels % 2:
        raise ValueError(
            f"cells {cells}, channels {channels}: expected cells >= 1 and channels even and >= 2"
        )
    before, last = stem.widths
    halved = stem.halves
    for index in range(cells):
        reduces = index in (cells // 3, 2 * cells // 3)
        channels *= 2 if reduces else 1
        yield CellPlan("reduce" if reduces else "normal", channels, before, last, halved)
        before, last = last, multiplier * channels
        halved = reduces


def preprocessings(plan: CellPlan, *, affine: bool, running: bool) -> tuple[nn.Module, nn.Module]:
    """Return what brings a cell's two inputs to its width, and the older one to the newer one's
    size.

    DARTS begins each with a ReLU. Here their input is rectified already, as two cells read it.
    """
    older = FactorizedReduce if plan.halve_before else conv_norm
    return (
        older(plan.before_channels, plan.channels, affine=affine, running=running),
        conv_norm(plan.last_channels, plan.channels, affine=affine, running=running),
    )


def edge_stride(kind: str, source: int) -> int:
    """Return an edge's stride: in a reduce cell the edges out of the two inputs halve
    the side."""
    return 2 if kind == "reduce" and source < INPUTS else 1


def run_nodes(
    before: Tensor,
    last: Tensor,
    edges: Sequence[int],
    operations: Sequence[nn.Module],
    weigh: Callable[[int, Tensor], Tensor],
    kind: str,
) -> list[Tensor]:
    """Compute all six nodes of a cell. Each is the sum of its operations, in their order; zeros if
    it has none.

    edges: of each operation, by target. weigh(k, x): what becomes of the result of the k-th.
    """
    states = [before, last]
    rectified: dict[int, Tensor] = {}

    def source(k: int) -> Tensor:
        node = EDGES[edges[k]][0]
        if not isinstance(operations[k], BEHIND_RELU):
            return states[node]
        if node not in rectified:
            rectified[node] = F.relu(states[node])
        return rectified[node]

    k = 0
    for target in range(INPUTS, INPUTS + NODES):
        total = None
        while k < len(edges) and EDGES[edges[k]][1] == target:
            result = weigh(k, operations[k](source(k)))
            total = result if total is None else total + result
            k += 1
        states.append(_zeros(last, kind) if total is None else total)
    return states


def _zeros(last: Tensor, kind: str) -> Tensor:
    """Return a node that reads nothing."""
    like = every_other(last, (0,))[0] if kind == "reduce" else last
    return torch.zeros_like(like)


def concatenate(states: Sequence[Tensor]) -> Tensor:
    """The nodes of a cell along their channels: what it returns.

    The gradient of each is a part of the whole's channels, so its pixels lie apart in memory. It is
    copied together: behind it are batch norms, whose backward would else take 5 to 25 times
    as long (CPU).
    """
    for state in states:
        if state.requires_grad and not torch.compiler.is_compiling():
            state.register_hook(_together[state.is_contiguous(memory_format=torch.channels_last)])
    return torch.cat(list(states), dim=1)


_together = {
    True: partial(Tensor.contiguous, memory_format=torch.channels_last),
    False: Tensor.contiguous,
}
"""By whether the pixels' channels lie together: the same of a gradient."""
