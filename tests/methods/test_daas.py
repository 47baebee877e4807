"""DAAS as a method: how it starts, what its steps average and rank, and what it tells."""

from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from plain_context import PlainContext
from small_problem import linear_softmax, small_problem
from test_search import evidence, search
from torch import Tensor

from daas_dist import config as configuration
from daas_dist.methods import daas
from daas_dist.methods.daas import metrics_of, reward_metrics
from daas_dist.methods.interface import Contribution
from daas_dist.methods.passes import Batch
from daas_dist.rng import stream
from daas_dist.search.method import build_method


def method(*words: str) -> Any:
    return build_method(configuration.load(["preset=tiny", *words]))


def test_alpha_and_beta_start_at_a_thousandth_of_a_standard_normal() -> None:
    small = method()
    made = [small.logits(stream(seed, "start")) for seed in range(40)]
    for name, shape in (("alpha", (2, 14, 7)), ("beta", (2, 14))):
        values = torch.stack([logits[name] for logits in made])
        assert values.shape[1:] == shape
        spread = 4 / (2 * values.numel()) ** 0.5  # four standard errors of a standard deviation
        assert float(values.std()) == pytest.approx(1e-3, rel=spread)
        assert float(values.mean().abs()) < 4e-3 / values.numel() ** 0.5


def context() -> PlainContext:
    theta, views, val, _ = small_problem()
    theta = {name: value.float() for name, value in theta.items()}
    train, val = (Batch(b.images.float(), b.labels) for b in (views[0], val))
    return PlainContext(linear_softmax, theta, train, val)


def test_a_mean_over_architectures_is_their_sum_by_their_number() -> None:
    """Eq. (14) has the sum. All paths are the same network here, and so have the same gradient."""
    found = {}
    for words in ("sum", "mean"):
        made = method(f"search.weight_gradient={words}", "search.weight_architectures=3")
        found[words] = made.train(made.logits(stream(0, "start")), made.memory(), context())
    plain = {name: value.clone().requires_grad_() for name, value in context().weights.items()}
    train = context().train_batch
    loss = torch.nn.functional.cross_entropy(
        linear_softmax(plain, (), train.images, None), train.labels
    )
    for name, gradient in zip(plain, torch.autograd.grad(loss, [*plain.values()]), strict=True):
        torch.testing.assert_close(found["mean"].by_theta[name], gradient)
        torch.testing.assert_close(found["sum"].by_theta[name], 3 * gradient)
    for update in found.values():
        assert update.metrics["train_loss"] == pytest.approx(float(loss.detach()))


def test_metrics_are_means_over_a_step() -> None:
    rewards = torch.tensor([1.0, 4.0]), torch.tensor([-2.0, 7.0])
    terms = [
        Contribution({"val": torch.tensor(val), "reward": reward})
        for val, reward in zip(([0.5, 0.25], [1.5, 0.75]), rewards, strict=True)
    ]
    assert metrics_of(terms, "val") == {"val_loss": 1.0, "val_accuracy": 0.5}
    spread = (((1 - 2.5) ** 2 + 1.5**2 + 4.5**2 + 4.5**2) / 4) ** 0.5
    assert reward_metrics(terms) == pytest.approx({"reward_mean": 2.5, "reward_std": spread})


def test_the_rewards_of_all_architectures_are_ranked_together() -> None:
    """Of two architectures with two policies each, the scores are Φ⁻¹ of 1/5 to 4/5, whatever the
    rewards are; of each slot the evidence has them all."""
    run = search("search.warmup_epochs=0", "search.estimator=paper", "search.architectures=2")
    run.step()
    scores = torch.special.ndtri(torch.arange(1, 5, dtype=torch.float64) / 5)
    table = evidence(run).operation_KO
    for slot in range(2):
        assert float(table.square[slot].sum()) == pytest.approx(float(scores.square().sum()))
        assert float(table.total[slot].sum()) == pytest.approx(0.0, abs=1e-12)
        assert float(table.weight[slot].sum()) == 4


def test_result_json_has_the_probabilities_of_operations_and_edges() -> None:
    made = method()
    logits: dict[str, Tensor] = made.logits(stream(0, "start"))
    logits["alpha"], logits["beta"] = 1e3 * logits["alpha"], 1e3 * logits["beta"]
    found = made.document(logits, made.memory())
    alpha, beta = torch.tensor(found.alpha), torch.tensor(found.beta)
    assert alpha.shape == (2, 14, 7) and beta.shape == (2, 14)
    torch.testing.assert_close(alpha.sum(-1), torch.ones(2, 14))
    odds = (logits["alpha"][1, 9, 4] - logits["alpha"][1, 9, 0]).exp()
    assert float(alpha[1, 9, 4] / alpha[1, 9, 0]) == pytest.approx(float(odds), rel=1e-4)
    torch.testing.assert_close(beta[:, 5:9].sum(-1), torch.ones(2))


def test_a_look_ahead_of_any_length_but_none_gives_rewards() -> None:
    assert method("search.xi=1").xi == 1
    alone = method("search.target=architecture")  # no rewards: ξ is not read
    settings = {each.name: getattr(alone, each.name) for each in fields(alone)}
    assert daas.method(settings | {"xi": 0}) == replace(alone, xi=0)
    with pytest.raises(configuration.ConfigError, match="search.xi=0 is not possible"):
        method("search.xi=0")
