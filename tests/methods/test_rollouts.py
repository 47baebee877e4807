"""Rollouts against scipy's normal likelihood, torch's optimiser and planted gains."""

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from plain_context import PlainContext
from scipy.stats import multivariate_normal
from small_problem import linear_softmax, small_problem
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from daas_dist import config as configuration
from daas_dist.config.schema.search import Weights
from daas_dist.methods.interface import Logits, Memory, Update
from daas_dist.methods.passes import Batch
from daas_dist.methods.rollouts import SPREAD, VARIANCES, Design, Rollouts
from daas_dist.rng import stream
from daas_dist.search.method import build_method
from daas_dist.spaces.policy import Draws
from daas_dist.spaces.space import Space

SPACE = Space("wide", ("rotate", "invert", "contrast", "blur"))
HELPS, HARMS = 1, 3
"""Places of invert and blur."""
TRAINED = 6
"""Of eight steps of a rollout."""


def method(**changes: Any) -> Rollouts:
    weights = Weights(
        learning_rate=0.2, learning_rate_end=0.0, momentum=0.7, weight_decay=0.03, clip=0.4
    )
    settings: dict[str, Any] = {
        "warmup_epochs": 0, "batch_size": 64, "candidates": 8, "rollout_steps": 8,
        "weights": weights, "slots": 3, "parameters": "per_slot", "space": SPACE,
    }  # fmt: skip
    return Rollouts(**settings | changes)


def uneven(made: Rollouts) -> Logits:
    """Logits as they start, but for weights of operations that are not uniform."""
    logits = made.logits(stream(0, "start"))
    logits["gamma.pi"] = torch.tensor([0.3, -0.5, 0.7, 0.1]).repeat(3, 1)
    return logits


@dataclass
class Context(PlainContext):
    """What images under invert teach is asked on the validation images; images under blur teach
    the contrary; the others nothing."""

    seen: list[Draws] = field(default_factory=list)

    def under(self, draws: Draws) -> Batch:
        times = ((draws.operation_NK == o) & draws.applied_NK for o in (HELPS, HARMS))
        more, less = (each.sum(1, keepdim=True) for each in times)
        return Batch((more - less) * self.train_batch.images, self.train_batch.labels)

    def augmented(
        self, draws: Draws | None, space: Space | None, purpose: str, index: int
    ) -> Batch:
        assert draws is not None and space == SPACE
        self.seen.append(draws)
        return self.under(draws)


def problem() -> Any:  # as a StepContext whose fields a test may set
    theta, _, _, _ = small_problem()
    image_NF = torch.randn(128, 4, generator=stream(1, "images"), dtype=torch.float64)
    label_N = (image_NF @ torch.tensor([1.0, -2.0, 0.5, 1.5]).double() > 0).long()
    train, val = (Batch(image_NF[part], label_N[part]) for part in (slice(64), slice(64, 128)))
    return Context(linear_softmax, theta, train, val)


def rollout(made: Rollouts, context: Any, logits: Logits, memory: Memory) -> list[Update]:
    updates: list[Update] = []
    for _ in range(made.rollout_steps):
        before = deepcopy(memory)
        updates.append(made.search(logits, memory, context))
        assert same(memory, before), "what it was given"
        memory = updates[-1].memory or {}
        context.step += 1
    return updates


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[name], b[name]) for name in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, Tensor) else a == b


# --- What rollouts have said ---------------------------------------------------------------------


def posterior(
    rollouts: list[tuple[Tensor, Tensor]],
) -> tuple[float, float, list[float], list[float]]:
    """Return the likeliest prior and noise, and the mean and standard error of gains under them,
    by the covariance of what was seen. Each rollout's mean is projected out: C - 1 numbers stay."""
    rows, seen = [], []
    for x_CO, gain_C in rollouts:
        count = len(gain_C)
        apart = np.linalg.qr(np.c_[np.ones(count), np.eye(count)[:, 1:]])[0][:, 1:].T
        rows.append(apart @ x_CO.double().numpy())
        seen.append(apart @ gain_C.double().numpy())
    x, y = np.concatenate(rows), np.concatenate(seen)

    def covariance(prior: float, noise: float) -> Any:
        return prior * x @ x.T + noise * np.eye(len(y))

    pairs = [(prior, noise) for prior in VARIANCES for noise in VARIANCES]
    likelihoods = [multivariate_normal.logpdf(y, cov=covariance(*pair)) for pair in pairs]
    prior, noise = pairs[int(np.argmax(likelihoods))]
    explained = prior * np.linalg.solve(covariance(prior, noise), x).T
    variance = prior * np.eye(x.shape[1]) - prior * explained @ x
    return prior, noise, (explained @ y).tolist(), np.sqrt(variance.diagonal()).tolist()


