"""A configuration as values: written to config.yaml, read back, compared."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from daas_dist.config.overrides import all_literal
from daas_dist.config.rules import ConfigError, shown
from daas_dist.config.schema import Config
from daas_dist.config.schema_keys import flat
from daas_dist.documents.files import read
from daas_dist.documents.writing import write_text

MOST_FROZEN = 1 << 20
"""Bytes of a config.yaml, which has 4,000: a larger one may unfold to any size."""


def load_frozen(path: str | Path) -> Config:
    """The configuration that a run directory froze in its config.yaml; configs/ is not read."""
    from daas_dist.config.typed import typed  # takes pydantic, and 0.2 s

    remedy = "expected the config.yaml of a run: get it back from a copy"
    text = read(Path(path), remedy, MOST_FROZEN)
    if text is None:
        raise ConfigError(f"{path} cannot be read: expected the config.yaml of a run")
    try:
        values = OmegaConf.to_container(OmegaConf.create(text.decode("utf-8-sig")), resolve=True)
        return typed(values)
    except (YAMLError, UnicodeDecodeError, OmegaConfBaseException, RecursionError) as error:
        raise ConfigError(
            f"{path} is not a configuration ({first_line(error)}); {remedy}"
        ) from error
    except (AttributeError, TypeError, AssertionError) as error:  # OmegaConf's on odd YAML
        raise ConfigError(f"{path} is not a configuration; {remedy}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def values_of(config: Config) -> dict[str, Any]:
    """Return all values by their keys, groups as tables: for JSON and YAML."""
    return asdict(config)


def to_yaml(config: Config) -> str:
    """All values, for the config.yaml of a run directory; load_frozen reads it back."""
    return OmegaConf.to_yaml(OmegaConf.create(all_literal(values_of(config))))


HOW = (
    "run_dir",
    "device",
    "deterministic",
    "tensorboard",
    "stop_after_minutes",
    "patience_minutes",
    "mesh.arch",
    "mesh.data",
    "mesh.reduction",
    "engine.name",
    "engine.compile",
    "resume.allow",
    "search.cuda_graphs",
)
"""Keys of where and how a run is computed, not of what: a resume may change them."""


def difference(a: Config, b: Config) -> dict[str, str]:
    """Key by key what differs, as {"search.xi": "null -> 0.1"}; HOW apart."""
    before, after = flat(values_of(a)), flat(values_of(b))
    return {
        key: f"{shown(before[key])} -> {shown(after[key])}"
        for key in before
        if before[key] != after[key] and key not in HOW
    }


@dataclass(frozen=True)
class Frozen:
    """A configuration as a run directory keeps it: what keeps it need not see its keys."""

    _config: Config

    def write(self, path: Path) -> None:
        write_text(path, to_yaml(self._config))

    def changes(self, path: Path) -> dict[str, str]:
        """Compare it with the one that was written to `path`; returns their difference."""
        return difference(load_frozen(path), self._config)

    def allows(self, key: str) -> bool:
        """Tell whether a resume may go on with another value of `key`, or with other data."""
        return key in self._config.resume.allow


def first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
