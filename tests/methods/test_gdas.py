"""GDAS: what is drawn, what runs, and what the gradient goes through."""

import pytest
import torch
from plain_context import PlainContext
from torch import Tensor
from torch.nn.functional import cross_entropy

from daas_dist.methods.gdas import Gdas, sample
from daas_dist.methods.passes import Batch, Weights, functional
from daas_dist.models.supernet import Supernet
from daas_dist.rng import stream
from daas_dist.spaces.cells import EDGES, KINDS, OPERATIONS, Path

SHAPE = len(KINDS), len(EDGES), len(OPERATIONS) + 1


class Tau:
    start, end = 6.0, 0.5


def alpha(seed: int = 1) -> Tensor:
    return torch.randn(SHAPE, generator=stream(seed, "alpha"))


def test_operations_are_drawn_by_their_softmax_and_none_has_no_pair() -> None:
    logits, count = alpha(), 4000
    drawn = torch.zeros(SHAPE)
    for i in range(count):
        path = sample(logits, 2.5, stream(3, "draw", i)).path
        for k, cell in enumerate(path):
            assert len({edge for edge, _ in cell}) == len(cell)
            for edge, operation in cell:
                drawn[k, edge, operation] += 1
    share = logits.softmax(-1)
    error = (share * (1 - share) / count).sqrt()
    apart = ((drawn / count - share) / error)[..., : len(OPERATIONS)]
    assert float(apart.abs().max()) < 4.5
    assert not drawn[..., -1].any()


def test_the_relaxed_choice_follows_the_formula() -> None:
    logits, tau = alpha(), 0.7
    path, soft_Q = sample(logits, tau, stream(4, "draw"))
    generator = stream(4, "draw")
    noise = -torch.empty(SHAPE, dtype=torch.float64).exponential_(generator=generator).log()
    q, k = len(path[0]) + 2, 1
    edge, operation = path[k][2]
    terms = ((logits.log_softmax(-1)[k, edge] + noise[k, edge]) / tau).exp()
    assert float(soft_Q[q]) == pytest.approx(float(terms[operation] / terms.sum()), rel=1e-4)
    assert int(terms.argmax()) == operation


COEFFICIENT = torch.linspace(-2, 3, len(KINDS) * len(EDGES))


def linear_in_gates(theta: Weights, path: Path, images: Tensor, gates: Tensor | None) -> Tensor:
    """Logits (s, 0), s = Σ c · gate: of one known coefficient a pair."""
    gates = torch.ones(sum(map(len, path))) if gates is None else gates
    score = (COEFFICIENT[: len(gates)] * gates).sum() + theta["bias"].sum()
    return torch.stack([score, score * 0]).expand(len(images), 2)


def test_the_gradient_goes_through_the_relaxed_choice_of_what_ran() -> None:
    """The gate's gradient times the slope of its relaxed choice, by finite differences of α."""
    batch = Batch(torch.zeros(4, 1), torch.tensor([0, 1, 1, 1]))
    context = PlainContext(linear_in_gates, {"bias": torch.zeros(2)}, batch, batch)
    logits = {"alpha": alpha().requires_grad_()}
    found = Gdas(warmup_epochs=0, tau=Tau()).search(logits, {}, context).by_logits["alpha"]
    tau = 6.0 + (0.5 - 6.0) * 0.4
    path = sample(alpha(), tau, stream(5, "arch", 3, 0)).path
    leaf = torch.ones(sum(map(len, path)), requires_grad=True)
    loss = cross_entropy(linear_in_gates(context.weights, path, batch.images, leaf), batch.labels)
    (by_gates,) = torch.autograd.grad(loss, leaf)

    def through(logits_KEO: Tensor) -> float:
        drawn = sample(logits_KEO, tau, stream(5, "arch", 3, 0))
        assert drawn.path == path
        return float((by_gates * drawn.soft_Q).sum())

    assert by_gates.abs().min() > 0
    for at in ((0, 0, 1), (0, 7, 7), (1, 13, 4), (1, 3, 0)):
        h = torch.zeros(SHAPE)
        h[at] = 1e-2
        slope = (through(alpha() + h) - through(alpha() - h)) / 2e-2
        assert float(found[at]) == pytest.approx(slope, rel=0.02, abs=2e-4)


def test_only_what_is_sampled_is_computed() -> None:
    network = Supernet(channels=2, cells=3, classes=2, in_channels=1)
    called: set[tuple[int, int, int]] = set()
    for index, cell in enumerate(network.cells):
        for edge in range(len(EDGES)):
            for operation, name in enumerate(OPERATIONS):
                module = cell.get_submodule(f"edges.{edge}.{name}")

                def ran(*_: object, at: tuple[int, int, int] = (index, edge, operation)) -> None:
                    called.add(at)

                module.register_forward_hook(ran)
    weights: Weights = dict(network.named_parameters())
    batch = Batch(torch.randn(3, 1, 8, 8, generator=stream(0, "x")), torch.tensor([0, 1, 1]))

    context = PlainContext(functional(network), weights, batch, batch, active=network.active)
    method, logits = Gdas(warmup_epochs=0, tau=Tau()), {"alpha": alpha().requires_grad_()}
    update = method.train(logits, {}, context)
    tau = 6.0 + (0.5 - 6.0) * 0.4
    path = sample(alpha(), tau, stream(5, "weights-arch", 3, 0)).path
    kinds = ("normal", "reduce", "reduce")
    assert called == {
        (i, *pair) for i, kind in enumerate(kinds) for pair in path[KINDS.index(kind)]
    }
    assert update.by_theta is not None and set(update.by_theta) == set(network.active(path))


def test_a_network_of_which_nothing_was_drawn_still_runs() -> None:
    """`none` everywhere: its nodes are zeros, and its gradient by α is zero."""
    network = Supernet(channels=2, cells=3, classes=2, in_channels=1)
    batch = Batch(torch.randn(3, 1, 9, 9, generator=stream(0, "x")), torch.tensor([0, 1, 1]))
    logits = {"alpha": torch.zeros(SHAPE)}
    logits["alpha"][..., -1] = 60.0
    logits["alpha"].requires_grad_()
    every = dict(network.named_parameters())
    weights: Weights = {name: every[name] for name in network.active(((), ()))}
    context = PlainContext(functional(network), weights, batch, batch)
    method = Gdas(warmup_epochs=0, tau=Tau())
    assert method.search(logits, {}, context).by_logits == {}
    assert method.train(logits, {}, context).by_theta is not None
