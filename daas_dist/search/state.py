"""All that a step of the search changes, and how it starts, is saved and loaded."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from daas_dist.methods.interface import POLICY, Logits, Memory
from daas_dist.search.metrics import Interval


class WeightSettings(Protocol):
    learning_rate: float
    learning_rate_end: float
    momentum: float
    weight_decay: float
    clip: float


class AdamSettings(Protocol):
    learning_rate: float
    betas: list[float]
    weight_decay: float


class PolicySettings(AdamSettings, Protocol):
    @property
    def name(self) -> str: ...


class Settings(Protocol):
    """How what is searched moves: config/schema/search.py's Search."""

    @property
    def weights(self) -> WeightSettings: ...
    @property
    def architecture(self) -> AdamSettings: ...
    @property
    def policy_optimizer(self) -> PolicySettings: ...


@dataclass
class SearchState:
    """The logits live on the CPU, the network on the device."""

    step: int
    skips: int
    """How many steps in a row were left out, up to this one."""
    network: nn.Module
    logits: Logits
    memory: Memory
    """What the method remembers; replaced by a step, never changed."""
    optimisers: dict[str, torch.optim.Optimizer]
    """weights; and architecture, policy where there are logits of theirs."""
    price: float
    """Of what is limited, as budget.py has it; 0 without a limit."""
    passes: float
    seconds: float
    interval: Interval

    @staticmethod
    def initial(
        network: nn.Module, logits: Logits, memory: Memory, settings: Settings
    ) -> "SearchState":
        """Step 0. network: on its device already."""
        weights = settings.weights
        optimisers: dict[str, torch.optim.Optimizer] = {
            "weights": torch.optim.SGD(
                network.parameters(),
                lr=weights.learning_rate,
                momentum=weights.momentum,
                weight_decay=weights.weight_decay,
            )
        }
        for value in logits.values():
            value.requires_grad_()
        own = [value for name, value in logits.items() if not name.startswith(POLICY)]
        policy = [value for name, value in logits.items() if name.startswith(POLICY)]
        if own:
            optimisers["architecture"] = _adam(own, settings.architecture)
        if policy:
            optimisers["policy"] = _of_policy(policy, settings.policy_optimizer)
        return SearchState(
            step=0,
            skips=0,
            network=network,
            logits=logits,
            memory=memory,
            optimisers=optimisers,
            price=0.0,
            passes=0.0,
            seconds=0.0,
            interval=Interval.empty(),
        )

    def detached(self) -> Logits:
        """Return the logits without their gradients."""
        return {name: value.detach() for name, value in self.logits.items()}

    def save(self) -> dict[str, Any]:
        """Return it as tensors, numbers and names only."""
        return {
            "step": self.step,
            "skips": self.skips,
            "network": self.network.state_dict(),
            "logits": self.detached(),
            "memory": self.memory,
            "optimisers": {name: each.state_dict() for name, each in self.optimisers.items()},
            "price": self.price,
            "passes": self.passes,
            "seconds": self.seconds,
            "interval": self.interval.sums,
        }

    def keep(self) -> Callable[[], None]:
        """Copy what a step changes before it changes θ; returns what puts it back, bit for bit.

        θ and its optimiser are not among it: they change last, when all of a step is known to be
        finite.
        """
        values = {name: value.detach().clone() for name, value in self.logits.items()}
        states = {
            name: copy.deepcopy(optimiser.state_dict())
            for name, optimiser in self.optimisers.items()
            if name != "weights"
        }
        memory, price = self.memory, self.price

        def put_back() -> None:
            _copy(values, self.logits)
            for name, there in states.items():
                self.optimisers[name].load_state_dict(there)
            self.memory, self.price = memory, price

        return put_back

    def load(self, saved: dict[str, Any]) -> None:
        self.step, self.skips = saved["step"], saved["skips"]
        self.price, self.passes = saved["price"], saved["passes"]
        self.seconds = saved["seconds"]
        self.network.load_state_dict(saved["network"])
        _copy(saved["logits"], self.logits)
        self.memory = saved["memory"]
        for name, optimiser in self.optimisers.items():
            optimiser.load_state_dict(saved["optimisers"][name])
        self.interval = Interval(saved["interval"])


@torch.no_grad()
def _copy(values: Logits, into: Logits) -> None:
    for name, value in into.items():
        value.copy_(values[name])


def _of_policy(logits: list[Tensor], settings: PolicySettings) -> torch.optim.Optimizer:
    if settings.name == "adam":
        return _adam(logits, settings)
    return torch.optim.SGD(logits, lr=settings.learning_rate, weight_decay=settings.weight_decay)


def _adam(logits: list[Tensor], settings: AdamSettings) -> torch.optim.Adam:
    first, second = settings.betas
    return torch.optim.Adam(
        logits,
        lr=settings.learning_rate,
        betas=(first, second),
        weight_decay=settings.weight_decay,
    )
