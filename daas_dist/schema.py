"""What can be configured, one dataclass a group.

No class has a default: values live in configs/ only, each with its source. rules.py says which are
possible.
"""

from dataclasses import dataclass

from daas_dist.rules import (
    BETAS,
    CELLS,
    COUNT,
    DECAY,
    DISTINCT,
    EVEN,
    FINITE,
    JITTER,
    MILESTONES,
    NATURAL,
    NOT_NEGATIVE,
    OPEN_SHARE,
    PARTS,
    POSITIVE,
    SCALES,
    SEEDS,
    SHARE,
    check,
    check_url,
    is_url,
    nearest_multiples,
    one_of,
    refuse,
)
from daas_dist.schedules import CURVES, TAIL

ARCHITECTURES = ("found", "random")
POLICIES = ("found", "default", "trivial_augment", "rand_augment", "auto_augment", "none")
"""What train.compare names. "default" is crop, flip, colour jitter, lighting and cutout as data.*
has them, which all but "none" have too; "none" leaves even these out. Beside ARCHITECTURES it
names FIXED networks, and torchvision's by their names there."""

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

ANY_SIZE = ("folder", "shards", "stream")
"""What data.* may name whose images are of any size."""


def in_torchvision(name: str) -> bool:
    """Whether torchvision has a classification network by that name."""
    from torchvision import models  # takes a second: only for a name that is none of ours

    return name in models.list_models(module=models)


@dataclass(kw_only=True, slots=True)
class Data:
    name: str
    root: str | None
    val_root: str | None
    size: int | None
    channels: int
    classes: str
    images_per_class: int | None
    crop_padding: int
    crop_scale: list[float] | None
    test_resize: int | None
    flip: bool
    cutout: int
    color_jitter: list[float] | None
    lighting: float | None
    mean: list[float] | None
    std: list[float] | None
    val_share: float
    limit: int | None
    test_limit: int | None
    max_bad_files: int
    download: bool
    workers: int | None
    shuffle_window: int | None
    cache: str | None
    cache_gb: float

    def __post_init__(self) -> None:
        check(
            self,
            "data",
            one_of("fashion_mnist", "cifar10", "cifar100", "folder", "shards", "stream"),
            "name",
        )
        check(self, "data", one_of(1, 3), "channels")
        check(self, "data", COUNT, "size", "test_limit", "images_per_class", "shuffle_window")
        check(self, "data", NATURAL, "crop_padding", "cutout", "max_bad_files", "workers")
        check(self, "data", PARTS, "crop_scale")
        check(self, "data", JITTER, "color_jitter")
        check(self, "data", POSITIVE, "cache_gb", "lighting")
        check(self, "data", OPEN_SHARE, "val_share")
        check(self, "data", (lambda value: value >= 2, "at least 2 or null for all"), "limit")
        each = f"{self.channels} numbers, as data.channels={self.channels}"
        check(self, "data", (lambda values: len(values) == self.channels, each), "mean", "std")
        check(self, "data", FINITE, "mean")
        check(self, "data", SCALES, "std")
        if (self.mean is None) != (self.std is None):
            wanted = "null, as data.mean is null" if self.std else "numbers, as data.mean has them"
            refuse("data.std", self.std, wanted)
        if self.lighting is not None and self.channels != 3:
            refuse("data.lighting", self.lighting, "null, as data.channels=1: it is of colours")
        self._check_source()

    def _check_source(self) -> None:
        if self.name == "folder" and self.root is None:
            refuse("data.root", None, "the path of a folder with one sub-folder a class")
        if self.name == "shards" and self.root is None:
            refuse("data.root", None, "a folder of shards that `daas shards build` has made")
        if self.name.startswith("cifar") and self.root is None:
            refuse("data.root", None, f"the path of the folder that holds {self.name} or gets it")
        if self.name in ANY_SIZE:
            if self.download:
                refuse("data.download", True, f"false, as data={self.name} is not downloaded")
            if self.size is None:
                refuse("data.size", None, "the side in pixels to which the images are brought")
        else:
            if self.size is not None:
                refuse("data.size", self.size, f"null, as {self.name} images have one size already")
            if self.val_root is not None:
                wanted = f"null, as {self.name} has its own test images"
                refuse("data.val_root", self.val_root, wanted)
        if self.name == "stream":
            self._check_stream()
        if self.name != "shards":
            only = f"{{}}, as data={self.name}: only data=shards has that"
            cut = () if self.name == "stream" else ("crop_scale", "test_resize")
            for name in ("images_per_class", *cut, "shuffle_window", "cache"):
                if getattr(self, name) is not None:
                    refuse(f"data.{name}", getattr(self, name), only.format("null"))
            if self.classes != "all" and self.name != "stream":
                refuse("data.classes", self.classes, only.format("all"))
        if self.name in ("shards", "stream"):
            self._check_cut()
        if self.name == "shards":
            self._check_cache()

    def _check_cut(self) -> None:
        if self.test_resize is not None and self.size and self.test_resize < self.size:
            refuse("data.test_resize", self.test_resize, f"at least data.size={self.size}, or null")
        if self.crop_scale is not None and self.crop_padding:
            wanted = "0, as data.crop_scale cuts a part of its own"
            refuse("data.crop_padding", self.crop_padding, wanted)

    def _check_stream(self) -> None:
        wanted = "as data=stream has no index that would tell"
        for name, what in (
            ("root", "where the training shards are"),
            ("val_root", "where the test shards are"),
            ("limit", f"how many training samples make an epoch, {wanted}"),
            ("test_limit", f"how many test samples there are, {wanted}"),
            ("mean", "numbers, as data=stream is not measured"),
        ):
            if getattr(self, name) is None:
                refuse(f"data.{name}", None, what)
        for key, place in (("data.root", self.root), ("data.val_root", self.val_root)):
            if is_url(place):
                check_url(key, str(place))
        if not self.classes.isdigit() or int(self.classes) < 2:
            refuse("data.classes", self.classes, f"how many classes there are, {wanted}")
        if self.max_bad_files:
            refuse("data.max_bad_files", self.max_bad_files, "0, as a stream has no other at hand")

    def _check_cache(self) -> None:
        urls = {"data.root": self.root, "data.val_root": self.val_root}
        urls = {key: place for key, place in urls.items() if place is not None and is_url(place)}
        for key, url in urls.items():
            check_url(key, url)
        if urls and self.cache is None:
            refuse("data.cache", None, f"a local folder, as {' and '.join(urls)} is a URL")
        if self.cache is not None and not urls:
            refuse("data.cache", self.cache, "null, as data.root is no URL: it is read in place")
        if self.cache is not None and is_url(self.cache):
            refuse("data.cache", self.cache, "a local folder")


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


