"""Images before and after the found policy: drawn and saved by a run, shown in its report.

N images, M draws of the policy for each, C channels (1 or 3). All uint8.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from daas_dist.documents.files import Damaged, read
from daas_dist.documents.writing import write_bytes

FILE = "samples.pt"
KEYS = ("before", "after")
REMEDY = "remove it: the page is then written without pictures"
MOST = 1 << 26
"""Numbers: a file of a few bytes may stand for a picture of any size."""


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
        count = self.after_MNCHW.numel()
        if not 0 < count <= MOST:
            raise ValueError(f"samples: {count} numbers, expected 1 to {MOST}")
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
        path, written = run_dir / FILE, io.BytesIO()
        torch.save({"before": self.before_NCHW.clone(), "after": self.after_MNCHW.clone()}, written)
        write_bytes(path, written.getvalue())
        return path

    @staticmethod
    def load(run_dir: Path) -> "Samples | None":
        """The samples of a run; None where it saved none. Damaged if the file is not whole."""
        path = run_dir / FILE
        data = read(path, REMEDY)
        if data is None:
            return None
        try:
            saved = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        except Exception as error:  # zip files, pickles and tensors each have errors of their own
            raise Damaged(path, f"is damaged ({type(error).__name__})", REMEDY) from error
        before, after = (
            (saved.get(key) for key in KEYS) if isinstance(saved, dict) else (None, None)
        )
        if not isinstance(before, Tensor) or not isinstance(after, Tensor):
            raise Damaged(path, f"holds no tensors {' and '.join(KEYS)}", REMEDY)
        try:
            return Samples(before, after)
        except ValueError as error:
            raise Damaged(path, str(error), REMEDY) from error
