"""One training, whichever engine makes its steps and however many ranks share them."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import found_results as results
import pytest
import torch
from rank_processes import forks, in_ranks
from small_trainings import Trained, doubled, load, start, steps, train
from torch import Tensor, nn
from whole_runs import needs_fashion_mnist

from daas_dist.config.rules import ConfigError
from daas_dist.data import Images
from daas_dist.data.inputs import Inputs
from daas_dist.distributed.mesh import Mesh
from daas_dist.models.network import Network
from daas_dist.rng import Part
from daas_dist.spaces import operations as augment
from daas_dist.training import rows
from daas_dist.training.engine import Alone, Passed
from daas_dist.training.engine.compiled import compile_checked

pytestmark = [needs_fashion_mnist, forks]
EIGHT = ("train.micro_batch=8",)
"""Four micro-batches a step."""


def apart(ones: dict[str, Tensor], others: dict[str, Tensor]) -> float:
    """The largest difference of two networks, by the largest of each weight or buffer."""
    assert list(ones) == list(others)
    return max(
        float((a.double() - b.double()).abs().max() / b.double().abs().max().clamp_min(1e-3))
        for a, b in zip(ones.values(), others.values(), strict=True)
    )


def alike(ranks: list[Trained]) -> Trained:
    """Any of the ranks, all of which have the same bits."""
    for other in ranks[1:]:
        assert other.told == ranks[0].told and other.tested == ranks[0].tested
        assert all(torch.equal(a, ranks[0].network[name]) for name, a in other.network.items())
    return ranks[0]


@pytest.mark.long
def test_with_one_micro_batch_any_number_of_ranks_trains_the_same_network() -> None:
    """1, 2 and 4 ranks: losses, weights, buffers and the test, in float64 to 1e-12 after 6 steps
    with drop-path, cutout and the auxiliary head. Another micro-batch is another training, which
    the bound sees."""
    more = "data.cutout=8", "train.auxiliary_weight=0.4"
    alone, two, four = (alike(train(n, 6, *EIGHT, *more, double=True)) for n in (1, 2, 4))
    for other in (two, four):
        assert float((other.losses - alone.losses).abs().max()) < 1e-12
        assert apart(other.network, alone.network) < 1e-12
        assert other.tested.loss == pytest.approx(alone.tested.loss, rel=1e-12)
        assert other.tested.confusion == alone.tested.confusion
    other = alike(train(1, 6, "train.micro_batch=16", *more, double=True))
    assert apart(other.network, alone.network) > 1e-3


def test_in_float32_they_agree_to_rounding_which_grows() -> None:
    """1e-6 in the first step, 1e-4 after 6."""
    alone, four = (alike(train(n, 6, *EIGHT)) for n in (1, 4))
    difference = (four.losses - alone.losses).abs() / alone.losses
    assert float(difference[0]) < 1e-6 and float(difference.max()) < 1e-4


@pytest.mark.parametrize("world", [1, 2])
def test_deepspeed_makes_the_steps_of_ddp(world: int) -> None:
    """The same bits of losses, weights, running statistics and the optimiser's momentum, where the
    gradient is clipped at every step. On one rank the engine that ddp chooses is Alone."""
    clipped = (*EIGHT, "train.clip=0.05")
    ddp, deepspeed = (
        alike(train(world, 5, *clipped, f"engine={name}")) for name in ("ddp", "deepspeed")
    )
    assert torch.equal(deepspeed.losses, ddp.losses)
    assert apart(deepspeed.network, ddp.network) == 0
    momenta = [
        {str(k): v["momentum_buffer"] for k, v in its.state["engine"]["optimiser"]["state"].items()}
        for its in (deepspeed, ddp)
    ]
    assert len(momenta[0]) > 50 and apart(*momenta) == 0
    free = alike(train(world, 5, *EIGHT))
    assert apart(free.network, ddp.network) > 1e-2  # the clip did something


@pytest.mark.parametrize("name", ["ddp", "deepspeed"])
def test_the_norm_of_the_mean_gradient_is_clipped(name: str) -> None:
    """The first step of SGD without decay moves the weights by exactly rate × clip; clipping each
    rank's or micro-batch's own gradient would move them less."""
    config, data = load(*EIGHT, f"engine={name}", "train.clip=0.03", "train.weight_decay=0")

    def task(mesh: Mesh) -> float:
        training = start(config, data, mesh)
        before = [weight.detach().clone() for weight in training.network.parameters()]
        steps(training, 1)
        after = [weight.detach() for weight in training.network.parameters()]
        moved = sum(float((a - b).square().sum()) for a, b in zip(after, before, strict=True))
        return math.sqrt(moved)

    assert in_ranks(2, task) == pytest.approx([0.02 * 0.03] * 2, rel=1e-4)


@pytest.mark.parametrize("name", ["ddp", "deepspeed"])
def test_running_statistics_are_the_mean_of_what_each_micro_batch_would_have_made(
    name: str,
) -> None:
    """Against four networks that see one micro-batch each, after the second step."""
    config, data = load(*EIGHT, f"engine={name}", "train.drop_path=0")

    def task(mesh: Mesh) -> Any:
        training = start(config, data, mesh)
        steps(training, 1)
        before = {name: value.clone() for name, value in training.network.state_dict().items()}
        steps(training, 1)
        return before, dict(training.network.named_buffers())

    before, buffers = in_ranks(2, task)[0]
    alone = start(load(*EIGHT, "train.drop_path=0")[0], data, Mesh())
    alone.step = 1
    images = alone.feed.batch(1)["training"].images.split(8)
    made: list[dict[str, Tensor]] = []
    for number, micro_batch in enumerate(images):
        alone.network.load_state_dict(before)
        alone.network.train()
        alone.network(alone.inputs(micro_batch, alone.row.seed, 1, Part(number, len(images))))
        made.append({name: value.clone() for name, value in alone.network.named_buffers()})
    means = {
        name: sum((its[name].double() for its in made), torch.zeros(())) / len(made)
        for name in buffers
    }
    assert len(means) > 50 and apart(buffers, means) < 1e-5
    assert apart(buffers, made[-1]) > 1e-3


@pytest.mark.parametrize(("name", "world"), [("ddp", 4), ("deepspeed", 2)])
def test_a_resume_has_the_same_bits_on_the_same_ranks(name: str, world: int) -> None:
    """In the middle of an epoch, over an epoch's end, with a running mean of the weights; and 4
    ranks, where the order of a sum shows in its bits."""
    overrides = (*EIGHT, f"engine={name}", "train.ema_decay=0.9")
    config, data = load(*overrides)
    peaceful = alike(train(world, 4, *overrides))

    def task(mesh: Mesh) -> Any:
        training = start(config, data, mesh)
        steps(training, 2)
        again = start(config, data, mesh)
        again.load(2, training.state())
        told = steps(again, 2)
        return told, again.state()

    for told, state in in_ranks(world, task):
        assert told == peaceful.told[2:]
        for part in ("network", "average"):
            pairs = zip(state[part].values(), peaceful.state[part].values(), strict=True)
            assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.long
def test_another_number_of_ranks_and_another_engine_go_on_with_the_training() -> None:
    """In float64 to 1e-12: from 1 to 2 ranks. From DDP to DeepSpeed in float32."""
    config, data = load(*EIGHT)

    def halves(double: bool, *second: str) -> float:
        whole = alike(train(1, 4, *EIGHT, double=double))
        half = alike(train(1, 2, *EIGHT, double=double))
        other, _ = load(*EIGHT, *second)

        def task(mesh: Mesh) -> dict[str, Tensor]:
            with doubled() if double else patch("os.nice"):
                training = start(other, data, mesh)
                training.load(2, half.state)
                steps(training, 2)
            return training.network.state_dict()

        return apart(in_ranks(2, task)[1], whole.network)

    assert config.engine.name == "ddp"
    assert halves(True) < 1e-12
    assert halves(False, "engine=deepspeed") < 1e-4


@pytest.mark.parametrize("world", [1, 2, 3])
def test_every_test_image_is_counted_once(world: int) -> None:
    """50 images in batches of 16: shares of 50, 25, and 17 with 16. Against the network itself."""
    config, data = load("train.batch_size=96", "train.micro_batch=16")

    def task(mesh: Mesh) -> Any:
        with doubled():
            training = start(config, data, mesh)
            tested = training.evaluate(training.network, lambda: None, lambda: "")
        return tested, training.tested.central(torch.arange(len(training.tested)))

    told = in_ranks(world, task)
    assert isinstance(data.test, Images)
    assert torch.equal(
        torch.cat([images for _, images in told]), data.test.central(torch.arange(50))
    )
    with doubled(), torch.no_grad():
        network = rows.network(config, data, start(config, data, Mesh()).row).eval()
        every = augment.normalise(data.test.central(torch.arange(50)), data.mean, data.std)
        logits = network(every)
    loss = float(nn.functional.cross_entropy(logits, data.test.labels))
    accuracy = float((logits.argmax(1) == data.test.labels).double().mean())
    tested = [(its.images, its.loss, its.top1) for its, _ in told]
    assert tested == [pytest.approx((50, loss, accuracy), rel=1e-12)] * world


@pytest.mark.parametrize(("precision", "bound"), [("bf16", 0.03), ("fp16", 0.004)])
@pytest.mark.parametrize("name", ["ddp", "deepspeed"])
def test_lower_precision_stays_near_float32(name: str, precision: str, bound: float) -> None:
    """Losses of 4 steps, by their size: bf16 has 8 bits, fp16 11. Weights and statistics are
    float32 still, and the scale of fp16's loss is in the checkpoint."""
    full = alike(train(2, 4, *EIGHT))
    low = alike(train(2, 4, *EIGHT, f"engine={name}", f"engine.precision={precision}"))
    difference = float((low.losses / full.losses - 1).abs().max())
    assert 1e-6 < difference < bound
    kinds = {value.dtype for value in low.network.values() if value.is_floating_point()}
    assert kinds == {torch.float32}
    assert ("scale" in low.state["engine"]["scaler"]) == (precision == "fp16")


