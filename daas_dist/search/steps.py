"""The search: a method's steps over real data. What it draws is a function of (seed, step) alone.

A step reads aloud in Search._step; everything that a later step needs is in SearchState.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from daas_dist.config import Config
from daas_dist.data import Source
from daas_dist.data.dataset import open_feed
from daas_dist.distributed.mesh import Mesh
from daas_dist.methods.interface import Found, Method, Update, gradients
from daas_dist.methods.passes import Forward, Weights, functional
from daas_dist.models.cost_table import Costs, Size, costs_of
from daas_dist.models.recorded import Recorded
from daas_dist.rng import stream
from daas_dist.schedules import cosine
from daas_dist.search.budget import Budget
from daas_dist.search.context import Context, Images, Network
from daas_dist.search.finite import check_update
from daas_dist.search.method import build_method
from daas_dist.search.state import SearchState
from daas_dist.spaces.cells import Genotype
from daas_dist.spaces.policy import Policy


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
        self.method: Method = build_method(config, data.fixed_policy)
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
        self.train_batches = self.feed.batches
        self.steps = self.epochs * self.train_batches.steps_per_epoch
        network = network.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.state = SearchState.initial(
            network,
            self.method.logits(stream(config.seed, "initial")),
            self.method.memory(),
            settings,
        )
        limited = settings.max_flops is not None or settings.max_parameters is not None
        self.budget = Budget.of(settings, self.costs) if limited else None
        self.theta: Weights = dict(self.state.network.named_parameters())
        self.forward: Forward = Recorded(network) if settings.cuda_graphs else functional(network)
        self.images = Images(data.mean, data.std, config.data.cutout, device)

    # --- Where the search stands -----------------------------------------------------------------

    @property
    def epoch(self) -> int:
        return self.train_batches.epoch(self.state.step)

    @property
    def warming_up(self) -> bool:
        return self.epoch < self.config.search.warmup_epochs

    @property
    def progress(self) -> float:
        """0 in the first epoch, 1 in the last: schedules move once an epoch (peer: DARTS, GDAS)."""
        return min(1.0, self.epoch / max(1, self.epochs - 1))

    @property
    def learning_rate(self) -> float:
        weights = self.config.search.weights
        return cosine(
            weights.learning_rate, weights.learning_rate_end, min(1.0, self.epoch / self.epochs)
        )

    # --- A step ----------------------------------------------------------------------------------

    def step(self) -> str:
        """Make one step: both halves, or none.

        A number that is not finite is seen by all ranks before the update that it would enter:
        FloatingPointError, or the step is left out whole and why is returned (search.non_finite).
        """
        settings = self.config.search
        put_back = self.state.keep() if settings.non_finite == "skip" else None
        try:
            self._step()
            self.state.skips = 0
            left_out = ""
        except FloatingPointError as error:
            if put_back is None or self.state.skips == settings.most_skips:
                raise
            put_back()
            self.state.skips += 1
            left_out = str(error)
        self.state.step += 1
        return left_out

    def _step(self) -> None:
        method, state, context = self.method, self.state, self.context()
        update = method.search(state.logits, state.memory, context)
        self._move_logits(update)
        metrics = dict(update.metrics)
        if update.by_theta is None:
            update = method.train(state.logits, state.memory, context)
            self._move_logits(update)
            metrics |= update.metrics
        assert update.by_theta is not None
        self._move_weights(update.by_theta)
        state.interval = state.interval.add(metrics)
        state.passes += method.passes(context.epoch)

    def context(self) -> Context:
        """Return what a method may use in this step."""
        network = self.state.network
        return Context(
            seed=self.config.seed,
            step=self.state.step,
            epoch=self.epoch,
            progress=self.progress,
            learning_rate=self.learning_rate,
            read=self.feed.batch(self.state.step),
            images=self.images,
            network=Network(self.forward, self.theta, network.active, network.cost),  # type: ignore[arg-type]
            mesh=self.mesh,
            exact=self.config.mesh.reduction == "exact",
        )

    def _move_logits(self, update: Update) -> None:
        """Move what has a gradient, and what the limits want; then the memory."""
        state, by_logits = self.state, dict(update.by_logits)
        check_update(state.step, "the logits", by_logits.values())
        if self.budget is not None and "alpha" in by_logits:
            own = {name: state.logits[name] for name in ("alpha", "beta")}
            epoch = self.train_batches.steps_per_epoch
            held, state.price = self.budget.penalty(state.price, own["alpha"], own["beta"], epoch)
            if held.requires_grad:
                for name, value in gradients(held, own).items():
                    by_logits[name] = by_logits[name] + value
        for name, value in by_logits.items():
            state.logits[name].grad = value
        for name, optimiser in state.optimisers.items():
            if name != "weights" and by_logits:
                optimiser.step()
                optimiser.zero_grad()
        if update.memory is not None:
            state.memory = update.memory

    def _move_weights(self, gradient: Weights) -> None:
        """Inactive weights get no step, no momentum and no decay."""
        for name, parameter in self.theta.items():
            parameter.grad = _laid_out(gradient[name], parameter) if name in gradient else None
        active = [self.theta[name] for name in gradient]
        norm = nn.utils.clip_grad_norm_(active, self.config.search.weights.clip, foreach=True)
        check_update(self.state.step, "the weights", [norm])
        optimiser = self.state.optimisers["weights"]
        for group in optimiser.param_groups:
            group["lr"] = self.learning_rate
        optimiser.step()
        optimiser.zero_grad()

    # --- What is found ---------------------------------------------------------------------------

    def genotype(self) -> Genotype | None:
        """Return what the logits stand for, within the limits if there are any."""
        if self.budget is None:
            return self.found().genotype
        logits = self.state.detached()
        return self.budget.derive(logits["alpha"], logits["beta"])

    def policy(self) -> Policy | None:
        return self.found().policy

    def found(self) -> Found:
        """Return what the method has found so far, without limits."""
        return self.method.found(self.state.detached(), self.state.memory)

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


def _laid_out(gradient: Tensor, parameter: Tensor) -> Tensor:
    """Lay a gradient out in the memory order of its parameter, whichever rank it came from: a
    norm adds in that order, so that another order is another rounding."""
    if gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)
