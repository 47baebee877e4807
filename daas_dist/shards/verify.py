"""Whether shards are what their manifest says, and an index of shards that others wrote."""

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from daas_dist.data.decode import central
from daas_dist.data.manifest import (
    INDEX,
    MANIFEST,
    NAMES,
    DataError,
    Manifest,
    Shard,
    publish,
)
from daas_dist.data.shards import Reading, ShardFolder
from daas_dist.rng import stream
from daas_dist.shards.tars import describe, scan

Progress = Callable[[str], None]
"""Told the name of each shard when it is done."""


def verify(
    root: Path | str,
    *,
    full: bool = False,
    decode: int = 0,
    workers: int = 1,
    done: Progress = lambda name: None,
) -> list[str]:
    """What is wrong with a folder of shards, each in a sentence; none is well.

    Always the manifest, the index, the names and every shard's size. full: also every shard's
    sha256, and its members against the index, so a bad sample is named. decode: so many pictures,
    drawn from all of them.
    """
    try:
        folder = ShardFolder(root, Path(root).joinpath)
    except (DataError, FileNotFoundError) as error:
        return [str(error)]
    wrong = [*_wrong_sizes(folder), *_wrong_names(folder), *_wrong_histograms(folder)]
    if full:
        sizes_right = {s.name for s in folder.manifest.shards} - _missing(folder)

        def check(number: int) -> list[str]:
            shard = folder.manifest.shards[number]
            found = _wrong_bytes(folder, number) if shard.name in sizes_right else []
            done(shard.name)
            return found

        with ThreadPoolExecutor(workers) as pool:
            for found in pool.map(check, range(len(folder.manifest.shards))):
                wrong += found
    return [*wrong, *_undecodable(folder, decode)]


def _missing(folder: ShardFolder) -> set[str]:
    return {s.name for s in folder.manifest.shards if not (folder.root / s.name).is_file()}


def _wrong_sizes(folder: ShardFolder) -> Iterator[str]:
    missing = _missing(folder)
    for shard in folder.manifest.shards:
        path = folder.root / shard.name
        if shard.name in missing:
            yield f"{path} is missing"
        elif path.stat().st_size != shard.bytes:
            yield f"{path} has {path.stat().st_size} bytes, {MANIFEST} expects {shard.bytes}"


def _wrong_names(folder: ShardFolder) -> Iterator[str]:
    path = folder.root / NAMES
    if not path.is_file():
        yield f"{path} is missing: errors cannot say what a picture was called"
    elif hashlib.sha256(path.read_bytes()).hexdigest() != folder.manifest.names_sha256:
        yield f"{path} is not the one that {MANIFEST} expects"


def _wrong_histograms(folder: ShardFolder) -> Iterator[str]:
    for number, shard in enumerate(folder.manifest.shards):
        rows = folder.rows[folder.first[number] : folder.first[number + 1]]
        if describe("", 0, "", rows).histogram != shard.histogram:
            yield f"{folder.root / shard.name}: {MANIFEST} and {INDEX} give it different classes"


def _wrong_bytes(folder: ShardFolder, number: int) -> list[str]:
    """What is wrong inside a shard: the sample that has changed, or the tar."""
    shard = folder.manifest.shards[number]
    path = folder.root / shard.name
    first, end = int(folder.first[number]), int(folder.first[number + 1])
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() == shard.sha256:
            return _wrong_index(folder, number)
    wrong, reading = [], Reading()
    for row in range(first, end):
        try:
            folder.read(row, reading)
        except DataError as error:
            wrong.append(str(error))
    reading.close()
    if not wrong:
        try:
            _, rows, _ = scan(path)
            if len(rows) != end - first or (rows != folder.rows[first:end]).any():
                wrong = [f"{path}: its labels or its order are not those of the index"]
        except DataError as error:
            wrong = [str(error)]
    return wrong or [f"{path}: its sha256 has changed, though every sample is whole"]


def _wrong_index(folder: ShardFolder, number: int) -> list[str]:
    """A shard that is whole against its rows of the index, which says where its pictures lie."""
    shard = folder.manifest.shards[number]
    path = folder.root / shard.name
    try:
        _, rows, _ = scan(path)
    except DataError as error:
        return [str(error)]
    expected = folder.rows[folder.first[number] : folder.first[number + 1]]
    if len(rows) != len(expected) or (rows != expected).any():
        return [f"{path}: the index does not fit it; make it again by `daas shards index`"]
    return []


def _undecodable(folder: ShardFolder, count: int) -> Iterator[str]:
    total = folder.manifest.samples
    order = torch.randperm(total, generator=stream(0, "verify"))[:count]
    reading = Reading()
    for row in order.sort().values.tolist():
        try:
            central(io.BytesIO(folder.read(row, reading)), 32, 3)
        except MemoryError:
            raise
        except (DataError, FileNotFoundError) as error:
            yield str(error)
        except Exception as error:  # Pillow raises nearly anything on broken files
            yield f"{folder.name(row)}: {type(error).__name__}: {error}"
    reading.close()


# --- Shards that others wrote --------------------------------------------------------------------


def index(
    root: Path | str,
    *,
    part: str = "train",
    class_ids: Sequence[str] | None = None,
    workers: int = 1,
    done: Progress = lambda name: None,
) -> Manifest:
    """Make manifest and index for the tar files of a folder, of pictures and .cls numbers.

    class_ids: in the order of the numbers, which must be sorted; None calls them by their number.
    """
    root = Path(root)
    paths = sorted(root.glob("*.tar"))
    if not paths:
        raise FileNotFoundError(f"no *.tar in {root}")
    if (root / MANIFEST).exists():
        raise DataError(f"{root / MANIFEST} is there already; take it away to make another")

    def one(path: Path) -> tuple[Shard, np.ndarray, list[str]]:
        sha256, rows, keys = scan(path)
        done(path.name)
        return describe(path.name, path.stat().st_size, sha256, rows), rows, keys

    with ThreadPoolExecutor(workers) as pool:
        scanned = list(pool.map(one, paths))
    rows = np.concatenate([each[1] for each in scanned])
    if not len(rows):
        raise DataError(f"the tar files of {root} hold no samples")
    highest = int(rows["label"].max())
    ids = list(class_ids) if class_ids else _numbers(highest + 1)
    if highest >= len(ids):
        raise DataError(f"{root} has samples of class {highest}, but {len(ids)} classes are named")
    data = rows.tobytes()
    names = "".join(f"{key}\n" for each in scanned for key in each[2]).encode()
    made: dict[str, Any] = {"source": f"shards in {root}, indexed as they were"}
    manifest = Manifest(
        part=part,
        class_ids=tuple(ids),
        class_names=tuple(ids),
        seed=0,
        resize=None,
        shards=tuple(each[0] for each in scanned if each[0].samples),
        index_sha256=hashlib.sha256(data).hexdigest(),
        names_sha256=hashlib.sha256(names).hexdigest(),
        made=made,
    )
    publish(root, manifest, data, names)
    return manifest


def _numbers(count: int) -> list[str]:
    digits = len(str(count - 1))
    return [f"{i:0{digits}d}" for i in range(count)]
