"""Whether shards are what their manifest says, and an index of shards that others wrote."""

import hashlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from daas_dist.data.decode import central_square, depth_of, quiet, reason
from daas_dist.data.manifest import (
    INDEX,
    MANIFEST,
    NAMES,
    DataError,
    Manifest,
    Shard,
    deepest,
    publish,
)
from daas_dist.data.sharding.tars import BLOCK, DamagedTar, describe, scan
from daas_dist.data.shards import Reading, ShardFolder
from daas_dist.rng import stream

NAMED = 20
"""Bad samples of one shard that are looked for: to name one is a look into a long file."""

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
    """Return what is wrong with a folder of shards, each in a sentence; none is well.

    Always the manifest, the index, the names and every shard's size. full: also every shard's
    sha256, and its members against the index, so a bad sample is named. decode: so many pictures,
    drawn from all of them.
    """
    try:
        folder = ShardFolder(root, Path(root).joinpath)
    except (DataError, FileNotFoundError) as error:
        return [str(error)]
    wrong = [*_wrong_files(folder), *_wrong_names(folder), *_wrong_histograms(folder)]
    if full:

        def check(number: int) -> list[str]:
            shard = folder.manifest.shards[number]
            found = _wrong_bytes(folder, number)
            done(shard.name)
            return found

        with ThreadPoolExecutor(workers) as pool:
            for found in pool.map(check, range(len(folder.manifest.shards))):
                wrong += found
    return [*wrong, *_undecodable(folder, decode)]


def _wrong_files(folder: ShardFolder) -> Iterator[str]:
    yield from filter(None, map(folder.wrong_size, folder.manifest.shards))
    listed = {shard.name for shard in folder.manifest.shards}
    for path in tars_in(folder.root):
        if path.name not in listed:
            yield f"{path} is not in {MANIFEST}, but who reads *.tar reads it; take it away"


def tars_in(root: Path) -> list[Path]:
    return sorted(path for path in root.glob("*.tar") if not path.name.startswith("."))


def _wrong_names(folder: ShardFolder) -> Iterator[str]:
    path = folder.root / NAMES
    try:
        data = path.read_bytes()
    except OSError as error:
        yield (
            f"{path} cannot be read ({error.strerror}): errors cannot say what a picture was called"
        )
    else:
        if hashlib.sha256(data).hexdigest() != folder.manifest.names_sha256:
            yield (
                f"{path} is not the one that {MANIFEST} expects: errors cannot say what a picture "
                "was called"
            )


def _wrong_histograms(folder: ShardFolder) -> Iterator[str]:
    for number, shard in enumerate(folder.manifest.shards):
        rows = folder.rows[folder.first[number] : folder.first[number + 1]]
        if describe("", 0, "", rows).histogram != shard.histogram:
            yield f"{folder.root / shard.name}: {MANIFEST} and {INDEX} give it different classes"


def _wrong_bytes(folder: ShardFolder, number: int) -> list[str]:
    """Return what is wrong inside a shard: the samples that have changed, or the tar."""
    shard = folder.manifest.shards[number]
    path = folder.root / shard.name
    if not os.path.isfile(path):
        return []  # _wrong_files has said it
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return [f"{path} cannot be read ({error.strerror})"]
    if sha256 == shard.sha256:
        unlike = _unlike_index(folder, number)
        return [f"{each}; the shard is whole, so get {INDEX} again" for each in unlike]
    for other in folder.manifest.shards:
        if sha256 == other.sha256:
            return [f"{path} is a copy of {other.name}"]
    wrong, reading = [], Reading()
    for row in range(int(folder.first[number]), int(folder.first[number + 1])):
        try:
            folder.read(row, reading)
        except DataError as error:
            wrong.append(str(error))
        if len(wrong) == NAMED:
            wrong.append(f"{path}: and perhaps more, as these were the first {NAMED}")
            break
    reading.close()
    wrong = wrong or _unlike_index(folder, number)
    return wrong or [f"{path}: its sha256 has changed, though every sample is whole"]


def _unlike_index(folder: ShardFolder, number: int) -> list[str]:
    """Return where the members of a shard are not what the index says."""
    path = folder.root / folder.manifest.shards[number].name
    first = int(folder.first[number])
    expected = folder.rows[first : folder.first[number + 1]]
    try:
        _, found, _ = scan(path)
    except DamagedTar as error:
        near = int(np.searchsorted(expected["offset"], error.at + BLOCK, side="right")) - 1
        return [f"{error}: at or after {folder.name(first + max(0, near))}"]
    except DataError as error:
        return [str(error)]
    if len(found) != len(expected):
        return [f"{path} has {len(found)} samples, {INDEX} has {len(expected)}"]
    wrong = []
    for i in (found != expected).nonzero()[0][:NAMED].tolist():
        one, other = found[i], expected[i]
        what = f"is of class {one['label']} in the shard, {other['label']} in {INDEX}"
        if one["label"] == other["label"]:
            what = f"does not lie where {INDEX} has it"
        wrong.append(f"{folder.name(first + i)} {what}")
    return wrong


def _undecodable(folder: ShardFolder, count: int) -> Iterator[str]:
    total = folder.manifest.samples
    order = torch.randperm(total, generator=stream(0, "verify"))[:count]
    reading, bits = Reading(), folder.manifest.bits
    for row in order.sort().values.tolist():
        data = bytearray()
        try:
            data = folder.read(row, reading)
            with quiet():
                central_square(io.BytesIO(data), 32, 3, bits=bits)
        except MemoryError:
            raise
        except DataError as error:
            yield str(error)
        except Exception as error:  # Pillow raises nearly anything on broken files
            yield f"{folder.name(row)}: {reason(error, data)}"
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
    paths = tars_in(root)
    if not paths:
        raise FileNotFoundError(f"no *.tar in {root}")
    if os.path.lexists(root / MANIFEST):
        raise DataError(f"{root / MANIFEST} is there already; take it away to make another")

    depths: list[tuple[int, str]] = []

    def one(path: Path) -> tuple[Shard, np.ndarray, list[str]]:
        sha256, rows, keys = scan(path)
        depths.extend(_depths(path, rows, keys))
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
    made |= deepest(depths)
    manifest = Manifest(
        part=part,
        class_ids=tuple(ids),
        class_names=tuple(ids),
        seed=0,
        resize=None,
        shards=tuple(each[0] for each in scanned),
        index_sha256=hashlib.sha256(data).hexdigest(),
        names_sha256=hashlib.sha256(names).hexdigest(),
        made=made,
    )
    publish(root, manifest, data, names)
    return manifest


def _depths(path: Path, rows: np.ndarray, keys: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Return the depths as manifest.deepest takes them."""
    with path.open("rb") as file:
        for row, key in zip(rows, keys, strict=True):
            greatest, colours = depth_of(
                os.pread(file.fileno(), int(row["size"]), int(row["offset"]))
            )
            if greatest:
                yield greatest, f"{path}: sample {key}" if colours else ""


def _numbers(count: int) -> list[str]:
    digits = len(str(count - 1))
    return [f"{i:0{digits}d}" for i in range(count)]
