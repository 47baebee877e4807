"""What the weights train under before the policy is searched, and under a fixed policy."""

import copy
from typing import Any
from unittest.mock import patch

import pytest
import torch
from found_results import PAPER, mixed_policy
from rank_processes import forks, in_ranks
from torch import Tensor

from daas_dist import config as configuration
from daas_dist.config import Config
from daas_dist.data import Images
from daas_dist.distributed.mesh import Mesh
from daas_dist.methods.passes import Batch
from daas_dist.rng import stream
from daas_dist.search.context import Context
from daas_dist.search.loop import build_network
from daas_dist.search.steps import Search, SearchData
from daas_dist.spaces import operations as augment
from daas_dist.spaces import policy
from daas_dist.spaces.policy import Policy, PolicyLogits
from daas_dist.spaces.space import Space

TINY = ["preset=tiny", "device=cpu", "search.batch_size=8", "search.joint_epochs=1"]


def images(seed: int) -> Images:
    g = stream(seed, "images")
    pixels = torch.randint(1, 256, (16, 1, 12, 12), generator=g, dtype=torch.uint8)
    return Images(pixels, torch.arange(16) % 3, ("a", "b", "c"))


def load(*overrides: str) -> Config:
    return configuration.load([*TINY, *overrides])


def search(config: Config, mesh: Mesh | None = None, fixed: Policy | None = None) -> Search:
    """Two steps of warm-up, two of the joint phase."""
    data = SearchData(images(1), images(2), [0.5], [0.3], fixed)
    return Search(config, data, build_network(config, 3), mesh or Mesh(), torch.device("cpu"))


def trained_on(run: Search) -> list[tuple[Tensor, Tensor]]:
    """(as they were read, as the weight step saw them) of every step that is left."""
    seen, inside = [], Context.augmented

    def augmented(self: Context, draws: Any, space: Any, purpose: str, index: int) -> Batch:
        made = inside(self, draws, space, purpose, index)
        if purpose == "weights":
            seen.append((self.images.normalised(self.read["train"].images), made.images))
        return made

    with patch.object(Context, "augmented", augmented):
        while run.state.step < run.steps:
            run.step()
    return seen


@pytest.mark.parametrize("target", ["joint", "policy"])
@pytest.mark.parametrize("estimator", ["paper", "running_means"])
def test_a_plain_warm_up_trains_on_the_images_as_they_were_cut(target: str, estimator: str) -> None:
    given = [f"search.estimator={estimator}", "search.reuse_gradients=false"]
    given += ["policy.slots=6"]  # few draws of them apply nothing
    given += ["model=small", "search.target=policy"] if target == "policy" else []
    uniform = trained_on(search(load(*given)))
    plain = trained_on(search(load(*given, "search.warmup_policy=plain")))
    assert [torch.equal(*step) for step in plain] == [True, True, False, False]
    assert [torch.equal(*step) for step in uniform] == [False] * 4


def test_a_uniform_warm_up_draws_from_the_policy_that_has_not_moved() -> None:
    """Eq. 14's one Γ for the batch, at its address, of γ = 0: every operation, p = 1/2."""
    run = search(load("search.estimator=paper", "policy.slots=3", "seed=5"))
    gamma = PolicyLogits.initial(3, run.config.policy.parameters, PAPER)
    expected = []
    for step in range(2):
        pixels = run.feed.batch(step)["train"].images
        draws = policy.repeat(gamma.sample(1, stream(5, "weights-policy", step, 0)), 8)
        generator = stream(5, "augment", "weights", step, 0)
        made = policy.apply(pixels, draws, generator, PAPER)
        expected.append(run.images.normalised(made))
    run = search(run.config)
    seen = [made for _, made in trained_on(run)]
    assert all(map(torch.equal, seen[:2], expected))


@forks
@pytest.mark.parametrize("words", ["plain", "uniform"])
def test_the_warm_up_has_the_same_bits_on_two_ranks_and_after_a_stop(words: str) -> None:
    """α and θ of one rank, of two, and of a search that goes on from a step of its warm-up."""
    config = load(f"search.warmup_policy={words}", "search.weight_architectures=3")

    def task(mesh: Mesh) -> list[Tensor]:
        run = search(config, mesh)
        while run.state.step < run.steps:
            run.step()
        return [run.state.logits["alpha"].detach(), *(each.detach() for each in run.theta.values())]

    (alone,) = in_ranks(1, task)
    for rank in in_ranks(2, task):
        assert all(map(torch.equal, rank, alone))
    stopped = search(config)
    stopped.step()
    saved = copy.deepcopy(stopped.state.save())
    resumed = search(config)
    resumed.state.load(saved)
    while resumed.state.step < resumed.steps:
        resumed.step()
    found = [
        resumed.state.logits["alpha"].detach(),
        *(each.detach() for each in resumed.theta.values()),
    ]
    assert all(map(torch.equal, found, alone))


@pytest.mark.parametrize("ranges", augment.RANGES)
def test_a_fixed_policy_keeps_its_own_ranges(ranges: str) -> None:
    """Those that it was found with, whatever policy.ranges is for searches of a policy."""
    fixed = mixed_policy(Space(ranges, PAPER.operations))
    (other, _) = sorted({*augment.RANGES} - {ranges})
    run = search(load("search.target=architecture"), fixed=fixed)
    pixels, seed = run.feed.batch(0)["train"].images, run.config.seed
    draws = fixed.draw(8, stream(seed, "weights-policy", 0, 0))

    def under(name: str) -> Tensor:
        generator = stream(seed, "augment", "weights", 0, 0)
        space = Space(name, fixed.space.operations)
        return run.images.normalised(policy.apply(pixels, draws, generator, space))

    expected, unexpected = under(ranges), under(other)
    _, made = trained_on(run)[0]
    assert torch.equal(made, expected) and not torch.equal(made, unexpected)
