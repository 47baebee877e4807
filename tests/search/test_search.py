"""What a step of the search moves, draws and counts, on a few images made here."""

import re
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch
from golden import digest
from rank_processes import forks, in_ranks

from daas_dist import config as configuration
from daas_dist.data import Images, Read
from daas_dist.distributed.mesh import Mesh
from daas_dist.methods import daas, equations, ours, per_image
from daas_dist.methods.estimators import Evidence, normal_scores
from daas_dist.methods.interface import Contribution, policy_logits
from daas_dist.methods.passes import JVP
from daas_dist.methods.per_image import control_by_others
from daas_dist.models.network import Network
from daas_dist.models.small import FixedNetwork
from daas_dist.models.supernet import Supernet
from daas_dist.rng import stream
from daas_dist.search import context as context_module
from daas_dist.search.loop import build_network
from daas_dist.search.steps import Search, SearchData
from daas_dist.spaces import operations as augment
from daas_dist.spaces.cells import DARTS_V2, path_of
from daas_dist.spaces.policy import Draws, PolicyLogits
from daas_dist.spaces.space import Space

TINY = ["preset=tiny", "device=cpu", "search.batch_size=8"]
POLICY = ["model=small", "search.target=policy"]


def images(count: int, seed: int) -> Images:
    g = stream(seed, "images")
    labels = torch.randint(3, (count,), generator=g)
    pixels = torch.randint(1, 256, (count, 1, 12, 12), generator=g, dtype=torch.uint8)
    return Images(pixels, labels, ("a", "b", "c"))


def search(*overrides: str) -> Search:
    config = configuration.load([*TINY, *overrides])
    data = SearchData(images(32, 1), images(32, 2), [0.0], [1.0])
    return Search(config, data, build_network(config, 3), Mesh(), torch.device("cpu"))


def parameters(run: Search) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in (run.state.logits | run.theta).items()}


def gamma(run: Search) -> PolicyLogits:
    return policy_logits(run.state.logits, run.config.policy.parameters)


def evidence(run: Search) -> Evidence:
    return Evidence.from_tensors(run.state.memory["evidence"])


def moved(run: Search) -> set[str]:
    before = parameters(run)
    run.step()
    after = parameters(run)
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_the_warm_up_moves_the_architecture_and_the_joint_phase_the_policy_too() -> None:
    run = search("search.evidence.decay=1", "search.estimator=paper")
    while run.warming_up:
        names = moved(run)
        assert {"alpha", "beta"} <= names and not any(name.startswith("gamma.") for name in names)
    assert set(run.state.logits) == {"alpha", "beta", "gamma.pi", "gamma.rho", "gamma.delta"}
    assert set(run.state.logits) <= moved(run)


def test_a_weight_that_no_sampled_path_used_does_not_move() -> None:
    run = search("search.weight_architectures=1", "search.weights.weight_decay=0.1")
    assert isinstance(run.method, daas.Daas) and isinstance(run.state.network, Supernet)
    (sampled,) = run.method.sample(run.state.logits, run.context(), "weights-arch", 1)
    assert sampled is not None
    used = set(run.state.network.active(path_of(sampled.genotype)))
    names = moved(run) & set(run.theta)
    assert names <= used < set(run.theta)
    assert len(names) > len(used) / 2


