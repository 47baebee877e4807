"""The images of a configuration, as its stage loads them."""

from daas_dist.config import Config
from daas_dist.data.dataset import DataSet, load_data
from daas_dist.data.enough import Use
from daas_dist.runs.progress import Report, silent


def use_of(config: Config) -> Use:
    if config.kind == "search":
        return Use(2, "search.batch_size", config.search.batch_size)
    return Use(1, "train.batch_size", config.train.batch_size)


def load_images(config: Config, report: Report = silent) -> DataSet:
    return load_data(config.data, config.seed, use_of(config).splits, report)
