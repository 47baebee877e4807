"""Rewards of policies that every image draws for itself. Not in the paper, whose batch has one Γ.

Axes: B images, each with its own Γ; P weights of the sampled path, flattened.
A reward is Eq. (13)'s bracket, for the loss of one image. All of a batch come from one forward-mode
pass. What they owe to the image and not to its Γ is taken off: it is known from a second such pass,
of the images under no policy, or from the rewards of the step's other architectures, which drew
policies of their own for the same images.
"""

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.functional import cross_entropy

from daas_dist.methods.attention import plain_attention
from daas_dist.methods.passes import Batch, Forward, Weights
from daas_dist.spaces.cells import Path


def per_image_rewards(
    forward: Forward,
    theta: Weights,
    z: Path,
    batch: Batch,
    val_grad: Weights,
    xi: float,
) -> Tensor:
    """ξ ⟨v, ∇_θ L_b⟩ of every image b, by one forward-mode pass along v. (B,)

    The mean over images of L_b is the batch's loss, so the mean of these rewards is Eq. (13)'s.
    """
    _load_forward_mode()
    with plain_attention(), forward_ad.dual_level():
        duals = {
            name: forward_ad.make_dual(value.detach(), val_grad[name])
            for name, value in theta.items()
        }
        logits = forward(duals, z, batch.images, None)
        loss_B = cross_entropy(logits, batch.labels, reduction="none")
        slope_B = forward_ad.unpack_dual(loss_B).tangent
        assert slope_B is not None  # the loss depends on theta
    return xi * slope_B


@cache
def _load_forward_mode() -> None:
    """torch's first dual number imports code that warns of its own deprecated parts (2.14)."""
    with warnings.catch_warnings(), forward_ad.dual_level():
        warnings.simplefilter("ignore", FutureWarning)
        forward_ad.make_dual(torch.zeros(1), torch.zeros(1))


def control_variate(reward_B: Tensor, control_B: Tensor) -> Tensor:
    """Each reward minus what its image would have earned anyway.

    r - β (c - mean c), β their least-squares slope. c knows nothing of Γ: the expectation stays.
    """
    centred_B = control_B - control_B.mean()
    slope = (reward_B * centred_B).sum() / centred_B.square().sum().clamp_min(1e-30)
    return reward_B - slope * centred_B


def control_by_others(reward_IB: Tensor) -> Tensor:
    """Control variates without a pass: the mean of each image's other rewards, of other policies
    and with other architectures.

    Theirs were drawn independently of this one's Γ. I is at least 2. (I, B)
    """
    others_IB = (reward_IB.sum(0) - reward_IB) / (len(reward_IB) - 1)
    return torch.stack(list(map(control_variate, reward_IB, others_IB)))


@dataclass(frozen=True)
class Past:
    """The gradients of one weight so far: their decayed sum and count, and when the last came."""

    total: Tensor
    count: float
    time: int


@dataclass(frozen=True)
class RunningGradient:
    """A decayed mean of gradients by θ, of which a sampled path knows some only.

    The past of a weight fades with every gradient that is added, whether the weight was in it or
    not: one that is seldom active is not led by what its gradient was long ago.
    """

    past: dict[str, Past]
    time: int

    @staticmethod
    def empty() -> "RunningGradient":
        return RunningGradient({}, 0)

    def add(self, gradient: Weights, decay: float) -> "RunningGradient":
        time, past = self.time + 1, dict(self.past)
        for name, value in gradient.items():
            last = past.get(name)
            if last is None:
                past[name] = Past(value, 1.0, time)
            else:
                fade = decay ** (time - last.time)
                past[name] = Past(fade * last.total + value, fade * last.count + 1.0, time)
        return RunningGradient(past, time)

    def mean(self, names: Iterable[str]) -> Weights:
        return {name: self.past[name].total / self.past[name].count for name in names}

    def save(self) -> list[Any]:
        """Tensors, numbers and names only."""
        return [self.time, {name: [p.total, p.count, p.time] for name, p in self.past.items()}]

    @staticmethod
    def load(saved: list[Any], device: torch.device) -> "RunningGradient":
        time, past = saved
        return RunningGradient(
            {name: Past(total.to(device), *rest) for name, (total, *rest) in past.items()}, time
        )


class PerImage(NamedTuple):
    """What a batch's per-image rewards take beside it."""

    plain: Batch | None
    """The batch before any policy, if its rewards are the control; without it rewards are raw."""
    val_grad: RunningGradient
    """The validation gradients so far."""
    decay: float
    gather: Callable[[Tensor], Tensor]
    """The rewards of all images, where this rank has a part of them; of all, themselves."""

    def rewards(
        self,
        forward: Forward,
        theta: Weights,
        z: Path,
        train_J: Sequence[Batch],
        val_grad: Weights,
        xi: float,
    ) -> Tensor:
        """Along the mean of validation gradients, this step's among them. (J * B,)"""
        along = self.val_grad.add(val_grad, self.decay).mean(val_grad)

        def of(batch: Batch) -> Tensor:
            return self.gather(per_image_rewards(forward, theta, z, batch, along, xi))

        reward_JB = list(map(of, train_J))
        if self.plain is not None:
            control_B = of(self.plain)
            reward_JB = [control_variate(reward_B, control_B) for reward_B in reward_JB]
        return torch.cat(reward_JB)
