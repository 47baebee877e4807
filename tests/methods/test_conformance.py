"""What every method keeps to: same bits on any ranks and after any stop, whole steps, counts."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest
import torch
from golden import digest
from rank_processes import forks, in_ranks
from torch import Tensor
from torch.autograd import forward_ad

from daas_dist import config as configuration
from daas_dist.config import ConfigError
from daas_dist.config.method_names import methods, settings_of
from daas_dist.data import Images
from daas_dist.data.dataset import DataSet
from daas_dist.distributed.mesh import Mesh
from daas_dist.methods.estimators import ESTIMATORS
from daas_dist.methods.passes import JVP
from daas_dist.rng import stream
from daas_dist.runs import checkpoint
from daas_dist.search import context as context_module
from daas_dist.search import findings
from daas_dist.search.loop import build_network
from daas_dist.search.method import build_method
from daas_dist.search.steps import Search, SearchData
from daas_dist.spaces.cells import Genotype

TINY = ("preset=tiny", "device=cpu", "search.batch_size=8", "search.joint_epochs=1")
WAYS = {
    **{name: ("method=daas", f"search.estimator={name}") for name in ESTIMATORS},
    "reused": ("search.estimator=natural", "search.reuse_gradients=true"),
    "others": ("search.estimator=per_image", "search.evidence.control=others"),
    "at theta": ("search.estimator=paper", "search.architecture_gradient_at=theta"),
    "limit": ("search.estimator=per_image", "search.max_parameters=9000"),
    "architecture": ("search.target=architecture",),
    "policy": ("search.target=policy", "model=small"),
    "darts": ("method=darts",),
    "darts, first order": ("method=darts", "search.xi=0"),
    "gdas": ("method=gdas",),
}
SHORT = ("paper", "natural", "architecture", "policy", "darts", "gdas")
ways = pytest.mark.parametrize("words", WAYS.values(), ids=WAYS)
ways_of_minutes = pytest.mark.parametrize(
    "words",
    [
        pytest.param(words, id=name, marks=[] if name in SHORT else [pytest.mark.long])
        for name, words in WAYS.items()
    ],
)
"""The others are these with another estimator or another term: with the long tests."""


def images(count: int, seed: int) -> Images:
    g = stream(seed, "images")
    pixels = torch.randint(1, 256, (count, 1, 12, 12), generator=g, dtype=torch.uint8)
    return Images(pixels, torch.randint(3, (count,), generator=g), ("a", "b", "c"))


def search(*words: str, mesh: Mesh | None = None) -> Search:
    """An epoch of warm-up and one without, of four steps each."""
    config = configuration.load([*TINY, *words])
    data = SearchData(images(32, 1), images(32, 2), [0.1], [0.9])
    network = build_network(config, 3)
    return Search(config, data, network, mesh or Mesh(), torch.device("cpu"))


def all_of(run: Search) -> str:
    """Hash all that a checkpoint holds, but for counts of time and work."""
    saved = run.state.save()
    for name in ("step", "skips", "passes", "seconds", "interval"):
        del saved[name]
    return digest(saved)


def test_every_method_has_a_way_here() -> None:
    words = {word for way in WAYS.values() for word in way}
    assert {f"method={name}" for name in methods()} <= words


@forks
@ways_of_minutes
def test_any_number_of_ranks_gives_the_same_bits(words: tuple[str, ...]) -> None:
    def task(mesh: Mesh) -> list[str]:
        run, seen = search(*words, "search.warmup_epochs=0", mesh=mesh), []
        for _ in range(3):
            run.step()
            seen.append(all_of(run))
        return seen

    alone = task(Mesh())
    assert len(set(alone)) == 3
    for ranks in (2, 3):
        assert in_ranks(ranks, task) == [alone] * ranks


FAST = {name: WAYS[name] for name in ("paper", "reused", "darts", "gdas")}


@forks
@pytest.mark.parametrize("words", FAST.values(), ids=FAST)
def test_the_backend_s_sum_moves_the_weights_as_the_exact_one_does(words: tuple[str, ...]) -> None:
    def task(mesh: Mesh) -> dict[str, Tensor]:
        run = search(*words, "search.warmup_epochs=0", "mesh.reduction=fast", mesh=mesh)
        before = {name: value.detach().clone() for name, value in run.theta.items()}
        run.step()
        return {name: value.detach() - before[name] for name, value in run.theta.items()}

    alone = task(Mesh())
    for moved in in_ranks(2, task):
        for name, value in moved.items():
            torch.testing.assert_close(value, alone[name], rtol=1e-3, atol=1e-6)
    assert max(float(value.abs().max()) for value in alone.values()) > 1e-4


@ways_of_minutes
def test_a_search_resumes_after_any_step_to_the_same_bits(
    words: tuple[str, ...], tmp_path: Any
) -> None:
    """From each checkpoint, as it lies on the disk; through the warm-up and beyond."""
    whole, folder = search(*words, "search.warmup_epochs=1"), tmp_path / "checkpoints"
    for _ in range(6):
        checkpoint.save(folder, whole.state.step, whole.state.save(), keep=9)
        whole.step()
    for step in (2, 5):
        resumed = search(*words, "search.warmup_epochs=1")
        resumed.state.load(checkpoint.load(folder, step))
        while resumed.state.step < 6:
            resumed.step()
        assert all_of(resumed) == all_of(whole)
        assert resumed.state.passes == whole.state.passes


def poison(run: Search, step: int) -> None:
    """From that step on the network of this rank says NaN."""

    def poisoned(_: torch.nn.Module, __: Any, logits: Tensor) -> Tensor:
        return logits * torch.nan if run.state.step >= step else logits

    run.state.network.register_forward_hook(poisoned)


def poison_weights(monkeypatch: pytest.MonkeyPatch, run: Search, step: int) -> None:
    """At that step the gradient by θ, of which the first half knows nothing, is NaN."""
    inside = context_module.weight_gradient

    def poisoned(gradients: Any) -> Any:
        found = inside(gradients)
        if run.state.step == step:
            return {name: value * torch.nan for name, value in found.items()}
        return found

    monkeypatch.setattr(context_module, "weight_gradient", poisoned)


@ways
@pytest.mark.parametrize("half", ["first", "second"])
def test_a_step_that_is_left_out_is_left_out_whole(
    half: str, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = search("search.warmup_epochs=0", "search.non_finite=skip", *words)
    run.step()
    before = all_of(run)
    run.step()
    assert all_of(run) != before  # nothing is equal because nothing moves
    before = all_of(run)
    if half == "first":
        poison(run, 2)
    else:
        poison_weights(monkeypatch, run, 2)
    assert "step 2" in run.step() and all_of(run) == before
    if half == "second":
        assert run.step() == "" and all_of(run) != before


@forks
@ways_of_minutes
def test_ranks_leave_out_the_same_step_whole(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network of the first rank to compute says NaN, in the first half of a step."""

    def task(mesh: Mesh) -> list[str]:
        run = search("search.warmup_epochs=0", "search.non_finite=skip", *words, mesh=mesh)
        run.step()
        seen = [all_of(run)]
        if mesh.rank == 0:
            poison(run, 1)
        run.step()
        return [*seen, all_of(run)]

    first, second = in_ranks(2, task)
    assert first == second and first[0] == first[1]


