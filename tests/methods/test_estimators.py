"""Estimators against closed forms, and against the Fisher information that they claim to undo."""

import math

import pytest
import torch
from torch import Tensor

from daas_dist.methods import estimators
from daas_dist.methods.estimators import Evidence, Table
from daas_dist.rng import stream
from daas_dist.spaces.operations import MAGNITUDES, NAMES
from daas_dist.spaces.policy import PARAMETERS, Draws, PolicyLogits, all_policies

OPERATIONS = len(NAMES)


def away_from_uniform(parameters: str) -> PolicyLogits:
    gamma, g = PolicyLogits.initial(2, parameters), stream(3, "gamma")
    with torch.no_grad():
        for tensor in gamma.tensors():
            tensor.copy_(torch.randn(tensor.shape, generator=g))
    return gamma


def some_evidence(gamma: PolicyLogits, steps: int = 40, count: int = 64) -> Evidence:
    """Scores that have a mean for every operation of every slot, and noise."""
    evidence, g = Evidence.empty(2), stream(5, "evidence")
    effect_KO = torch.randn(2, OPERATIONS, generator=g)
    slope = 0.4
    for step in range(steps):
        draws = gamma.sample(count, stream(5, "draws", step))
        effect_NK = effect_KO[torch.arange(2), draws.operation_NK] + slope * draws.magnitude_NK
        effect_NK = effect_NK * draws.applied_NK
        noise_N = torch.randn(count, generator=g)
        evidence = evidence.add(draws, (effect_NK.sum(-1) + noise_N).double(), 0.98)
    return evidence


def test_a_table_is_a_weighted_mean_with_its_standard_error() -> None:
    reward = torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)
    table = Table.empty(2).add(torch.tensor([0, 0, 1]), reward, 0.9)
    table = table.add(torch.tensor([0, 1, 1]), torch.tensor([4.0, 3.0, 1.0]).double(), 0.9)
    first, second = (0.9 * 2 - 0.9 + 4) / 2.8, (0.9 * 0.5 + 3 + 1) / 2.9
    assert table.mean().tolist() == pytest.approx([first, second])
    square = 0.9 * (4 + 1) + 16 + 0.9 * 0.25 + 9 + 1
    variance = (square - 2.8 * first**2 - 2.9 * second**2) / 5.7
    counts = (2.8**2 / (2 * 0.81 + 1), 2.9**2 / (0.81 + 2))
    expected = [math.sqrt(variance / count) for count in counts]
    assert table.standard_error().tolist() == pytest.approx(expected)


def test_a_past_that_fades_keeps_its_mean_and_its_standard_error() -> None:
    """However little of it is left: all its samples have faded alike."""
    reward = torch.tensor([2.0, -1.0, 0.5, 3.0], dtype=torch.float64)
    table = Table.empty(2).add(torch.tensor([0, 0, 1, 1]), reward, 1.0)
    none = torch.zeros(0, dtype=torch.float64)
    faded = table.add(none.long(), none, 1e-4)
    assert float(faded.weight.max()) == pytest.approx(2e-4)
    assert faded.mean().tolist() == pytest.approx([0.5, 1.75])
    assert faded.standard_error().tolist() == pytest.approx(table.standard_error().tolist())


