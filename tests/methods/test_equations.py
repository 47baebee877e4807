"""The paper's equations against enumeration, finite differences and closed forms."""

from itertools import permutations
from typing import Any

import pytest
import torch
from rank_processes import forks, in_ranks
from small_problem import POLICIES, XI, linear_softmax, small_problem, train_gradient
from torch import Tensor

from daas_dist.distributed.deal import deal
from daas_dist.distributed.mesh import Mesh
from daas_dist.methods import equations, passes, relax
from daas_dist.methods.interface import Contribution
from daas_dist.methods.passes import Batch, Weights
from daas_dist.rng import stream
from daas_dist.spaces.cells import (
    DARTS_V2,
    EDGES,
    IN_DEGREE,
    INPUTS,
    NODES,
    OPERATIONS,
    Path,
    edges_into,
    path_of,
)


def enumerated(theta: passes.Weights, views: list[passes.Batch]) -> Tensor:
    return torch.stack([train_gradient(theta, view) for view in views])


def val_gradient_ahead(
    theta: passes.Weights, grads_JP: Tensor, weight_J: Tensor, val: passes.Batch
) -> Tensor:
    """∇_θ' L_val at θ' = θ - ξ E_Γ[∇L_train], the expectation enumerated."""
    expected_P = weight_J @ grads_JP
    ahead = passes.unflat(equations.look_ahead(passes.flat(theta), expected_P[None], XI), theta)
    return train_gradient(ahead, val)


def test_the_exact_gradient_is_that_of_the_validation_loss_after_the_look_ahead() -> None:
    """Eq. (11) against finite differences of L_val(θ'(γ)) in γ."""
    theta, views, val, gamma = small_problem()
    grads_JP = enumerated(theta, views)

    def val_loss(logits: Tensor) -> Tensor:
        ahead = passes.unflat(passes.flat(theta) - XI * logits.softmax(0) @ grads_JP, theta)
        return passes.forward_backward(linear_softmax, ahead, (), val).loss

    weight_J = gamma.softmax(0)
    val_grad_P = val_gradient_ahead(theta, grads_JP, weight_J.detach(), val)
    (exact,) = equations.policy_gradient_exact(weight_J @ grads_JP, val_grad_P, XI, [gamma])
    step = 1e-5
    for j in range(POLICIES):
        e = torch.zeros(POLICIES, dtype=torch.float64)
        e[j] = step
        slope = (val_loss(gamma.detach() + e) - val_loss(gamma.detach() - e)) / (2 * step)
        assert exact[j].item() == pytest.approx(slope.item(), rel=1e-5, abs=1e-9)
    assert exact.abs().max() > 1e-3  # no term of it vanishes by itself


def test_the_mixed_derivative_is_an_expectation_of_gradient_times_score() -> None:
    """Eq. (12), enumerated: Σ_Γ p(Γ) ∇L ∇log p = ∂/∂γ Σ_Γ p(Γ) ∇L."""
    theta, views, _, gamma = small_problem()
    grads_JP = enumerated(theta, views)
    log_p = gamma.log_softmax(0)
    scores_JG = torch.stack(
        [torch.autograd.grad(log_p[j], gamma, retain_graph=True)[0] for j in range(POLICIES)]
    )
    weight_J = gamma.detach().softmax(0)
    # mixed_derivative averages over samples; p(Γ) times their number turns that into E_Γ.
    estimate = equations.mixed_derivative(weight_J[:, None] * POLICIES * grads_JP, scores_JG)
    exact = torch.autograd.functional.jacobian(lambda g: g.softmax(0) @ grads_JP, gamma.detach())
    torch.testing.assert_close(estimate, exact)


def test_the_enumerated_policy_gradient_equals_the_exact_one() -> None:
    """Eq. (13) enumerated = Eq. (11) differentiated twice."""
    theta, views, val, gamma = small_problem()
    grads_JP = enumerated(theta, views)
    weight_J = gamma.softmax(0)
    val_grad_P = val_gradient_ahead(theta, grads_JP, weight_J.detach(), val)
    (exact,) = equations.policy_gradient_exact(weight_J @ grads_JP, val_grad_P, XI, [gamma])
    reward_J = equations.rewards(grads_JP, val_grad_P, XI)
    log_p = gamma.log_softmax(0)
    surrogate = equations.policy_surrogate(log_p, weight_J.detach() * POLICIES * reward_J)
    (estimate,) = torch.autograd.grad(surrogate, gamma)
    torch.testing.assert_close(estimate, exact)


