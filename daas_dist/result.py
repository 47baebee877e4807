"""What a search leaves behind, read back: its architecture and its policy."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from daas_dist.models.network import Network
from daas_dist.policy import Policy
from daas_dist.space import Genotype
from daas_dist.transform import PolicyTransform

SCHEMA = 1


def read(path: Path | str, expected: str = "search") -> dict[str, Any]:
    """The result.json of a search, or of a training ("trained"); ValueError if it is another."""
    document = _read_json(path)
    if document.get("kind") != expected:
        owner = {"search": "search", "trained": "trained network"}[expected]
        raise ValueError(f"{path} is not the result.json of a {owner}")
    if document.get("schema") != SCHEMA:
        raise ValueError(f"{path} has the schema {document.get('schema')}, expected {SCHEMA}")
    return document


def kind(path: Path | str) -> Any:
    """What a result.json says it is of: "search", "trained" or something else."""
    return _read_json(path).get("kind")


def _read_json(path: Path | str) -> dict[str, Any]:
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"no file {path}; give the result.json of a finished search") from error
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    if not isinstance(document, dict):
        raise ValueError(f"{path} is no JSON object")
    return document


def load_genotype(path: Path) -> Genotype:
    document = read(path)
    if document["genotype"] is None:
        raise ValueError(f"{path} holds no architecture (its search had target=policy)")
    return Genotype.from_json(document["genotype"])


def load_policy(path: Path) -> Policy:
    document = read(path)
    if document["policy"] is None:
        raise ValueError(f"{path} holds no policy (its search had target=architecture)")
    return Policy.from_json(document["policy"])


@dataclass(frozen=True)
class Found:
    """genotype and policy of a result; either is None if it was not searched. classes and
    in_channels are those of the data it was searched on."""

    genotype: Genotype | None
    policy: Policy | None
    classes: int
    in_channels: int

    def network(
        self,
        channels: int = 36,
        cells: int = 20,
        *,
        stem: str = "cifar",
        auxiliary: bool = False,
        classes: int | None = None,
        in_channels: int | None = None,
    ) -> Network:
        """The derived network, untrained; without sizes DARTS' for CIFAR. For ImageNet:
        network(48, 14, stem="imagenet", classes=1000). Arguments as models.network.Network's."""
        if self.genotype is None:
            raise ValueError("this result holds no architecture (its search had target=policy)")
        return Network(
            self.genotype,
            channels,
            cells,
            self.classes if classes is None else classes,
            self.in_channels if in_channels is None else in_channels,
            stem,
            auxiliary,
        )

    def transform(self, generator: torch.Generator | None = None) -> PolicyTransform:
        """The policy as a torchvision v2 transform."""
        if self.policy is None:
            raise ValueError("this result holds no policy (its search had target=architecture)")
        return PolicyTransform(self.policy, generator)


def load(path: Path | str) -> Found:
    """daas_dist.load("result.json").network() and .transform()."""
    document = read(path)
    genotype, policy = document["genotype"], document["policy"]
    return Found(
        None if genotype is None else Genotype.from_json(genotype),
        None if policy is None else Policy.from_json(policy),
        len(document["data"]["classes"]),
        document["data"]["shape"][0],
    )
