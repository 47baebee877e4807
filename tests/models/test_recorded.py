"""Paths in recorded pieces compute what the supernet does: called, taped, and as CUDA graphs."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from on_noise import search_on_noise
from small_networks import EVERY_OPERATION, forward_mode, tiny
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from daas_dist.config.rules import ConfigError
from daas_dist.distributed.mesh import Mesh
from daas_dist.methods.passes import Batch, Forward, Weights, flat, forward_backward, functional
from daas_dist.methods.per_image import per_image_rewards
from daas_dist.models import recorded
from daas_dist.models.recorded import Recorded
from daas_dist.models.supernet import Supernet
from daas_dist.rng import stream
from daas_dist.search.context import Images
from daas_dist.spaces.cells import EVERYTHING, Path, path_of, random_genotype

pytestmark = forward_mode
NEAR = 1e-12
ON_GPU = pytest.param(
    "graphs",
    marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU"),
)


WAITS = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.equal.default)
"""Operators that wait for the device, which no graph can hold."""


class Tape(TorchDispatchMode):
    """What a CUDA graph is, on a CPU: operators on tensors that stay where they are.

    What Python does while it records is forgotten, nothing is written, and a replay's results are
    where the recording's were.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func not in WAITS
        kwargs = kwargs or {}
        result = args[0] if func._schema.is_mutable else func(*args, **kwargs)
        if not func.is_view and func is not torch.ops.aten._efficientzerotensor.default:
            everything = (args, kwargs, result)
            self.calls.append((func, *tree_map_only(Tensor, Tensor.detach, everything)))
        return result

    def replay(self) -> None:
        for func, args, kwargs, there in self.calls:
            again = func(*args, **kwargs)
            if not func._schema.is_mutable:
                for old, new in zip(tree_leaves(there), tree_leaves(again), strict=True):
                    if isinstance(old, Tensor):
                        old.copy_(new)


class TapeRecorder(recorded.Recorder):
    def record(
        self, works: dict[str, Callable[[], None]], warm: Callable[[], object]
    ) -> dict[str, Callable[[], None]]:
        warm()
        replays: dict[str, Callable[[], None]] = {}
        for name, work in works.items():
            with Tape() as tape:
                work()
            replays[name] = tape.replay
        return replays


@pytest.fixture(params=["called", "taped", ON_GPU])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.device:
    if request.param == "taped":
        monkeypatch.setattr(recorded, "Recorder", TapeRecorder)
    return torch.device("cuda" if request.param == "graphs" else "cpu")


SOME = path_of(EVERY_OPERATION)


class Problem:
    """A tiny supernet in float64, recorded and not, and a batch for it."""

    def __init__(self, device: torch.device) -> None:
        torch.manual_seed(0)
        network, images, labels = tiny(cells=3)
        self.network = network.to(device)
        self.batch = Batch(images.to(device), labels.to(device))
        self.supernet, self.recorded = functional(self.network), Recorded(self.network)
        self.theta = dict(network.named_parameters())

    def weights(self, z: Path, scale: float = 1.0) -> Weights:
        return {name: self.theta[name].detach() * scale for name in self.network.active(z)}

    def gates(self, z: Path) -> Tensor:
        """Return any gates of a path, to be differentiated by."""
        count, like = sum(map(len, z)), self.batch.images
        gates = torch.rand(count, dtype=like.dtype, device=like.device) + 0.5
        return gates.requires_grad_()

    def gradients(self, forward: Forward, z: Path, gates: Tensor | None) -> list[Tensor]:
        """Return the loss, and its gradients by θ and by the gates."""
        done = forward_backward(forward, self.weights(z), z, self.batch, gates)
        assert list(done.theta_grad) == self.network.active(z)
        found = [done.loss, flat(done.theta_grad)]
        if gates is None:
            assert done.gate_grad_Q is None
            return found
        assert done.gate_grad_Q is not None and done.gate_grad_Q.shape == gates.shape
        return [*found, done.gate_grad_Q]


def paths() -> list[Path]:
    return [SOME, *(path_of(random_genotype(stream(seed, "paths"))) for seed in range(2))]


def assert_near(found: list[Tensor], expected: list[Tensor]) -> None:
    for own, other in zip(found, expected, strict=True):
        torch.testing.assert_close(own, other, rtol=NEAR, atol=NEAR * float(other.abs().max()))


@pytest.mark.parametrize("gated", [False, True])
def test_gradients_are_the_supernets(device: torch.device, gated: bool) -> None:
    problem = Problem(device)
    for z in [*paths(), SOME]:  # the last one has been recorded
        gates = problem.gates(z) if gated else None
        expected = problem.gradients(problem.supernet, z, gates)
        assert_near(problem.gradients(problem.recorded, z, gates), expected)


def test_everything_is_the_supernets(device: torch.device) -> None:
    """Logits, and gradients by θ and by 196 gates: the second time recorded, and of other gates,
    with a path of few operations between them."""
    problem = Problem(device)
    theta, images = problem.weights(EVERYTHING), problem.batch.images
    for z in (EVERYTHING, SOME, EVERYTHING):
        gates = problem.gates(z)
        for given in (None, gates):
            expected = problem.gradients(problem.supernet, z, given)
            assert_near(problem.gradients(problem.recorded, z, given), expected)
        assert float(expected[-1].abs().min()) > 0
        logits = problem.supernet(theta, z, images, gates.detach())
        assert_near([problem.recorded(problem.weights(z), z, images, gates.detach())], [logits])


