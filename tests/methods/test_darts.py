"""DARTS' gradients against finite differences and the exact second-order product, in float64."""

import pytest
import torch
from plain_context import PlainContext
from torch import Tensor
from torch.nn.functional import cross_entropy

from daas_dist.methods import darts
from daas_dist.methods.darts import EPSILON, PAIRS, Darts, gate_gradient, mixture
from daas_dist.methods.passes import Batch, Weights, flat
from daas_dist.rng import stream
from daas_dist.spaces.cells import EDGES, EVERYTHING, KINDS, OPERATIONS, Path, derive_strongest

FEATURES, CLASSES, IMAGES = 5, 3, 7
XI = 0.37
SOME = (0, 17, 98, 195)
"""Pairs whose derivative is taken by finite differences."""


def forward(theta: Weights, path: Path, images: Tensor, gates: Tensor | None) -> Tensor:
    """A smooth network with a hidden unit for every pair."""
    assert path == EVERYTHING and gates is not None
    return torch.tanh(torch.tanh(images @ theta["first"]) * gates @ theta["second"])


def normal(name: str, *shape: int) -> Tensor:
    return torch.randn(shape, generator=stream(2, name), dtype=torch.float64)


def problem() -> tuple[Weights, Tensor, Batch, Batch]:
    theta = {"first": normal("first", FEATURES, PAIRS), "second": normal("second", PAIRS, CLASSES)}
    labels = torch.arange(IMAGES) % CLASSES
    train, val = (Batch(normal(name, IMAGES, FEATURES), labels) for name in ("train", "val"))
    return theta, normal("gates", PAIRS).abs() + 0.2, train, val


def loss(theta: Weights, gates_Q: Tensor, batch: Batch) -> Tensor:
    return cross_entropy(forward(theta, EVERYTHING, batch.images, gates_Q), batch.labels)


def after_look_ahead(
    theta: Weights, gates_Q: Tensor, train: Batch, val: Batch, xi: float
) -> Tensor:
    """L_val(θ - ξ ∇_θ L_train(θ, g), g), with its graph to g."""
    leaves = {name: value.clone().requires_grad_() for name, value in theta.items()}
    gradient = torch.autograd.grad(
        loss(leaves, gates_Q, train), list(leaves.values()), create_graph=True
    )
    ahead = {n: v - xi * g for (n, v), g in zip(leaves.items(), gradient, strict=True)}
    return loss(ahead, gates_Q, val)


