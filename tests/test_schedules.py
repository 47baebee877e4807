"""Learning rates against their formulas written out, at every epoch of every recipe."""

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch

from daas_dist.config import load, options
from daas_dist.schedules import Schedule, learning_rate
from daas_dist.training import rows

GIVEN = {"train_imagenet": ["data.root=/shards"], "train_folder": ["data.root=/images"]}


def schedule(stage: str, recipe: str) -> Schedule:
    words = [f"stage={stage}", f"recipe={recipe}", "train.result=r.json", *GIVEN.get(stage, [])]
    return rows.schedule(load(words).train)


def pc_darts(e: int) -> float:
    """train_imagenet.py: a line to epoch 245, a gentler one from there, the first five ramped."""
    rate = 0.5 * (250 - 5 - e) / (250 - 5) if 250 - e > 5 else 0.5 * (250 - e) / ((250 - 5) * 5)
    return rate * (e + 1) / 5 if e < 5 else rate


def dada(rate: float, epochs: int, multiplier: float, warmup: int) -> Callable[[int], float]:
    def at(e: int) -> float:
        if e < warmup:
            return rate * ((multiplier - 1) * e / warmup + 1)
        return rate * multiplier * (1 + math.cos(math.pi * (e - warmup) / epochs)) / 2

    return at


def resnet(e: int) -> float:
    if e < 3:
        return (0.2, 0.2 + 0.2 / 3, 0.2 + 0.4 / 3)[e]
    return 0.4 if e < 93 else 0.04 if e < 183 else 0.004 if e < 243 else 0.0004


def darts(epochs: int) -> Callable[[int], float]:
    return lambda e: 0.025 * (1 + math.cos(math.pi * e / epochs)) / 2


RECIPES: dict[tuple[str, str], tuple[int, Callable[[int], float]]] = {
    ("train_cifar10", "none"): (600, darts(600)),
    ("train_cifar100", "none"): (600, darts(600)),
    ("train_folder", "none"): (600, darts(600)),
    ("train_fashion", "none"): (4, darts(4)),
    ("train_imagenet", "none"): (250, pc_darts),
    ("train_cifar10", "wide_resnet_40_2"): (200, dada(0.1, 200, 4, 5)),
    ("train_cifar10", "wide_resnet_28_10"): (200, dada(0.1, 200, 4, 5)),
    ("train_cifar100", "wide_resnet_40_2_cifar100"): (200, dada(0.1, 200, 4, 5)),
    ("train_cifar10", "shake_shake_32d"): (1800, dada(0.01, 1800, 4, 5)),
    ("train_cifar10", "shake_shake_96d"): (1800, dada(0.01, 1800, 4, 5)),
    ("train_cifar100", "shake_shake_96d_cifar100"): (1800, dada(0.01, 1800, 4, 5)),
    ("train_cifar10", "shake_shake_112d"): (1800, dada(0.01, 1800, 4, 5)),
    ("train_cifar10", "pyramidnet_272"): (1800, dada(0.05, 1800, 1, 0)),
    ("train_cifar100", "pyramidnet_272_cifar100"): (1800, dada(0.025, 1800, 1, 0)),
    ("train_imagenet", "resnet_50"): (270, resnet),
}


def test_the_formulas_are_of_every_stage_and_recipe() -> None:
    stages, recipes = map(set, zip(*RECIPES, strict=True))
    assert stages == {name for name in options("stage") if name.startswith("train_")}
    assert recipes == set(options("recipe"))


NUMBERS: dict[tuple[str, str], dict[int, float]] = {
    ("train_cifar10", "none"): {0: 0.025, 150: 0.0213388348, 300: 0.0125, 599: 1.713469e-7},
    ("train_fashion", "none"): {0: 0.025, 1: 0.0213388348, 2: 0.0125, 3: 0.00366116524},
    ("train_imagenet", "none"): {
        0: 0.1, 2: 0.297551020, 4: 0.491836735, 5: 0.489795918, 125: 0.244897959,
        244: 0.00204081633, 245: 0.00204081633, 249: 0.000408163265,
    },
    ("train_cifar10", "wide_resnet_40_2"): {0: 0.1, 3: 0.28, 5: 0.4, 105: 0.2, 199: 0.000887607079},
    ("train_cifar10", "pyramidnet_272"): {0: 0.05, 450: 0.0426776695, 900: 0.025, 1799: 3.80768e-8},
    ("train_imagenet", "resnet_50"): {
        0: 0.2, 2: 0.333333333, 92: 0.4, 93: 0.04, 135: 0.04, 183: 0.004, 269: 0.0004,
    },
}  # fmt: skip


