"""What is told of a search, against torch's own distributions and means written out."""

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical

from daas_dist.methods.interface import named_policy_logits
from daas_dist.methods.shown import edge_probability, entropies, operation_share
from daas_dist.rng import stream
from daas_dist.spaces.cells import OPERATIONS
from daas_dist.spaces.policy import PolicyLogits

NODES = ((0, 2), (2, 5), (5, 9), (9, 14))
"""Edges into each node."""


def normal(name: str, *shape: int) -> Tensor:
    return torch.randn(shape, generator=stream(6, name))


def test_entropies_are_those_of_the_choices() -> None:
    gamma = PolicyLogits(
        normal("pi", 2, 15), normal("rho", 2, 15), normal("delta", 2, 15, 10), "per_slot"
    )
    alpha, beta = normal("alpha", 2, 14, 7), normal("beta", 2, 14)
    found = entropies({"alpha": alpha, "beta": beta, **named_policy_logits(gamma)}, "per_slot")
    of_nodes = [Categorical(logits=beta[:, i:j]).entropy().mean() for i, j in NODES]
    pi, applied = Categorical(logits=gamma.pi_KO), Bernoulli(logits=gamma.rho)
    used = pi.probs * applied.probs
    assert found == pytest.approx(
        {
            "alpha": float(Categorical(logits=alpha).entropy().mean()),
            "beta": float(sum(of_nodes)) / 4,
            "pi": float(pi.entropy().mean()),
            "application": float((pi.probs * applied.entropy()).sum() / 2),
            "magnitude": float(
                (used * Categorical(logits=gamma.delta).entropy()).sum() / used.sum()
            ),
        },
        rel=1e-5,
    )


def test_what_is_not_searched_has_no_entropy_and_no_share() -> None:
    assert set(entropies({}, "per_slot").values()) == {None}
    assert operation_share({}) is None
    with_none = normal("with none", 2, 14, 8)  # α of DARTS, `none` last
    found = entropies({"alpha": with_none}, "")
    of_seven = Categorical(logits=with_none[..., :7]).entropy().mean()
    assert found["alpha"] == pytest.approx(float(of_seven), rel=1e-5)
    assert [found[name] for name in ("beta", "pi", "application", "magnitude")] == [None] * 4


@pytest.mark.parametrize("with_beta", [True, False])
def test_the_share_of_an_operation_is_its_probability_on_the_edges_that_beta_keeps(
    with_beta: bool,
) -> None:
    alpha, beta = normal("alpha", 2, 14, 8), normal("beta", 2, 14)
    found = operation_share({"alpha": alpha} | ({"beta": beta} if with_beta else {}))
    assert found is not None
    for kind, name in enumerate(("normal", "reduce")):
        for o, operation in enumerate(OPERATIONS):
            share = 0.0
            for i, j in NODES:
                for e in range(i, j):
                    kept = float(beta[kind, e].exp() / beta[kind, i:j].exp().sum())
                    p = float(alpha[kind, e, o].exp() / alpha[kind, e].exp().sum())
                    share += (kept if with_beta else 1 / (j - i)) * p / 4
            assert found[name][operation] == pytest.approx(share, rel=1e-4)
        assert edge_probability(beta[kind]).sum().item() == pytest.approx(4.0)
