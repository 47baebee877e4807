"""The images of a stage: what data.* names, limited and measured as it says."""

import sys
from dataclasses import dataclass

from daas_dist.config import Config, ConfigError
from daas_dist.data import Images, cifar, fashion_mnist, folder, limit, measure
from daas_dist.mesh import Mesh
from daas_dist.runlog import RunLog


@dataclass(frozen=True)
class DataSet:
    """The training images (before any split), the test images, and how to normalise them."""

    train: Images
    test: Images
    mean: list[float]
    std: list[float]


def load_data_in_turn(config: Config, mesh: Mesh) -> DataSet:
    """load_data on every rank; what has to be downloaded is there before the others look."""
    if config.data.download and not mesh.leads:
        mesh.barrier()
    data = load_data(config)
    if config.data.download and mesh.leads:
        mesh.barrier()
    return data


def load_data(config: Config) -> DataSet:
    """The images that data.* names, limited as it says."""
    data = config.data
    if data.name == "fashion_mnist":
        train, test = (fashion_mnist(data.root, part, data.download) for part in (True, False))
    elif data.name in ("cifar10", "cifar100"):
        classes = int(data.name.removeprefix("cifar"))
        root = data.root or "datasets"
        train, test = (cifar(root, classes, part, data.download) for part in (True, False))
    else:
        if data.root is None or data.size is None:
            raise ConfigError("data=folder needs data.root and data.size")
        train, test = folder(
            data.root,
            data.val_root,
            size=data.size,
            channels=data.channels,
            max_bad_files=data.max_bad_files,
            seed=config.seed,
        )
    train, test = (
        part if count is None else limit(part, min(count, len(part)), config.seed)
        for part, count in ((train, data.limit), (test, data.test_limit))
    )
    mean, std = measure(train) if data.mean is None or data.std is None else (data.mean, data.std)
    return DataSet(train, test, list(mean), list(std))


def warn_of_bad_files(data: DataSet, log: RunLog) -> None:
    for name in (*data.train.bad_files, *data.test.bad_files):
        log.event("warning", message=f"left out, unreadable: {name}")
        print(f"left out, unreadable: {name}", file=sys.stderr)
