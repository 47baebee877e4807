"""Searches on other numbers of ranks: over arch the same bits, over data the same draws."""

from pathlib import Path
from typing import Any

import pytest
import torch
from rank_processes import forks, in_processes, in_ranks
from test_search import TINY, images
from torture import same
from whole_runs import column, needs_fashion_mnist

from daas_dist import config as configuration
from daas_dist.distributed.mesh import Mesh
from daas_dist.methods.daas import Daas
from daas_dist.models.sync_norm import synchronise
from daas_dist.search.context import Images
from daas_dist.search.loop import build_network, run_search
from daas_dist.search.steps import Search, SearchData

STAGE = ["stage=search_fashion", "preset=tiny", "data.limit=128", "search.log_every=1"]
STAGE += ["search.joint_epochs=1"]
PAPER = ["search.estimator=paper", "search.reuse_gradients=false", "search.weight_architectures=6"]
SEVERAL = ["search.policies_per_image=3", "search.evidence.control=others"]


def search(run_dir: Path, ranks: int, *overrides: str) -> Path:
    """A whole search in its run directory."""
    config = configuration.load([*STAGE, f"run_dir={run_dir}", *overrides])
    assert in_processes(ranks, lambda: str(run_search(config))) == [str(run_dir)] * ranks
    return run_dir


@forks
@needs_fashion_mnist
@pytest.mark.parametrize(
    ("overrides", "worlds"),
    [(["search.architectures=3"], [2, 5]), (PAPER, [3])],
    ids=["natural", "paper"],
)
def test_along_arch_the_bits_are_the_same_on_any_number_of_ranks(
    tmp_path: Path, overrides: list[str], worlds: list[int]
) -> None:
    """Weights, α, β, γ, result.json and metrics.jsonl; also of ranks without an architecture."""
    alone = search(tmp_path / "1", 1, *overrides)
    assert len(column(alone / "metrics.jsonl", "step")) > 4
    for ranks in worlds:
        run_dir = search(tmp_path / str(ranks), ranks, *overrides)
        same(run_dir, alone)
        assert all(0 <= share < 1 for share in column(run_dir / "metrics.jsonl", "idle_share"))


@pytest.mark.long
@forks
@needs_fashion_mnist
def test_ranks_that_share_batches_give_the_same_bits_on_any_number_along_arch(
    tmp_path: Path,
) -> None:
    run_dirs = [search(tmp_path / str(n), n, "mesh.data=2") for n in (2, 4)]
    same(*run_dirs)


class Doubled(Images):
    """In float64, where rounding has no time to grow."""

    def normalised(self, images_u8: torch.Tensor) -> torch.Tensor:
        return super().normalised(images_u8).double()


@forks
@pytest.mark.parametrize(
    ("data", "norm", "overrides"),
    [
        *((2, "synchronised", overrides) for overrides in ([], SEVERAL, PAPER)),
        pytest.param(4, "synchronised", PAPER, marks=pytest.mark.long),
        (2, "local", PAPER),
    ],
)
def test_ranks_that_share_batches_agree_with_one_up_to_rounding(
    data: int, norm: str, overrides: list[str]
) -> None:
    """After 6 steps, in float64: α, β, γ and all weights to 1e-12 of the largest, and the draws.

    With norms of a rank's part alone it is another search: far apart, which the bound must see.
    """
    config = configuration.load([*TINY, *overrides])

    def task(mesh: Mesh) -> Any:
        network = build_network(config, 3).double()
        if mesh.data > 1 and norm == "synchronised":
            network = synchronise(network, mesh.statistics)
        given = SearchData(images(32, 1), images(32, 2), [0.0], [1.0])
        run = Search(config, given, network, mesh, torch.device("cpu"))
        run.images = Doubled(**vars(run.images))
        assert isinstance(run.method, Daas)
        sampled = []
        for _ in range(6):
            drawn = run.method.sample(run.state.logits, run.context(), "arch", 2)
            sampled.append([z and z.genotype for z in drawn])
            run.step()
        logits = run.state.logits
        assert set(logits) == {"alpha", "beta", "gamma.pi", "gamma.rho", "gamma.delta"}
        return sampled, [value.detach() for value in (*logits.values(), *run.theta.values())]

    draws, alone = task(Mesh())
    for its_draws, state in in_ranks(data, task, data=data):
        pairs = zip(state, alone, strict=True)
        apart = max(float((a - b).abs().max() / b.abs().max().clamp_min(1e-3)) for a, b in pairs)
        assert (apart < 1e-12) == (norm == "synchronised")
        assert its_draws == draws or norm == "local"
