"""The mesh, on real gloo processes: what its ranks agree on, and what they share of a batch."""

import time
from datetime import timedelta
from typing import Any

import pytest
import torch
from rank_processes import forks, in_ranks
from small_networks import forward_mode
from torch import Tensor, nn

from daas_dist.config import rules, schema
from daas_dist.distributed.mesh import Mesh, choose_data
from daas_dist.methods.passes import Batch, Weights, forward_backward
from daas_dist.methods.per_image import per_image_rewards
from daas_dist.models.sync_norm import synchronise
from daas_dist.rng import Part, stream


@forks
def test_the_ranks_agree() -> None:
    def task(mesh: Mesh) -> Any:
        return (
            mesh.highest(mesh.rank % 2),
            mesh.highest(0),
            mesh.agree(f"from {mesh.rank}"),
            mesh.gather({mesh.rank: "x" * mesh.rank}),
            (mesh.rank, mesh.world, mesh.leads),
        )

    for rank, (some, none, text, gathered, own) in enumerate(in_ranks(3, task)):
        assert some == 1 and none == 0
        assert text == "from 0"
        assert gathered == [{0: ""}, {1: "x"}, {2: "xx"}]
        assert own == (rank, 3, rank == 0)


def test_one_process_agrees_with_itself() -> None:
    mesh = Mesh()
    assert mesh.highest(3) == 3
    assert mesh.agree("this") == "this"
    assert mesh.gather(4) == [4]


@forks
def test_patience_is_how_long_a_rank_waits() -> None:
    def task(mesh: Mesh) -> Any:
        time.sleep(1.5 * mesh.rank)
        try:
            return mesh.gather(mesh.rank)
        except RuntimeError:
            return "gave up"

    assert in_ranks(2, task, timedelta(seconds=0.5))[0] == "gave up"
    assert in_ranks(2, task, timedelta(seconds=30)) == [[0, 1], [0, 1]]


@pytest.mark.parametrize("world", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [0, 1, 3, 10])
def test_independent_things_are_split_over_all_ranks(world: int, count: int) -> None:
    mine = [list(Mesh(rank, world).mine(count)) for rank in range(world)]
    assert sorted(sum(mine, [])) == list(range(count))
    assert max(map(len, mine)) - min(map(len, mine)) <= 1


# --- A batch that several ranks share ------------------------------------------------------------


@forks
def test_a_grid_has_its_data_ranks_side_by_side() -> None:
    def task(mesh: Mesh) -> Any:
        own = torch.tensor([float(mesh.rank)])
        return (
            (mesh.arch, mesh.data, mesh.arch_rank, mesh.part),
            torch.cat(mesh.gather_arch(own, "test")).tolist(),
            mesh.mean_data(own, "test").tolist(),
            mesh.gather_data(own, "test").tolist(),
            mesh.total(own, "test").tolist(),
        )

    for rank, (place, along_arch, mean, along_data, total) in enumerate(in_ranks(6, task, data=2)):
        assert place == (3, 2, rank // 2, Part(rank % 2, 2))
        assert along_arch == [rank % 2, rank % 2 + 2, rank % 2 + 4]
        assert along_data == [rank - rank % 2, rank - rank % 2 + 1]
        assert mean == [sum(along_data) / 2] and total == [15.0]


def normed() -> nn.Sequential:
    """Two batch norms, with and without weights, behind each other."""
    torch.manual_seed(0)
    first = nn.BatchNorm2d(3, track_running_stats=False)
    nn.init.normal_(first.weight)
    nn.init.normal_(first.bias)
    last = nn.BatchNorm2d(5, affine=False, track_running_stats=False)
    head = nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(20, 4)
    layers = nn.Conv2d(2, 3, 3), first, nn.Tanh(), nn.Conv2d(3, 5, 3), last, nn.Tanh(), *head
    return nn.Sequential(*layers).double()


@forks
@forward_mode
@pytest.mark.parametrize("data", [2, 3])
def test_shared_batch_norm_is_that_of_the_whole_batch(data: int) -> None:
    """Loss, gradient by every weight and per-image rewards, in float64, against one rank's."""
    images = 3 + 10 * torch.randn(12, 2, 8, 8, generator=stream(0, "images"), dtype=torch.float64)
    labels = torch.arange(12) % 4

    def shared(mesh: Mesh) -> Any:
        network = normed()
        if mesh.data > 1:
            network = synchronise(network, mesh.statistics)
        theta: Weights = dict(network.named_parameters())

        def forward(weights: Any, _: Any, pixels: Tensor, __: Any) -> Tensor:
            return torch.func.functional_call(network, weights, (pixels,))

        def mean(own: Tensor) -> Tensor:
            return mesh.mean_data(own, "test")

        batch = Batch(mesh.part.take(images), mesh.part.take(labels))
        done = forward_backward(forward, theta, (), batch, mean=mean)
        grads = {name: mean(value) for name, value in done.theta_grad.items()}
        rewards = per_image_rewards(forward, theta, (), batch, grads, 0.5)
        return (done.loss, grads, mesh.gather_data(rewards, "test")), float(done.accuracy)

    expected, accuracy = shared(Mesh())
    for given, its_accuracy in in_ranks(data, shared, data=data):
        torch.testing.assert_close(given, expected, rtol=1e-9, atol=1e-12)
        assert its_accuracy == pytest.approx(accuracy)  # that of float32
    _, grads, _ = expected
    # All but a bias before a norm, which takes it off again.
    flat = {name for name, value in grads.items() if value.abs().max() < 1e-9}
    assert flat == {"0.bias", "3.bias"}


def wanted(arch: int | None, data: int | None) -> schema.Mesh:
    return schema.Mesh(arch=arch, data=data, norm="synchronised", reduction="exact")


@pytest.mark.parametrize(
    ("arch", "data", "world", "node", "chosen"),
    [
        (None, 1, 8, 8, 1),
        (None, 2, 8, 8, 2),
        (2, None, 8, 8, 4),
        (2, 4, 8, 4, 4),
        (None, None, 1, 1, 1),
        (None, None, 4, 4, 1),  # 5 architectures: a rank for each of four
        (None, None, 8, 8, 2),  # 4 x 2
        (None, None, 32, 8, 8),  # 4 x 8
        (None, None, 64, 4, 4),  # no more than a node
        (None, None, 6, 3, 1),  # 3 does not divide a batch of 64: 6 ranks, one of them idle
        (None, None, 9, 4, 1),  # nodes of 4, 4 and 1
    ],
)
def test_the_grid_is_as_asked_or_leaves_no_rank_idle(
    arch: int | None, data: int | None, world: int, node: int, chosen: int
) -> None:
    assert choose_data(wanted(arch, data), world, node, 5, 64) == chosen


@pytest.mark.parametrize(
    ("arch", "data", "said"),
    [
        (3, 2, r"mesh.arch=3 × mesh.data=2 does not make 8 ranks \(2 nodes × 4\): .*product is 8"),
        (3, None, r"mesh.arch=3 × mesh.data=null does not make 8 ranks"),
        (None, 8, r"mesh.data=8 cannot share search.batch_size=60: expected a divisor"),
    ],
)
def test_a_grid_that_does_not_fit_names_all_its_numbers(
    arch: int | None, data: int | None, said: str
) -> None:
    with pytest.raises(rules.ConfigError, match=said):
        choose_data(wanted(arch, data), 8, 4, 5, 60)
