"""The search: Algorithm 1 over real data. What it draws is a function of (seed, step) alone.

A step reads aloud in Search.step; everything that a later step needs is in SearchState.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from daas_dist.config import Config
from daas_dist.data import Read
from daas_dist.data.dataset import Source, open_feed
from daas_dist.distributed.deal import deal, total
from daas_dist.distributed.mesh import Mesh
from daas_dist.methods.daas import (
    Batch,
    Contribution,
    Forward,
    SampledArchitecture,
    Weights,
    architecture_surrogate,
    architecture_term,
    flat,
    functional,
    sample_architecture,
    search_term,
    unflat,
    weight_gradient,
    weight_term,
)
from daas_dist.methods.estimators import ESTIMATORS, normal_scores
from daas_dist.methods.finite import check_terms, check_weights
from daas_dist.methods.per_image import PerImage, control_by_others
from daas_dist.models.cost_table import Costs, Size, costs_of
from daas_dist.models.recorded import Recorded
from daas_dist.rng import stream
from daas_dist.schedules import cosine, linear
from daas_dist.search.budget import Budget
from daas_dist.search.state import SearchState
from daas_dist.spaces import operations as augment
from daas_dist.spaces import policy
from daas_dist.spaces.cells import Genotype, derive
from daas_dist.spaces.policy import Draws, Policy

JVP = 0.8
"""What a forward-mode pass counts for, in forward-backward passes. Measured on one CPU core: 0.6 to
1.0 of one (supernets of 4 to 16 channels and 3 cells, images of 14 and 28 pixels, batch 64); 0.8 to
1.2 of those with models/depthwise.py (8 cells of 16 channels, batch 16)."""


@dataclass(frozen=True)
class SearchData:
    """What a search reads: two splits, how to normalise them, and (for a search of the architecture
    alone) the policy that it trains under; no policy leaves the images as they are."""

    train: Source
    val: Source
    mean: Sequence[float]
    std: Sequence[float]
    fixed_policy: Policy | None = None


class Search:
    """The search of one configuration on one data set, on one rank of a mesh."""

    def __init__(
        self, config: Config, data: SearchData, network: nn.Module, mesh: Mesh, device: torch.device
    ) -> None:
        """network: a Supernet, or a FixedNetwork when only the policy is searched."""
        self.config, self.data, self.mesh, self.device = config, data, mesh, device
        settings = config.search
        self.estimator = ESTIMATORS[settings.estimator]
        self.epochs = settings.warmup_epochs + settings.joint_epochs
        self.feed = open_feed(
            config.data,
            {"train": data.train, "val": data.val},
            batch_size=settings.batch_size,
            seed=config.seed,
            epochs=self.epochs,
            part=mesh.part,
            device=device,
        )
        self.train_batches = self.feed.orders["train"].batches
        self.steps = self.epochs * self.train_batches.steps_per_epoch
        network = network.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.state = SearchState.initial(network, config)
        limited = settings.max_flops is not None or settings.max_parameters is not None
        self.budget = Budget.of(settings, self.costs) if limited else None
        self.theta: Weights = dict(self.state.network.named_parameters())
        self.forward: Forward = Recorded(network) if settings.cuda_graphs else functional(network)

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

    def step(self) -> str:
        """One step of Algorithm 1: α, β by Eq. (9) and γ by Eq. (13), then θ by Eq. (14).

        A number that is not finite is seen by all ranks before the update that it would enter:
        FloatingPointError, or the step is left out whole and why is returned (search.non_finite):
        α, β, γ and all that stands behind them are as they were before it.
        """
        skips = self.config.search.non_finite == "skip"
        put_back = self.state.keep() if skips else None
        try:
            self._step()
            self.state.skips = 0
            left_out = ""
        except FloatingPointError as error:
            settings = self.config.search
            if put_back is None or self.state.skips == settings.most_skips:
                raise
            put_back()
            self.state.skips += 1
            left_out = str(error)
        self.state.step += 1
        return left_out

    def _step(self) -> None:
        read = self.feed.batch(self.state.step)
        train, val = self._to_device(read["train"]), self._to_device(read["val"])
        val = Batch(self.to_network(val.images), val.labels)

        sampled_I = self.sample_architectures("arch", self.config.search.architectures)
        if self.searches_policy:
            terms = self._search_terms(sampled_I, train, val)
            self._remember(terms)
        else:
            terms = self._architecture_terms(sampled_I, val)
        if self.searches_architecture:
            self._update_architecture(sampled_I, terms)
        if self.searches_policy:
            self._update_policy(terms)

        if self._reuses_gradients:
            weight_terms, sampled_W = terms, sampled_I
        else:
            weight_terms, sampled_W = self._weight_terms(train)
        self._update_weights(sampled_W, weight_terms)
        self.state.interval = self.state.interval.add(terms, weight_terms)

    @property
    def _reuses_gradients(self) -> bool:
        """Tell whether the weight step takes Eq. (13)'s training gradients (not in the paper)."""
        return self.config.search.reuse_gradients and self.searches_policy

    def _search_terms(
        self, sampled_I: Sequence[SampledArchitecture | None], train: Batch, val: Batch
    ) -> list[Contribution]:
        """Eq. (9)'s and (13)'s part of every architecture."""
        settings, state = self.config.search, self.state
        xi = self.learning_rate if settings.xi is None else settings.xi
        at_theta = settings.architecture_gradient_at == "theta"
        plain = Batch(self.to_network(train.images), train.labels) if self._plain_control else None
        decay = settings.evidence.validation_decay
        per_image = PerImage(plain, state.val_grad, decay, self._gather)

        def term(i: int) -> Contribution:
            z, views = _genotype(sampled_I[i]), self._views(train, i)
            path = self.forward, self._active(z), z

            def reward(val_grad: Weights) -> Tensor:
                return per_image.rewards(*path, views, val_grad, xi)

            own = reward if self.estimator.per_image else None
            trained = views[:1] if self.estimator.per_image else views
            return search_term(
                *path, trained, val, xi, at_theta=at_theta, reward=own, mean=self._mean
            )

        gradients = ["theta_grad"] if self._reuses_gradients and self._exact else []
        if self.estimator.per_image:
            forward_mode = settings.policies_per_image + self._plain_control
            passes, gradients = 1 + forward_mode * JVP, [*gradients, "val_grad"]
        else:
            passes = settings.policies_per_architecture
        state.passes += len(sampled_I) * (passes + 1 + at_theta)
        return self._deal(sampled_I, term, gradients, rewards=self._policy_count)

    @property
    def _plain_control(self) -> bool:
        """Tell whether per-image rewards are compared with those of the images under no policy."""
        return self.estimator.per_image and self.config.search.evidence.control == "plain"

    def _remember(self, terms: Sequence[Contribution]) -> None:
        """The validation gradients that later per-image rewards are taken along."""
        if self.estimator.per_image:
            decay = self.config.search.evidence.validation_decay
            for term in terms:
                self.state.val_grad = self.state.val_grad.add(term.val_grad, decay)

    def _architecture_terms(
        self, sampled_I: Sequence[SampledArchitecture | None], val: Batch
    ) -> list[Contribution]:
        if not self.searches_architecture:
            return []

        def term(i: int) -> Contribution:
            z = _genotype(sampled_I[i])
            return architecture_term(self.forward, self._active(z), z, val, self._mean)

        self.state.passes += len(sampled_I)
        return self._deal(sampled_I, term, [])

    def _weight_terms(
        self, train: Batch
    ) -> tuple[list[Contribution], list[SampledArchitecture | None]]:
        """Eq. (14)'s gradients: one augmented batch, n_w fresh architectures."""
        count = self.config.search.weight_architectures if self.searches_architecture else 1
        sampled_I = self.sample_architectures("weights-arch", count)
        draws = self._draws("weights-policy", 0, self._draw_count) if self._augments else None
        batch = Batch(self.train_input(train.images, draws, "weights", 0), train.labels)

        def term(i: int) -> Contribution:
            z = _genotype(sampled_I[i])
            own = weight_term(self.forward, self._active(z), z, batch, self._mean)
            if not self._exact or self.mesh.data == 1:
                return own
            mean = unflat(self._mean(flat(own.theta_grad)), own.theta_grad)
            return replace(own, theta_grad=mean)

        self.state.passes += count
        gradients = ["theta_grad"] if self._exact else []
        return self._deal(sampled_I, term, gradients), sampled_I

    @property
    def _augments(self) -> bool:
        """Tell whether Eq. (14)'s batch is augmented by a policy, beyond crop, flip and cutout."""
        settings = self.config.search
        if settings.target == "architecture":
            return self.data.fixed_policy is not None
        # γ has not moved in the warm-up: every operation is as likely as any other.
        return not self.warming_up or settings.warmup_policy == "uniform"

    def _deal(
        self,
        sampled_I: Sequence[SampledArchitecture | None],
        term: Callable[[int], Contribution],
        gradients: Sequence[str],
        rewards: int = 0,
    ) -> list[Contribution]:
        """The term of every architecture, computed by whichever ranks it falls to."""
        paths = [_genotype(z) for z in sampled_I]
        costs: list[float] = [self.state.network.cost(z) for z in paths]  # type: ignore[operator]
        terms = deal(self.mesh, costs, term, rewards, gradients, lambda i: self._active(paths[i]))
        check_terms(self.state.step, terms, paths, self._policies_of)
        return terms

    @property
    def _policy_count(self) -> int:
        """Return how many rewards an architecture has: one a policy, of the batch or of each
        image."""
        settings = self.config.search
        if self.estimator.per_image:
            return settings.batch_size * settings.policies_per_image
        return settings.policies_per_architecture

    def _policies_of(self, i: int) -> Draws:
        """The policies behind the rewards of architecture i."""
        return self._draws("policy", i, self._policy_count)

    @property
    def _exact(self) -> bool:
        """Tell whether every rank sums Eq. (14)'s terms in their order, or the backend in its
        own."""
        return self.config.mesh.reduction == "exact"

    def _mean(self, own: Tensor) -> Tensor:
        return self.mesh.mean_data(own, "gradients and losses")

    def _gather(self, own: Tensor) -> Tensor:
        return self.mesh.gather_data(own, "rewards")

    def _update_architecture(
        self, sampled_I: Sequence[SampledArchitecture | None], terms: Sequence[Contribution]
    ) -> None:
        z_grad_ICS = torch.stack([term.z_grad_CS for term in terms])
        surrogate = architecture_surrogate([z for z in sampled_I if z is not None], z_grad_ICS)
        if self.budget is not None:
            state, epoch = self.state, self.train_batches.steps_per_epoch
            held = self.budget.penalty(state.price, state.alpha, state.beta, epoch)
            surrogate, state.price = surrogate + held[0], held[1]
        _descend(self.state.architecture_optimiser, surrogate)

    def _update_policy(self, terms: Sequence[Contribution]) -> None:
        settings, state = self.config.search, self.state
        reward_IJ = torch.stack([term.reward_J for term in terms])
        parts = [self._policies_of(i) for i in range(len(terms))]
        draws = Draws(*(torch.cat(part) for part in zip(*parts, strict=True)))
        if self.estimator.per_image and not self._plain_control:
            images = self.config.search.batch_size
            reward_IJ = control_by_others(reward_IJ.view(-1, images)).view_as(reward_IJ)
        if settings.permute_rewards:
            order = torch.randperm(
                reward_IJ.numel(), generator=stream(self.config.seed, "null", state.step)
            )
            reward_IJ = reward_IJ.flatten()[order].view_as(reward_IJ)
        # Two rewards an architecture, as in the paper, are too few to rank: then all together.
        compared = reward_IJ if self.estimator.per_image else reward_IJ.view(1, -1)
        scores = normal_scores(compared).flatten()
        state.evidence = state.evidence.add(draws, scores, settings.evidence.decay)
        surrogate = self.estimator.surrogate(state.gamma, draws, reward_IJ, state.evidence)
        _descend(state.policy_optimiser, surrogate)

    def _update_weights(
        self, sampled_I: Sequence[SampledArchitecture | None], terms: Sequence[Contribution]
    ) -> None:
        """Inactive weights get no step, no momentum and no decay."""
        settings = self.config.search
        if self._exact:
            gradient = weight_gradient([term.theta_grad for term in terms])
        else:
            gradient = total(self.mesh, terms, [self._active(_genotype(z)) for z in sampled_I])
        if settings.weight_gradient == "mean":
            gradient = {name: value / len(terms) for name, value in gradient.items()}
        for name, parameter in self.theta.items():
            parameter.grad = _laid_out(gradient[name], parameter) if name in gradient else None
        active = [self.theta[name] for name in gradient]
        norm = nn.utils.clip_grad_norm_(active, settings.weights.clip, foreach=True)
        check_weights(self.state.step, norm)
        for group in self.state.weight_optimiser.param_groups:
            group["lr"] = self.learning_rate
        self.state.weight_optimiser.step()
        self.state.weight_optimiser.zero_grad()

    # --- Draws, each with its address ------------------------------------------------------------

    def sample_architectures(self, purpose: str, count: int) -> list[SampledArchitecture | None]:
        if not self.searches_architecture:
            return [None] * count
        alpha, beta, tau, step = self.state.alpha, self.state.beta, self.tau, self.state.step
        return [
            sample_architecture(alpha, beta, tau, stream(self.config.seed, purpose, step, i))
            for i in range(count)
        ]

    @property
    def _draw_count(self) -> int:
        """Return how many Γ a batch gets: one for each image, or one for all (the paper)."""
        return self.config.search.batch_size if self.estimator.per_image else 1

    def _draws(self, purpose: str, index: int, count: int) -> Draws:
        generator = stream(self.config.seed, purpose, self.state.step, index)
        if self.data.fixed_policy is not None:
            return self.data.fixed_policy.draw(count, generator)
        return self.state.gamma.sample(count, generator)

    def _views(self, train: Batch, i: int) -> list[Batch]:
        """The training batch under each Γ^(i,j), of the batch or each image's own."""
        parts = [part.split(self._draw_count) for part in self._policies_of(i)]
        draws_J = [Draws(*each) for each in zip(*parts, strict=True)]
        return [
            Batch(self.train_input(train.images, draws, f"policy-{i}", j), train.labels)
            for j, draws in enumerate(draws_J)
        ]

    def train_input(
        self, images_u8: Tensor, draws: Draws | None, purpose: str, index: int
    ) -> Tensor:
        """Return what the network trains on: the policy (one Γ an image, or one for all),
        cutout."""
        part = self.mesh.part
        generator = stream(self.config.seed, "augment", purpose, self.state.step, index)
        if draws is not None:
            if len(draws.operation_NK) == 1:
                draws = policy.repeat(draws, len(images_u8))
            else:
                draws = Draws(*map(part.take, draws))
            images_u8 = policy.apply(images_u8, draws, generator, self._ranges, part)
        images, size = self.to_network(images_u8), self.config.data.cutout
        return augment.cutout_square(images, size, generator, part) if size else images

    @property
    def _ranges(self) -> str:
        """Name the ranges of the magnitudes: a fixed policy has its own."""
        fixed = self.data.fixed_policy
        return self.config.policy.ranges if fixed is None else fixed.ranges

    def _to_device(self, read: Read) -> Batch:
        images, labels = (part.to(self.device, non_blocking=True) for part in read)
        return Batch(images.contiguous(), labels)

    def to_network(self, images_u8: Tensor) -> Tensor:
        images = augment.normalise(images_u8.to(self.device), self.data.mean, self.data.std)
        return images.contiguous(memory_format=torch.channels_last)

    # --- The network -----------------------------------------------------------------------------

    def _active(self, z: Genotype | None) -> Weights:
        names: list[str] = self.state.network.active(z)  # type: ignore[operator]
        return {name: self.theta[name] for name in names}

    # --- What is found ---------------------------------------------------------------------------

    def genotype(self) -> Genotype | None:
        """Return what α and β stand for, within the limits if there are any."""
        if not self.searches_architecture:
            return None
        alpha, beta = self.state.alpha.detach(), self.state.beta.detach()
        return derive(alpha, beta) if self.budget is None else self.budget.derive(alpha, beta)

    @cached_property
    def costs(self) -> Costs:
        """Return the costs of the networks that architectures of this search stand for
        (search.derived)."""
        derived, images = self.config.search.derived, self.data.train
        channels, height, width = images.shape
        return costs_of(
            Size(
                derived.channels,
                derived.cells,
                derived.classes or len(images.classes),
                (channels, derived.size or height, derived.size or width),
                derived.stem or self.config.model.stem,
            )
        )

    def policy(self) -> Policy | None:
        if self.config.search.target == "architecture":
            return self.data.fixed_policy
        return self.state.gamma.derive(self.config.policy.ranges)


def _genotype(z: SampledArchitecture | None) -> Genotype | None:
    return None if z is None else z.genotype


def _laid_out(gradient: Tensor, parameter: Tensor) -> Tensor:
    """Lay a gradient out in the memory order of its parameter, whichever rank it came from: a
    norm adds in that order, so that another order is another rounding."""
    if gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)


def _descend(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
