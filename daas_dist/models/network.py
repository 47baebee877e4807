"""The network that a genotype stands for, trained from scratch (peer: DARTS, cnn/model.py)."""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from daas_dist.models import ops
from daas_dist.models.noise import Noisy
from daas_dist.spaces.cells import PAIRS, Genotype, Pair, edge_indices


class DerivedCell(nn.Module):
    """A cell with the genotype's eight operations only; edges.k is the k-th pair's."""

    def __init__(
        self, plan: ops.CellPlan, pairs: tuple[Pair, ...], concat: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.kind, self.sources = plan.kind, edge_indices(pairs)
        self.concat = concat
        self.before, self.last = ops.preprocessings(plan, affine=True, running=True)
        self.edges = nn.ModuleList(
            ops.build(
                name,
                plan.channels,
                ops.edge_stride(plan.kind, source),
                affine=True,
                running=True,
                pool_norm=False,
            )
            for name, source in pairs
        )
        self.droppable = tuple(not isinstance(edge, nn.Identity) for edge in self.edges)

    def forward(self, before: Tensor, last: Tensor, keep_PB: Tensor | None) -> Tensor:
        """before, last: rectified. keep_PB: what drop-path multiplies each edge's result by, per
        image; None = nothing."""

        def weigh(k: int, result: Tensor) -> Tensor:
            if keep_PB is None or not self.droppable[k]:
                return result
            return result * keep_PB[k, :, None, None, None].to(result.dtype)

        before, last = self.before(before), self.last(last)
        operations = list(self.edges)
        states = ops.run_nodes(before, last, self.sources, operations, weigh, self.kind)
        return ops.concatenate([states[node] for node in self.concat])


@dataclass(frozen=True)
class AuxiliaryStyle:
    """How the two auxiliary towers of DARTS differ."""

    pool_stride: int
    second_norm: bool


AUXILIARY_STYLES = {
    "cifar": AuxiliaryStyle(pool_stride=3, second_norm=True),
    # DARTS left the second norm out of the ImageNet tower by mistake and kept it that way, since
    # its published numbers were made so.
    "imagenet": AuxiliaryStyle(pool_stride=2, second_norm=False),
}


class AuxiliaryTower(nn.Module):
    """Logits from the feature map at two thirds of the depth.

    Where DARTS' pool (5×5, stride 3 or 2) makes 2×2 of the map, it is used: sides 8 to 10 on CIFAR
    (DARTS' 8), 7 and 8 on ImageNet (DARTS' 7). Any other map is averaged over its four quarters
    (ours), which overlap by one row or column at odd sides: 7×7 at 28×28 images.
    """

    def __init__(self, channels: int, classes: int, style: AuxiliaryStyle) -> None:
        super().__init__()
        self.pool_stride = style.pool_stride
        self.conv_1 = nn.Conv2d(channels, 128, 1, bias=False)
        self.norm_1 = nn.BatchNorm2d(128)
        self.conv_2 = nn.Conv2d(128, 768, 2, bias=False)
        self.norm_2 = nn.BatchNorm2d(768) if style.second_norm else nn.Identity()
        self.classifier = nn.Linear(768, classes)

    def forward(self, features: Tensor) -> Tensor:
        """features: rectified."""
        pooled = F.relu(self.norm_1(self.conv_1(self._pool(features))))
        return self.classifier(F.relu(self.norm_2(self.conv_2(pooled))).mean((-2, -1)))

    def _pool(self, features: Tensor) -> Tensor:
        sides = features.shape[-2:]
        if min(sides) < 2:
            raise ValueError(
                f"auxiliary tower: its feature map is {sides[0]}x{sides[1]}, expected at least "
                "2x2; raise data.size, or set train.auxiliary_weight=0"
            )
        if all((side - 5) // self.pool_stride + 1 == 2 for side in sides):
            return F.avg_pool2d(features, 5, self.pool_stride)
        # The same as adaptive_avg_pool2d(features, 2), whose CUDA backward is not deterministic.
        return F.avg_pool2d(features, [(side + 1) // 2 for side in sides], [s // 2 for s in sides])


class Network(Noisy):
    """A genotype as a classifier: affine norms with running statistics, drop-path, auxiliary tower.

    DARTS' sizes: 36 channels, 20 cells on CIFAR; 48 channels, 14 cells, stem="imagenet" on
    ImageNet. Drop-path is none until set_noise gives it a share and a generator.
    """

    def __init__(
        self,
        genotype: Genotype,
        channels: int = 36,
        cells: int = 20,
        classes: int = 10,
        in_channels: int = 3,
        stem: str = "cifar",
        auxiliary: bool = False,
    ) -> None:
        super().__init__()
        self.stem = ops.build_stem(stem, in_channels, channels, running=True)
        plans = list(ops.plan_cells(cells, channels, self.stem, multiplier=len(genotype.concat)))
        self.cells = nn.ModuleList(
            DerivedCell(plan, genotype.cell(plan.kind), genotype.concat) for plan in plans
        )
        widths = [len(genotype.concat) * plan.channels for plan in plans]
        self.classifier = nn.Linear(widths[-1], classes)
        self.auxiliary_at = 2 * cells // 3
        self.auxiliary = (
            AuxiliaryTower(widths[self.auxiliary_at], classes, AUXILIARY_STYLES[stem])
            if auxiliary
            else None
        )

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """[B, in_channels, H, W] to logits [B, classes]; with the auxiliary tower and in training
        to (logits, auxiliary logits)."""
        before, last = self.stem(images)
        features = last
        keep_LPB = self._draw_keep(images)
        auxiliary_logits = None
        for index, cell in enumerate(self.cells):
            features = cell(before, last, None if keep_LPB is None else keep_LPB[index])
            before, last = last, F.relu(features)
            if self.training and self.auxiliary is not None and index == self.auxiliary_at:
                auxiliary_logits = self.auxiliary(last)
        logits = self.classifier(features.mean((-2, -1)))
        return logits if auxiliary_logits is None else (logits, auxiliary_logits)

    def _draw_keep(self, images: Tensor) -> Tensor | None:
        """[cells, 8, B]: 0 with the drop probability, else 1 / (1 - probability), so that the
        expectation is 1. One draw and one copy to the device a forward."""
        drop = self.noise.drop_path
        if not self.training or drop == 0.0:
            return None
        uniform_LPB = self.noise.uniform((len(self.cells), PAIRS), images)
        return (uniform_LPB >= drop) / (1.0 - drop)
