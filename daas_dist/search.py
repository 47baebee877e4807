"""The search: Algorithm 1 over real data. What it draws is a function of (seed, step) alone.

A step reads aloud in Search.step; everything that a later step needs is in SearchState.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from daas_dist import augment, policy
from daas_dist.config import Config
from daas_dist.daas import (
    Batch,
    Contribution,
    SampledArchitecture,
    Weights,
    architecture_surrogate,
    architecture_term,
    sample_architecture,
    search_term,
    weight_gradient,
    weight_term,
)
from daas_dist.data import Batches, Images
from daas_dist.estimators import ESTIMATORS, Evidence
from daas_dist.mesh import Mesh
from daas_dist.policy import Draws, Policy, PolicyLogits
from daas_dist.rng import stream
from daas_dist.space import (
    EDGES,
    INPUTS,
    KINDS,
    NODES,
    OPERATIONS,
    Genotype,
    derive,
    edges_into,
)

SMALL_START = 1e-3
"""α and β start at 1e-3 × a standard normal (peer: DARTS, PC-DARTS)."""


def cosine(start: float, end: float, progress: float) -> float:
    """Half a cosine from start (progress 0) to end (progress 1)."""
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def linear(start: float, end: float, progress: float) -> float:
    return start + (end - start) * progress


@dataclass(frozen=True)
class SearchData:
    """What a search reads: two splits in memory, how to normalise them, and (for a search of the
    architecture alone) the policy that it trains under; no policy leaves the images as they are."""

    train: Images
    val: Images
    mean: Sequence[float]
    std: Sequence[float]
    fixed_policy: Policy | None = None


@dataclass
class SearchState:
    """All that a step changes."""

    step: int
    network: nn.Module
    alpha: Tensor
    beta: Tensor
    gamma: PolicyLogits
    evidence: Evidence
    weight_optimiser: torch.optim.Optimizer
    architecture_optimiser: torch.optim.Optimizer
    policy_optimiser: torch.optim.Optimizer
    passes: float
    seconds: float
    interval: Tensor
    """Sums of the numbers logged since the last line of metrics, so that a resume loses none."""

    def save(self) -> dict[str, Any]:
        """Tensors, numbers and names only."""
        return {
            "step": self.step,
            "network": self.network.state_dict(),
            "alpha": self.alpha.detach(),
            "beta": self.beta.detach(),
            "gamma": [value.detach() for value in self.gamma.tensors()],
            "evidence": self.evidence.tensors(),
            "optimisers": [optimiser.state_dict() for optimiser in self._optimisers()],
            "passes": self.passes,
            "seconds": self.seconds,
            "interval": self.interval,
        }

    def load(self, saved: dict[str, Any]) -> None:
        self.step, self.passes, self.seconds = saved["step"], saved["passes"], saved["seconds"]
        self.network.load_state_dict(saved["network"])
        with torch.no_grad():
            own = [self.alpha, self.beta, *self.gamma.tensors()]
            for value, stored in zip(
                own, [saved["alpha"], saved["beta"], *saved["gamma"]], strict=True
            ):
                value.copy_(stored)
        self.evidence = Evidence.from_tensors(saved["evidence"])
        for optimiser, stored in zip(self._optimisers(), saved["optimisers"], strict=True):
            optimiser.load_state_dict(stored)
        self.interval = saved["interval"]

    def _optimisers(self) -> list[torch.optim.Optimizer]:
        return [self.weight_optimiser, self.architecture_optimiser, self.policy_optimiser]


INTERVAL = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "reward_mean", "reward_std")


class Search:
    """The search of one configuration on one data set, on one rank of a mesh."""

    def __init__(
        self, config: Config, data: SearchData, network: nn.Module, mesh: Mesh, device: torch.device
    ) -> None:
        """network: a Supernet, or a FixedNetwork when only the policy is searched."""
        self.config, self.data, self.mesh, self.device = config, data, mesh, device
        settings = config.search
        self.estimator = ESTIMATORS[settings.estimator]
        self.train_batches = Batches(len(data.train), settings.batch_size, config.seed, "train")
        self.val_batches = Batches(len(data.val), settings.batch_size, config.seed, "val")
        self.epochs = settings.warmup_epochs + settings.joint_epochs
        self.steps = self.epochs * self.train_batches.steps_per_epoch
        self.state = self._initial_state(network)
        self.theta: Weights = dict(self.state.network.named_parameters())

    def _initial_state(self, network: nn.Module) -> SearchState:
        settings, config = self.config.search, self.config
        network = network.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        start = stream(config.seed, "initial")
        alpha = SMALL_START * torch.randn(len(KINDS), len(EDGES), len(OPERATIONS), generator=start)
        beta = SMALL_START * torch.randn(len(KINDS), len(EDGES), generator=start)
        alpha.requires_grad_()
        beta.requires_grad_()
        gamma = PolicyLogits.initial(config.policy.slots, config.policy.parameters)
        weights, architecture, searched = (
            settings.weights,
            settings.architecture,
            settings.policy_optimizer,
        )
        return SearchState(
            step=0,
            network=network,
            alpha=alpha,
            beta=beta,
            gamma=gamma,
            evidence=Evidence.empty(config.policy.slots),
            weight_optimiser=torch.optim.SGD(
                network.parameters(),
                lr=weights.learning_rate,
                momentum=weights.momentum,
                weight_decay=weights.weight_decay,
            ),
            architecture_optimiser=_adam([alpha, beta], architecture),
            policy_optimiser=_adam(gamma.tensors(), searched),
            passes=0.0,
            seconds=0.0,
            interval=torch.zeros(len(INTERVAL) + 1, dtype=torch.float64),
        )

    # --- Where the search stands -----------------------------------------------------------------

    @property
    def epoch(self) -> int:
        return self.train_batches.epoch(self.state.step)

    @property
    def warming_up(self) -> bool:
        return self.epoch < self.config.search.warmup_epochs

    @property
    def searches_policy(self) -> bool:
        return self.config.search.target != "architecture" and not self.warming_up

    @property
    def searches_architecture(self) -> bool:
        return self.config.search.target != "policy"

    @property
    def _progress(self) -> float:
        """0 in the first epoch, 1 in the last: schedules move once an epoch (peer: DARTS, GDAS)."""
        return min(1.0, self.epoch / max(1, self.epochs - 1))

    @property
    def tau(self) -> float:
        return linear(self.config.search.tau.start, self.config.search.tau.end, self._progress)

    @property
    def learning_rate(self) -> float:
        weights = self.config.search.weights
        return cosine(
            weights.learning_rate, weights.learning_rate_end, min(1.0, self.epoch / self.epochs)
        )

    # --- Algorithm 1 -----------------------------------------------------------------------------

    def step(self) -> None:
        """One step of Algorithm 1: α, β by Eq. (9) and γ by Eq. (13), then θ by Eq. (14)."""
        settings, step = self.config.search, self.state.step
        train = self._batch(self.data.train, self.train_batches, "train")
        val = self._batch(self.data.val, self.val_batches, "val")
        val = Batch(self._to_network(val.images), val.labels)

        sampled_I = self._sample_architectures("arch", settings.architectures)
        if self.searches_policy:
            terms, theta_grads = self._search_terms(sampled_I, train, val)
        else:
            terms, theta_grads = self._architecture_terms(sampled_I, val), []
        self._check_finite(terms)
        if self.searches_architecture:
            self._update_architecture(sampled_I, terms)
        if self.searches_policy:
            self._update_policy(terms)

        if not theta_grads:
            weight_terms, theta_grads = self._weight_terms(train)
            self._check_finite(weight_terms)
            self._note(terms, weight_terms)
        else:
            self._note(terms, terms)
        self._update_weights(theta_grads)
        self.state.step = step + 1

    def _search_terms(
        self, sampled_I: Sequence[SampledArchitecture | None], train: Batch, val: Batch
    ) -> tuple[list[Contribution], list[Weights]]:
        """Eq. (9)'s and (13)'s part of every architecture; θ gradients too if they are reused."""
        settings = self.config.search
        xi = self.learning_rate if settings.xi is None else settings.xi

        def term(i: int) -> Contribution:
            z = _genotype(sampled_I[i])
            return search_term(
                self._forward,
                self._active(z),
                z,
                self._views(train, i),
                val,
                xi,
                per_image=self.estimator.per_image,
                at_theta=settings.architecture_gradient_at == "theta",
            )

        passes = (1 + 0.8 if self.estimator.per_image else settings.policies_per_architecture) + 1
        self.state.passes += len(sampled_I) * (
            passes + (settings.architecture_gradient_at == "theta")
        )
        reused = (
            (lambda i: self._active_names(_genotype(sampled_I[i])))
            if settings.reuse_gradients
            else None
        )
        return self.mesh.deal(len(sampled_I), term, self.theta, reused)

    def _architecture_terms(
        self, sampled_I: Sequence[SampledArchitecture | None], val: Batch
    ) -> list[Contribution]:
        if not self.searches_architecture:
            return []

        def term(i: int) -> Contribution:
            z = _genotype(sampled_I[i])
            return architecture_term(self._forward, self._active(z), z, val)

        self.state.passes += len(sampled_I)
        return self.mesh.deal(len(sampled_I), term, self.theta, None)[0]

    def _weight_terms(self, train: Batch) -> tuple[list[Contribution], list[Weights]]:
        """Eq. (14)'s gradients: one augmented batch, n_w fresh architectures."""
        count = self.config.search.weight_architectures
        sampled_I = self._sample_architectures("weights-arch", count)
        images = train.images
        if self.config.search.target != "architecture" or self.data.fixed_policy is not None:
            draws = self._draws("weights-policy", 0, self._draw_count)
            images = self._augment(images, draws, "weights", 0)
        batch = Batch(self._to_network(images), train.labels)

        def term(i: int) -> Contribution:
            z = _genotype(sampled_I[i])
            return weight_term(self._forward, self._active(z), z, batch)

        self.state.passes += count
        return self.mesh.deal(
            count, term, self.theta, lambda i: self._active_names(_genotype(sampled_I[i]))
        )

    def _update_architecture(
        self, sampled_I: Sequence[SampledArchitecture | None], terms: Sequence[Contribution]
    ) -> None:
        z_grad_ICS = torch.stack([term.z_grad_CS for term in terms])
        surrogate = architecture_surrogate([z for z in sampled_I if z is not None], z_grad_ICS)
        _descend(self.state.architecture_optimiser, surrogate)

    def _update_policy(self, terms: Sequence[Contribution]) -> None:
        reward_IJ = torch.stack([term.reward_J for term in terms])
        parts = [self._draws("policy", i, reward_IJ.shape[1]) for i in range(len(terms))]
        draws = Draws(*(torch.cat(part) for part in zip(*parts, strict=True)))
        if self.config.search.permute_rewards:
            order = torch.randperm(
                reward_IJ.numel(), generator=stream(self.config.seed, "null", self.state.step)
            )
            reward_IJ = reward_IJ.flatten()[order].view_as(reward_IJ)
        decay = self.config.search.evidence.decay
        self.state.evidence = self.state.evidence.add(draws, reward_IJ.flatten(), decay)
        surrogate = self.estimator.surrogate(
            self.state.gamma, draws, reward_IJ, self.state.evidence
        )
        _descend(self.state.policy_optimiser, surrogate)

    def _update_weights(self, theta_grads: Sequence[Weights]) -> None:
        """Inactive weights get no step, no momentum and no decay."""
        settings = self.config.search
        total = weight_gradient(theta_grads, mean=settings.weight_gradient == "mean")
        for name, parameter in self.theta.items():
            parameter.grad = total.get(name)
        active = [self.theta[name] for name in total]
        nn.utils.clip_grad_norm_(active, settings.weights.clip, foreach=True)
        for group in self.state.weight_optimiser.param_groups:
            group["lr"] = self.learning_rate
        self.state.weight_optimiser.step()
        self.state.weight_optimiser.zero_grad()

    # --- Draws, each with its address ------------------------------------------------------------

    def _sample_architectures(self, purpose: str, count: int) -> list[SampledArchitecture | None]:
        if not self.searches_architecture:
            return [None] * count
        alpha, beta, tau, step = self.state.alpha, self.state.beta, self.tau, self.state.step
        return [
            sample_architecture(alpha, beta, tau, stream(self.config.seed, purpose, step, i))
            for i in range(count)
        ]

    @property
    def _draw_count(self) -> int:
        """How many Γ a batch gets: one for each image, or one for all (the paper)."""
        return self.config.search.batch_size if self.estimator.per_image else 1

    def _draws(self, purpose: str, index: int, count: int) -> Draws:
        generator = stream(self.config.seed, purpose, self.state.step, index)
        if self.data.fixed_policy is not None:
            return self.data.fixed_policy.draw(count, generator)
        return self.state.gamma.sample(count, generator)

    def _views(self, train: Batch, i: int) -> list[Batch]:
        """The training batch under each Γ^(i,j); or one view whose images drew a Γ each."""
        settings = self.config.search
        if self.estimator.per_image:
            draws_J = [self._draws("policy", i, settings.batch_size)]
        else:
            drawn = self._draws("policy", i, settings.policies_per_architecture)
            draws_J = [Draws(*(part[j : j + 1] for part in drawn)) for j in range(len(drawn[0]))]
        return [
            Batch(
                self._to_network(self._augment(train.images, draws, f"policy-{i}", j)), train.labels
            )
            for j, draws in enumerate(draws_J)
        ]

    def _augment(self, images_u8: Tensor, draws: Draws, purpose: str, index: int) -> Tensor:
        if len(draws.operation_NK) == 1:
            draws = policy.repeat(draws, len(images_u8))
        generator = stream(self.config.seed, "augment", purpose, self.state.step, index)
        return policy.apply(images_u8, draws, generator, self.config.policy.ranges)

    def _batch(self, images: Any, batches: Batches, purpose: str) -> Batch:
        """uint8 images after crop and flip, and labels."""
        index = batches.indices(self.state.step)
        generator = stream(self.config.seed, "crop", purpose, self.state.step)
        cropped = augment.crop_flip(
            images.images[index], self.config.data.crop_padding, self.config.data.flip, generator
        )
        return Batch(cropped, images.labels[index].to(self.device))

    def _to_network(self, images_u8: Tensor) -> Tensor:
        images = augment.normalise(images_u8.to(self.device), self.data.mean, self.data.std)
        return images.contiguous(memory_format=torch.channels_last)

    # --- The network -----------------------------------------------------------------------------

    def _forward(
        self, theta: Weights, z: Genotype | None, images: Tensor, gates: Tensor | None
    ) -> Tensor:
        return torch.func.functional_call(self.state.network, theta, (images, z, gates))

    def _active_names(self, z: Genotype | None) -> list[str]:
        return self.state.network.active(z)  # type: ignore[operator]

    def _active(self, z: Genotype | None) -> Weights:
        return {name: self.theta[name] for name in self._active_names(z)}

    # --- What is told ----------------------------------------------------------------------------

    def _check_finite(self, terms: Sequence[Contribution]) -> None:
        """Every rank sees the same numbers, so all stop at the same place, before any update."""
        for i, term in enumerate(terms):
            if not bool(term.reward_J.isfinite().all() and term.z_grad_CS.isfinite().all()):
                raise FloatingPointError(
                    f"step {self.state.step}: the search term of architecture {i} is not finite; "
                    "lower search.weights.learning_rate, or search.xi if it was set"
                )
            for numbers in (term.train_loss_accuracy, term.val_loss_accuracy):
                if bool(numbers.isinf().any()) or bool(numbers[0].isnan() != numbers[1].isnan()):
                    raise FloatingPointError(
                        f"step {self.state.step}: the loss of architecture {i} is not finite; lower "
                        "search.weights.learning_rate or search.weights.clip"
                    )

    def _note(self, terms: Sequence[Contribution], weight_terms: Sequence[Contribution]) -> None:
        nothing = torch.full((2,), torch.nan)
        train = torch.stack([t.train_loss_accuracy for t in weight_terms]).mean(0)
        val = torch.stack([t.val_loss_accuracy for t in terms]).mean(0) if terms else nothing
        rewards = torch.cat([t.reward_J for t in terms]) if terms else torch.zeros(0)
        spread = (
            torch.stack([rewards.mean(), rewards.std(correction=0)]) if len(rewards) else nothing
        )
        row = torch.cat([train, val, spread, torch.ones(1)]).double()
        self.state.interval = self.state.interval + row.nan_to_num()

    def metrics(self, images_per_second: float) -> dict[str, Any]:
        """One line of metrics.jsonl, the means since the last line; starts the next interval."""
        state = self.state
        means = state.interval[:-1] / state.interval[-1]
        numbers = dict(zip(INTERVAL, means.tolist(), strict=True))
        state.interval = torch.zeros_like(state.interval)
        if not self.searches_policy:
            numbers["reward_mean"] = numbers["reward_std"] = None
        with torch.no_grad():
            share = self._operation_share() if self.searches_architecture else None
            gamma = state.gamma.entropy()
            entropy = {
                "alpha": _mean_entropy(state.alpha) if share else None,
                "beta": _edge_entropy(state.beta) if share else None,
                "pi": float(gamma["operation"]),
                "application": float(gamma["application"]),
                "magnitude": float(gamma["magnitude"]),
            }
        genotype, found = self.genotype(), self.policy()
        step = state.step - 1  # the step that was just taken
        return {
            "step": state.step,
            "epoch": self.train_batches.epoch(step),
            "steps": self.steps,
            "epochs": self.epochs,
            "phase": "warmup"
            if self.train_batches.epoch(step) < self.config.search.warmup_epochs
            else "joint",
            "time": time.time(),
            "images_per_second": images_per_second,
            "tau": self.tau,
            "learning_rate": self.learning_rate,
            **numbers,
            "entropy": entropy,
            "operation_share": share,
            "skip_share": {kind: ops["skip_connect"] for kind, ops in share.items()}
            if share
            else None,
            "policy_weight": dict(found.ranking()) if found else None,
            "genotype": genotype.to_json() if genotype else None,
        }

    def _operation_share(self) -> dict[str, dict[str, float]]:
        """Expected share of each operation over the edges that β would keep on average."""
        shares = {}
        for kind, alpha_EO, beta_E in zip(KINDS, self.state.alpha, self.state.beta, strict=True):
            weight_E = _edge_probability(beta_E)
            share_O = (weight_E.unsqueeze(-1) * alpha_EO.softmax(-1)).sum(0) / weight_E.sum()
            shares[kind] = dict(zip(OPERATIONS, share_O.tolist(), strict=True))
        return shares

    def result(self) -> dict[str, Any]:
        """The search's part of result.json."""
        state = self.state
        genotype, found = self.genotype(), self.policy()
        searched = self.config.search.target != "architecture"
        with torch.no_grad():
            edges = torch.stack([_edge_probability(beta_E) for beta_E in state.beta])
            operations = state.alpha.softmax(-1)
        return {
            "schema": 1,
            "kind": "search",
            "genotype": genotype.to_json() if genotype else None,
            "policy": found.to_json() if found else None,
            "evidence": _evidence_json(state.evidence) if searched else None,
            "alpha": operations.tolist() if self.searches_architecture else None,
            "beta": edges.tolist() if self.searches_architecture else None,
            "telemetry": {"steps": state.step, "passes": state.passes, "seconds": state.seconds},
        }

    def genotype(self) -> Genotype | None:
        return (
            derive(self.state.alpha.detach(), self.state.beta.detach())
            if self.searches_architecture
            else None
        )

    def policy(self) -> Policy | None:
        if self.config.search.target == "architecture":
            return self.data.fixed_policy
        return self.state.gamma.derive(self.config.policy.ranges)


