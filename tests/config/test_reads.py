"""A key that is set and not read is refused; what is not refused changes what is computed."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import found_results as results
import pytest
import torch
from small_trainings import start, steps
from torch import Tensor

from daas_dist import config as configuration
from daas_dist.config import Config, ConfigError
from daas_dist.config.schema.reads import TABLE
from daas_dist.data import Images
from daas_dist.data.dataset import DataSet
from daas_dist.distributed.mesh import Mesh
from daas_dist.rng import stream
from daas_dist.search.loop import build_network
from daas_dist.search.steps import Search, SearchData

TRAIN = ("stage=train_fashion", "train.result=r.json")
FIXED = ("search.target=policy", "model=small")
ALONE = ("search.target=architecture",)
OF_A_POLICY = (
    "search.policies_per_architecture", "search.policies_per_image", "search.xi",
    "search.architecture_gradient_at", "search.reuse_gradients", "search.permute_rewards",
    "search.policy_optimizer.name", "search.policy_optimizer.betas", "search.evidence.decay",
)  # fmt: skip
OF_ALGORITHM_1 = "search.architectures", "search.weight_architectures", "search.weight_gradient"

NOT_READ: list[tuple[tuple[str, ...], tuple[str, ...], str]] = [
    (
        (),
        (
            "train.epochs", "train.policy_per", "recipe", "engine", "engine.precision",
            "data.color_jitter", "data.lighting",
        ),
        "stage=search_fashion is a search",
    ),
    (
        TRAIN,
        (
            "search.tau.end", "policy.slots", "mesh.reduction", "data.val_share", "model", "method",
            "model.channels", "model.cells", "model.genotype", "model.network",
        ),
        "stage=train_fashion is a train",
    ),
    (("data=cifar10",), ("data.max_bad_files", "data.cache_gb"),
     "data=cifar10 does not|data.cache=null does not"),
    (("stage=search_imagenet", "data.root=/s"), ("data.cache_gb",), "data.cache=null does not"),
    (("model=pyramidnet_272", "data=cifar100", "search.target=policy"),
     ("model.channels", "model.cells", "model.stem"), "model=pyramidnet_272 does not"),
    (
        FIXED,
        (
            "search.weight_architectures", "search.architecture_gradient_at", "search.tau.start",
            "search.architecture.learning_rate", "search.architecture.betas",
            "search.derived.channels", "search.derived.stem",
        ),
        "search.target=policy does not",
    ),
    ((*FIXED, "search.reuse_gradients=false"), ("search.weight_gradient",),
     "search.target=policy and search.reuse_gradients=false do not"),
    (
        ALONE,
        (
            *(key for key in OF_A_POLICY if key != "search.xi"), "search.estimator",
            "search.warmup_policy", "policy.slots", "policy.parameters", "policy.ranges",
        ),
        "search.target=architecture does not",
    ),
    (ALONE, ("search.xi",), "search.target=architecture and method=daas do not"),
    (("method=darts",), (*OF_ALGORITHM_1, "search.tau.start"), "method=darts does not"),
    (("method=gdas",), (*OF_ALGORITHM_1, "search.xi"), "method=gdas does not"),
    (("search.warmup_epochs=0", "search.reuse_gradients=false"), ("search.warmup_policy",),
     "search.warmup_epochs=0 does not"),
    (("search.joint_epochs=0",), OF_A_POLICY, "search.joint_epochs=0 does not"),
    (("search.warmup_epochs=0",), ("search.weight_architectures",),
     "search.reuse_gradients=true and search.warmup_epochs=0 and search.target=joint do not"),
    (("search.estimator=leave_one_out",),
     ("search.policies_per_image", "search.evidence.control", "search.evidence.validation_decay"),
     "search.estimator=leave_one_out does not"),
    (("search.estimator=per_image",), ("search.policies_per_architecture",),
     "search.estimator=per_image does not"),
    ((), ("search.policy_optimizer.betas",), "search.policy_optimizer.name=sgd does not"),
    ((), ("search.most_skips",), "search.non_finite=raise does not"),
    ((), ("mesh.norm",), "mesh.data=1 does not"),
    (("stage=train_fashion", "train.compare=[random/default]"),
     ("train.policy_result", "train.policy_per"), "train.compare=[random/default] does not"),
    ((*TRAIN, "train.compare=[found/trivial_augment]"), ("train.policy_result", "train.policy_per"),
     "train.compare=[found/trivial_augment] does not"),
    ((*TRAIN, "train.compare=[small/found, wide_resnet_40_2/none]"),
     ("train.channels", "train.cells", "train.auxiliary_weight", "train.drop_path", "model.stem"),
     "train.compare=[small/found, wide_resnet_40_2/none] does not"),
    (
        ("stage=train_fashion", "train.compare=[small/none, random/none]"),
        ("data.flip", "data.crop_padding", "data.crop_scale", "data.cutout", "data.color_jitter",
         "data.lighting"),
        "train.compare=[small/none, random/none] does not",
    ),
    ((*TRAIN, "train.schedule=steps", "train.milestones=[2]"), ("train.schedule_by",),
     "train.schedule=steps and train.warmup_epochs=0 do not"),
]  # fmt: skip
"""(what is chosen, keys that are then not read, why)."""

READ: list[tuple[tuple[str, ...], tuple[str, ...]]] = [
    ((), ("search.warmup_policy", "search.weight_architectures", "search.reuse_gradients")),
    ((), ("data.cutout", "search.max_flops")),
    ((*FIXED, "search.reuse_gradients=true"), ("search.weight_gradient", "search.warmup_policy")),
    (ALONE, ("search.weight_architectures", "search.tau.end", "search.weight_gradient")),
    (ALONE, ("policy.fixed", "search.warmup_epochs")),
    (("method=darts",), ("search.xi", "policy.fixed", "search.warmup_epochs", "search.batch_size")),
    (("method=gdas",), ("search.tau.start", "search.tau.end", "search.architecture.betas")),
    (("search.joint_epochs=0",), ("search.estimator", "policy.slots", "search.warmup_policy")),
    (("search.estimator=paper",), ("search.evidence.decay", "search.policies_per_architecture")),
    (("search.policy_optimizer.name=adam",), ("search.policy_optimizer.betas",)),
    (("mesh.data=null",), ("mesh.norm",)),
    (("data=folder",), ("data.max_bad_files", "data.channels")),
    (("stage=search_imagenet", "data.root=/s"), ("data.test_resize", "model.stem")),
    ((*TRAIN, "train.compare=[small/found, random/none]"),
     ("train.policy_per", "train.drop_path", "data.flip")),
    ((*TRAIN, "train.schedule=steps", "train.milestones=[2]", "train.warmup_epochs=1"),
     ("train.schedule_by",)),
    (("stage=train_fashion", "train.compare=[random/none]"),
     ("model.stem", "train.cells", "train.result")),
]  # fmt: skip


@cache
def values(chosen: tuple[str, ...]) -> dict[str, Any]:
    return configuration.unchecked(list(chosen))


@pytest.mark.parametrize(("chosen", "keys", "why"), NOT_READ)
def test_what_is_not_read_is_refused_and_says_why(
    chosen: tuple[str, ...], keys: tuple[str, ...], why: str
) -> None:
    for key in keys:
        text = configuration.without_effect(f"{key}=1", values(chosen))
        assert text.startswith(f"{key} has no effect: ") and "\n" not in text
        assert any(reason in text for reason in why.split("|")), text


@pytest.mark.parametrize(("chosen", "keys"), READ)
def test_what_is_read_is_not_refused(chosen: tuple[str, ...], keys: tuple[str, ...]) -> None:
    assert [key for key in keys if configuration.without_effect(f"{key}=1", values(chosen))] == []


def test_every_row_of_the_table_has_a_case() -> None:
    """Each of its keys, where its own conditions hold."""
    for row in TABLE:
        for part in row.keys:
            key = part.rstrip("=")
            assert any(
                row.holds(configuration.flat(values(chosen)))
                and any(f"{each}.".startswith(f"{key}.") for each in keys)
                for chosen, keys, _ in NOT_READ
            ), (part, tuple(row.where))


def test_the_door_refuses_it_whoever_else_set_it() -> None:
    """A preset may set what a stage does not read; a person who does is told."""
    fixed = ["preset=tiny", *FIXED]
    assert configuration.load(fixed).search.weight_architectures == 2
    with pytest.raises(ConfigError, match="search.weight_architectures has no effect: search.targ"):
        configuration.load([*fixed, "search.weight_architectures=3"])


# --- The table against what is computed ----------------------------------------------------------


def images(seed: int, count: int = 8) -> Images:
    g = stream(seed, "images")
    pixels = torch.randint(1, 256, (count, 1, 12, 12), generator=g, dtype=torch.uint8)
    return Images(pixels, torch.arange(count) % 3, ("a", "b", "c"))


def changed(config: Config, key: str, value: Any) -> Config:
    """Past the door, which would refuse some."""
    config = copy.deepcopy(config)
    *groups, name = key.split(".")
    group: Any = config
    for each in groups:
        group = getattr(group, each)
    assert getattr(group, name) != value, key
    setattr(group, name, value)
    return config


def leaves(value: Any) -> Iterator[Any]:
    """Tensors as lists, numbers and names of a state, in order."""
    if isinstance(value, Mapping):
        for name in sorted(value, key=str):
            yield name
            yield from leaves(value[name])
    elif isinstance(value, list | tuple):
        for each in value:
            yield from leaves(each)
    else:
        yield value.tolist() if isinstance(value, Tensor) else value


def searched(config: Config) -> list[Any]:
    data = SearchData(images(1), images(2), [0.5], [0.3])
    search = Search(config, data, build_network(config, 3), Mesh(), torch.device("cpu"))
    while search.state.step < search.steps:
        search.step()
    state = search.state.save()
    learned = set(state["logits"])
    if config.search.target != "policy":
        learned -= {"alpha", "beta"}
    if config.search.target != "architecture":
        learned -= {"gamma.pi", "gamma.rho", "gamma.delta"}
    assert not learned and state["logits"]
    return list(leaves([state["network"], state["logits"], state["memory"].get("evidence")]))


OTHERS: dict[str, Any] = {
    "search.warmup_policy": "plain", "search.architectures": 3, "search.weight_architectures": 3,
    "search.policies_per_architecture": 3, "search.policies_per_image": 2, "search.xi": 0.7,
    "search.architecture_gradient_at": "theta", "search.weight_gradient": "mean",
    "search.estimator": "leave_one_out", "search.tau.start": 7.0, "search.tau.end": 0.3,
    "search.weights.learning_rate": 0.03, "search.weights.learning_rate_end": 0.002,
    "search.weights.momentum": 0.7, "search.weights.weight_decay": 0.01,
    "search.weights.clip": 0.01, "search.architecture.learning_rate": 0.02,
    "search.architecture.betas": [0.4, 0.9], "search.architecture.weight_decay": 0.1,
    "search.policy_optimizer.learning_rate": 0.3, "search.policy_optimizer.betas": [0.4, 0.9],
    "search.policy_optimizer.weight_decay": 0.3, "search.evidence.decay": 0.7,
    "search.evidence.validation_decay": 0.3, "search.evidence.control": "others",
    "search.permute_rewards": True, "policy.slots": 1, "policy.ranges": "dada",
}  # fmt: skip
"""Another value of every key that a step may read; search.derived.* counts, it computes nothing."""
SEARCHES: dict[str, tuple[tuple[str, ...], Iterable[str]]] = {
    "paper": (
        ("search.estimator=paper", "search.reuse_gradients=false",
         "search.policy_optimizer.name=adam"),
        ("search.warmup_policy", "search.weight_architectures", "search.weight_gradient",
         "search.architecture_gradient_at", "search.policy_optimizer.betas", "search.tau.end"),
    ),
    "ours, no warm-up": (
        ("search.warmup_epochs=0",),
        ("search.warmup_policy", "search.weight_architectures", "search.policies_per_architecture",
         "search.policies_per_image", "search.evidence.control", "search.weight_gradient"),
    ),
    "policy": (
        (*FIXED, "search.estimator=running_means", "search.architectures=1",
         "search.reuse_gradients=false"),
        OTHERS,
    ),
    "policy, paper": ((*FIXED, "search.estimator=paper", "search.reuse_gradients=true"), OTHERS),
    "architecture": (
        ALONE,
        [*(key for key in OTHERS if key.startswith(OF_A_POLICY)), "search.warmup_policy",
         "search.estimator", "policy.slots", "policy.ranges", "search.tau.start",
         "search.weight_architectures", "search.architecture.betas"],
    ),
    "darts": (("method=darts", "model.channels=2"),
              (*OF_ALGORITHM_1, "search.tau.start", "search.tau.end", "search.xi")),
    "gdas": (("method=gdas",),
             (*OF_ALGORITHM_1, "search.tau.start", "search.tau.end", "search.xi",
              "search.weights.clip", "search.architecture.learning_rate")),
}  # fmt: skip


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_reads_what_the_table_says(name: str) -> None:
    """A key that is not refused changes what three steps leave, one that is does not."""
    chosen, keys = SEARCHES[name]
    overrides = ["preset=tiny", "device=cpu", "search.batch_size=8", "search.joint_epochs=2"]
    overrides += chosen
    config, given = configuration.load(overrides), configuration.unchecked(overrides)
    _compare(config, given, {key: OTHERS[key] for key in keys}, searched)


TRAININGS = {
    "cells": ("train.compare=[found/found]",),
    "small": ("train.compare=[small/trivial_augment]", "train.schedule=steps",
              "train.milestones=[1]", "data.color_jitter=[0.2,0.2,0.2,0.1]"),
    "plain": ("train.compare=[random/none]",),
}  # fmt: skip
TRAINED: dict[str, Any] = {
    "train.policy_per": "iteration", "train.channels": 6, "train.cells": 4, "train.epochs": 3,
    "train.auxiliary_weight": 0.0, "train.drop_path": 0.4, "train.learning_rate": 0.3,
    "train.schedule_by": "step", "train.momentum": 0.5, "train.nesterov": True,
    "train.weight_decay": 0.1, "train.clip": 0.001,
    "train.label_smoothing": 0.3, "train.ema_decay": 0.5, "train.micro_batch": 4,
    "data.flip": False, "data.crop_padding": 3, "data.cutout": 5,
    "data.color_jitter": [0.9, 0.0, 0.0, 0.0], "model.stem": "imagenet",
}  # fmt: skip
NOT_TRIED = {
    "small": ("train.epochs",),
    "cells": ("model.stem",),
    "plain": ("model.stem",),
}
"""Read, but this network has no norms, the epochs of a schedule in steps are only its end, and the
stem of ImageNet wants larger images."""


@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_reads_what_the_table_says(name: str, tmp_path: Path) -> None:
    """As above, of the steps of two epochs."""
    overrides = ["stage=train_fashion", "preset=tiny", "train.batch_size=8", *TRAININGS[name]]
    if name == "cells":
        overrides += [f"train.result={results.save(tmp_path)}", "train.drop_path=0.2"]
    config, given = configuration.load(overrides), configuration.unchecked(overrides)

    def trained(config: Config) -> list[Any]:
        data = DataSet(images(1, 16), images(2), [0.5], [0.3])
        training = start(config, data, Mesh())
        told = []
        for training.epoch in range(2):
            told += steps(training, training.batches.steps_per_epoch)
        state = training.state()
        return list(leaves([told, state["network"], state["average"]]))

    others = {key: value for key, value in TRAINED.items() if key not in NOT_TRIED[name]}
    if name == "plain":  # the rest is as with the cells that were found
        others = {key: others[key] for key in others if key.startswith(("data.", "train.policy"))}
    _compare(config, given, others, trained)


def _compare(
    config: Config,
    given: Mapping[str, Any],
    others: Mapping[str, Any],
    run: Callable[[Config], list[Any]],
) -> None:
    base, wrong = run(config), []
    assert run(config) == base
    for key, value in others.items():
        refused = bool(configuration.without_effect(f"{key}=1", given))
        if (run(changed(config, key, value)) == base) != refused:
            wrong.append(f"{key} is {'read' if refused else 'not read'}")
    assert wrong == []
