"""Which keys a run does not read, by the values of others.

To set such a key is a mistake: config.load refuses it, and `daas explain` says which they are.
A key whose only harmless value is its default (data.cache without a URL) is not here but with the
checks of its group. tests/config/test_reads.py runs searches and trainings against this table.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from daas_dist.config.method_names import OF_THE_LOOP, methods, settings_of
from daas_dist.config.rules import shown
from daas_dist.config.schema.search import FIXED
from daas_dist.config.schema.train import ARCHITECTURES

Test = Callable[[Any], bool]
"""A test of a value as YAML has it, whose type may still be wrong."""


@dataclass(frozen=True)
class Unread:
    """Keys, whole groups and choices ("model=") that are not read where all of `where` holds.

    If its first condition is on the kind of stage, that is told as the reason; else the others are.
    """

    keys: tuple[str, ...]
    where: Mapping[str, Test]

    def has(self, key: str) -> bool:
        return any(key == part or key.startswith(f"{part}.") for part in self.keys)

    def holds(self, values: Mapping[str, Any]) -> bool:
        return all(test(values[name]) for name, test in self.where.items())


def unread(key: str, values: Mapping[str, Any]) -> list[str]:
    """Return the settings under which a key is not read, as ["search.target=policy"].

    They are none if it is read. key: a leaf, or a choice with its "=". values: of all leaves, by
    dotted key.
    """
    row = next((row for row in TABLE if row.has(key) and row.holds(values)), None)
    if values["kind"] == "search" and (method := _of_another_method(key, values)):
        return method
    if row is None:
        return []
    if next(iter(row.where)) == "kind":
        return [f"stage={values['stage']}"]
    names = [name for name in row.where if name != "kind"]
    return [f"{CHOICES.get(name, name)}={shown(values[name])}" for name in names]


def _of_another_method(key: str, values: Mapping[str, Any]) -> list[str]:
    """Return the method if it has no such setting, and another has."""
    group, _, name = key.partition(".")
    method, setting = values["search.method"], name.partition(".")[0]
    if group not in ("search", "policy") or method not in methods():
        return []
    others = frozenset[str]().union(*map(settings_of, methods()))
    unread = setting in others - OF_THE_LOOP - settings_of(method)
    return [f"method={method}"] if unread else []


def no_effect(key: str, values: Mapping[str, Any]) -> str:
    """Say in one sentence why a key has no effect, or nothing if it has one.

    Arguments as unread's.
    """
    causes, name = unread(key, values), key.rstrip("=")
    if not causes:
        return ""
    if causes[0].startswith("stage="):
        return f"{name} has no effect: {causes[0]} is a {values['kind']}, which does not read it"
    verb, change = "do" if causes[1:] else "does", causes[0].partition("=")[0]
    reason = f"{' and '.join(causes)} {verb} not read it"
    return f"{name} has no effect: {reason}; leave it out, or change {change}"


CHOICES = {"data.name": "data", "model.name": "model", "search.method": "method"}
"""Choices to change in place of the key that each brings."""


def _is(*values: Any) -> Test:
    return lambda value: value in values


def _no_row(reads: Callable[[str, str], bool]) -> Test:
    """Test that no row of train.compare, by its architecture and its policy, reads a key."""

    def test(rows: Any) -> bool:
        if not isinstance(rows, list) or not rows:
            return False  # another check refuses it
        parts = [str(row).partition("/") for row in rows]
        return not any(reads(architecture, policy) for architecture, _, policy in parts)

    return test


_SEARCH, _TRAINING = {"kind": _is("search")}, {"kind": _is("train")}
_NO_POLICY = {"search.target": _is("architecture")}
_NO_ARCHITECTURE = {"search.target": _is("policy")}
_OF_THE_BATCH = {"search.estimator": _is("paper", "leave_one_out")}
_OF_EACH_IMAGE = {"search.estimator": _is("per_image", "running_means", "natural")}


def _rows(reads: Callable[[str, str], bool]) -> dict[str, Test]:
    return {"train.compare": _no_row(reads), **_TRAINING}


_NO_FOUND_POLICY = _rows(lambda _, policy: policy == "found")
_NO_CELLS = _rows(lambda architecture, _: architecture in ARCHITECTURES)
_ALL_PLAIN = _rows(lambda _, policy: policy != "none")

TABLE = tuple(
    Unread(tuple(keys.split()), where)
    for keys, where in (
        # Kinds of stages.
        ("train recipe= engine engine= data.color_jitter data.lighting", _SEARCH),
        ("search policy mesh data.val_share model= method=", _TRAINING),
        ("model.channels model.cells model.genotype model.network", _TRAINING),
        # Images.
        ("data.max_bad_files", {"data.name": _is("fashion_mnist", "cifar10", "cifar100")}),
        ("data.cache_gb", {"data.cache": _is(None)}),
        # Networks.
        ("model.channels model.cells model.stem", {"model.name": _is(*FIXED)}),
        # What is searched.
        ("search.weight_architectures search.architecture_gradient_at", _NO_ARCHITECTURE),
        ("search.tau search.architecture search.derived", _NO_ARCHITECTURE),
        ("search.weight_gradient", {**_NO_ARCHITECTURE, "search.reuse_gradients": _is(False)}),
        ("search.policies_per_architecture search.policies_per_image", _NO_POLICY),
        ("search.xi", {**_NO_POLICY, "search.method": _is("daas")}),
        ("search.architecture_gradient_at search.reuse_gradients search.estimator", _NO_POLICY),
        ("search.policy_optimizer search.evidence search.permute_rewards", _NO_POLICY),
        ("search.warmup_policy policy.slots policy.parameters policy.ranges", _NO_POLICY),
        # How it is searched.
        ("search.warmup_policy", {"search.warmup_epochs": _is(0)}),
        (
            "search.policies_per_architecture search.policies_per_image search.xi "
            "search.architecture_gradient_at search.reuse_gradients search.policy_optimizer "
            "search.evidence search.permute_rewards",
            {"search.joint_epochs": _is(0)},
        ),
        (
            "search.weight_architectures",
            {"search.reuse_gradients": _is(True), "search.warmup_epochs": _is(0),
             "search.target": _is("joint")},
        ),
        ("search.policies_per_image search.evidence.control", _OF_THE_BATCH),
        ("search.evidence.validation_decay", _OF_THE_BATCH),
        ("search.policies_per_architecture", _OF_EACH_IMAGE),
        ("search.policy_optimizer.betas", {"search.policy_optimizer.name": _is("sgd")}),
        ("search.most_skips", {"search.non_finite": _is("raise")}),
        ("mesh.norm", {"mesh.data": _is(1)}),
        # What is trained.
        ("train.policy_result train.policy_per", _NO_FOUND_POLICY),
        ("train.channels train.cells train.auxiliary_weight train.drop_path model.stem", _NO_CELLS),
        ("data.flip data.crop_padding data.crop_scale data.cutout", _ALL_PLAIN),
        ("data.color_jitter data.lighting", _ALL_PLAIN),
        (
            "train.schedule_by",
            {"train.schedule": _is("steps"), "train.warmup_epochs": _is(0)},
        ),
    )
)  # fmt: skip
"""The first row that has a key and holds says why."""
