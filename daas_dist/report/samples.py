"""Images before and after the found policy: drawn and saved by a run, shown in its report.

N images, M draws of the policy for each, C channels (1 or 3). All uint8.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

FILE = "samples.pt"


@dataclass(frozen=True)
class Samples:
    before_NCHW: Tensor
    after_MNCHW: Tensor

    def __post_init__(self) -> None:
        for name, images, axes in (("before", self.before_NCHW, 4), ("after", self.after_MNCHW, 5)):
            if images.dtype != torch.uint8 or images.ndim != axes:
                raise ValueError(
                    f"samples: {name} should be uint8 with {axes} axes, "
                    f"got {images.dtype} {tuple(images.shape)}"
                )
        if self.before_NCHW.shape != self.after_MNCHW.shape[1:]:
            raise ValueError(
                f"samples: after {tuple(self.after_MNCHW.shape)} should be draws of "
                f"before {tuple(self.before_NCHW.shape)}"
            )
        if self.before_NCHW.shape[1] not in (1, 3):
            raise ValueError(
                f"samples: images of 1 or 3 channels can be shown, got {self.before_NCHW.shape[1]}"
            )

    @staticmethod
    def draw(
        images_NCHW: Tensor,
        augment: Callable[[Tensor, torch.Generator], Tensor],
        generator: torch.Generator,
        draws: int = 5,
    ) -> "Samples":
        """`draws` augmented versions of every image; `augment` is Policy.apply or the like."""
        after = [augment(images_NCHW, generator) for _ in range(draws)]
        return Samples(images_NCHW.cpu(), torch.stack(after).cpu())

    def save(self, run_dir: Path) -> Path:
        path = run_dir / FILE
        torch.save({"before": self.before_NCHW.clone(), "after": self.after_MNCHW.clone()}, path)
        return path

    @staticmethod
    def load(run_dir: Path) -> "Samples | None":
        """The samples of a run; None where it saved none."""
        path = run_dir / FILE
        if not path.exists():
            return None
        saved = torch.load(path, map_location="cpu", weights_only=True)
        return Samples(saved["before"], saved["after"])
