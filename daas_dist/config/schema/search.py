"""model.*, search.* and policy.*: what is searched, on what, how."""

from dataclasses import dataclass

from daas_dist.config.method_names import methods
from daas_dist.config.rules import (
    BETAS,
    CELLS,
    COUNT,
    DECAY,
    EVEN,
    NATURAL,
    NOT_NEGATIVE,
    POSITIVE,
    SHARE,
    check,
    one_of,
    refuse,
)

FIXED = (
    "small",
    "wide_resnet_40_2",
    "wide_resnet_28_10",
    "shake_shake_32d",
    "shake_shake_96d",
    "shake_shake_112d",
    "pyramidnet_272",
    "torchvision",
)
"""What model=NAME may be beside supernet and genotype: networks whose sizes are their own."""


@dataclass(kw_only=True, slots=True)
class Model:
    name: str
    channels: int
    cells: int
    stem: str
    genotype: str | None
    network: str | None

    def __post_init__(self) -> None:
        check(self, "model", one_of("supernet", "genotype", *FIXED), "name")
        check(self, "model", one_of("cifar", "imagenet"), "stem")
        check(self, "model", COUNT, "channels")
        check(self, "model", COUNT if self.name in FIXED else CELLS, "cells")
        if self.genotype is not None and self.name != "genotype":
            wanted = f"null, as model={self.name}; add model=genotype"
            refuse("model.genotype", self.genotype, wanted)
        if self.network is not None and self.name != "torchvision":
            wanted = f"null, as model={self.name}; add model=torchvision"
            refuse("model.network", self.network, wanted)


@dataclass(kw_only=True, slots=True)
class Tau:
    start: float
    end: float


@dataclass(kw_only=True, slots=True)
class Weights:
    learning_rate: float
    learning_rate_end: float
    momentum: float
    weight_decay: float
    clip: float


@dataclass(kw_only=True, slots=True)
class Adam:
    learning_rate: float
    betas: list[float]
    weight_decay: float


@dataclass(kw_only=True, slots=True)
class PolicyOptimizer:
    name: str
    learning_rate: float
    betas: list[float]
    weight_decay: float


@dataclass(kw_only=True, slots=True)
class Evidence:
    decay: float
    validation_decay: float
    control: str


@dataclass(kw_only=True, slots=True)
class Derived:
    channels: int
    cells: int
    classes: int | None
    size: int | None
    stem: str | None


@dataclass(kw_only=True, slots=True)
class Search:
    method: str
    target: str
    warmup_epochs: int
    warmup_policy: str
    joint_epochs: int
    batch_size: int
    architectures: int
    policies_per_architecture: int
    policies_per_image: int
    weight_architectures: int
    xi: float | None
    architecture_gradient_at: str
    weight_gradient: str
    reuse_gradients: bool
    estimator: str
    tau: Tau
    weights: Weights
    architecture: Adam
    policy_optimizer: PolicyOptimizer
    evidence: Evidence
    derived: Derived
    max_flops: float | None
    max_parameters: float | None
    permute_rewards: bool
    cuda_graphs: bool
    non_finite: str
    most_skips: int
    log_every: int
    checkpoint_every: int
    keep_checkpoints: int

    def __post_init__(self) -> None:
        check(self, "search", one_of(*methods()), "method")
        check(self, "search", one_of("joint", "architecture", "policy"), "target")
        check(self, "search", one_of("uniform", "plain"), "warmup_policy")
        check(self, "search", one_of("look_ahead", "theta"), "architecture_gradient_at")
        check(self, "search", one_of("sum", "mean"), "weight_gradient")
        estimators = one_of("paper", "leave_one_out", "per_image", "running_means", "natural")
        check(self, "search", estimators, "estimator")
        check(self, "search", NATURAL, "warmup_epochs", "joint_epochs")
        check(self, "search", COUNT, "batch_size", "architectures", "policies_per_architecture")
        check(self, "search", COUNT, "policies_per_image")
        check(self, "search", COUNT, "weight_architectures", "log_every", "checkpoint_every")
        check(self, "search", COUNT, "keep_checkpoints", "most_skips")
        check(self, "search", one_of("raise", "skip"), "non_finite")
        check(self, "search", POSITIVE, "max_flops", "max_parameters")
        check(self, "search", NOT_NEGATIVE, "xi")
        check(self.tau, "search.tau", POSITIVE, "start", "end")
        check(self.weights, "search.weights", POSITIVE, "learning_rate", "clip")
        check(self.weights, "search.weights", NOT_NEGATIVE, "learning_rate_end", "weight_decay")
        check(self.weights, "search.weights", SHARE, "momentum")
        for name in ("architecture", "policy_optimizer"):
            adam, key = getattr(self, name), f"search.{name}"
            check(adam, key, POSITIVE, "learning_rate")
            check(adam, key, BETAS, "betas")
            check(adam, key, NOT_NEGATIVE, "weight_decay")
        check(self.policy_optimizer, "search.policy_optimizer", one_of("adam", "sgd"), "name")
        check(self.evidence, "search.evidence", DECAY, "decay")
        check(self.evidence, "search.evidence", SHARE, "validation_decay")
        check(self.evidence, "search.evidence", one_of("plain", "others"), "control")
        check(self.derived, "search.derived", EVEN, "channels")
        check(self.derived, "search.derived", CELLS, "cells")
        check(self.derived, "search.derived", COUNT, "classes", "size")
        check(self.derived, "search.derived", one_of("cifar", "imagenet"), "stem")
        self._check_together()

    def _check_together(self) -> None:
        if self.warmup_epochs + self.joint_epochs == 0:
            refuse("search.joint_epochs", 0, "at least 1, as search.warmup_epochs is 0 too")
        if self.tau.end > self.tau.start:
            refuse("search.tau.end", self.tau.end, f"at most search.tau.start={self.tau.start}")
        if self.weights.learning_rate_end > self.weights.learning_rate:
            start = f"at most search.weights.learning_rate={self.weights.learning_rate}"
            refuse("search.weights.learning_rate_end", self.weights.learning_rate_end, start)
        for name in ("max_flops", "max_parameters"):
            if getattr(self, name) is not None and self.target == "policy":
                wanted = "null, as search.target=policy searches no architecture"
                refuse(f"search.{name}", getattr(self, name), wanted)
        if self.cuda_graphs and self.target == "policy":
            wanted = "false, as search.target=policy searches on a network that has no paths"
            refuse("search.cuda_graphs", True, wanted)
        alone = self.architectures * self.policies_per_image == 1
        if self.evidence.control == "others" and alone:
            wanted = "plain, as search.architectures and search.policies_per_image are 1: no others"
            refuse("search.evidence.control", self.evidence.control, wanted)
        if self.estimator == "leave_one_out" and self.policies_per_architecture < 2:
            wanted = "at least 2, as search.estimator=leave_one_out compares policies"
            refuse("search.policies_per_architecture", self.policies_per_architecture, wanted)


@dataclass(kw_only=True, slots=True)
class Policy:
    slots: int
    parameters: str
    ranges: str
    fixed: str | None

    def __post_init__(self) -> None:
        check(self, "policy", COUNT, "slots")
        check(self, "policy", one_of("per_policy", "per_slot"), "parameters")
        check(self, "policy", one_of("autoaugment", "dada", "wide"), "ranges")
