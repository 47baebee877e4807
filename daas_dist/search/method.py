"""From a configuration to its method: the settings by name, once."""

from dataclasses import fields

from daas_dist.config import Config
from daas_dist.methods.daas import Daas
from daas_dist.methods.estimators import ESTIMATORS
from daas_dist.methods.interface import Method
from daas_dist.methods.ours import OfEachImage
from daas_dist.spaces.policy import Policy


def build_method(config: Config, fixed: Policy | None = None) -> Method:
    """Return the method that a search's configuration names. fixed: the policy that a search of the
    architecture alone trains under."""
    estimator = ESTIMATORS[config.search.estimator]
    kind = OfEachImage if estimator.per_image else Daas
    own = {
        each.name: getattr(group, each.name)
        for each in fields(kind)
        for group in (config.search, config.policy)
        if each.name != "fixed" and hasattr(group, each.name)
    }
    return kind(**own, fixed=fixed, surrogate=estimator.surrogate)
