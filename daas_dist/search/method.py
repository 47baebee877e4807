"""From a configuration to its method: the settings by name, once."""

from importlib import import_module
from typing import Any

import torch

from daas_dist.config import Config
from daas_dist.config.rules import ConfigError, refuse
from daas_dist.methods.interface import Method
from daas_dist.spaces.policy import Policy
from daas_dist.spaces.space import Space


def build_method(config: Config, fixed: Policy | None = None) -> Method:
    """Return the method that search.method names, with its settings of search.* and policy.*.

    fixed: the policy that a search of the architecture alone trains under. ConfigError where the
    method cannot do what was asked.
    """
    search = config.search
    module: Any = import_module(f"daas_dist.methods.{search.method}")
    if search.target not in module.TARGETS:
        wanted = f"{' or '.join(module.TARGETS)}, as method={search.method}"
        refuse("search.target", search.target, wanted)
    groups = (search, config.policy)
    settings = {name: getattr(group, name) for group in groups for name in group.__slots__}
    settings |= {"fixed": fixed, "space": Space.whole(config.policy.ranges)}
    try:
        method: Method = module.method(settings)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    for name in ("max_flops", "max_parameters"):
        limit = getattr(search, name)
        if limit is not None and not {"alpha", "beta"} <= set(method.logits(torch.Generator())):
            refuse(f"search.{name}", limit, f"null, as method={search.method} holds no limit")
    return method
