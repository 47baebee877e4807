"""What configs/ says of where its values are from is of a known form, and what it says the paper
gives is what the paper gives."""

import re
from functools import cache
from pathlib import Path

import pytest
import yaml

from daas_dist import config
from daas_dist.config import ConfigError
from daas_dist.config.explain import Row, explain, labels

FILES = sorted(config.directory().rglob("*.yaml"))
SECTIONS = ("3.1", "3.2", "4.1", "4.2", "4.3", "4.4", "5", "5.1", "5.2")
PLACE = re.compile(r"paper (Sec\. ([\d.]*\d)|Eq\. (\d+)|Algorithm 1|Table (\d))(?=$|[ ,;:.(])")
PEERS = (
    "DARTS", "PC-DARTS", "GDAS", "ROME", "DADA", "DDAS", "Fast AutoAugment", "torch", "submitit",
)  # fmt: skip
"""Whose code was read; of the last two, what they do by default."""


def stated(label: str) -> bool:
    """Whether a label is of an allowed form: ours, a peer that is one, or a place of the paper."""
    kind, _, rest = label.partition(" ")
    if kind == "ours:":
        return len(rest) > 2
    if kind == "peer":
        return any(re.match(rf"{peer}[ ,:]", f"{rest} ") for peer in PEERS)
    place = PLACE.match(label)
    if place is None:
        return False
    section, equation, table = place.group(2, 3, 4)
    return (
        section in (None, *SECTIONS)
        and int(equation or 1) in range(1, 15)
        and int(table or 1) in range(1, 8)
    )


@pytest.mark.parametrize(
    ("label", "allowed"),
    [
        ("paper Sec. 5", True),
        ("paper Sec. 4.3 and 5 (one an iteration)", True),
        ("paper Eq. 14 (sum | mean)", True),
        ("paper Algorithm 1", True),
        ("peer PC-DARTS train_imagenet.py", True),
        ("ours: none", True),
        ("paper", False),
        ("paper says so", False),
        ("paper Sec. 6.1", False),
        ("paper Eq. 15", False),
        ("paper Table 9", False),
        ("paper Sec. 4.12", False),
        ("peer DARTSish train.py", False),
        ("peer somebody", False),
        ("ours:", False),
        ("theirs: x", False),
    ],
)
def test_the_form_tells_labels_from_phrases(label: str, allowed: bool) -> None:
    assert stated(label) == allowed


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_label_is_of_an_allowed_form(path: Path) -> None:
    assert {key: label for key, label in labels(path).items() if not stated(label)} == {}


SAYS: dict[str, tuple[object, ...]] = {
    "search.method": ("daas",),
    "search.target": ("joint",),
    "search.warmup_epochs": (20, 30),
    "search.joint_epochs": (30, 20),
    "search.architectures": (5,),
    "search.policies_per_architecture": (2,),
    "search.weight_architectures": (10,),
    "search.xi": (None,),
    "search.weight_gradient": ("sum",),
    "search.reuse_gradients": (False,),
    "search.permute_rewards": (False,),
    "search.estimator": ("paper",),
    "search.weights.momentum": (0.9,),
    "search.architecture.betas": ([0.5, 0.999],),
    "search.policy_optimizer.name": ("adam",),
    "search.policy_optimizer.betas": ([0.5, 0.999],),
    "search.derived.channels": (48,),
    "search.derived.cells": (14,),
    "search.derived.classes": (1000,),
    "policy.parameters": ("per_policy",),
    "model.channels": (16,),
    "model.cells": (8,),
    "train.policy_per": ("iteration",),
    "train.epochs": (600, 250, 200, 1800),
    "train.batch_size": (96, 1024),
    "train.channels": (48,),
    "train.cells": (14,),
    "train.learning_rate": (0.5,),
    "data.channels": (3,),
    "data.classes": ("all",),
    "data.limit": (None,),
    "data.test_limit": (None,),
}
"""The paper's own statements, read there; of every other number it says nothing."""
CHOICES = ("stage", "kind", "data.name", "model.name", "train.compare")
"""Names of what its tables and sections are about."""


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_is_called_the_papers_is_in_the_paper(path: Path) -> None:
    if path.parent.name in ("experiment", "cluster"):
        return
    values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    values.pop("defaults", None)
    for (key, label), value in zip(labels(path).items(), config.flat(values).values(), strict=True):
        if label.startswith("paper ") and key not in CHOICES:
            assert value in SAYS.get(key, ()), f"{key}={value} is called {label!r}"