@dataclass(kw_only=True, slots=True)
class Derived:
    channels: int
    cells: int
    classes: int | None
    size: int | None
    stem: str | None


@dataclass(kw_only=True, slots=True)
class Search:
    target: str
    warmup_epochs: int
    joint_epochs: int
    batch_size: int
    architectures: int
    policies_per_architecture: int
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
    non_finite: str
    most_skips: int
    log_every: int
    checkpoint_every: int
    keep_checkpoints: int

    def __post_init__(self) -> None:
        check(self, "search", one_of("joint", "architecture", "policy"), "target")
        check(self, "search", one_of("look_ahead", "theta"), "architecture_gradient_at")
        check(self, "search", one_of("sum", "mean"), "weight_gradient")
        estimators = one_of("paper", "leave_one_out", "per_image", "running_means", "natural")
        check(self, "search", estimators, "estimator")
        check(self, "search", NATURAL, "warmup_epochs", "joint_epochs")
        check(self, "search", COUNT, "batch_size", "architectures", "policies_per_architecture")
        check(self, "search", COUNT, "weight_architectures", "log_every", "checkpoint_every")
        check(self, "search", COUNT, "keep_checkpoints", "most_skips")
        check(self, "search", one_of("raise", "skip"), "non_finite")
        check(self, "search", POSITIVE, "xi", "max_flops", "max_parameters")
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
        check(self, "policy", one_of("autoaugment", "dada"), "ranges")


