"""A found policy as an ordinary torchvision v2 transform, for any Dataset and DataLoader."""

from typing import Any

import torch
from PIL.Image import Image as PILImage
from torch import Tensor
from torch.utils.data import get_worker_info
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from daas_dist.rng import stream
from daas_dist.spaces.policy import Policy

EXPECTED = "expected a PIL image of mode L or RGB, or a uint8 tensor [C, H, W] or [N, C, H, W]"


class PolicyTransform(v2.Transform):
    """Draws a policy for every image, and applies it before the image is made float.

    Takes PIL images (L, RGB), uint8 tensors and tv_tensors.Image, C = 1 or 3, alone or in a sample
    with labels, which pass through; several images in one sample get the same policy, as in other
    v2 transforms. TypeError for boxes, masks, key points and videos, which a policy does not move.

    Draws come from `generator` (on the CPU), or, without one, from torch's own. In a DataLoader's
    worker they depend on the worker's seed too: each worker has a copy of `generator`, and would
    otherwise draw what the others draw, every epoch again. Worker seeds come from the DataLoader's
    own `generator`: give it one to get the same images again.
    """

    def __init__(self, policy: Policy, generator: torch.Generator | None = None) -> None:
        if generator is not None and generator.device.type != "cpu":
            raise ValueError(f"the generator is on {generator.device}, expected one on the CPU")
        super().__init__()
        self.policy, self.generator = policy, generator

    def __getstate__(self) -> dict[str, Any]:
        # A Generator pickles its state as a tensor that lives no longer than the pickling, while
        # multiprocessing's spawn reads tensors out of shared memory later
        # (pytorch/pytorch#146828). An array goes by value.
        state = None if self.generator is None else self.generator.get_state().numpy()
        return {**self.__dict__, "generator": state}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if state["generator"] is not None:
            self.generator = torch.Generator()
            self.generator.set_state(torch.from_numpy(state["generator"]))

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """The address of a sample's draws, which is the same for all its images."""
        if not flat_inputs:
            raise TypeError(f"no image in the sample: {EXPECTED}")
        worker = get_worker_info()
        drawn = int(torch.randint(2**62, (), generator=self.generator))
        return {"address": (drawn, 0 if worker is None else worker.seed)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if isinstance(inpt, PILImage):
            if inpt.mode not in ("L", "RGB"):
                raise ValueError(f"the image has the mode {inpt.mode}; {EXPECTED}")
            return tv.to_pil_image(self._augment(tv.pil_to_tensor(inpt), params))
        if isinstance(inpt, tv_tensors.TVTensor) and not isinstance(inpt, tv_tensors.Image):
            raise TypeError(f"{type(inpt).__name__} in the sample: {EXPECTED}")
        image = self._augment(inpt.as_subclass(Tensor), params)
        return tv_tensors.Image(image) if isinstance(inpt, tv_tensors.Image) else image

    def _augment(self, image: Tensor, params: dict[str, Any]) -> Tensor:
        if image.dtype != torch.uint8 or image.ndim not in (3, 4) or image.shape[-3] not in (1, 3):
            raise ValueError(
                f"the image is {image.dtype} {list(image.shape)}; {EXPECTED}, C = 1 or 3: "
                "put the policy before v2.ToDtype and v2.Normalize"
            )
        batch = image.reshape(-1, *image.shape[-3:])
        return self.policy.apply(batch, stream(*params["address"])).reshape(image.shape)
