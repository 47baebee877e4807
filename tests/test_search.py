"""What a step of the search moves, draws and counts, on a few images made here."""

from collections.abc import Callable

import pytest
import torch

from daas_dist import config as configuration
from daas_dist import daas, per_image
from daas_dist.data import Images
from daas_dist.mesh import Mesh
from daas_dist.models.network import Network
from daas_dist.models.small import FixedNetwork
from daas_dist.models.supernet import Supernet
from daas_dist.rng import stream
from daas_dist.run import build_network
from daas_dist.search import JVP, Search, SearchData
from daas_dist.space import DARTS_V2

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
    state = run.state
    named = {"alpha": state.alpha, "beta": state.beta, "pi": state.gamma.pi_KO} | run.theta
    return {name: value.detach().clone() for name, value in named.items()}


def moved(run: Search) -> set[str]:
    before = parameters(run)
    run.step()
    after = parameters(run)
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_the_warm_up_moves_the_architecture_and_the_joint_phase_the_policy_too() -> None:
    run = search("search.evidence.decay=1", "search.estimator=paper")
    while run.warming_up:
        names = moved(run)
        assert {"alpha", "beta"} <= names and "pi" not in names
    assert {"alpha", "beta", "pi"} <= moved(run)


def test_a_weight_that_no_sampled_path_used_does_not_move() -> None:
    run = search("search.weight_architectures=1", "search.weights.weight_decay=0.1")
    (sampled,) = run.sample_architectures("weights-arch", 1)
    assert sampled is not None and isinstance(run.state.network, Supernet)
    used = set(run.state.network.active(sampled.genotype))
    names = moved(run) & set(run.theta)
    assert names <= used < set(run.theta)
    assert len(names) > len(used) / 2


@pytest.mark.parametrize(
    "overrides, passes",
    [
        (["search.estimator=paper"], 2 * (2 + 1)),
        (["search.estimator=paper", "search.reuse_gradients=false"], 2 * (2 + 1) + 3),
        (["search.architecture_gradient_at=theta"], 2 * (1 + 2 * JVP + 2)),
        ([*POLICY], 2 * (1 + 2 * JVP + 1)),
        ([*POLICY, "search.reuse_gradients=false"], 2 * (1 + 2 * JVP + 1) + 1),
    ],
)
def test_passes_are_those_that_are_made(
    overrides: list[str], passes: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = search("search.warmup_epochs=0", "search.weight_architectures=3", *overrides)
    made: list[float] = []

    def counted(function: Callable[..., object], weight: float) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            made.append(weight)
            return function(*arguments, **options)

        return call

    monkeypatch.setattr(daas, "forward_backward", counted(daas.forward_backward, 1.0))
    monkeypatch.setattr(per_image, "per_image_rewards", counted(per_image.per_image_rewards, JVP))
    run.step()
    assert run.state.passes == pytest.approx(passes) and sum(made) == pytest.approx(passes)


def test_cutout_blanks_a_square_of_the_training_images_only() -> None:
    run = search("data.cutout=4")
    pixels = images(16, 3).images
    blank = (run.train_input(pixels, None, "test", 0) == 0).sum((1, 2, 3))
    assert (blank > 0).all() and (blank <= 16).all() and (blank == 16).any()
    assert not (run.to_network(pixels) == 0).any()


def test_a_null_run_gives_the_same_rewards_to_other_policies() -> None:
    true, null = (
        search(*POLICY, "search.warmup_epochs=0", f"search.permute_rewards={flag}")
        for flag in ("false", "true")
    )
    for run in (true, null):
        run.step()
    table, other = true.state.evidence.operation_KO, null.state.evidence.operation_KO
    assert torch.equal(table.weight, other.weight)
    assert float(table.square.sum()) == pytest.approx(float(other.square.sum()))
    assert not torch.equal(table.total, other.total)


def test_a_fixed_network_of_a_genotype_is_searched_for_its_policy() -> None:
    config = configuration.load([*TINY, *POLICY, "search.warmup_epochs=0"])
    data = SearchData(images(32, 1), images(32, 2), [0.0], [1.0])
    network = FixedNetwork(Network(DARTS_V2, 2, 3, 3, 1))
    run = Search(config, data, network, Mesh(), torch.device("cpu"))
    before = run.state.gamma.rho.detach().clone()
    for _ in range(3):
        run.step()
    assert run.genotype() is None and run.policy() is not None
    assert not torch.equal(run.state.gamma.rho, before)
