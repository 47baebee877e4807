"""model.*, search.* and policy.*: what is searched, on what, how."""

from dataclasses import dataclass
from typing import Annotated, Literal

from daas_dist.config.method_names import methods
from daas_dist.config.rules import Cells, NotNegative, Positive, Share, Text, one_of, refuse
from daas_dist.documents.checked import Count, Natural, Rule

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

Stem = Literal["cifar", "imagenet"]
Betas = Annotated[
    list[float], Rule(lambda v: len(v) == 2 and all(0 <= b < 1 for b in v), "two numbers in [0, 1)")
]
Decay = Annotated[float, Rule(lambda x: 0 < x <= 1, "above 0 and at most 1 (1 forgets nothing)")]
Even = Annotated[int, Rule(lambda n: n >= 2 and n % 2 == 0, "an even number of at least 2")]


@dataclass(kw_only=True, slots=True)
class Model:
    name: Annotated[str, one_of("supernet", "genotype", *FIXED)]
    channels: Count
    cells: Cells
    stem: Stem
    genotype: Text | None
    network: Text | None

    def __post_init__(self) -> None:
        if self.genotype is not None and self.name != "genotype":
            wanted = f"null, as model={self.name}; add model=genotype"
            refuse("model.genotype", self.genotype, wanted)
        if self.network is not None and self.name != "torchvision":
            wanted = f"null, as model={self.name}; add model=torchvision"
            refuse("model.network", self.network, wanted)


@dataclass(kw_only=True, slots=True)
class Tau:
    start: Positive
    end: Positive


@dataclass(kw_only=True, slots=True)
class Weights:
    learning_rate: Positive
    learning_rate_end: NotNegative
    momentum: Share
    weight_decay: NotNegative
    clip: Positive


@dataclass(kw_only=True, slots=True)
class Adam:
    learning_rate: Positive
    betas: Betas
    weight_decay: NotNegative


@dataclass(kw_only=True, slots=True)
class PolicyOptimizer:
    name: Literal["adam", "sgd"]
    learning_rate: Positive
    betas: Betas
    weight_decay: NotNegative


@dataclass(kw_only=True, slots=True)
class Evidence:
    decay: Decay
    validation_decay: Share
    control: Literal["plain", "others"]


@dataclass(kw_only=True, slots=True)
class Derived:
    channels: Even
    cells: Cells
    classes: Count | None
    size: Count | None
    stem: Stem | None


@dataclass(kw_only=True, slots=True)
class Search:
    method: Text
    target: Literal["joint", "architecture", "policy"]
    warmup_epochs: Natural
    warmup_policy: Literal["uniform", "plain"]
    joint_epochs: Natural
    batch_size: Count
    architectures: Count
    policies_per_architecture: Count
    policies_per_image: Count
    weight_architectures: Count
    candidates: Count
    rollout_steps: Count
    xi: NotNegative | None
    architecture_gradient_at: Literal["look_ahead", "theta"]
    weight_gradient: Literal["sum", "mean"]
    reuse_gradients: bool
    estimator: Literal["paper", "leave_one_out", "per_image", "running_means", "natural"]
    tau: Tau
    weights: Weights
    architecture: Adam
    policy_optimizer: PolicyOptimizer
    evidence: Evidence
    derived: Derived
    max_flops: Positive | None
    max_parameters: Positive | None
    permute_rewards: bool
    cuda_graphs: bool
    non_finite: Literal["raise", "skip"]
    most_skips: Count
    log_every: Count
    checkpoint_every: Count

    def __post_init__(self) -> None:
        if self.method not in methods():
            refuse("search.method", self.method, one_of(*methods()).words)
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
    slots: Count
    parameters: Literal["per_policy", "per_slot"]
    ranges: Literal["autoaugment", "dada", "wide"]
    fixed: Text | None