def compiling(backend: Any) -> Any:
    """network.compile() with another backend than inductor, which takes minutes on a CPU."""
    compile_with = nn.Module.compile
    return patch.object(
        nn.Module, "compile", lambda network: compile_with(network, backend=backend)
    )


@pytest.mark.long
def test_a_compiled_network_makes_the_same_steps() -> None:
    """Captured by torch.compile with its draws, and run as captured; in float64, as its gradients
    are torch's own, rounded otherwise than models/depthwise.py's."""
    dropped = *EIGHT, "train.drop_path=0.5"
    plain = alike(train(1, 3, *dropped, double=True))
    with compiling("eager"):
        compiled = alike(train(1, 3, *dropped, "engine.compile=true", double=True))
    assert float((compiled.losses / plain.losses - 1).abs().max()) < 1e-12
    assert list(compiled.network) == list(plain.network)


def test_a_compiler_that_computes_something_else_is_found_out() -> None:
    def wrong(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
        return lambda *given: [1.01 * value for value in graph.forward(*given)]

    network = nn.Sequential(nn.Flatten(), nn.Linear(9, 3))
    with compiling(wrong), pytest.raises(ConfigError, match="engine.compile=true is not possible"):
        compile_checked(network, torch.rand(5, 1, 3, 3))


@pytest.mark.parametrize("name", ["ddp", "deepspeed"])
@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_what_is_not_finite_ends_all_ranks_before_the_update(name: str, what: str) -> None:
    """It happens on one of two ranks only, in the second of its two micro-batches."""
    config, data = load(*EIGHT, f"engine={name}")

    def task(mesh: Mesh) -> Any:
        training = start(config, data, mesh)
        steps(training, 1)
        before = {name: value.clone() for name, value in training.network.named_parameters()}
        forward = training._pass  # pyright: ignore[reportPrivateUsage]

        def spoilt(number: int, images: Tensor, labels: Tensor) -> Passed:
            passed = forward(number, images, labels)
            if number != 3:
                return passed
            if what == "loss":
                return Passed(passed.minimised * math.inf, passed.reported)
            # Finite, with an infinite slope: the root of a sum of 0.
            root = (0 * passed.minimised).sqrt()
            return Passed(passed.minimised + root, passed.reported)

        training._pass = spoilt  # pyright: ignore
        with pytest.raises(FloatingPointError) as caught:
            training.train_step()
        after = dict(training.network.named_parameters())
        return str(caught.value), all(torch.equal(after[name], before[name]) for name in before)

    expected = f"step 1 of random-trivial_augment-seed0: the {what} is not finite"
    for message, unchanged in in_ranks(2, task):
        assert message == f"{expected}; lower train.learning_rate" and unchanged


def test_the_running_mean_of_the_weights_is_the_closed_form() -> None:
    """After 4 steps: 0.3 of the latest, 0.3 × 0.7 of the one before, …, the rest of the first;
    buffers too."""
    config, data = load(*EIGHT, "train.ema_decay=0.7")

    def task(mesh: Mesh) -> Any:
        training = start(config, data, mesh)
        seen = []
        for _ in range(4):
            steps(training, 1)
            seen.append({k: v.double() for k, v in training.network.state_dict().items()})
        assert training.average is not None
        averaged = training.average.module
        tested = [
            training.evaluate(each, lambda: None, lambda: "")
            for each in (training.network, averaged)
        ]
        return seen, averaged.state_dict(), tested

    seen, averaged, tested = in_ranks(1, task)[0]
    shares = [0.7**3, 0.3 * 0.7**2, 0.3 * 0.7, 0.3]
    for name, value in averaged.items():
        if value.is_floating_point():
            terms = [share * its[name] for share, its in zip(shares, seen, strict=True)]
            assert torch.allclose(value.double(), torch.stack(terms).sum(0), atol=1e-6)
    assert tested[0] != tested[1]


def test_without_buffers_and_with_a_fixed_network_it_trains_too() -> None:
    """The small network has no batch norm and no drop-path."""
    small = "train.compare=[small/default]"
    one, two = (alike(train(n, 6, *EIGHT, small)) for n in (1, 2))
    assert float((two.losses / one.losses - 1).abs().max()) < 1e-5
    assert float(one.losses[-1]) < float(one.losses[0])


def test_where_images_are_changed_is_no_part_of_what_is_trained() -> None:
    """A policy and colour jitter where images are read, in this process or in another: same bits,
    on one rank and on two."""
    more = *EIGHT, "data.color_jitter=[0.4,0.4,0.4,0.2]"
    reader = *more, "train.augment_on=reader"
    for world in (1, 2):
        here, there = alike(train(world, 3, *more)), alike(train(world, 3, *reader))
        assert here.told == there.told
        assert all(torch.equal(a, there.network[name]) for name, a in here.network.items())
    assert here.told != alike(train(2, 3, *EIGHT)).told
    config, data = load(*reader, "data.workers=1")
    (there,) = in_ranks(1, lambda mesh: steps(start(config, data, mesh), 3))
    assert there == alike(train(1, 3, *more)).told


@pytest.mark.parametrize("where", ["device", "reader"])
def test_the_policy_of_an_iteration_is_the_same_on_any_number_of_ranks(
    where: str, tmp_path: Path
) -> None:
    """What the network sees of two steps of 4 micro-batches, bit for bit, on one rank and on two;
    another draw a step than a policy an image makes."""
    given = (
        *EIGHT, "train.compare=[random/found]", f"train.result={results.save(tmp_path)}",
        f"train.augment_on={where}",
    )  # fmt: skip

    def seen(world: int, per: str) -> Tensor:
        config, data = load(*given, f"train.policy_per={per}")

        def task(mesh: Mesh) -> list[Tensor]:
            training = start(config, data, mesh)
            inside, images = training.inputs.normalised, []

            def normalised(*given: Any) -> Tensor:
                images.append(given[0].clone())
                return inside(*given)

            with patch.object(Inputs, "normalised", lambda _, *given: normalised(*given)):
                steps(training, 2)
            return images[-2 * len(training.cut.own) :]  # the first pass of DDP is repeated

        ranks = in_ranks(world, task)
        each = [[rank[i : i + len(rank) // 2] for rank in ranks] for i in (0, len(ranks[0]) // 2)]
        return torch.cat([image for step in each for rank in step for image in rank])

    alone = seen(1, "iteration")
    assert torch.equal(seen(2, "iteration"), alone)
    assert not torch.equal(seen(1, "image"), alone)


def test_alone_is_the_engine_of_one_rank() -> None:
    config, data = load(*EIGHT)
    training = start(config, data, Mesh())
    assert isinstance(training.engine, Alone) and isinstance(training.network, Network)
