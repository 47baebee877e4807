"""What a search leaves behind, read back: its architecture and its policy."""

from dataclasses import dataclass
from pathlib import Path

import torch

from daas_dist.documents import Damaged, results
from daas_dist.documents.results import SearchResult
from daas_dist.models.network import Network
from daas_dist.results.transform import PolicyTransform
from daas_dist.spaces.cells import Genotype
from daas_dist.spaces.policy import Policy


@dataclass(frozen=True)
class Found:
    """The result.json of a search, its genotype and its policy; either is None if it was not
    searched."""

    document: SearchResult
    genotype: Genotype | None
    policy: Policy | None

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
        """The derived network, untrained; without sizes DARTS' for CIFAR, of the classes and
        channels of the images it was searched on. For ImageNet:
        network(48, 14, stem="imagenet", classes=1000). Arguments as models.network.Network's."""
        if self.genotype is None:
            raise ValueError("this result holds no architecture (its search had target=policy)")
        return Network(
            self.genotype,
            channels,
            cells,
            len(self.document.data.classes) if classes is None else classes,
            self.document.data.shape[0] if in_channels is None else in_channels,
            stem,
            auxiliary,
        )

    def transform(self, generator: torch.Generator | None = None) -> PolicyTransform:
        """The policy as a torchvision v2 transform."""
        if self.policy is None:
            raise ValueError("this result holds no policy (its search had target=architecture)")
        return PolicyTransform(self.policy, generator)


def load(path: Path | str) -> Found:
    """daas_dist.load("result.json").network() and .transform(). ValueError if it is not the
    result.json of a search, or damaged."""
    path = Path(path)
    document = results.read(path)
    if not isinstance(document, SearchResult):
        raise ValueError(f"{path} is not the result.json of a search")
    genotype, policy = document.genotype, document.policy
    try:
        return Found(
            document,
            None if genotype is None else Genotype.from_document(genotype),
            None if policy is None else Policy.from_document(policy),
        )
    except ValueError as error:
        raise Damaged(path, str(error), results.REMEDY) from error


def load_genotype(path: Path) -> Genotype:
    """The architecture of a search. ValueError if it has none."""
    genotype = load(path).genotype
    if genotype is None:
        raise ValueError(f"{path} holds no architecture (its search had target=policy)")
    return genotype


def load_policy(path: Path) -> Policy:
    """The policy of a search. ValueError if it has none."""
    policy = load(path).policy
    if policy is None:
        raise ValueError(f"{path} holds no policy (its search had target=architecture)")
    return policy