@pytest.mark.parametrize(
    "overrides, passes",
    [
        (["search.estimator=paper"], 2 * (2 + 1)),
        (
            ["search.estimator=paper", "search.reuse_gradients=false",
             "search.weight_architectures=3"],
            2 * (2 + 1) + 3,
        ),
        (["search.architecture_gradient_at=theta"], 2 * (1 + 2 * JVP + 2)),
        (["search.evidence.control=others"], 2 * (1 + JVP + 1)),
        (["search.policies_per_image=3"], 2 * (1 + 4 * JVP + 1)),
        ([*POLICY], 2 * (1 + 2 * JVP + 1)),
        ([*POLICY, "search.reuse_gradients=false"], 2 * (1 + 2 * JVP + 1) + 1),
    ],
)  # fmt: skip
def test_passes_are_those_that_are_made(
    overrides: list[str], passes: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = search("search.warmup_epochs=0", *overrides)
    made: list[float] = []

    def counted(function: Callable[..., object], weight: float) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            made.append(weight)
            return function(*arguments, **options)

        return call

    monkeypatch.setattr(equations, "forward_backward", counted(equations.forward_backward, 1.0))
    monkeypatch.setattr(per_image, "per_image_rewards", counted(per_image.per_image_rewards, JVP))
    run.step()
    assert run.state.passes == pytest.approx(passes) and sum(made) == pytest.approx(passes)


def test_every_policy_that_an_image_draws_has_a_reward_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of one network under three policies an image: each reward is that of its own draw, as the
    forward-mode passes saw it, compared with the other two of its image."""
    run = search(*POLICY, "search.warmup_epochs=0", "search.architectures=1",
                 "search.policies_per_image=3", "search.evidence.control=others")  # fmt: skip
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    inside = per_image.per_image_rewards

    def recorded(*given: Any) -> torch.Tensor:
        reward_B = inside(*given)
        seen.append((given[3].images, reward_B))
        return reward_B

    monkeypatch.setattr(per_image, "per_image_rewards", recorded)
    draws = gamma(run).sample(24, stream(run.config.seed, "policy", 0, 0))
    context, space = run.context(), Space.whole(run.config.policy.ranges)
    expected = [
        context.augmented(Draws(*(part[j : j + 8] for part in draws)), space, "policy-0", n)
        for n, j in enumerate((0, 8, 16))
    ]
    run.step()
    assert all(map(torch.equal, (view for view, _ in seen), (batch.images for batch in expected)))
    reward_JB = torch.stack([reward_B for _, reward_B in seen])
    score_J = normal_scores(control_by_others(reward_JB).view(1, -1)).flatten()
    decay = run.config.search.evidence.decay
    told = Evidence.empty(run.config.policy.slots, len(space.operations)).add(draws, score_J, decay)
    found = zip(evidence(run).tensors(), told.tensors(), strict=True)
    assert all(map(torch.allclose, *zip(*found, strict=True)))
    assert told.operation_KO.total.abs().sum() > 1


def test_cutout_blanks_a_square_of_the_training_images_only() -> None:
    run = search("data.cutout=4")
    given = images(16, 3)
    read = Read(given.images, given.labels)
    context = replace(run.context(), read={"train": read, "val": read})
    blank = (context.augmented(None, None, "test", 0).images == 0).sum((1, 2, 3))
    assert (blank > 0).all() and (blank <= 16).all() and (blank == 16).any()
    assert not (context.val().images == 0).any() and not (context.train().images == 0).any()


def test_a_null_run_gives_the_same_rewards_to_other_policies() -> None:
    true, null = (
        search(*POLICY, "search.warmup_epochs=0", f"search.permute_rewards={flag}")
        for flag in ("false", "true")
    )
    for run in (true, null):
        run.step()
    table, other = evidence(true).operation_KO, evidence(null).operation_KO
    assert torch.equal(table.weight, other.weight)
    assert float(table.square.sum()) == pytest.approx(float(other.square.sum()))
    assert not torch.equal(table.total, other.total)


def poison(run: Search, step: int) -> None:
    """From that step on the network of this rank says NaN."""

    def poisoned(_: torch.nn.Module, __: Any, logits: torch.Tensor) -> torch.Tensor:
        return logits * torch.nan if run.state.step >= step else logits

    run.state.network.register_forward_hook(poisoned)


def test_what_is_not_finite_is_named_and_changes_nothing() -> None:
    run = search("search.warmup_epochs=0")
    poison(run, 0)
    before = parameters(run)
    said = r"step 0: the training loss of architecture 0 \(normal: \w+ from [01], .*reduce: .*lower"
    with pytest.raises(FloatingPointError, match=said):
        run.step()
    assert all(torch.equal(value, before[name]) for name, value in parameters(run).items())


@pytest.mark.parametrize(
    ("module", "count", "overrides"),
    [
        (daas, 3, ["search.estimator=paper", "search.policies_per_architecture=3"]),
        (ours, 8, ["search.estimator=natural"]),
    ],
)
def test_a_reward_that_is_not_finite_is_named_by_its_policy(
    module: ModuleType, count: int, overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of an architecture's policies (of the batch, or of its images each one), and of
    the second architecture."""
    run = search("search.warmup_epochs=0", "seed=4", *overrides)
    inside, terms = equations.search_term, list[Contribution]()

    def poisoned(*arguments: Any, **options: Any) -> Contribution:
        terms.append(inside(*arguments, **options))
        if len(terms) == 2:
            terms[1].small["reward"][1] = torch.inf
        return terms[-1]

    monkeypatch.setattr(module, "search_term", poisoned)
    draws = gamma(run).sample(count, stream(run.config.seed, "policy", 0, 1))
    operations = [augment.NAMES[o] for o in draws.operation_NK[1].tolist()]
    words = [n if a else "nothing" for n, a in zip(operations, draws.applied_NK[1], strict=True)]
    said = f"step 0: the reward of policy 1 .{words[0]}.*{words[1]}.* of architecture 1 .normal: "
    with pytest.raises(FloatingPointError, match=said):
        run.step()
    assert len(terms[1].small["reward"]) == count and set(words) != {"nothing"}


def test_steps_that_are_not_finite_are_left_out_up_to_a_number_in_a_row() -> None:
    run = search("search.warmup_epochs=0", "search.non_finite=skip", "search.most_skips=2")
    assert run.step() == "" and run.state.skips == 0
    poison(run, 1)
    before = parameters(run)
    assert "step 1" in run.step() and "step 2" in run.step()
    assert run.state.step == 3 and run.state.skips == 2
    assert all(torch.equal(value, before[name]) for name, value in parameters(run).items())
    with pytest.raises(FloatingPointError, match="step 3"):
        run.step()


def poison_weights(monkeypatch: pytest.MonkeyPatch, run: Search, step: int) -> None:
    """At that step the gradient of Eq. (14), of which the first half knows nothing, is NaN."""
    inside = context_module.weight_gradient

    def poisoned(gradients: Any) -> Any:
        found = inside(gradients)
        if run.state.step == step:
            return {name: value * torch.nan for name, value in found.items()}
        return found

    monkeypatch.setattr(context_module, "weight_gradient", poisoned)


def all_of(run: Search) -> str:
    """A digest of all that a checkpoint holds, but for counts of time and work."""
    saved = run.state.save()
    for name in ("step", "skips", "passes", "seconds", "interval"):
        del saved[name]
    return digest(saved)


@forks
def test_two_ranks_leave_out_the_same_step_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    def task(mesh: Mesh) -> list[str]:
        words = [*TINY, "search.warmup_epochs=0", "search.non_finite=skip"]
        config = configuration.load(words)
        data = SearchData(images(32, 1), images(32, 2), [0.0], [1.0])
        run = Search(config, data, build_network(config, 3), mesh, torch.device("cpu"))
        poison_weights(monkeypatch, run, 1)
        run.step()
        seen = [all_of(run)]
        for _ in range(2):
            run.step()
            seen.append(all_of(run))
        return seen

    first, second = in_ranks(2, task)
    assert first == second and first[0] == first[1] != first[2]


@forks
def test_all_ranks_name_the_number_that_one_of_them_has() -> None:
    def task(mesh: Mesh) -> str:
        config = configuration.load([*TINY, "search.warmup_epochs=0"])
        data = SearchData(images(32, 1), images(32, 2), [0.0], [1.0])
        run = Search(config, data, build_network(config, 3), mesh, torch.device("cpu"))
        if mesh.rank == 1:
            poison(run, 1)
        try:
            run.step()
            run.step()
        except FloatingPointError as error:
            return str(error)
        return ""

    first, second = in_ranks(2, task)
    # Which of the two is rank 1's depends on what they cost.
    assert first == second and re.match("step 1: the training loss of architecture [01] ", first)


def test_a_fixed_network_of_a_genotype_is_searched_for_its_policy() -> None:
    config = configuration.load([*TINY, *POLICY, "search.warmup_epochs=0"])
    data = SearchData(images(32, 1), images(32, 2), [0.0], [1.0])
    network = FixedNetwork(Network(DARTS_V2, 2, 3, 3, 1))
    run = Search(config, data, network, Mesh(), torch.device("cpu"))
    before = gamma(run).rho.detach().clone()
    for _ in range(3):
        run.step()
    assert run.genotype() is None and run.policy() is not None
    assert not torch.equal(gamma(run).rho, before)


@pytest.mark.parametrize("estimator", ["paper", "natural"])
def test_a_search_of_a_wide_space_finds_a_policy_of_it(estimator: str) -> None:
    run = search("policy.ranges=wide", f"search.estimator={estimator}", "search.warmup_epochs=0")
    assert any(name.startswith("gamma.") for name in moved(run))
    found = run.found().policy
    assert found is not None and found.space == Space.whole("wide")
    assert dict(found.ranking()).keys() == set(found.space.operations) > set(augment.names("dada"))
    assert evidence(run).magnitude_KOM.weight.shape == (2, 20, 10)
