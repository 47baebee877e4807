"""What a search leaves behind, read back: its architecture and its policy."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from daas_dist.models.network import Network
from daas_dist.policy import Policy
from daas_dist.space import Genotype

SCHEMA = 1


def read(path: Path | str) -> dict[str, Any]:
    """A search's result.json; ValueError if it is another file."""
    try:
        document = json.loads(Path(path).read_text())
    except FileNotFoundError as error:
        raise ValueError(f"no file {path}; give the result.json of a finished search") from error
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    if not isinstance(document, dict) or document.get("kind") != "search":
        raise ValueError(f"{path} is not the result.json of a search")
    if document.get("schema") != SCHEMA:
        raise ValueError(f"{path} has the schema {document.get('schema')}, expected {SCHEMA}")
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
    """genotype and policy of a result; either is None if it was not searched."""

    genotype: Genotype | None
    policy: Policy | None
    classes: int
    channels: int

    def network(self, channels: int = 36, cells: int = 20, **options: Any) -> Network:
        """The derived network, untrained. Options as models.network.Network's."""
        if self.genotype is None:
            raise ValueError("this result holds no architecture (its search had target=policy)")
        return Network(self.genotype, channels, cells, self.classes, self.channels, **options)

    def transform(self, generator: torch.Generator | None = None) -> "PolicyTransform":
        """The policy for a torchvision pipeline: uint8 tensors (C, H, W) or (N, C, H, W)."""
        if self.policy is None:
            raise ValueError("this result holds no policy (its search had target=architecture)")
        return PolicyTransform(self.policy, generator)


class PolicyTransform(torch.nn.Module):
    """Draws a policy for every image. Without a generator it draws from torch's own, which
    DataLoader seeds for each worker."""

    def __init__(self, policy: Policy, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.policy, self.generator = policy, generator

    def forward(self, images: Tensor) -> Tensor:
        generator = self.generator
        if generator is None:
            generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
        batch = images if images.ndim == 4 else images[None]
        return self.policy.apply(batch, generator).view(images.shape)


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
