"""All that a step of the search changes, and how it starts, is saved and loaded."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from daas_dist.config import schema
from daas_dist.methods.estimators import Evidence
from daas_dist.methods.per_image import RunningGradient
from daas_dist.rng import stream
from daas_dist.search.metrics import Interval
from daas_dist.spaces.cells import EDGES, KINDS, OPERATIONS
from daas_dist.spaces.policy import PolicyLogits

SMALL_START = 1e-3
"""α and β start at 1e-3 × a standard normal (peer: DARTS, PC-DARTS)."""


@dataclass
class SearchState:
    """Axes as in daas.py. α, β, γ and the evidence live on the CPU, the network on the device."""

    step: int
    skips: int
    """How many steps in a row were left out, up to this one."""
    network: nn.Module
    alpha: Tensor
    beta: Tensor
    gamma: PolicyLogits
    evidence: Evidence
    val_grad: RunningGradient
    weight_optimiser: torch.optim.Optimizer
    architecture_optimiser: torch.optim.Optimizer
    policy_optimiser: torch.optim.Optimizer
    price: float
    """Of what is limited, as budget.py has it; 0 without a limit."""
    passes: float
    seconds: float
    interval: Interval

    @staticmethod
    def initial(network: nn.Module, config: schema.Config) -> "SearchState":
        """Step 0. network: on its device already."""
        settings, start = config.search, stream(config.seed, "initial")
        alpha = SMALL_START * torch.randn(len(KINDS), len(EDGES), len(OPERATIONS), generator=start)
        beta = SMALL_START * torch.randn(len(KINDS), len(EDGES), generator=start)
        alpha.requires_grad_()
        beta.requires_grad_()
        gamma = PolicyLogits.initial(config.policy.slots, config.policy.parameters)
        weights, policy = settings.weights, settings.policy_optimizer
        return SearchState(
            step=0,
            skips=0,
            network=network,
            alpha=alpha,
            beta=beta,
            gamma=gamma,
            evidence=Evidence.empty(config.policy.slots),
            val_grad=RunningGradient.empty(),
            weight_optimiser=torch.optim.SGD(
                network.parameters(),
                lr=weights.learning_rate,
                momentum=weights.momentum,
                weight_decay=weights.weight_decay,
            ),
            architecture_optimiser=_adam([alpha, beta], settings.architecture),
            policy_optimiser=_adam(gamma.tensors(), policy)
            if policy.name == "adam"
            else torch.optim.SGD(
                gamma.tensors(), lr=policy.learning_rate, weight_decay=policy.weight_decay
            ),
            price=0.0,
            passes=0.0,
            seconds=0.0,
            interval=Interval.empty(),
        )

    def save(self) -> dict[str, Any]:
        """Tensors, numbers and names only."""
        return {
            "step": self.step,
            "skips": self.skips,
            "network": self.network.state_dict(),
            "alpha": self.alpha.detach(),
            "beta": self.beta.detach(),
            "gamma": [value.detach() for value in self.gamma.tensors()],
            "evidence": self.evidence.tensors(),
            "val_grad": self.val_grad.save(),
            "optimisers": [optimiser.state_dict() for optimiser in self._optimisers()],
            "price": self.price,
            "passes": self.passes,
            "seconds": self.seconds,
            "interval": self.interval.sums,
        }

    def keep(self) -> Callable[[], None]:
        """Copy what the first half of a step changes; returns what puts it back, bit for bit.

        θ and its optimiser are not among it: they change last, when all of a step is known to be
        finite. Evidence and running gradients are replaced by a step, never changed.
        """
        learned = [self.alpha, self.beta, *self.gamma.tensors()]
        values = [value.detach().clone() for value in learned]
        optimisers = [self.architecture_optimiser, self.policy_optimiser]
        states = [copy.deepcopy(optimiser.state_dict()) for optimiser in optimisers]
        evidence, val_grad, price = self.evidence, self.val_grad, self.price

        def put_back() -> None:
            with torch.no_grad():
                for value, there in zip(learned, values, strict=True):
                    value.copy_(there)
            for optimiser, there in zip(optimisers, states, strict=True):
                optimiser.load_state_dict(there)
            self.evidence, self.val_grad, self.price = evidence, val_grad, price

        return put_back

    def load(self, saved: dict[str, Any]) -> None:
        self.step, self.skips = saved["step"], saved["skips"]
        self.price, self.passes = saved["price"], saved["passes"]
        self.seconds = saved["seconds"]
        self.network.load_state_dict(saved["network"])
        with torch.no_grad():
            own = [self.alpha, self.beta, *self.gamma.tensors()]
            stored = [saved["alpha"], saved["beta"], *saved["gamma"]]
            for value, there in zip(own, stored, strict=True):
                value.copy_(there)
        self.evidence = Evidence.from_tensors(saved["evidence"])
        device = next(self.network.parameters()).device
        self.val_grad = RunningGradient.load(saved["val_grad"], device)
        for optimiser, there in zip(self._optimisers(), saved["optimisers"], strict=True):
            optimiser.load_state_dict(there)
        self.interval = Interval(saved["interval"])

    def _optimisers(self) -> list[torch.optim.Optimizer]:
        return [self.weight_optimiser, self.architecture_optimiser, self.policy_optimiser]


def _adam(parameters: list[Tensor], settings: Any) -> torch.optim.Adam:
    return torch.optim.Adam(
        parameters,
        lr=settings.learning_rate,
        betas=tuple(settings.betas),
        weight_decay=settings.weight_decay,
    )