@pytest.mark.parametrize("xi", [0.0, XI])
def test_the_gradient_is_that_of_finite_differences(
    xi: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(darts, "EPSILON", 1e-4)
    theta, gates_Q, train, val = problem()
    found = gate_gradient(forward, theta, gates_Q, train, val, xi).small["z_grad"]
    for q in SOME:
        h = torch.zeros(PAIRS, dtype=torch.float64)
        h[q] = 1e-5
        above, below = (
            after_look_ahead(theta, gates_Q + sign * h, train, val, xi) for sign in (1, -1)
        )
        slope = float((above - below).detach() / 2e-5)
        assert float(found[q]) == pytest.approx(slope, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize(("epsilon", "near"), [(EPSILON, 1e-2), (1e-3, 1e-4), (1e-4, 1e-6)])
def test_the_second_order_is_the_exact_hessian_product(
    epsilon: float, near: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A central difference: ten times nearer is a hundred times better."""
    monkeypatch.setattr(darts, "EPSILON", epsilon)
    theta, gates_Q, train, val = problem()
    leaf = gates_Q.clone().requires_grad_()
    (exact,) = torch.autograd.grad(after_look_ahead(theta, leaf, train, val, XI), leaf)
    found = gate_gradient(forward, theta, gates_Q, train, val, XI).small["z_grad"]
    first = gate_gradient(forward, theta, gates_Q, train, val, 0.0).small["z_grad"]
    assert float((found - exact).norm() / exact.norm()) < near
    assert float((first - exact).norm() / exact.norm()) > 0.03  # the product is no detail here


@pytest.mark.parametrize(("xi", "passes"), [(0.0, 1), (XI, 4)])
def test_the_weights_are_moved_by_a_hundredth_to_both_sides(xi: float, passes: int) -> None:
    """θ ± ε ∇L_val with ε = 0.01 / ‖∇L_val‖, however steep the loss is; the first order is one pass
    on the validation images."""
    theta, gates_Q, train, val = problem()
    theta = {name: 3 * value for name, value in theta.items()}
    seen: list[tuple[Tensor, Tensor]] = []

    def recorded(weights: Weights, path: Path, images: Tensor, gates: Tensor | None) -> Tensor:
        seen.append((flat(weights).detach(), images))
        return forward(weights, path, images, gates)

    gate_gradient(recorded, theta, gates_Q, train, val, xi)
    assert len(seen) == passes
    if xi:
        (_, first), (ahead, second), (above, third), (below, fourth) = seen
        assert all(images is train.images for images in (first, third, fourth))
        assert second is val.images and not torch.equal(ahead, flat(theta))
        assert float((above - flat(theta)).norm()) == pytest.approx(0.01)
        torch.testing.assert_close(above - flat(theta), flat(theta) - below)
    else:
        assert torch.equal(seen[0][0], flat(theta)) and seen[0][1] is val.images


def test_the_mixture_shares_with_an_operation_that_adds_nothing() -> None:
    """Eq. (2), with `none` in the denominator."""
    alpha = torch.randn(len(KINDS), len(EDGES), len(OPERATIONS) + 1, generator=stream(0, "alpha"))
    gates_Q = mixture(alpha)
    k, e, o = 1, 9, 4
    expected = alpha[k, e, o].exp() / alpha[k, e].exp().sum()
    assert float(gates_Q[(k * len(EDGES) + e) * len(OPERATIONS) + o]) == pytest.approx(
        float(expected), rel=1e-5
    )
    assert float(gates_Q.sum()) < len(KINDS) * len(EDGES) - 1


def searched(xi: float | None, epoch: int = 1) -> tuple[dict[str, Tensor], PlainContext, Tensor]:
    theta, _, train, val = problem()
    method = Darts(warmup_epochs=1, xi=xi)
    logits = {"alpha": normal("alpha", len(KINDS), len(EDGES), len(OPERATIONS) + 1)}
    logits["alpha"].requires_grad_()
    context = PlainContext(forward, theta, train, val, epoch=epoch)
    update = method.search(logits, {}, context)
    return dict(update.by_logits), context, logits["alpha"]


@pytest.mark.parametrize(("xi", "taken"), [(None, 0.2), (0.05, 0.05), (0.0, 0.0)])
def test_alpha_moves_by_the_chain_rule_at_its_own_rate(xi: float | None, taken: float) -> None:
    """ξ is θ's learning rate (0.2 here) unless it is set."""
    by_logits, context, alpha = searched(xi)
    wanted = mixture(alpha.detach().requires_grad_())
    leaf = alpha.detach().clone().requires_grad_()
    value = after_look_ahead(
        context.weights, mixture(leaf), context.train_batch, context.val_batch, taken
    )
    (exact,) = torch.autograd.grad(value, leaf)
    assert float((by_logits["alpha"] - exact).norm() / exact.norm()) < 1e-2
    assert wanted.shape == (PAIRS,)


def test_the_warm_up_moves_no_alpha() -> None:
    assert searched(None, epoch=0)[0] == {}


def test_theta_trains_on_the_batch_of_the_look_ahead() -> None:
    theta, _, train, val = problem()
    method, context = Darts(warmup_epochs=0, xi=None), PlainContext(forward, theta, train, val)
    logits = {"alpha": normal("alpha", len(KINDS), len(EDGES), len(OPERATIONS) + 1)}
    method.search({"alpha": logits["alpha"].clone().requires_grad_()}, {}, context)
    update = method.train(logits, {}, context)
    assert context.asked == [("augmented", "weights", 0)] * 2
    leaves = {name: value.clone().requires_grad_() for name, value in theta.items()}
    exact = torch.autograd.grad(loss(leaves, mixture(logits["alpha"]), train), [*leaves.values()])
    assert update.by_theta is not None
    for name, gradient in zip(leaves, exact, strict=True):
        torch.testing.assert_close(update.by_theta[name], gradient)


def test_what_is_found_is_never_none_and_two_edges_a_node() -> None:
    alpha = torch.zeros(len(KINDS), len(EDGES), len(OPERATIONS) + 1)
    alpha[..., -1] = 9.0  # `none` leads everywhere
    alpha[:, :, 3] = torch.linspace(1, 2, len(EDGES))  # later edges are stronger
    alpha[0, 0, 5] = 8.0
    genotype = Darts(warmup_epochs=0, xi=None).found({"alpha": alpha}, {}).genotype
    assert genotype is not None
    assert genotype == derive_strongest(alpha.softmax(-1)[..., : len(OPERATIONS)])
    assert genotype.normal[:2] == (("dil_conv_3x3", 0), ("sep_conv_3x3", 1))
    assert genotype.reduce[-2:] == (("sep_conv_3x3", 3), ("sep_conv_3x3", 4))