def _genotype(z: SampledArchitecture | None) -> Genotype | None:
    return None if z is None else z.genotype


def _adam(parameters: list[Tensor], settings: Any) -> torch.optim.Adam:
    return torch.optim.Adam(
        parameters,
        lr=settings.learning_rate,
        betas=tuple(settings.betas),
        weight_decay=settings.weight_decay,
    )


def _descend(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


def _edge_probability(beta_E: Tensor) -> Tensor:
    """softmax over the edges into each node."""
    return torch.cat([beta_E[edges_into(j)].softmax(-1) for j in range(INPUTS, INPUTS + NODES)])


def _mean_entropy(logits: Tensor) -> float:
    return float(-(logits.softmax(-1) * logits.log_softmax(-1)).sum(-1).mean())


def _edge_entropy(beta_CE: Tensor) -> float:
    nodes = range(INPUTS, INPUTS + NODES)
    return sum(_mean_entropy(beta_CE[:, edges_into(j)]) for j in nodes) / NODES


def _evidence_json(evidence: Evidence) -> dict[str, Any]:
    """Mean advantage and standard error, null where a choice was never drawn."""

    def finite(value: Tensor) -> Any:
        return (
            [finite(part) for part in value]
            if value.ndim
            else (float(value) if bool(value.isfinite()) else None)
        )

    tables = {
        "operation": evidence.operation(),
        "applied": evidence.applied(),
        "magnitude": evidence.magnitude(),
    }
    return {
        name: {"mean": finite(mean), "standard_error": finite(error)}
        for name, (mean, error) in tables.items()
    }
