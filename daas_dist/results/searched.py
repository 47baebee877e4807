"""What a search leaves behind, read back: its architecture and its policy."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from daas_dist.documents import Damaged, results
from daas_dist.documents.results import SearchResult
from daas_dist.models.network import Network
from daas_dist.results.transform import PolicyTransform
from daas_dist.spaces.cells import Genotype
from daas_dist.spaces.policy import Policy


def parts(path: Path) -> tuple[SearchResult, Genotype | None, Policy | None]:
    """The result.json of a search, its architecture and its policy; either is None if it was not
    searched. ValueError if it is another file, or damaged."""
    document, _ = results.read(path, "search")
    try:
        genotype = None if document.genotype is None else Genotype.from_json(document.genotype)
        policy = None if document.policy is None else Policy.from_json(document.policy)
    except ValueError as error:
        raise Damaged(path, str(error), results.REMEDY) from error
    return document, genotype, policy


def read(path: Path | str) -> dict[str, Any]:
    """All that the result.json of a search says, once it is checked. As parts()."""
    parts(Path(path))
    return results.read(Path(path), "search")[1]


def load_genotype(path: Path) -> Genotype:
    """The architecture of a search. ValueError if it has none."""
    _, genotype, _ = parts(path)
    if genotype is None:
        raise ValueError(f"{path} holds no architecture (its search had target=policy)")
    return genotype


def load_policy(path: Path) -> Policy:
    """The policy of a search. ValueError if it has none."""
    _, _, policy = parts(path)
    if policy is None:
        raise ValueError(f"{path} holds no policy (its search had target=architecture)")
    return policy


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
    document, genotype, policy = parts(Path(path))
    return Found(genotype, policy, len(document.data.classes), document.data.shape[0])
