"""θ's learning rate, τ and the end of the warm-up of every stage and method, as tables of numbers.

Of a whole search at those epochs, on a network of no account: what is read is what a step takes.
DARTS' rate is end + (start - end) / 2 · (1 + cos(π e / E)), GDAS' τ is start + (end - start) · e /
(E - 1), e counted from 0.
"""

from typing import Any

import pytest
import torch
from test_search import images

from daas_dist import config as configuration
from daas_dist.distributed.mesh import Mesh
from daas_dist.search.loop import build_network
from daas_dist.search.steps import Search, SearchData

SMALL = ("model.channels=2", "model.cells=3")
ALONE = ("search.target=policy", "model=small")
ROOT = "data.root=/nowhere"
Row = tuple[float, float | None]
"""(rate, τ) of an epoch; None where a method has no τ."""

FIFTY: dict[int, Row] = {
    0: (0.025, 10.0),
    10: (0.0227082039, 7.9795918367),
    25: (0.013, 4.9489795918),
    40: (0.0032917961, 1.9183673469),
    49: (0.0010236793, 0.1),
}
TABLES: dict[tuple[str, ...], tuple[int, int, dict[int, Row]]] = {
    ("stage=search_cifar10", *SMALL): (20, 50, FIFTY),
    ("stage=search_cifar10", "preset=paper", *SMALL): (20, 50, FIFTY),
    ("stage=search_cifar100", *SMALL): (20, 50, FIFTY),
    ("stage=search_imagenet", ROOT, *SMALL): (30, 50, FIFTY),
    ("stage=search_folder", ROOT, *SMALL): (20, 50, FIFTY),
    ("stage=search_fashion", *SMALL): (
        1,
        5,
        {
            0: (0.025, 10.0),
            1: (0.0227082039, 7.525),
            2: (0.0167082039, 5.05),
            4: (0.0032917961, 0.1),
        },
    ),
    ("method=darts", *SMALL): (0, 50, {e: (rate, None) for e, (rate, _) in FIFTY.items()}),
    ("method=gdas", *SMALL): (
        0,
        250,
        {
            0: (0.025, 10.0),
            60: (0.0217476235, 7.6144578313),
            125: (0.013, 5.0301204819),
            249: (0.0010009475, 0.1),
        },
    ),
    ("method=ours", *SMALL): (20, 50, FIFTY),
    ("method=ours_policy", *ALONE): (20, 50, FIFTY),
    ("method=dada", *ALONE): (
        0,
        20,
        {
            0: (0.1, 10.0),
            7: (0.0729725297, 6.3526315789),
            10: (0.0505, 4.7894736842),
            19: (0.0016094271, 0.1),
        },
    ),
    ("preset=tiny", "search.joint_epochs=1", *SMALL): (1, 2, {0: (0.025, 10.0), 1: (0.013, 0.1)}),
    ("preset=tiny", *SMALL): (1, 3, {0: (0.025, 10.0), 1: (0.019, 5.05), 2: (0.007, 0.1)}),
}


@pytest.mark.parametrize("words", TABLES, ids=lambda words: " ".join(words[:2]))
def test_the_rate_and_tau_of_a_search_are_those_of_the_table(words: tuple[str, ...]) -> None:
    config = configuration.load([*words, "search.batch_size=8", "device=cpu", *_stage(words)])
    data = SearchData(images(32, 1), images(32, 2), [0.0], [1.0])
    config.data.channels = 1
    run = Search(config, data, build_network(config, 3), Mesh(), torch.device("cpu"))
    warmup, epochs, table = TABLES[words]
    assert run.steps == 4 * epochs
    for epoch, (rate, tau) in table.items():
        for step in (4 * epoch, 4 * epoch + 3):
            run.state.step = step
            assert run.learning_rate == pytest.approx(rate, rel=1e-7)
            said: Any = run.method.progress(run.state.logits, run.progress)["tau"]
            assert said == (tau if tau is None else pytest.approx(tau, rel=1e-9))
    run.state.step = run.steps  # after the last step τ and the rate are at their ends
    settings = config.search
    assert run.learning_rate == pytest.approx(settings.weights.learning_rate_end, rel=1e-12)
    assert run.progress == 1
    for step in (4 * warmup - 1, 4 * warmup):
        run.state.step = step
        assert run.warming_up == (step < 4 * warmup)


def _stage(words: tuple[str, ...]) -> tuple[str, ...]:
    return () if words[0].startswith("stage=") else ("stage=search_cifar10",)
