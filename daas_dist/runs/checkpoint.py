"""Checkpoints that are whole or not there: written beside, checked, then renamed into place.

    root/step_00012345/<key>.pt   one file for each key of the state
    root/step_00012345/manifest.json
    root/LATEST                   a hint for people; loading looks at the folders

No ranks in here: one process calls save and load_newest, the others load the step it found.
torch.load takes flipped bits without a word, hence the sha256 of every file.
"""

import hashlib
import io
import json
import os
import re
import shutil
import uuid
import warnings
from collections import OrderedDict
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch

from daas_dist.documents import Damaged, checked, files, strict
from daas_dist.documents.run import KEPT_CHECKPOINTS, Manifest
from daas_dist.documents.writing import sync_folder, write_synced, write_text

CONTAINERS = (dict, OrderedDict, list, tuple)
LEAVES = (torch.Tensor, torch.nn.Parameter, int, float, str, bool, type(None))
"""What torch.load(weights_only=True) takes, and a state is made of; no subclasses of these."""
SCHEMA = 1
MANIFEST = "manifest.json"
FOLDER = re.compile(r"step_(\d{8,})")
KEY = re.compile(r"[A-Za-z0-9_]+")
FILE = re.compile(rf"{KEY.pattern}\.pt")
MOST = 1 << 40
"""Bytes of a file."""


class DamagedCheckpoint(Exception):
    """A checkpoint whose files are not what its manifest says."""


class OtherVersion(ValueError):
    """A whole checkpoint that this version cannot read."""


def save(
    root: Path | str,
    step: int,
    state: dict[str, Any],
    keep: int = KEPT_CHECKPOINTS,
    milestones: Collection[int] = (),
) -> Path:
    """Publish the state of a step and drop all but the last `keep` checkpoints; gives its folder.

    milestones: steps that are never dropped.
    state: LEAVES in CONTAINERS.
    A whole checkpoint of this step that is already there stays as it is.
    ValueError on a state that could not be loaded again, before anything is published.
    """
    root = Path(root)
    _check_arguments(step, state, keep)
    _check_loadable(state, "state")
    root.mkdir(parents=True, exist_ok=True)
    _sweep(root)
    final = _folder(root, step)
    if os.path.lexists(final) and not _is_whole(root, step):
        _quarantine(final)
    if not final.exists():
        temporary = root / f".tmp-{step}-{uuid.uuid4().hex}"
        try:
            _write(temporary, step, state)
            # Refuses to replace a folder that holds anything, so a published one is never lost.
            temporary.rename(final)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        sync_folder(root)
    write_text(root / "LATEST", final.name + "\n")
    _retain(root, {step, *milestones}, keep)
    return final


def load_newest(
    root: Path | str,
    map_location: str | torch.device = "cpu",
    warn: Callable[[str], object] = warnings.warn,
) -> tuple[int, dict[str, Any]] | None:
    """(step, state) of the newest whole checkpoint, None if there is none.

    A damaged one is renamed to step_x.corrupt, told to `warn`, and the next is tried. One that is
    whole but cannot be loaded here (another torch, no such device, too little memory) is an error
    and stays: the fault is not the file's.
    """
    for step in reversed(steps(root)):
        try:
            return step, load(root, step, map_location)
        except DamagedCheckpoint as error:
            moved = _quarantine(_folder(Path(root), step))
            warn(f"{error}; renamed to {moved.name}, taking the checkpoint before it")
    return None


def load(root: Path | str, step: int, map_location: str | torch.device = "cpu") -> dict[str, Any]:
    """The state of one step. DamagedCheckpoint if it is not whole."""
    folder = _folder(Path(root), step)
    contents = _verified(folder, step)
    return {
        name.removesuffix(".pt"): torch.load(
            io.BytesIO(data), map_location=map_location, weights_only=True
        )
        for name, data in contents.items()
    }


def steps(root: Path | str) -> list[int]:
    """The published steps, ascending; whether they are whole is seen on loading."""
    root = Path(root)
    if not files.is_there(root):
        return []
    if not root.is_dir():
        raise Damaged(root, "is no folder", "remove it")
    matches = (FOLDER.fullmatch(path.name) for path in root.iterdir())
    return sorted(int(match[1]) for match in matches if match)


# ---------------------------------------------------------------- writing


def _folder(root: Path, step: int) -> Path:
    return root / f"step_{step:08d}"


def _check_arguments(step: int, state: dict[str, Any], keep: int) -> None:
    if step < 0:
        raise ValueError(f"step {step}: steps count from 0")
    if keep < 1:
        raise ValueError(f"keeping {keep} checkpoints: expected 1 or more")
    odd = [key for key in state if not KEY.fullmatch(key)]
    if odd or not state:
        raise ValueError(f"keys of a state become file names, expected letters and digits: {odd}")