def test_sampled_policies_converge_to_the_enumerated_gradient() -> None:
    """Eq. (13) by Monte Carlo, with and without a leave-one-out baseline."""
    from daas_dist.methods.estimators import leave_one_out

    theta, views, val, gamma = small_problem()
    grads_JP = enumerated(theta, views)
    weight_J = gamma.softmax(0)
    val_grad_P = val_gradient_ahead(theta, grads_JP, weight_J.detach(), val)
    (exact,) = equations.policy_gradient_exact(weight_J @ grads_JP, val_grad_P, XI, [gamma])
    reward_J = equations.rewards(grads_JP, val_grad_P, XI)
    drawn_IJ = torch.multinomial(
        weight_J.detach().expand(40_000, -1), 2, True, generator=stream(1, "mc")
    )
    spread = {}
    for name, baseline in {"paper": lambda r: r, "leave_one_out": leave_one_out}.items():
        leaf_IG = gamma.detach().expand(len(drawn_IJ), -1).clone().requires_grad_()
        log_prob_IJ = leaf_IG.log_softmax(-1).gather(1, drawn_IJ)
        surrogate = equations.policy_surrogate(log_prob_IJ, baseline(reward_J[drawn_IJ])) * len(
            drawn_IJ
        )
        (each_IG,) = torch.autograd.grad(surrogate, leaf_IG)
        error = each_IG.std(0) / len(each_IG) ** 0.5
        assert ((each_IG.mean(0) - exact).abs() < 4.5 * error).all()
        spread[name] = each_IG.var(0).sum().item()
    assert spread["leave_one_out"] != pytest.approx(spread["paper"], rel=0.01)


def test_look_ahead_subtracts_the_mean_gradient() -> None:
    theta_P = torch.tensor([1.0, -2.0])
    grads_JP = torch.tensor([[2.0, 4.0], [-1.0, 3.0]])
    torch.testing.assert_close(
        equations.look_ahead(theta_P, grads_JP, 0.5), torch.tensor([0.75, -3.75])
    )


def test_weight_gradient_sums_in_order_and_leaves_unused_weights_out() -> None:
    parts = [{"a": torch.tensor([1.0]), "b": torch.tensor([2.0])}, {"b": torch.tensor([0.5])}]
    assert equations.weight_gradient(parts) == {"a": torch.tensor([1.0]), "b": torch.tensor([2.5])}
    assert "c" not in equations.weight_gradient(parts)


# --- Eq. (7), (8), (9) ---------------------------------------------------------------------------


def test_relaxed_operations_follow_the_formula() -> None:
    g = stream(0, "alpha")
    alpha_EO = torch.randn(len(EDGES), len(OPERATIONS), generator=g)
    noise = torch.randn(len(EDGES), len(OPERATIONS), generator=g)
    soft_EO, choice_E = equations.relax_operations(alpha_EO, noise, 0.7)
    e, o = 9, 4
    p = alpha_EO[e].exp() / alpha_EO[e].exp().sum()
    terms = ((p.log() + noise[e]) / 0.7).exp()
    assert soft_EO[e, o].item() == pytest.approx((terms[o] / terms.sum()).item(), rel=1e-5)
    assert choice_E.tolist() == soft_EO.argmax(-1).tolist()


def test_relaxed_edges_follow_the_formula() -> None:
    """softmax((log p + g) / τ) over the edges into a node, and the two largest of each."""
    g = stream(0, "beta")
    beta_E, noise = torch.randn(2, len(EDGES), generator=g).unbind(0)
    soft_E, kept_E = equations.relax_edges(beta_E, noise, 0.7)
    for first, last in ((0, 2), (2, 5), (5, 9), (9, 14)):
        p = beta_E[first:last].exp() / beta_E[first:last].exp().sum()
        terms = ((p.log() + noise[first:last]) / 0.7).exp()
        torch.testing.assert_close(soft_E[first:last], terms / terms.sum())
        best = sorted(range(first, last), key=lambda e: -float(soft_E[e]))[:2]
        assert kept_E[first:last].nonzero().flatten().tolist() == sorted(e - first for e in best)


def test_the_train_gradient_of_an_architecture_is_the_mean_over_its_policies() -> None:
    """Eq. (14)'s term where Eq. (13)'s training gradients are used again."""
    theta, views, val, _ = small_problem()
    term = equations.search_term(linear_softmax, theta, (), views[:3], val, XI, at_theta=False)
    expected_P = torch.stack([train_gradient(theta, view) for view in views[:3]]).mean(0)
    torch.testing.assert_close(passes.flat(term.by_theta["train"]), expected_P)


def test_sampled_operations_have_the_softmax_frequencies() -> None:
    """Gumbel-argmax draws o with probability softmax(α)[o], whatever τ."""
    g = stream(5, "frequency")
    alpha_O = torch.randn(len(OPERATIONS), generator=g)
    count = 3000
    alpha_EO = alpha_O.expand(len(EDGES), -1)
    drawn = torch.stack(
        [
            equations.relax_operations(alpha_EO, relax.gumbel(alpha_EO.shape, g), 3.0)[1]
            for _ in range(count)
        ]
    )
    share = torch.bincount(drawn.flatten(), minlength=len(OPERATIONS)) / drawn.numel()
    p = alpha_O.softmax(0)
    assert ((share - p).abs() < 4.5 * (p * (1 - p) / drawn.numel()).sqrt()).all()


