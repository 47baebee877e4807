"""The numbers of a step: their means between two lines of metrics, and whether they are finite."""

from pathlib import Path

import pytest
import torch
from test_search import search

from daas_dist.methods.interface import Contribution, Update
from daas_dist.runs.log import RunLog, read_metrics
from daas_dist.search import findings, loop
from daas_dist.search.budget import expected_cost
from daas_dist.search.finite import check_terms, check_update
from daas_dist.search.metrics import Interval


def test_a_mean_is_over_the_steps_that_had_the_number() -> None:
    interval = Interval.empty()
    for step in (
        {"train_loss": 2.0, "train_accuracy": 0.5},
        {"train_loss": 5.0, "reward_mean": 3.0},
        {"train_loss": 11.0, "reward_mean": -4.0},
    ):
        interval = interval.add(step)
    assert interval.means() == {
        "train_loss": 6.0, "train_accuracy": 0.5, "reward_mean": -0.5,
        "val_loss": None, "val_accuracy": None, "reward_std": None,
    }  # fmt: skip


def test_the_first_number_that_is_not_finite_is_told_by_its_path_and_place() -> None:
    fine = Contribution({"val": torch.ones(2), "reward": torch.ones(4)})
    rewards = torch.tensor([1.0, torch.nan, 2.0, torch.inf])
    wrong = Contribution({"val": torch.ones(2), "reward": rewards})
    paths = [((((0, 0),), ())), (((1, 3),), ())]
    check_terms(7, [fine, fine], paths, ["val", "reward"])
    words = r"step 7: the reward \(reward 1 of 1\) of architecture 1 \(normal: sep_conv_3x3 from 1"
    with pytest.raises(FloatingPointError, match=words):
        check_terms(
            7, [fine, wrong], paths, ["val", "reward"], lambda n, i, k: f" ({n} {k} of {i})"
        )
    with pytest.raises(FloatingPointError, match="the reward of architecture 0"):
        check_terms(7, [wrong, fine], paths, ["val", "reward"])


def test_one_number_is_enough_for_a_gradient_not_to_be_finite() -> None:
    fine, wrong = torch.ones(3), torch.tensor([1.0, -torch.inf, 2.0])
    check_update(3, "the weights", [fine, fine])
    for values in ([fine, wrong], [wrong, fine]):
        with pytest.raises(FloatingPointError, match="step 3: the gradient by the weights is not"):
            check_update(3, "the weights", values)


def test_a_line_of_metrics_is_of_the_epoch_of_its_last_step() -> None:
    """Four steps an epoch, one epoch of warm-up: the fourth step ends it, the fifth is joint."""
    run = search()
    for step, epoch, phase in (
        (1, 1, "warmup"),
        (4, 1, "warmup"),
        (5, 2, "joint"),
        (12, 3, "joint"),
    ):
        run.state.step = step
        row = findings.metrics(run, 1.0)
        assert (row["epoch"], row["phase"], row["step"]) == (epoch, phase, step)
        assert (row["epochs"], row["steps"]) == (3, 12)


def test_alpha_and_gamma_take_their_own_optimisers_first_step() -> None:
    """Adam's first step is its rate, whatever the gradient: 0.0003 for α, 0.005 for γ. A plain step
    of γ is its gradient times the rate: one half of it at half of the rate."""
    moved = {}
    given = (
        "search.warmup_epochs=0",
        "search.estimator=paper",
        "search.architecture.weight_decay=0",
    )
    for words in (("adam", "0.005"), ("sgd", "0.2"), ("sgd", "0.1")):
        policy = [
            f"{key}={word}" for key, word in zip(("name", "learning_rate"), words, strict=True)
        ]
        run = search(
            *given,
            "search.architecture.learning_rate=0.0003",
            *(f"search.policy_optimizer.{word}" for word in policy),
        )
        before = {n: value.detach().clone() for n, value in run.state.logits.items()}
        run.step()
        moved[words] = {n: run.state.logits[n].detach() - before[n] for n in before}
        steps = moved[words]["alpha"].abs()
        assert float(steps.max()) == pytest.approx(0.0003, rel=1e-2)
    gamma = [moved[words]["gamma.delta"] for words in moved]
    assert float(gamma[0].abs().max()) == pytest.approx(0.005, rel=1e-2)
    torch.testing.assert_close(gamma[1], 2 * gamma[2])
    assert float(gamma[1].abs().max()) > 1e-6


def test_a_step_s_penalty_lowers_the_cost_that_exceeds_its_limit() -> None:
    """Where the method wants nothing, α and β move by the penalty alone, against the cost."""
    run = search("search.max_parameters=7000")
    run.state.price = 1.0
    alpha, beta = (run.state.logits[name] for name in ("alpha", "beta"))

    def cost() -> float:
        with torch.no_grad():
            return float(expected_cost(run.costs.parameters, alpha.double(), beta.double()))

    before = cost()
    nothing = {"alpha": torch.zeros_like(alpha), "beta": torch.zeros_like(beta)}
    run._move_logits(Update(by_logits=nothing))  # pyright: ignore[reportPrivateUsage]
    assert cost() < before - 1e-6


def test_a_search_starts_with_nothing_behind_it() -> None:
    state = search().state
    assert (state.step, state.skips, state.passes, state.seconds, state.price) == (0, 0, 0, 0, 0)


def test_throughput_is_that_of_the_steps_since_the_last_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Two lines of two steps each, 8 images a step; the first step takes a minute, as starts do."""
    run = search("search.log_every=2")
    clock = [100.0]
    monkeypatch.setattr(loop.time, "monotonic", lambda: clock[0])
    steps, log = loop.Steps(run, None), RunLog(tmp_path, tensorboard=False)
    for seconds in (60.0, 4.0, 1.0, 3.0):
        run.step()
        clock[0] += seconds
        steps.tell(log)
    told = [row["images_per_second"] for row in read_metrics(tmp_path)]
    batch = run.config.search.batch_size
    assert told == pytest.approx([2 * batch / 64, 2 * batch / 4])