STAGES = config.options("stage")


@cache
def rows(*words: str) -> dict[str, Row]:
    return {row.key: row for row in explain(words)}


@pytest.mark.parametrize("stage", STAGES)
def test_every_value_of_every_stage_and_preset_has_a_source(stage: str) -> None:
    for preset in config.options("preset"):
        try:
            given = rows(f"stage={stage}", f"preset={preset}")
        except ConfigError as error:
            assert f"preset={preset} has no effect" in str(error)
            continue
        assert list(given) == config.keys()
        assert all(stated(row.source) for row in given.values())


@pytest.mark.parametrize(
    ("words", "key", "label"),
    [
        ("stage=search_cifar10", "policy.ranges", "ours: open in the paper"),
        ("stage=search_fashion preset=paper", "policy.ranges", "ours: open in the paper"),
        ("stage=search_cifar100", "search.warmup_policy", "ours: open in the paper"),
        ("stage=search_folder preset=paper", "search.warmup_policy", "ours: open in the paper"),
        ("stage=search_cifar10", "search.architecture_gradient_at", "ours: "),
        ("stage=search_cifar10", "search.batch_size", "peer DARTS .*390 steps .*391"),
        ("stage=train_cifar100", "train.batch_size", "paper Sec. 5.*520 steps .*521"),
        ("stage=search_cifar10", "search.most_skips", "ours: "),
        ("stage=search_fashion preset=paper", "search.architecture.learning_rate", "peer DARTS"),
        ("stage=search_fashion", "search.architecture.learning_rate", "ours: "),
        ("stage=search_imagenet preset=paper", "search.warmup_epochs", r"paper Sec\. 5\.1"),
        ("stage=search_fashion preset=paper", "search.max_flops", "ours: "),
        ("stage=search_imagenet", "data.limit", "ours: "),
        ("stage=search_imagenet", "data.images_per_class", "ours: .*open"),
        ("stage=train_cifar10", "train.policy_per", r"paper Sec\. 4\.3"),
        ("stage=train_fashion", "train.policy_per", "ours: "),
        ("stage=train_imagenet recipe=resnet_50", "train.policy_per", "peer DADA"),
        ("stage=train_cifar10", "train.policy_result", "ours: "),
        (
            "stage=search_cifar10 search.target=policy model=small",
            "model.channels",
            "ours: not read",
        ),
    ],
)
def test_what_an_audit_found_wrong_stays_mended(words: str, key: str, label: str) -> None:
    assert re.match(label, rows(*words.split())[key].source)


def test_no_stage_claims_more_than_its_labels() -> None:
    for stage in STAGES:
        text = (config.directory() / "stage" / f"{stage}.yaml").read_text(encoding="utf-8")
        assert "word for word" not in text


def test_explain_tells_what_a_stage_does_not_read() -> None:
    search, alone = rows("stage=search_cifar10"), rows("search.target=policy", "model=small")
    assert search["train.epochs"].unread == ("stage=search_cifar10",)
    assert search["search.weight_architectures"].unread == ()
    assert alone["search.weight_architectures"].unread == ("search.target=policy",)
    trained = rows("stage=train_fashion", "train.compare=[small/none]")
    assert trained["train.cells"].unread == ("train.compare=[small/none]",)