def planted(gain_O: Tensor, rollouts: int, noise: float, seed: int) -> list[tuple[Tensor, Tensor]]:
    """Rollouts of eight candidates whose losses are linear in the logarithms of their weights; in
    each all are higher or lower together."""
    found = []
    for number in range(rollouts):
        g = stream(seed, "planted", number)
        side_CO = (2.0 * torch.randint(2, (4, len(gain_O)), generator=g) - 1).repeat(2, 1)
        side_CO[4:] *= -1
        x_CO = (SPREAD * side_CO).log_softmax(-1)
        own_C = noise * torch.randn(8, generator=g) + 3 * torch.randn(1, generator=g)
        found.append((x_CO, x_CO @ gain_O + own_C))
    return found


def design(rollouts: list[tuple[Tensor, Tensor]], operations: int) -> Design:
    made = Design.empty(operations)
    for x_CO, gain_C in rollouts:
        made = made.add(x_CO, gain_C, 1.0)
    return made


@pytest.mark.parametrize(("size", "noise"), [(0.03, 0.03), (0.08, 0.02), (0.02, 0.005)])
def test_gains_are_the_posterior_of_the_likeliest_prior_and_noise(
    size: float, noise: float
) -> None:
    gain_O = size * torch.randn(6, generator=stream(2, "gains"))
    rollouts = planted(gain_O, 5, noise, 3)
    prior, chosen, expected, errors = posterior(rollouts)
    assert prior in VARIANCES[1:-1] and chosen in VARIANCES[1:-1]
    mean_O, error_O = design(rollouts, 6).gains()
    assert mean_O.tolist() == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert error_O.tolist() == pytest.approx(errors, rel=1e-6)


def test_planted_gains_are_found_and_none_where_there_are_none() -> None:
    gain_O = torch.zeros(20)
    gain_O[4], gain_O[11] = 0.05, -0.04
    mean_O, error_O = design(planted(gain_O, 40, 0.02, 4), 20).gains()
    assert (int(mean_O.argmax()), int(mean_O.argmin())) == (4, 11)
    assert ((mean_O - gain_O).abs() < 4 * error_O).all() and float(error_O.max()) < 0.005
    nothing_O, _ = design(planted(torch.zeros(20), 40, 0.02, 5), 20).gains()
    assert 0 < float(nothing_O.abs().max()) < 0.002  # of least squares, 0.003


def test_a_rollout_that_is_half_forgotten_counts_half() -> None:
    gain_O = 0.05 * torch.randn(6, generator=stream(6, "gains"))
    once, then = planted(gain_O, 2, 0.03, 7)
    halved = Design.empty(6).add(*once, 1.0).add(*once, 1.0).add(*then, 0.5)
    for found, expected in zip(halved, design([once, then], 6), strict=True):
        torch.testing.assert_close(torch.as_tensor(found), torch.as_tensor(expected))


# --- The candidates ------------------------------------------------------------------------------


def test_candidates_are_pairs_to_either_side_and_share_their_draws() -> None:
    made, context = method(), problem()
    logits = uneven(made)
    memory = made.search(logits, made.memory(), context).memory
    assert memory is not None
    side_CO = memory["sides"]
    assert torch.equal(side_CO[0::2], -side_CO[1::2]) and len(side_CO.unique(dim=0)) > 4
    assert side_CO.unique().tolist() == [-1, 1]
    address = stream(5, "candidate-policy", context.step)
    uniform_3NK = torch.rand(3, 64, 3, generator=address, dtype=torch.float64)
    for side_O, draws in zip(side_CO, context.seen, strict=True):
        weight_O = (logits["gamma.pi"][0] + 0.8 * side_O).double().exp()
        below_O = (weight_O / weight_O.sum()).cumsum(0)
        assert torch.equal(draws.operation_NK, torch.bucketize(uniform_3NK[0], below_O))
        assert torch.equal(draws.applied_NK, uniform_3NK[1] < 0.7)
        assert torch.equal(draws.magnitude_NK, (10 * uniform_3NK[2]).long())