@dataclass(kw_only=True, slots=True)
class Train:
    result: str | None
    policy_result: str | None
    compare: list[str]
    seeds: list[int]
    epochs: int
    batch_size: int
    micro_batch: int | None
    channels: int
    cells: int
    auxiliary_weight: float
    drop_path: float
    learning_rate: float
    schedule: str
    schedule_by: str
    milestones: list[int] | None
    warmup_epochs: int
    warmup_multiplier: float | None
    momentum: float
    nesterov: bool
    weight_decay: float
    decay_norms: bool
    clip: float | None
    label_smoothing: float
    ema_decay: float | None

    def __post_init__(self) -> None:
        networks = (*ARCHITECTURES, *(name for name in FIXED if name != "torchvision"))
        for row in self.compare:
            architecture, _, policy = row.partition("/")
            if policy not in POLICIES or not (
                architecture in networks or in_torchvision(architecture)
            ):
                wanted = f"a list of ARCHITECTURE/POLICY, of {', '.join(networks)} or a network of "
                wanted += f"torchvision's, and {', '.join(POLICIES)}"
                refuse("train.compare", self.compare, wanted)
        if self.policy_result is not None and self.result is None:
            wanted = "null, as train.result is null: it stands in for that one's policy"
            refuse("train.policy_result", self.policy_result, wanted)
        check(self, "train", DISTINCT, "compare", "seeds")
        check(self, "train", SEEDS, "seeds")
        check(self, "train", COUNT, "epochs", "batch_size", "micro_batch", "channels")
        if self.micro_batch is not None and self.batch_size % self.micro_batch:
            batches = nearest_multiples(self.batch_size, self.micro_batch)
            wanted = f"a multiple of train.micro_batch={self.micro_batch}, as {batches}"
            refuse("train.batch_size", self.batch_size, wanted)
        check(self, "train", CELLS, "cells")
        check(self, "train", POSITIVE, "learning_rate", "clip")
        check(self, "train", NOT_NEGATIVE, "auxiliary_weight", "weight_decay")
        check(self, "train", SHARE, "drop_path", "momentum", "label_smoothing")
        check(self, "train", OPEN_SHARE, "ema_decay")
        check(self, "train", one_of(*CURVES), "schedule")
        check(self, "train", one_of("epoch", "step"), "schedule_by")
        check(self, "train", MILESTONES, "milestones")
        check(self, "train", NATURAL, "warmup_epochs")
        check(self, "train", POSITIVE, "warmup_multiplier")
        if self.nesterov and not self.momentum:
            refuse("train.nesterov", True, "false, as train.momentum=0.0")
        self._check_schedule()

    def _check_schedule(self) -> None:
        if (self.milestones is None) == (self.schedule == "steps"):
            wanted = "epochs as [90, 180, 240]" if self.milestones is None else "null"
            wanted += f", as train.schedule={self.schedule}"
            refuse("train.milestones", self.milestones, wanted)
        if self.schedule == "linear" and self.epochs <= TAIL:
            wanted = f"cosine or steps, as its end alone takes {TAIL} of train.epochs={self.epochs}"
            refuse("train.schedule", self.schedule, wanted)
        if self.warmup_epochs > self.epochs:
            refuse("train.warmup_epochs", self.warmup_epochs, f"at most train.epochs={self.epochs}")
        if self.warmup_multiplier is not None and not self.warmup_epochs:
            wanted = "null, as train.warmup_epochs=0"
            refuse("train.warmup_multiplier", self.warmup_multiplier, wanted)


@dataclass(kw_only=True, slots=True)
class Engine:
    name: str
    zero_stage: int
    precision: str
    compile: bool
    fused: bool

    def __post_init__(self) -> None:
        check(self, "engine", one_of("alone", "ddp", "deepspeed"), "name")
        check(self, "engine", one_of("fp32", "bf16", "fp16"), "precision")
        if self.zero_stage != 0:
            wanted = (
                "0, as a checkpoint of another stage does not resume on another number of ranks "
                "(DeepSpeed#2921), and the momentum that it would spread is 24 MB for 6 M weights"
            )
            refuse("engine.zero_stage", self.zero_stage, wanted)


@dataclass(kw_only=True, slots=True)
class Mesh:
    arch: int | None
    data: int | None
    norm: str
    reduction: str

    def __post_init__(self) -> None:
        check(self, "mesh", COUNT, "arch", "data")
        check(self, "mesh", one_of("synchronised", "local"), "norm")
        check(self, "mesh", one_of("exact", "fast"), "reduction")


@dataclass(kw_only=True, slots=True)
class Resume:
    allow: list[str]


@dataclass(kw_only=True, slots=True)
class Config:
    stage: str
    kind: str
    seed: int
    run_dir: str | None
    device: str
    deterministic: bool
    data: Data
    model: Model
    search: Search
    policy: Policy
    train: Train
    engine: Engine
    mesh: Mesh
    tensorboard: bool
    stop_after_minutes: float | None
    patience_minutes: float
    resume: Resume

    def __post_init__(self) -> None:
        check(self, "", one_of("search", "train"), "kind")
        check(self, "", one_of("auto", "cpu", "cuda"), "device")
        check(self, "", NATURAL, "seed")
        check(self, "", POSITIVE, "stop_after_minutes", "patience_minutes")
        if self.kind == "search":
            self._check_search()
        elif self.train.result is None and any("found" in row for row in self.train.compare):
            wanted = "the result.json of a search, as train.compare names found"
            refuse("train.result", None, f"{wanted}: train.result=runs/…/result.json")

    def _check_search(self) -> None:
        if self.search.target == "policy" and self.model.name == "supernet":
            known = ", ".join(("genotype", *FIXED))
            wanted = f"one of {known}, as search.target=policy searches on a fixed network"
            refuse("model", self.model.name, wanted)
        if self.search.target != "policy" and self.model.name != "supernet":
            refuse("model", self.model.name, f"supernet, as search.target={self.search.target}")
        if self.model.name == "genotype" and self.model.genotype is None:
            wanted = "an architecture, as model=genotype: model.genotype=runs/…/result.json"
            refuse("model.genotype", None, wanted)
        if self.model.name == "torchvision" and self.model.network is None:
            wanted = "a name, as model=torchvision: model.network=resnet50"
            refuse("model.network", None, wanted)
        if self.model.name == "torchvision" and self.data.channels != 3:
            refuse("data.channels", self.data.channels, "3, as torchvision's networks take colour")
        if self.policy.fixed is not None and self.search.target != "architecture":
            wanted = f"null, as search.target={self.search.target} searches for the policy"
            refuse("policy.fixed", self.policy.fixed, wanted)