def test_edge_pairs_have_their_closed_form_frequencies() -> None:
    """Gumbel top-2: P{i, k} = p_i p_k / (1 - p_i) + p_k p_i / (1 - p_k)."""
    g = stream(6, "pairs")
    beta_E = torch.randn(len(EDGES), generator=g) * 1.5
    count = 20_000
    kept = torch.stack(
        [
            equations.relax_edges(beta_E, relax.gumbel((len(EDGES),), g), 0.5)[1]
            for _ in range(count)
        ]
    )
    for target in range(INPUTS, INPUTS + NODES):
        edges = edges_into(target)
        p = beta_E[edges].softmax(0)
        assert (kept[:, edges].sum(1) == IN_DEGREE).all()
        for i, k in permutations(range(target), 2):
            if i < k:
                expected = p[i] * p[k] / (1 - p[i]) + p[k] * p[i] / (1 - p[k])
                share = (kept[:, edges.start + i] & kept[:, edges.start + k]).float().mean()
                bound = 4.5 * (expected * (1 - expected) / count).sqrt() + 1e-6
                assert abs(share - expected) < bound


def test_architecture_gradient_is_the_chain_rule_through_the_relaxation() -> None:
    """Eq. (9) against finite differences of Σ z_grad · (Ã + B̃) with the noise held."""
    g = stream(2, "arch")
    alpha = torch.randn(2, len(EDGES), len(OPERATIONS), generator=g, dtype=torch.float64)
    beta = torch.randn(2, len(EDGES), generator=g, dtype=torch.float64)
    z_grad_ICS = torch.randn(3, 2, IN_DEGREE * NODES, generator=g, dtype=torch.float64)

    def surrogate(a: Tensor, b: Tensor) -> Tensor:
        sampled = [equations.sample_architecture(a, b, 2.0, stream(0, "z", i)) for i in range(3)]
        return equations.architecture_surrogate(sampled, z_grad_ICS)

    leaf_a, leaf_b = alpha.clone().requires_grad_(), beta.clone().requires_grad_()
    grad_a, grad_b = torch.autograd.grad(surrogate(leaf_a, leaf_b), [leaf_a, leaf_b])
    step = 1e-5
    for value, grad, swap in ((alpha, grad_a, 0), (beta, grad_b, 1)):
        for index in [(0, 3, 2), (1, 12, 5), (1, 0, 0)]:
            place = index[: value.ndim]
            moved = []
            for sign in (1, -1):
                other = value.clone()
                other[place] += sign * step
                moved.append(surrogate(*((other, beta) if swap == 0 else (alpha, other))))
            slope = (moved[0] - moved[1]) / (2 * step)
            assert grad[place].item() == pytest.approx(slope.item(), rel=1e-4, abs=1e-8)


def test_sampled_architectures_are_addressed_not_ordered() -> None:
    alpha, beta = torch.zeros(2, 14, 7), torch.zeros(2, 14)
    first = [
        equations.sample_architecture(alpha, beta, 1.0, stream(0, "arch", 4, i)).genotype
        for i in (0, 1, 2)
    ]
    again = [
        equations.sample_architecture(alpha, beta, 1.0, stream(0, "arch", 4, i)).genotype
        for i in (2, 0, 1)
    ]
    assert first == [again[1], again[2], again[0]]
    assert len(set(first)) == 3


@forks
def test_what_an_architecture_contributes_travels_as_it_is() -> None:
    """The terms of Algorithm 1 and of its line 4, one from each of two ranks: every number."""
    theta, views, val, _ = small_problem()
    theta = {name: value.float() for name, value in theta.items()}
    *train, val = (Batch(batch.images.float(), batch.labels) for batch in (*views[:3], val))
    path = path_of(DARTS_V2)

    def gated(weights: Weights, path: Path, images: Tensor, gates: Tensor | None) -> Tensor:
        found = linear_softmax(weights, path, images, gates)
        return found if gates is None else found * (gates * torch.arange(1.0, 17.0)).mean()

    def searched(i: int) -> Contribution:
        return equations.search_term(gated, theta, path, train, val, XI, at_theta=bool(i))

    def trained(i: int) -> Contribution:
        return equations.weight_term(gated, theta, path, train[i])

    numbers = {"z_grad": 16, "reward": 3, "train": 2, "val": 2, "train_norm": 1, "val_norm": 1}
    for term, names in ((searched, list(numbers)), (trained, ["train", "train_norm"])):
        like = {name: (numbers[name],) for name in names}

        def task(mesh: Mesh, term: Any = term, like: Any = like) -> list[Contribution]:
            return deal(mesh, [1.0, 1.0], term, like, ("train",), lambda _: theta)

        for got in in_ranks(2, task):
            for i, each in enumerate(got):
                sent = term(i)
                assert set(sent.small) == set(each.small) == set(like)
                assert all(torch.equal(sent.small[name], each.small[name]) for name in like)
                gradients = sent.by_theta["train"], each.by_theta["train"]
                assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in theta)
                assert all(bool(value.isfinite().all()) for value in sent.small.values())
