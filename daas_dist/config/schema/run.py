"""The whole configuration, and how a run is spread, stopped and resumed."""

from dataclasses import dataclass
from typing import Literal

from daas_dist.config.rules import Positive, Text, refuse
from daas_dist.config.schema.data import Data
from daas_dist.config.schema.search import FIXED, Model, Policy, Search
from daas_dist.config.schema.train import ARCHITECTURES, Train
from daas_dist.documents.checked import Count, Natural


@dataclass(kw_only=True, slots=True)
class Engine:
    name: Literal["alone", "ddp", "deepspeed"]
    zero_stage: int
    precision: Literal["fp32", "bf16", "fp16"]
    compile: bool

    def __post_init__(self) -> None:
        if self.zero_stage != 0:
            wanted = (
                "0, as a checkpoint of another stage does not resume on another number of ranks "
                "(DeepSpeed#2921), and the momentum that it would spread is 24 MB for 6 M weights"
            )
            refuse("engine.zero_stage", self.zero_stage, wanted)


@dataclass(kw_only=True, slots=True)
class Mesh:
    arch: Count | None
    data: Count | None
    norm: Literal["synchronised", "local"]
    reduction: Literal["exact", "fast"]


@dataclass(kw_only=True, slots=True)
class Resume:
    allow: list[str]


@dataclass(kw_only=True, slots=True)
class Config:
    __pydantic_config__ = {"strict": True, "extra": "forbid"}  # of its groups, too

    stage: Text
    kind: Literal["search", "train"]
    seed: Natural
    run_dir: Text | None
    device: Literal["auto", "cpu", "cuda"]
    deterministic: bool
    data: Data
    model: Model
    search: Search
    policy: Policy
    train: Train
    engine: Engine
    mesh: Mesh
    tensorboard: bool
    stop_after_minutes: Positive | None
    patience_minutes: Positive
    resume: Resume

    def __post_init__(self) -> None:
        if self.kind == "search":
            self._check_search()
        else:
            self._check_training()

    def _check_training(self) -> None:
        rows = [row.partition("/")[0] for row in self.train.compare]
        if self.train.result is None and any("found" in row for row in self.train.compare):
            wanted = "the result.json of a search, as train.compare names found"
            refuse("train.result", None, f"{wanted}: train.result=runs/…/result.json")
        others = [name for name in rows if name not in (*ARCHITECTURES, *FIXED)]
        if others and self.data.channels != 3:
            wanted = f"3, as train.compare names torchvision's {others[0]}, which takes colour"
            refuse("data.channels", self.data.channels, wanted)
        if self.data.name == "stream" and self.train.augment_on == "reader":
            wanted = "device, as data=stream is read without steps of its own"
            refuse("train.augment_on", "reader", wanted)

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
        shared = self.mesh.data != 1 and self.mesh.norm == "synchronised"
        if self.search.cuda_graphs and shared:
            wanted = "false, as ranks exchange statistics inside a pass; or mesh.data=1"
            refuse("search.cuda_graphs", True, wanted)
        if self.policy.fixed is not None and self.search.target != "architecture":
            wanted = f"null, as search.target={self.search.target} searches for the policy"
            refuse("policy.fixed", self.policy.fixed, wanted)