def test_copies_move_as_torchs_sgd_moves_a_module_and_are_judged_as_they_end() -> None:
    made, context = method(), problem()
    updates = rollout(made, context, uneven(made), made.memory())
    assert len(context.seen) == 8 * TRAINED
    norms = []
    for i in range(8):
        theta = {name: nn.Parameter(value.clone()) for name, value in context.weights.items()}
        sgd = torch.optim.SGD([*theta.values()], lr=1.0, momentum=0.7, weight_decay=0.03)
        for step in range(TRAINED):
            batch = context.under(context.seen[8 * step + i])
            sgd.zero_grad()
            said = linear_softmax({**theta}, (), batch.images, None)
            cross_entropy(said, batch.labels).backward()
            norms.append(float(nn.utils.clip_grad_norm_(theta.values(), 0.4)))
            sgd.param_groups[0]["lr"] = 0.2 * (1 - step / TRAINED)  # θ's, falling to 0
            sgd.step()
            memory = updates[step].memory
            assert memory is not None
            for name, value in theta.items():
                torch.testing.assert_close(memory["weights"][name][i], value.detach())
    assert min(norms) < 0.4 < max(norms)
    trained, judged = updates[TRAINED - 1].memory, updates[TRAINED].memory
    assert trained is not None and judged is not None
    assert same(trained["weights"], judged["weights"])


def test_a_search_moves_no_weights_of_the_network() -> None:
    made, context = method(), problem()
    before = {name: value.clone() for name, value in context.weights.items()}
    updates = rollout(made, context, uneven(made), made.memory())
    assert same(context.weights, before)
    assert all(update.by_theta is None for update in updates)
    started = updates[0].memory
    assert started is not None
    copies = deepcopy(started["weights"])
    for value in context.weights.values():
        value.add_(1.0)  # as the network trains beside them
    assert same(started["weights"], copies)


def test_the_policy_moves_when_a_rollout_ends_towards_what_lowered_the_validation_loss() -> None:
    made, context = method(candidates=32), problem()
    logits, memory = made.logits(stream(0, "start")), made.memory()
    sides = []
    for _ in range(2):
        *others, last = rollout(made, context, logits, memory)
        assert not any(update.by_logits for update in others)
        assert [*last.by_logits] == ["gamma.pi"]
        judged, memory = others[-1].memory, last.memory
        assert judged is not None and memory is not None
        sides.append(judged["sides"])
        losses = [
            cross_entropy(linear_softmax(copy, (), context.val_batch.images, None), val)
            for i in range(32)
            for val in [context.val_batch.labels]
            for copy in [{name: value[i] for name, value in judged["weights"].items()}]
        ]
        more_O = (judged["sides"].double().T @ torch.stack(losses)).sign()
        assert (more_O[HELPS], more_O[HARMS]) == (-1, 1)  # by enumeration of the candidates
        by_pi = last.by_logits["gamma.pi"]
        assert (int(by_pi[0].argmin()), int(by_pi[0].argmax())) == (HELPS, HARMS)
        assert torch.equal(by_pi, by_pi[:1].expand(3, -1))
        assert float(by_pi[0].sum()) == pytest.approx(0, abs=1e-6)
        assert 0.5 < float(by_pi.abs().max()) < 2
        assert (memory["age"], memory["weights"], memory["momentum"]) == (0, {}, {})
        for value in context.weights.values():
            value.mul_(1.1)
    assert not torch.equal(*sides)
    restarted = made.search(logits, memory, context).memory
    assert restarted is not None and restarted["weights"].keys() == context.weights.keys()
    assert restarted["age"] == 1