@pytest.mark.parametrize(("stage", "recipe"), NUMBERS)
def test_the_rates_of_some_epochs_are_these_numbers(stage: str, recipe: str) -> None:
    made = schedule(stage, recipe)
    for epoch, rate in NUMBERS[stage, recipe].items():
        assert learning_rate(made, epoch) == pytest.approx(rate, rel=1e-5)


@pytest.mark.parametrize(("stage", "recipe"), RECIPES)
def test_the_rate_of_every_epoch_is_the_peers_formula(stage: str, recipe: str) -> None:
    made, (epochs, formula) = schedule(stage, recipe), RECIPES[stage, recipe]
    assert made.epochs == epochs
    rates = [learning_rate(made, e) for e in range(epochs)]
    assert rates == pytest.approx([formula(e) for e in range(epochs)], rel=1e-12)
    assert min(rates) > 0


def test_a_schedule_by_epoch_keeps_its_rate_through_an_epoch_and_one_by_step_does_not() -> None:
    darts, wide = (schedule("train_cifar10", name) for name in ("none", "wide_resnet_40_2"))
    plain = Schedule("cosine", 0.3, 13)  # by epoch, unless it is told
    assert learning_rate(plain, 2.7) == learning_rate(plain, 2) != learning_rate(plain, 3)
    # 98 steps an epoch: the step's number over that has to land in its own epoch, every time.
    for step in range(2 * 98, 3 * 98):
        assert learning_rate(darts, step / 98) == learning_rate(darts, 2)
    inside = [learning_rate(wide, step / 98) for step in range(3 * 98)]
    assert all(a < b for a, b in pairwise(inside))
    assert inside[98 + 49] == pytest.approx(0.1 * (1 + 3 * 1.5 / 5), rel=1e-12)


def test_a_gradual_warm_up_meets_its_curve_and_linear_its_tail_without_a_jump() -> None:
    wide, imagenet = (
        schedule("train_cifar10", "wide_resnet_40_2"),
        schedule("train_imagenet", "none"),
    )
    assert learning_rate(wide, 5 - 1e-9) == pytest.approx(learning_rate(wide, 5), rel=1e-8)
    assert learning_rate(wide, 5) == pytest.approx(4 * learning_rate(wide, 0), rel=1e-12)
    # PC-DARTS' two lines share the rate of the epochs on their two sides, and then fall five times
    # more slowly.
    rates = [learning_rate(imagenet, e) for e in range(243, 250)]
    assert rates[1] == pytest.approx(rates[2], rel=1e-12)
    assert rates[0] - rates[1] == pytest.approx(5 * (rates[2] - rates[3]), rel=1e-9)


def test_a_cosine_ends_at_zero_and_after_a_warm_up_a_little_above() -> None:
    pyramid, wide = (schedule("train_cifar10", n) for n in ("pyramidnet_272", "wide_resnet_40_2"))
    assert learning_rate(pyramid, 1800) == pytest.approx(0, abs=1e-15)
    assert learning_rate(wide, 200) == pytest.approx(0.2 * (1 + math.cos(math.pi * 195 / 200)))


def test_cosine_and_steps_are_torchs() -> None:
    """CosineAnnealingLR and MultiStepLR on an optimiser of their own."""
    weight = torch.nn.Parameter(torch.zeros(1))
    for made, torchs in (
        (Schedule("cosine", 0.3, 13), lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 13)),
        (
            Schedule("steps", 0.3, 13, milestones=(2, 7, 11)),
            lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [2, 7, 11]),
        ),
    ):
        optimiser = torch.optim.SGD([weight], lr=0.3)
        scheduler = torchs(optimiser)
        for epoch in range(13):
            expected = optimiser.param_groups[0]["lr"]
            assert learning_rate(made, epoch) == pytest.approx(expected, rel=1e-9)
            optimiser.step()
            scheduler.step()


def test_an_unknown_curve_names_the_known() -> None:
    with pytest.raises(ValueError, match="'step'; choose from cosine, linear, steps"):
        learning_rate(Schedule("step", 0.1, 10), 3)