def test_a_node_without_an_operation_is_the_supernets(device: torch.device) -> None:
    """Whatever a path before it left in that node."""
    problem = Problem(device)
    few: Path = ((SOME[0][0], SOME[0][3], SOME[0][4]), (*SOME[1][2:5], SOME[1][7]))
    for z in (EVERYTHING, few, SOME, few):
        gates = problem.gates(z)
        for given in (None, gates):
            expected = problem.gradients(problem.supernet, z, given)
            assert_near(problem.gradients(problem.recorded, z, given), expected)


def test_forward_mode_is_the_supernets(device: torch.device) -> None:
    problem = Problem(device)
    for seed, z in enumerate([*paths(), SOME]):
        theta, g = problem.weights(z), torch.Generator(device).manual_seed(seed)
        along = {
            n: torch.randn(w.shape, generator=g, dtype=w.dtype, device=device)
            for n, w in theta.items()
        }
        rewards = [
            per_image_rewards(forward, theta, z, problem.batch, along, 0.1)
            for forward in (problem.supernet, problem.recorded)
        ]
        assert_near([rewards[1]], [rewards[0]])


def test_a_pass_leaves_nothing_to_the_next(device: torch.device) -> None:
    """The same bits, whatever ran between: other paths, other weights, other images."""
    problem = Problem(device)
    first, other = paths()[:2]
    expected = problem.gradients(problem.recorded, first, None)
    batch = problem.batch
    problem.batch = Batch(batch.images * 3, batch.labels)
    forward_backward(problem.recorded, problem.weights(other, 1e3), other, problem.batch)
    problem.recorded(problem.weights(first, 1e3), first, problem.batch.images, None)
    problem.batch = batch
    again = problem.gradients(problem.recorded, first, None)
    assert all(map(torch.equal, again, expected))


@pytest.mark.parametrize("device", ["called", ON_GPU], indirect=True)
def test_a_backward_pass_after_another_pass_is_refused(device: torch.device) -> None:
    problem, z = Problem(device), SOME
    theta = {name: w.requires_grad_() for name, w in problem.weights(z).items()}
    logits = problem.recorded(theta, z, problem.batch.images, None)
    problem.recorded(theta, z, problem.batch.images, None)
    with pytest.raises(RuntimeError, match="another pass came before"):
        logits.sum().backward()


@pytest.mark.parametrize("device", ["called", ON_GPU], indirect=True)
def test_batches_of_several_shapes(device: torch.device) -> None:
    problem, z = Problem(device), SOME
    whole = problem.batch
    for count in (3, 2, 3):
        problem.batch = Batch(whole.images[:count], whole.labels[:count])
        expected = problem.gradients(problem.supernet, z, None)
        assert_near(problem.gradients(problem.recorded, z, None), expected)


@pytest.mark.parametrize("device", ["called", ON_GPU], indirect=True)
def test_the_stem_of_imagenet(device: torch.device) -> None:
    torch.manual_seed(0)
    network = Supernet(channels=4, cells=3, classes=5, in_channels=2, stem="imagenet").double()
    problem = Problem(device)
    problem.network = network.to(device)
    problem.supernet, problem.recorded = functional(problem.network), Recorded(problem.network)
    problem.theta = dict(network.named_parameters())
    images = torch.randn(3, 2, 64, 64, dtype=torch.float64, device=device)
    problem.batch = Batch(images, problem.batch.labels)
    expected = problem.gradients(problem.supernet, SOME, None)
    assert_near(problem.gradients(problem.recorded, SOME, None), expected)


@pytest.mark.parametrize("device", ["called", ON_GPU], indirect=True)
def test_what_computes_otherwise_is_refused(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = Problem(device)
    forward = recorded.Between.forward

    def damaged(self: recorded.Between, *features: Tensor) -> tuple[Tensor, ...]:
        last, *inputs = forward(self, *features)
        return last, *(-value for value in inputs)

    monkeypatch.setattr(recorded.Between, "forward", damaged)
    with pytest.raises(ConfigError, match="search.cuda_graphs=true is not possible here"):
        problem.gradients(problem.recorded, SOME, None)


@pytest.mark.parametrize("method", ["daas", "ours"])
@pytest.mark.parametrize("device", ["called", ON_GPU], indirect=True)
def test_a_search_takes_the_same_steps(
    device: torch.device, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    normalised = Images.normalised
    monkeypatch.setattr(Images, "normalised", lambda self, u8: normalised(self, u8).double())

    def after_two_steps(cuda_graphs: str) -> list[Tensor]:
        overrides = [
            "model.channels=4", "model.cells=3", "search.batch_size=4", "search.architectures=2",
            f"method={method}", f"search.cuda_graphs={cuda_graphs}",
        ]  # fmt: skip
        overrides += ["search.weight_architectures=2"] if method == "daas" else []
        search = search_on_noise(overrides, Mesh(), 16, 4, str(device))
        assert isinstance(search.forward, Recorded) == (cuda_graphs == "true")
        search.state.network.double()
        search.step()
        search.step()
        state = search.state
        assert set(state.logits) == {"alpha", "beta", "gamma.pi", "gamma.rho", "gamma.delta"}
        return [value.detach() for value in (*state.logits.values(), *state.network.parameters())]

    for own, other in zip(after_two_steps("true"), after_two_steps("false"), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-7, atol=1e-9)