def test_choices_thrown_together_are_one_choice() -> None:
    g = stream(8, "together")
    index, reward = torch.randint(6, (50,), generator=g), torch.randn(50, generator=g).double()
    by_choice = Table.empty(2, 3).add(index, reward, 1.0)
    for dim, of in ((1, index // 3), (0, index % 3)):
        together = Table.empty(2 if dim else 3).add(of, reward, 1.0)
        for found, expected in zip(by_choice.sum(dim), together, strict=True):
            torch.testing.assert_close(found.flatten(), expected)


def test_standard_errors_are_those_of_repeated_means() -> None:
    means, errors = [], []
    for trial in range(400):
        g, table = stream(trial, "trial"), Table.empty(3)
        for _ in range(60):
            index = torch.randint(3, (10,), generator=g)
            table = table.add(index, torch.randn(10, generator=g).double() + index, 0.95)
        means.append(table.mean())
        errors.append(table.standard_error())
    seen = torch.stack(means).std(0)
    assert torch.allclose(torch.stack(errors).mean(0), seen, rtol=0.12)


def test_the_standard_error_of_a_smoothed_table_is_that_of_repeated_means() -> None:
    means, errors = [], []
    for trial in range(400):
        g = stream(trial, "smooth")
        index = torch.randint(5, (200,), generator=g)
        table = Table.empty(5).add(index, torch.randn(200, generator=g).double(), 1.0).smooth()
        means.append(table.mean())
        errors.append(table.standard_error())
    seen = torch.stack(means).std(0)
    assert torch.allclose(torch.stack(errors).mean(0), seen, rtol=0.12)


def test_normal_scores_are_the_quantiles_of_ranks() -> None:
    scores = estimators.normal_scores(torch.tensor([[30.0, -5.0, 1e9], [2.0, 7.0, 2.0]]))
    quantile = 0.6744897501960817  # of a standard normal at 3/4
    tied = torch.special.ndtri(torch.tensor(1.5 / 4, dtype=torch.float64))
    assert scores[0].tolist() == pytest.approx([0.0, -quantile, quantile])
    assert scores[1].tolist() == pytest.approx([float(tied), quantile, float(tied)])


def test_shrinking_is_the_posterior_mean_and_beats_the_raw_means() -> None:
    mean = torch.tensor([3.0, -1.0, 2.0, 9.0]).double()
    error = torch.tensor([1.0, 1.0, 1.0, math.inf]).double()
    variance = (9 + 1 + 4) / 3 - 1
    expected = [m * variance / (variance + 1) for m in (3, -1, 2)]
    assert estimators.shrink(mean, error).tolist() == pytest.approx([*expected, 0.0])
    # With errors that differ, τ² is the mean of m² - e², each weighted by 1 / e⁴.
    means, errs = (2.0, -1.0, 3.0), (0.5, 1.5, 2.0)
    weights = [e**-4 for e in errs]
    beyond = sum(w * (m * m - e * e) for m, e, w in zip(means, errs, weights, strict=True))
    variance = beyond / sum(weights)
    expected = [m * variance / (variance + e * e) for m, e in zip(means, errs, strict=True)]
    for unit in (1.0, 1e-3, 1e3):  # of the rewards, whatever it is
        given = (unit * torch.tensor(each).double() for each in (means, errs))
        found = estimators.shrink(*given) / unit
        assert found.tolist() == pytest.approx(expected)
    g = stream(1, "shrink")
    truth = 0.5 * torch.randn(2000, generator=g).double()
    errors = 0.3 + torch.rand(2000, generator=g).double()
    seen = truth + errors * torch.randn(2000, generator=g).double()
    risk = (estimators.shrink(seen, errors) - truth).square().mean()
    bayes = (0.25 * errors**2 / (0.25 + errors**2)).mean()
    assert risk < 1.1 * bayes < (seen - truth).square().mean()


def test_means_within_chance_are_shrunk_to_nothing() -> None:
    mean, error = torch.tensor([0.5, -0.8, 0.3]).double(), torch.ones(3).double()
    assert torch.equal(estimators.shrink(mean, error), torch.zeros(3).double())


def test_only_what_is_beyond_one_and_a_half_standard_errors_is_significant() -> None:
    mean = torch.tensor([2.0, -3.5, 1.4, 9.0]).double()
    error = torch.tensor([1.0, 1.0, 1.0, math.inf]).double()
    assert estimators.significant(mean, error).tolist() == pytest.approx([0.5, -2.0, 0.0, 0.0])


def test_a_slot_left_out_is_one_yardstick_for_all_operations() -> None:
    draws = Draws(
        operation_NK=torch.tensor([[0], [0], [1], [2]]),
        applied_NK=torch.tensor([[True], [False], [True], [False]]),
        magnitude_NK=torch.tensor([[4], [4], [4], [4]]),
    )
    evidence = Evidence.empty(1).add(draws, torch.tensor([1.0, 0.2, -0.4, -0.6]), 1.0)
    mean_KO, error_KO = evidence.applied()
    one = float(evidence.applied_KO2.standard_error()[0, 0, 1])  # of a single score
    assert error_KO[0, 0] > 1.1 * one, "the yardstick's own error counts too"
    assert mean_KO[0, :2].tolist() == pytest.approx([1.2, -0.2])
    assert error_KO[0, :2].isfinite().all() and error_KO[0, 2:].isinf().all()


def test_the_standard_error_of_applying_is_that_of_two_means() -> None:
    """Of n scores where the operation was applied, and of all in which the slot was left out; each
    mean with the variance inside the choices of its own table, as analysis of variance pools it."""
    g, count = stream(9, "applied"), 200
    operation_N, applied_N = (torch.randint(n, (count,), generator=g) for n in (3, 2))
    score_N = torch.randn(count, generator=g).double() + operation_N * applied_N
    draws = Draws(operation_N[:, None], applied_N[:, None].bool(), torch.zeros(count, 1).long())
    mean_KO, error_KO = Evidence.empty(1).add(draws, score_N, 1.0).applied()

    def pooled(groups: list[Tensor]) -> float:
        return sum(float(((x - x.mean()) ** 2).sum()) for x in groups) / count

    out, used = score_N[applied_N == 0], score_N[applied_N == 1]
    cells = [score_N[(operation_N == o) & (applied_N == y)] for o in range(3) for y in (0, 1)]
    for o in range(3):
        mine = cells[2 * o + 1]
        assert float(mean_KO[0, o]) == pytest.approx(float(mine.mean() - out.mean()))
        variance = pooled(cells) / len(mine) + pooled([out, used]) / len(out)
        assert float(error_KO[0, o]) == pytest.approx(math.sqrt(variance))


def test_an_operation_is_compared_with_the_mean_of_its_slot() -> None:
    every, first = torch.ones(3, 2).bool(), torch.zeros(3, 2).long()
    draws = Draws(torch.tensor([[0, 3], [1, 3], [1, 4]]), every, first)
    evidence = Evidence.empty(2).add(draws, torch.tensor([3.0, 1.0, -2.0]), 1.0)
    advantage_KO, error_KO = evidence.operation()
    means = {(0, 0): 3.0, (0, 1): -0.5, (1, 3): 2.0, (1, 4): -2.0}  # 0 where never drawn
    for k, slot in ((0, 2.5 / OPERATIONS), (1, 0.0)):
        for o in range(OPERATIONS):
            expected = means.get((k, o), 0.0) - slot
            assert float(advantage_KO[k, o]) == pytest.approx(expected)
            assert bool(error_KO[k, o].isfinite()) == ((k, o) in means)


def test_a_magnitude_is_seen_with_its_neighbours() -> None:
    table = Table.empty(1, 1, MAGNITUDES).add(
        torch.tensor([3, 4, 4, 9]), torch.tensor([1.0, 2.0, 4.0, -3.0]).double(), 1.0
    )
    evidence = Evidence(Table.empty(1, 1), Table.empty(1, 1, 2), table)
    advantage = evidence.magnitude()[0][0, 0]
    overall = (1 + 2 + 4 - 3) / 4
    assert float(advantage[3]) == pytest.approx((1 + (2 + 4) / 2) / (1 + 1) - overall)
    assert float(advantage[9]) == pytest.approx(-3 - overall)
    assert float(advantage[5]) == 0.0, "never drawn itself"


def gradient(surrogate: Tensor, gamma: PolicyLogits) -> list[Tensor]:
    return list(torch.autograd.grad(-surrogate, gamma.tensors()))


@pytest.mark.parametrize("parameters", PARAMETERS)
def test_running_means_give_the_policy_gradient_over_all_draws(parameters: str) -> None:
    """Σ_Γ p(Γ) ∇log p(Γ) · advantage over every Γ of one slot: π is credited with the operation's,
    ρ and δ with those of application and magnitude, where it is applied."""
    g, gamma = stream(7, "running"), PolicyLogits.initial(1, parameters)
    with torch.no_grad():
        for tensor in gamma.tensors():
            tensor.copy_(torch.randn(tensor.shape, generator=g))
    operation_KO, applied_KO = torch.randn(2, 1, OPERATIONS, generator=g)
    magnitude_KOM = torch.randn(1, OPERATIONS, MAGNITUDES, generator=g)
    rows = [
        (o, y, m)
        for o in range(OPERATIONS)
        for y, m in ((0, 0), *((1, m) for m in range(MAGNITUDES)))
    ]
    o, y, m = torch.tensor(rows).unbind(1)
    log_p = gamma.log_prob(Draws(o[:, None], y[:, None].bool(), m[:, None]))
    p = log_p.exp().detach()
    inside = y * (applied_KO[0, o] + magnitude_KOM[0, o, m])
    by_pi, *_ = torch.autograd.grad(
        (p * operation_KO[0, o] * log_p).sum(), gamma.tensors(), retain_graph=True
    )
    _, *by_others = torch.autograd.grad((p * inside * log_p).sum(), gamma.tensors())
    surrogate = estimators.expected_surrogate(gamma, operation_KO, applied_KO, magnitude_KOM)
    for found, expected in zip(gradient(surrogate, gamma), (by_pi, *by_others), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
        assert expected.abs().max() > 1e-2


def test_leave_one_out_is_each_reward_minus_the_mean_of_the_others() -> None:
    reward_IJ = torch.tensor([[1.0, 4.0, -2.5, 0.5], [3.0, 3.0, 7.0, 0.0]])
    for rewards, found in zip(reward_IJ, estimators.leave_one_out(reward_IJ), strict=True):
        for j, reward in enumerate(rewards.tolist()):
            others = [r for k, r in enumerate(rewards.tolist()) if k != j]
            assert float(found[j]) == pytest.approx(reward - sum(others) / 3)


def test_each_image_draws_its_own_policy_for_three_of_the_estimators() -> None:
    own = {name for name, estimator in estimators.ESTIMATORS.items() if estimator.per_image}
    assert own == {"per_image", "running_means", "natural"}
    assert {*estimators.ESTIMATORS} == {*own, "paper", "leave_one_out"}


@pytest.mark.parametrize("parameters", PARAMETERS)
def test_the_natural_gradient_undone_by_the_fisher_information_is_the_gradient(
    parameters: str,
) -> None:
    gamma = away_from_uniform(parameters)
    evidence = some_evidence(gamma)
    draws = gamma.sample(4, stream(0, "unused"))
    natural = gradient(estimators.natural(gamma, draws, torch.zeros(1, 4), evidence), gamma)
    applied_KO = estimators.significant(*evidence.applied()).float()
    magnitude_KOM = estimators.shrink(*evidence.magnitude()).float()
    assert (applied_KO != 0).any() and (magnitude_KOM != 0).any()

    pi_KO = gamma.pi_KO.softmax(-1)
    (by_pi,) = torch.autograd.grad((pi_KO * applied_KO.clamp_min(0)).sum(), gamma.pi_KO)
    fisher_KOO = torch.diag_embed(pi_KO) - pi_KO.unsqueeze(-1) * pi_KO.unsqueeze(-2)
    assert torch.allclose(torch.einsum("kab,kb->ka", fisher_KOO, natural[0]), by_pi, atol=1e-6)
    # Of all that the Fisher information says the same of, the one that moves no operation on the
    # whole.
    torch.testing.assert_close((pi_KO * natural[0]).sum(-1), torch.zeros(2), rtol=0, atol=1e-6)

    if parameters == "per_policy":
        operation_RK = all_policies(2)
        applied_KO = applied_KO[torch.arange(2), operation_RK]
        magnitude_KOM = magnitude_KOM[torch.arange(2), operation_RK]
    p = gamma.rho.sigmoid()
    (by_rho,) = torch.autograd.grad((p * applied_KO).sum(), gamma.rho)
    assert torch.allclose((p * (1 - p)) * natural[1], by_rho, atol=1e-6)
    delta = gamma.delta.softmax(-1)
    (by_delta,) = torch.autograd.grad((delta * magnitude_KOM).sum(), gamma.delta)
    inner = (delta * natural[2]).sum(-1, keepdim=True)
    assert torch.allclose(delta * (natural[2] - inner), by_delta, atol=1e-6)


def test_an_operation_that_harms_loses_its_application_not_its_place() -> None:
    gamma = PolicyLogits.initial(1, "per_slot")
    g, evidence = stream(2, "harm"), Evidence.empty(1)
    for step in range(60):
        draws = gamma.sample(64, stream(2, "draws", step))
        harmed = draws.applied_NK[:, 0] & (draws.operation_NK[:, 0] == 3)
        score = 0.3 * torch.randn(64, generator=g) - 2.0 * harmed
        evidence = evidence.add(draws, score.double(), 1.0)
    none = gamma.sample(1, stream(0, "unused"))
    pi, rho, _ = gradient(estimators.natural(gamma, none, torch.zeros(1, 1), evidence), gamma)
    assert rho[0, 3] < -1.5 and rho[0].argmin() == 3
    assert pi[0, 3] >= pi[0].max() - 0.2
