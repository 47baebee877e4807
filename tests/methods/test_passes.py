"""A pass of a network: its numbers against torch's own, and what a step takes of them."""

import pytest
import torch
from small_problem import linear_softmax, small_problem
from torch import Tensor, nn
from torch.func import functional_call, jvp

from daas_dist import config as configuration
from daas_dist.methods import passes
from daas_dist.methods.attention import plain_attention
from daas_dist.methods.passes import Batch, forward_backward, loss_accuracy, total_norm
from daas_dist.rng import stream
from daas_dist.search.method import build_method


def test_a_pass_has_the_loss_the_accuracy_and_the_norm_of_its_batch() -> None:
    theta, views, val, _ = small_problem()
    labels = linear_softmax(theta, (), val.images, None).argmax(-1)
    labels[0] = (labels[0] + 1) % 3  # one of five is wrong
    batches = views[0], Batch(val.images, labels)
    made = [forward_backward(linear_softmax, theta, (), batch) for batch in batches]
    for batch, one in zip(batches, made, strict=True):
        leaves = {name: value.clone().requires_grad_() for name, value in theta.items()}
        log_p = linear_softmax(leaves, (), batch.images, None).log_softmax(-1)
        loss = -log_p[torch.arange(5), batch.labels].mean()
        gradients = torch.autograd.grad(loss, list(leaves.values()))
        assert float(one.loss) == pytest.approx(float(loss.detach()))
        norm = sum(float(g.square().sum()) for g in gradients) ** 0.5
        assert float(one.norm) == pytest.approx(norm)
        for found, expected in zip(one.theta_grad.values(), gradients, strict=True):
            torch.testing.assert_close(found, expected)
    assert float(made[1].accuracy) == pytest.approx(0.8)
    loss, accuracy = loss_accuracy(made).tolist()
    assert loss == pytest.approx((float(made[0].loss) + float(made[1].loss)) / 2)
    assert accuracy == pytest.approx((float(made[0].accuracy) + 0.8) / 2)
    assert float(total_norm(made)) == pytest.approx(float(made[0].norm) + float(made[1].norm))


@pytest.mark.parametrize(
    ("words", "warm_up", "joint"),
    [
        ((), 15, 25),  # 10 + 5, and 5 · (2 + 1) + 10
        (("search.architecture_gradient_at=theta",), 15, 30),
        (("search.reuse_gradients=true",), 15, 15),
        (("search.estimator=per_image",), 15, 5 * (1 + 2 * 0.8 + 1) + 10),
        (("search.estimator=natural", "search.evidence.control=others"), 15, 5 * 2.8 + 10),
        (("search.target=policy", "model=small"), 1, 16),
        (("search.target=architecture",), 15, 15),
        (("method=darts", "search.warmup_epochs=20"), 1, 5),
        (("method=darts", "search.warmup_epochs=20", "search.xi=0"), 1, 2),
        (("method=gdas", "search.warmup_epochs=20"), 1, 2),
    ],
)  # fmt: skip
def test_the_passes_of_a_step_are_those_of_the_paper(
    words: tuple[str, ...], warm_up: float, joint: float
) -> None:
    """n_arch = 5, n_aug = 2 and n_w = 10, in forward-backward passes; forward-mode counts 0.8."""
    method = build_method(configuration.load(["stage=search_cifar10", *words]))
    assert method.passes(19) == pytest.approx(warm_up)
    assert method.passes(20) == pytest.approx(joint)


def test_attention_has_a_forward_mode_when_it_is_plain() -> None:
    """The slope along a direction, by finite differences; torch's fused path has none."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True).double().eval()
    theta = {name: value.detach() for name, value in layer.named_parameters()}
    g = stream(0, "attention")
    images = torch.randn(2, 3, 8, generator=g, dtype=torch.float64)
    along = {n: torch.randn(v.shape, generator=g, dtype=torch.float64) for n, v in theta.items()}

    def of(weights: dict[str, Tensor]) -> Tensor:
        return functional_call(layer, weights, (images,))

    assert torch.backends.mha.get_fastpath_enabled()
    with torch.no_grad(), plain_attention():
        assert not torch.backends.mha.get_fastpath_enabled()
        found = jvp(of, (theta,), (along,))[1]
        moved = [{n: v + t * along[n] for n, v in theta.items()} for t in (1e-6, -1e-6)]
        slope = (of(moved[0]) - of(moved[1])) / 2e-6
    torch.testing.assert_close(found, slope, rtol=1e-5, atol=1e-6)
    assert torch.backends.mha.get_fastpath_enabled()


def test_unflat_undoes_flat() -> None:
    weights = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor([7.0])}
    for (name, value), (other, back) in zip(
        weights.items(), passes.unflat(passes.flat(weights), weights).items(), strict=True
    ):
        assert name == other and torch.equal(value, back)