def _write(folder: Path, step: int, state: dict[str, Any]) -> None:
    folder.mkdir()
    written: dict[str, dict[str, Any]] = {}
    for key, value in state.items():
        data = _serialised(value)
        write_synced(folder / f"{key}.pt", data)
        written[f"{key}.pt"] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    manifest = {"schema": SCHEMA, "step": step, "torch": torch.__version__, "files": written}
    write_synced(folder / MANIFEST, _manifest_text(manifest).encode())
    sync_folder(folder)
    _verified(folder, step)


def _serialised(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def _check_loadable(value: Any, name: str) -> None:
    """Better to learn at the first save than at the first resume that a state cannot be read."""
    if type(value) in CONTAINERS:
        named = value.items() if isinstance(value, dict) else enumerate(value)
        for key, part in named:
            _check_loadable(key, f"a key of {name}")
            _check_loadable(part, f"{name}[{key!r}]")
    elif type(value) not in LEAVES:
        raise ValueError(
            f"{name} is a {type(value).__name__}, which cannot be loaded safely; "
            "turn it into tensors, numbers and text"
        )


def _manifest_text(manifest: dict[str, Any]) -> str:
    """The manifest with the sha256 of itself, so that no byte of it can change unseen."""
    body = json.dumps(manifest, indent=2, sort_keys=True)
    own = hashlib.sha256(body.encode()).hexdigest()
    return json.dumps({**manifest, "sha256": own}, indent=2, sort_keys=True) + "\n"


# ---------------------------------------------------------------- checking


def _verified(folder: Path, step: int) -> dict[str, bytes]:
    """The bytes of every file, after they were compared with the manifest: what is checked is used.

    DamagedCheckpoint names the file.
    """
    try:
        text = files.read(folder / MANIFEST, "it is set aside")
        if text is None:
            raise DamagedCheckpoint(f"{folder}: {MANIFEST} is missing")
        manifest = _read_manifest(text, step)
        contents = {name: _content(folder / name) for name in manifest.files}
    except OtherVersion:
        raise
    except Damaged as error:
        raise DamagedCheckpoint(str(error)) from error
    except ValueError as error:
        raise DamagedCheckpoint(f"{folder}: {MANIFEST} is damaged ({error})") from error
    for name, data in contents.items():
        expected = manifest.files[name]
        if len(data) != expected.bytes:
            raise DamagedCheckpoint(
                f"{folder}: {name} has {len(data)} bytes, expected {expected.bytes}"
            )
        if hashlib.sha256(data).hexdigest() != expected.sha256:
            raise DamagedCheckpoint(f"{folder}: the content of {name} has changed (sha256)")
    return contents


def _content(path: Path) -> bytes:
    data = files.read(path, "it is set aside", MOST)
    if data is None:
        raise DamagedCheckpoint(f"{path} is missing")
    return data


def _read_manifest(text: bytes, step: int) -> Manifest:
    manifest = strict.parse(text)
    if not isinstance(manifest, dict) or "sha256" not in manifest:
        raise ValueError("no sha256 in it")
    body = {key: value for key, value in manifest.items() if key != "sha256"}
    if _manifest_text(body).encode() != text:
        raise ValueError("its sha256 does not fit")
    if body.get("schema") != SCHEMA:
        raise OtherVersion(
            f"a checkpoint of schema {body.get('schema')!a:.20}, this version reads {SCHEMA}; "
            "resume with the version that wrote it, or set run_dir to a new folder"
        )
    read = checked(Manifest, manifest)
    if read.step != step:
        raise ValueError(f"it is of step {read.step}, not {step}")
    odd = [name for name in read.files if not FILE.fullmatch(name)]
    if odd:
        raise ValueError(f"it names {odd[0]!a:.60}, expected files of its own folder")
    return read


def _is_whole(root: Path, step: int) -> bool:
    try:
        _verified(_folder(root, step), step)
    except DamagedCheckpoint:
        return False
    return True


# ---------------------------------------------------------------- clearing away


def _quarantine(folder: Path) -> Path:
    """Out of the way, but not gone."""
    target = folder.with_name(f"{folder.name}.corrupt")
    number = 1
    while target.exists():
        number += 1
        target = folder.with_name(f"{folder.name}.corrupt-{number}")
    folder.rename(target)
    sync_folder(folder.parent)
    return target


def _retain(root: Path, sacred: set[int], keep: int) -> None:
    """Drop all but the last `keep`, and never the one just saved, which is known to be whole."""
    for step in steps(root)[:-keep]:
        if step not in sacred:
            folder = _folder(root, step)
            # By rename first: a kill must not leave half a checkpoint under a good name.
            trash = root / f".trash-{uuid.uuid4().hex}"
            folder.rename(trash)
            _remove(trash)


def _sweep(root: Path) -> None:
    """Return what killed processes left behind."""
    for name in os.listdir(root):
        if name.startswith((".tmp-", ".trash-")):
            _remove(root / name)
        if name.startswith(".LATEST.tmp-"):
            (root / name).unlink()


def _remove(path: Path) -> None:
    """A folder, or what stands in the place of one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
