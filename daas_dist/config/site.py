"""What a site says once: its cluster file, and where the data sets lie.

A cluster file is configs/cluster/<name>.yaml or a file of your own; DAAS_CLUSTER names the one that
counts where a command is not told. Where a data set lies is taken from, in this order,

    data.root=PATH                       the command line
    roots: {imagenet: PATH, …}           the cluster file
    DAAS_DATA=FOLDER                     FOLDER/imagenet, if it is there
    configs/data/                        the default, where there is one

The names are those of data=NAME. A run's config.yaml has the path that was found: nothing of this
is read again.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from daas_dist.config.rules import ConfigError, is_url, shown

CLUSTER = "DAAS_CLUSTER"
DATA = "DAAS_DATA"
ROOTS = "roots"
PARTS = ("root", "val_root")
VARIABLE = re.compile(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})")


@dataclass(frozen=True)
class ClusterFile:
    """The keys of a cluster file, unchecked but for its roots."""

    path: Path
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Place:
    """Where a data set lies, and who said so."""

    name: str
    values: Mapping[str, str]
    """data.root, and data.val_root where the site gives one."""
    origin: str


def read(name: str, configs: Path, said: str = "--cluster") -> ClusterFile:
    """Read a cluster file, by its name in configs/cluster/ or by its path. ConfigError."""
    is_path = "/" in name or name.endswith((".yaml", ".yml"))
    path = Path(name).expanduser() if is_path else configs / "cluster" / f"{name}.yaml"
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        known = ", ".join(sorted(each.stem for each in (configs / "cluster").glob("*.yaml")))
        raise ConfigError(
            f"{said} {name} is not known: expected one of {known}, a new file in configs/cluster/, "
            "or the path of one"
        ) from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {_where(error)}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds {shown(values)}: expected keys and values, as kind: slurm")
    data = sorted(each.stem for each in (configs / "data").glob("*.yaml"))
    _check_roots(path, values.get(ROOTS) or {}, data)
    return ClusterFile(path, values)


def named(default: str, configs: Path) -> ClusterFile:
    """Read the cluster file that DAAS_CLUSTER names, else the default one."""
    name = os.environ.get(CLUSTER)
    return read(name, configs, CLUSTER) if name else read(default, configs)


def place(name: str, site: ClusterFile) -> Place | None:
    """Find where the data set of data=NAME lies; None where the site does not say."""
    told = (site.values.get(ROOTS) or {}).get(name)
    if told is not None:
        parts = told if isinstance(told, dict) else {"root": told}
        values = {f"data.{part}": _expanded(site.path, name, parts[part]) for part in parts}
        return Place(name, values, f"{ROOTS} of {site.path}")
    folder = data_folder()
    if folder is None or not (folder / name).is_dir():
        return None
    return Place(name, {"data.root": str(folder / name)}, f"{DATA}={folder}")


def data_folder() -> Path | None:
    """The folder that DAAS_DATA names, None where it is not set. ConfigError if it is not there."""
    given = os.environ.get(DATA)
    if not given:
        return None
    folder = Path(os.path.abspath(Path(given).expanduser()))
    if not folder.is_dir():
        raise ConfigError(f"{DATA}={given} is no folder: expected one with a folder a data set")
    return folder


def ways(name: str, site: ClusterFile) -> str:
    """Say in what ways a site can tell where a data set lies, and why none of them did."""
    folder = data_folder()
    unset = f"{DATA} is not set" if folder is None else f"{DATA}={folder} has no folder {name}"
    return (
        f"say it by data.root=PATH, by roots: {{{name}: PATH}} in {site.path}, or by a folder "
        f"{name} in that of {DATA} ({unset})"
    )


def absent(found: Place) -> str | None:
    """Say that the folder which a site names is not on this machine; None where it is."""
    root = found.values["data.root"]
    if is_url(root) or "{" in root or Path(root).exists():
        return None
    return (
        f"data.root={root} is not there ({found.origin}): correct that, or give data.root=PATH, "
        f"which counts first, or take {found.name} out there and set {DATA} to a folder with it"
    )


def _check_roots(path: Path, roots: Any, known: Sequence[str]) -> None:
    if not isinstance(roots, dict):
        _refuse(path, f"roots={shown(roots)}", "paths by name, as {imagenet: PATH}")
    for name, told in roots.items():
        parts = told if isinstance(told, dict) else {"root": told}
        if name not in known:
            _refuse(path, f"roots: {name}={shown(told)}", f"one of {', '.join(known)}")
        if "root" not in parts or not set(parts) <= set(PARTS):
            _refuse(path, f"roots: {name}={shown(told)}", "a path, or {root: PATH, val_root: PATH}")
        for part, value in parts.items():
            if not isinstance(value, str) or not re.match(r"[/~$]", value) and not is_url(value):
                _refuse(path, f"roots: {name}: {part}={shown(value)}", "an absolute path, or a URL")


def _where(error: yaml.YAMLError | UnicodeDecodeError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    return str(error).splitlines()[0]


def _refuse(path: Path, given: str, wanted: str) -> NoReturn:
    raise ConfigError(f"{path}: {given} is not possible: expected {wanted}")


def _expanded(path: Path, name: str, place: str) -> str:
    """Put in ~ and environment variables, as $SCRATCH. ConfigError for one that is not set."""

    def value(found: re.Match[str]) -> str:
        variable = found.group(1) or found.group(2)
        if variable not in os.environ:
            _refuse(
                path, f"roots: {name}={place}", f"variables that are set, and ${variable} is not"
            )
        return os.environ[variable]

    return place if is_url(place) else os.path.expanduser(VARIABLE.sub(value, place))