def test_the_policy_stays_where_candidates_do_equally_well_and_in_the_warm_up() -> None:
    still = Weights(
        learning_rate=0.0, learning_rate_end=0.0, momentum=0.7, weight_decay=0.03, clip=0.4
    )
    made, context = method(weights=still), problem()
    last = rollout(made, context, uneven(made), made.memory())[-1]
    assert torch.equal(last.by_logits["gamma.pi"], torch.zeros(3, 4))
    assert method(warmup_epochs=2).search(uneven(made), made.memory(), problem()) == Update()


def test_a_rollout_is_told_as_log_weights_and_mean_losses_of_its_candidates() -> None:
    """X is the log-softmax over operations of logits 0.8 to either side, y minus the mean of the
    judged steps' losses, both less their means over the candidates."""
    made, context, logits = method(), problem(), uneven(method())
    *others, last = rollout(made, context, logits, made.memory())
    judged, memory = others[-1].memory, last.memory
    assert judged is not None and memory is not None
    _, xx_OO, xy_O, yy = memory["design"]
    pi_CO = logits["gamma.pi"][0] + 0.8 * judged["sides"]
    x = (pi_CO - pi_CO.exp().sum(1, keepdim=True).log()).double().numpy()
    val = context.val_batch
    said = [
        linear_softmax({n: v[i] for n, v in judged["weights"].items()}, (), val.images, None)
        for i in range(8)
    ]
    y = -torch.stack([cross_entropy(each, val.labels) for each in said]).double().numpy()
    x, y = x - x.mean(0), y - y.mean()
    np.testing.assert_allclose(xx_OO.numpy(), x.T @ x, rtol=1e-4)
    np.testing.assert_allclose(xy_O.numpy(), x.T @ y, rtol=1e-4, atol=1e-8)
    assert yy == pytest.approx(float(y @ y), rel=1e-4)
    right = [float((each.argmax(-1) == val.labels).double().mean()) for each in said]
    assert last.metrics["val_accuracy"] == pytest.approx(np.mean(right))
    assert last.metrics["val_loss"] == pytest.approx(
        np.mean([float(cross_entropy(each, val.labels)) for each in said])
    )


def test_passes_are_the_mean_of_a_rollout_s_steps() -> None:
    """Of eight steps six train eight candidates, two judge them by a third of a pass each."""
    made = method()
    assert (made.judged, method(rollout_steps=2).judged) == (2, 1)
    assert made.passes(0) == pytest.approx(1 + (6 * 8 + 2 * 8 / 3) / 8)


def test_variances_are_looked_for_from_1e_6_to_1e_2_in_half_decades() -> None:
    assert pytest.approx(np.logspace(-6, -2, 9).tolist()) == VARIANCES


def test_a_rollout_counts_four_fifths_of_what_the_next_one_does() -> None:
    """Eight candidates leave seven degrees of freedom, as their mean is taken off."""
    made, context, logits = method(), problem(), uneven(method())
    first = rollout(made, context, logits, made.memory())[-1].memory
    assert first is not None
    second = rollout(made, context, logits, first)[-1].memory
    assert second is not None
    assert (first["design"][0], second["design"][0]) == (7.0, pytest.approx(0.8 * 7 + 7))


def test_what_is_found_draws_its_magnitudes_and_applies_seven_of_ten() -> None:
    made = method()
    policy = made.found(uneven(made), made.memory()).policy
    assert policy is not None and policy.draws_magnitudes and policy.space == SPACE
    torch.testing.assert_close(policy.magnitudes, torch.full((3, 4, 10), 0.1))
    torch.testing.assert_close(policy.application, torch.full((3, 4), 0.7))
    torch.testing.assert_close(policy.probability_KO, uneven(made)["gamma.pi"].softmax(-1))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("search.candidates=3", "search.candidates=3 is not possible: expected an even number"),
        ("search.rollout_steps=1", "search.rollout_steps=1 is not possible: expected at least 2"),
        ("policy.parameters=per_policy", "policy.parameters=per_policy is not possible: expected"),
        ("search.architectures=2", "search.architectures has no effect: method=rollouts"),
    ],
)
def test_what_it_cannot_do_is_refused(words: str, said: str) -> None:
    given = ["preset=tiny", "method=rollouts", "search.target=policy", "model=small", words]
    with pytest.raises(configuration.ConfigError) as error:
        build_method(configuration.load(given))
    assert str(error.value).startswith(said)
