"""The product's step against that of benchmarks/plain.py, which shares no gradient with it."""

from typing import Any

import plain
import pytest
import torch
from on_noise import search_on_noise
from step import Gradients, PlainSearch
from torch import Tensor

from daas_dist.distributed.mesh import Mesh
from daas_dist.methods import daas
from daas_dist.methods.equations import search_term
from daas_dist.methods.interface import Contribution
from daas_dist.search.context import Images
from daas_dist.search.steps import Search

SMALL = [
    "model.channels=4", "model.cells=3", "search.batch_size=4", "search.architectures=3",
    "search.weight_architectures=4",
]  # fmt: skip
NEAR = 1e-9


def in_float64(search: Search) -> Search:
    """Away from where it starts, so that no gradient is one of a special point."""
    torch.manual_seed(0)
    search.state.network.double()
    for value in search.state.logits.values():
        value.data = value.data.double() + 0.5 * torch.randn_like(value.data, dtype=torch.float64)
    return search


@pytest.mark.parametrize("warm_up", [False, True])
def test_the_product_has_the_gradients_of_the_plain_step(
    warm_up: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    normalised, terms = Images.normalised, list[Contribution]()

    def doubled(self: Images, images_u8: Tensor) -> Tensor:
        return normalised(self, images_u8).double()

    def kept(*arguments: Any, **options: Any) -> Contribution:
        terms.append(search_term(*arguments, **options))
        return terms[-1]

    monkeypatch.setattr(Images, "normalised", doubled)
    monkeypatch.setattr(daas, "search_term", kept)
    overrides = [*SMALL, f"search.warmup_epochs={int(warm_up)}"]
    product, source = (in_float64(search_on_noise(overrides, Mesh(), 16, 4)) for _ in range(2))
    assert product.warming_up == warm_up
    reference = PlainSearch(source)
    reference.network.double().load(source.theta.values())
    for _ in range(2):  # the second has momentum, and weights that had no step
        gradients = Gradients(reference), Gradients(product)
        rewards = reference.step()
        product.step()
        differences = gradients[0].differences(gradients[1])
        expected = {"architecture", "weights"} | (set() if warm_up else {"policy"})
        assert set(differences) == expected
        assert max(differences.values()) < NEAR
        if not warm_up:
            found = torch.stack([term.small["reward"] for term in terms])
            torch.testing.assert_close(found, rewards, rtol=NEAR, atol=0)
        terms.clear()
    moved = zip(product.theta.values(), reference.network.parameters(), strict=True)
    assert all(torch.allclose(own, other, rtol=NEAR, atol=1e-12) for own, other in moved)


def test_a_gate_is_one_and_differentiates_both_choices() -> None:
    soft = torch.tensor([[0.3, 0.7]]), torch.tensor([[0.2, 0.9]])
    for value in soft:
        value.requires_grad_()
    gates = plain.Path(None, *soft).gates()  # type: ignore[arg-type]
    assert torch.equal(gates, torch.ones(1, 2))
    (gates * torch.tensor([[2.0, 3.0]])).sum().backward()
    for value in soft:
        assert value.grad is not None and torch.equal(value.grad, torch.tensor([[2.0, 3.0]]))