def counted(run: Search) -> list[float]:
    """The passes that a search makes from now on, in forward-backward passes."""
    made: list[float] = []
    inside = run.forward

    def forward(theta: dict[str, Tensor], *given: Any) -> Tensor:
        dual = forward_ad.unpack_dual(next(iter(theta.values()))).tangent is not None
        made.append(JVP if dual else 1.0)
        return inside(theta, *given)

    run.forward = forward
    return made


@ways
@pytest.mark.parametrize("warm_up", [0, 1])
def test_passes_are_those_that_are_made(warm_up: int, words: tuple[str, ...]) -> None:
    run = search(*words, f"search.warmup_epochs={warm_up}")
    made = counted(run)
    run.step()
    assert sum(made) == pytest.approx(run.method.passes(0)) == pytest.approx(run.state.passes)
    config = run.config
    last = config.search.warmup_epochs + config.search.joint_epochs - 1
    assert build_method(config).passes(last) == run.method.passes(last)  # what a submission is told


@ways
def test_what_is_found_comes_back_from_its_document(words: tuple[str, ...]) -> None:
    run = search(*words)
    run.step()
    data = DataSet(images(32, 1), images(32, 2), [0.1], [0.9])
    said, row = findings.result(run, data, None, None), findings.metrics(run, 1.0)
    found = run.found()
    assert (found.genotype is None) == (said.genotype is None)
    if found.genotype is not None:
        assert said.genotype is not None
        assert Genotype.from_document(said.genotype) == run.genotype()
        assert torch.tensor(said.alpha).shape == (2, 14, 7)
    assert (found.policy is None) == (said.policy is None)
    assert row["train_loss"] > 0 and set(row["entropy"]) == {
        "alpha", "beta", "pi", "application", "magnitude",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("method=darts", "search.architectures=3"), "search.architectures has no effect: method="),
        (("method=darts", "search.tau.end=0.2"), "search.tau.end has no effect: method=darts does"),
        (("method=gdas", "search.xi=0.1"), "search.xi has no effect: method=gdas does not read it"),
        (("search.method=darts",), "search.method comes with its group: use method=NAME"),
        (("method=darst",), "method=darst is not possible: expected one of daas"),
        (("stage=train_fashion", "method=darts"), "method has no effect: stage=train_fashion"),
    ],
)
def test_a_setting_of_another_method_is_refused(words: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        configuration.load(words)
    assert str(error.value).startswith(said)


REFUSED: list[tuple[tuple[str, ...], str]] = [
    (
        ("method=darts", "search.target=joint"),
        "search.target=joint is not possible: expected arch",
    ),
    (("method=gdas", "search.max_flops=1e9"), "search.max_flops=1000000000.0 is not possible: exp"),
    (("method=daas", "search.xi=0"), "search.xi=0 is not possible"),
]


@pytest.mark.parametrize(("words", "said"), REFUSED)
def test_what_a_method_cannot_do_is_refused_before_it_starts(
    words: tuple[str, ...], said: str
) -> None:
    with pytest.raises(ConfigError) as error:
        build_method(configuration.load([*TINY, *words]))
    assert str(error.value).startswith(said)


def test_a_method_s_settings_are_keys_of_the_configuration() -> None:
    every = configuration.flat(asdict(configuration.load(["preset=tiny"])))
    keys = {key.split(".")[1] for key in every if key.startswith(("search.", "policy."))}
    for name in methods():
        assert settings_of(name) - {"fixed"} <= keys
        assert settings_of(name)


def test_a_method_that_is_not_finite_in_its_logits_changes_nothing() -> None:
    run = search("method=gdas", "search.warmup_epochs=0", "search.non_finite=skip")
    before = all_of(run)
    method: Any = run.method
    inside: Callable[..., Any] = type(method).search

    class Broken(type(method)):  # type: ignore[misc]
        def search(self, *given: Any) -> Any:
            update = inside(self, *given)
            return type(update)({"alpha": update.by_logits["alpha"] * torch.inf})

    run.method = Broken(**{name: getattr(method, name) for name in method.__dataclass_fields__})
    assert "the gradient by the logits" in run.step() and all_of(run) == before
