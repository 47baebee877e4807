"""A folder of shards from a source. Killed at any moment, a rerun keeps the shards that verify and
makes the others; whichever way it came about, the bytes are the same.

    out/shard-000000.tar …   plain webdataset shards
    out/index.bin, names.txt, manifest.json     as daas_dist/data/manifest.py has it, written last
    out/.parts/…             what the manifest will say of the shards that are done
"""

import ctypes
import fcntl
import hashlib
import io
import json
import multiprocessing
import shutil
import signal
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import PIL
import torch

from daas_dist.data.decode import UnknownDepth, depth_of, opened, quiet, reason, shrink
from daas_dist.data.formats import ending, unread
from daas_dist.data.manifest import (
    FORMAT,
    INDEX,
    MANIFEST,
    NAMES,
    ROW,
    DataError,
    Manifest,
    Shard,
    deepest,
    publish,
    read_manifest,
)
from daas_dist.data.sharding.sources import Source
from daas_dist.data.sharding.tars import Sample, pack
from daas_dist.data.words import name_some
from daas_dist.rng import stream
from daas_dist.runs.log import write_text

PARTS, LOCK = ".parts", ".building"
PER_SHARD = 1250
"""Pictures: about 140 MB of ImageNet, 1,025 shards. Ours; webdataset's own examples have 100 MB to
1 GB."""

JPEG_QUALITY = 95

DYING = 3.0
"""Seconds that the processes of a builder which was killed may take to end."""

Report = Callable[[int, int], None]
"""(pictures done, of how many)."""


@dataclass(frozen=True)
class Recipe:
    """How a source becomes shards."""

    part: str = "train"
    seed: int = 0
    per_shard: int = PER_SHARD
    resize: int | None = None
    """The shorter side to which larger pictures are brought, as JPEG; None leaves their bytes."""
    max_bad_files: int = 0
    """How many files that are no pictures may be left out."""

    def __post_init__(self) -> None:
        for name, least in (("seed", 0), ("per_shard", 1), ("max_bad_files", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}, expected {least} or more")
        if self.resize is not None and self.resize < 1:
            raise ValueError(f"resize is {self.resize}, expected 1 or more pixels")


def build(
    source: Source,
    out: Path | str,
    recipe: Recipe = Recipe(),  # noqa: B008  frozen
    *,
    workers: int = 1,
    report: Report = lambda done, total: None,
) -> Manifest:
    """Write the shards of a source into the folder `out`, which is made.

    DataError names a file that is no picture, a folder that holds other shards, or one in which
    another process is building.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    begun = (out / LOCK).exists() or (out / MANIFEST).exists()
    if not begun and any(out.glob("*.tar")):
        raise DataError(f"{out} holds tar files of others; name a new folder")
    with _alone(out):
        work = _Work(source, out, recipe, _plan(source, recipe))
        done = work.resume()
        counts = work.counts()
        finished = sum(counts[number] for number in done)
        report(finished, len(source.names))
        work.check_bad(done.values())
        for number, part in _pack_all(
            work, [n for n in range(len(counts)) if n not in done], workers
        ):
            done[number] = part
            finished += counts[number]
            report(finished, len(source.names))
            work.check_bad(done.values())
        return work.publish([done[number] for number in range(len(counts))])


@contextmanager
def _alone(out: Path) -> Generator[None]:
    """DataError while another process builds there; the lock goes with its process."""
    with (out / LOCK).open("w", encoding="utf-8") as file:
        patience = time.monotonic() + DYING
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > patience:
                    raise DataError(f"another process is building shards in {out}") from None
            time.sleep(0.1)
        for stale in out.glob(".*.tmp-*"):
            stale.unlink(missing_ok=True)
        yield


def _plan(source: Source, recipe: Recipe) -> str:
    """sha256 of everything that decides the bytes of the shards, but the pictures themselves."""
    total = hashlib.sha256()
    how = [FORMAT, source.class_ids, recipe.part, recipe.seed, recipe.per_shard, recipe.resize]
    tools = [PIL.__version__] if recipe.resize else []
    total.update(json.dumps([*how, *tools]).encode())
    for label, name, size in zip(source.labels, source.names, source.sizes, strict=True):
        total.update(f"{label} {size} {name}\n".encode())
    return total.hexdigest()


@dataclass(frozen=True)
class _Work:
    """A build: which pictures go where. Packing one shard needs nothing of the others."""

    source: Source
    out: Path
    recipe: Recipe
    plan: str

    def counts(self) -> list[int]:
        """Return how many pictures each shard is to hold."""
        whole, rest = divmod(len(self.source.names), self.recipe.per_shard)
        return [self.recipe.per_shard] * whole + [rest] * (rest > 0)

    def order(self) -> list[int]:
        """A seeded permutation, so that no shard holds one class only."""
        generator = stream(self.recipe.seed, "shards", self.recipe.part)
        return torch.randperm(len(self.source.names), generator=generator).tolist()

    def name(self, number: int) -> str:
        return f"shard-{number:06d}.tar"

    def pack(self, number: int, order: list[int]) -> dict[str, Any]:
        """Write one shard, then what the manifest will say of it."""
        first = number * self.recipe.per_shard
        left_out: dict[str, str] = {}
        names: list[str] = []
        depths: list[tuple[int, str]] = []

        def samples() -> Iterator[Sample]:
            for place, i in enumerate(order[first : first + self.recipe.per_shard], first):
                try:
                    data = self._picture(self.source.read(i), self.source.names[i])
                except _NoPicture as error:
                    left_out[self.name_of(i)] = str(error)
                    continue
                greatest, colours = depth_of(data)
                depths.append((greatest, self.name_of(i) if colours else ""))
                names.append(self.name_of(i))
                yield Sample(f"{place:08d}", int(self.source.labels[i]), data)

        shard, rows = pack(self.out / self.name(number), samples())
        part = {
            "plan": self.plan,
            "shard": asdict(shard),
            "rows": rows.tobytes().hex(),
            "names": names,
            "left_out": left_out,
            "depths": [each for each in depths if each[0]],
        }
        write_text(self.out / PARTS / f"{number:06d}.json", json.dumps(part))
        return part

    def name_of(self, i: int) -> str:
        """Return what a picture was called."""
        return f"{self.source.class_ids[int(self.source.labels[i])]}/{self.source.names[i]}"

    def _picture(self, data: bytes, name: str) -> bytes:
        """Prepare a picture as it goes into a shard."""
        if ending(data) is None:
            raise _NoPicture(unread(data, name))
        return data if self.recipe.resize is None else _resized(data, self.recipe.resize)

    def check_bad(self, parts: Iterable[dict[str, Any]]) -> None:
        """DataError if more files are no pictures than may be left out."""
        lost = [self.source.bad, *(part["left_out"] for part in parts)]
        bad = [f"{name}: {why}" for each in lost for name, why in each.items()]
        if len(bad) > self.recipe.max_bad_files:
            raise DataError(
                f"{len(bad)} files are no pictures, --max-bad-files allows "
                f"{self.recipe.max_bad_files}: {name_some(bad)}"
            )

    def resume(self) -> dict[int, dict[str, Any]]:
        """The parts of an earlier build of this plan whose shards are whole."""
        parts = self._published() or self._unpublished()
        (self.out / PARTS).mkdir(exist_ok=True)
        kept = {n: part for n, part in parts.items() if self._is_whole(part["shard"])}
        if len(kept) < len(self.counts()):
            (self.out / MANIFEST).unlink(missing_ok=True)  # it promises what is not there
        return kept

    def _published(self) -> dict[int, dict[str, Any]]:
        if not (self.out / MANIFEST).exists():
            return {}
        manifest = read_manifest(self.out)
        if manifest.made.get("plan") != self.plan:
            raise DataError(
                f"{self.out} holds shards made of other pictures or by other settings "
                f"({manifest.made.get('source')}); name a new folder"
            )
        try:
            index, names = ((self.out / name).read_bytes() for name in (INDEX, NAMES))
        except FileNotFoundError:
            return {}
        if manifest.deepest is None:
            return {}  # of an earlier version, which did not look; so all are made anew
        hashes = [hashlib.sha256(data).hexdigest() for data in (index, names)]
        if hashes != [manifest.index_sha256, manifest.names_sha256]:
            return {}  # what they say of the shards is not known, so all are made anew
        line = names.decode().split("\n")
        left_out = self._left_out(manifest.made["left_out"])
        parts: dict[int, dict[str, Any]] = {}
        first = 0
        for shard in manifest.shards:
            number, end = int(shard.name[6:12]), first + shard.samples
            parts[number] = {
                "plan": self.plan,
                "shard": asdict(shard),
                "rows": index[first * ROW.itemsize : end * ROW.itemsize].hex(),
                "names": line[first:end],
                "left_out": left_out.get(number, {}),
                "depths": [[manifest.deepest, ""]],
            }
            first = end
        return parts

    def _left_out(self, left_out: dict[str, str]) -> dict[int, dict[str, str]]:
        """Return which files were left out of each shard."""
        found: dict[int, dict[str, str]] = {}
        for place, i in enumerate(self.order() if left_out else []):
            name = self.name_of(i)
            if name in left_out:
                found.setdefault(place // self.recipe.per_shard, {})[name] = left_out[name]
        return found

    def _unpublished(self) -> dict[int, dict[str, Any]]:
        parts = {}
        for path in (self.out / PARTS).glob("*.json"):
            try:
                part = json.loads(path.read_text("utf-8"))
            except ValueError:
                continue  # its shard is made anew
            if part["plan"] == self.plan and "depths" in part:
                parts[int(path.stem)] = part
        return parts

    def _is_whole(self, shard: dict[str, Any]) -> bool:
        path = self.out / shard["name"]
        if not path.is_file() or path.stat().st_size != shard["bytes"]:
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == shard["sha256"]

    def publish(self, parts: list[dict[str, Any]]) -> Manifest:
        """Write index, names and, last, the manifest, which makes it a folder of shards."""
        index = b"".join(bytes.fromhex(part["rows"]) for part in parts)
        names = "".join(f"{name}\n" for part in parts for name in part["names"]).encode()
        left_out = {n: why for part in parts for n, why in part["left_out"].items()}
        depth = deepest((greatest, name) for part in parts for greatest, name in part["depths"])
        manifest = Manifest(
            part=self.recipe.part,
            class_ids=self.source.class_ids,
            class_names=self.source.class_names,
            seed=self.recipe.seed,
            resize=self.recipe.resize,
            shards=tuple(Shard(**part["shard"]) for part in parts if part["shard"]["samples"]),
            index_sha256=hashlib.sha256(index).hexdigest(),
            names_sha256=hashlib.sha256(names).hexdigest(),
            made={
                **self.source.made,
                "plan": self.plan,
                "left_out": {**self.source.bad, **left_out},
                **depth,
                "daas-dist": version("daas-dist"),
                "pillow": PIL.__version__,
            },
        )
        if not manifest.shards:
            raise DataError(f"no file of {self.source.made['source']} is a picture")
        publish(self.out, manifest, index, names)
        kept = {shard.name for shard in manifest.shards}
        for path in self.out.glob("shard-*.tar"):
            if path.name not in kept:  # empty, or of an unfinished build by other settings
                path.unlink()
        shutil.rmtree(self.out / PARTS)
        return manifest


class _NoPicture(Exception):
    """Why a file cannot go into a shard."""


def _resized(data: bytes, side: int) -> bytes:
    """The picture as a JPEG whose shorter side is `side`; its own bytes if it is no larger, or has
    more than 8 bits."""
    try:
        with quiet(), opened(io.BytesIO(data)) as picture:
            if min(picture.size) <= side:
                return data
            file = io.BytesIO()
            shrink(picture, side).save(file, "JPEG", quality=JPEG_QUALITY)
            return file.getvalue()
    except UnknownDepth:
        return data  # a JPEG has 8 bits, and which of these that should be is not known yet
    except MemoryError:
        raise
    except Exception as error:  # Pillow raises nearly anything on broken files
        raise _NoPicture(reason(error, data)) from None


# --- Many processes ------------------------------------------------------------------------------

_shared: tuple[_Work, list[int]] | None = None
"""What every process of the pool packs from: inherited, as a million names are slow to send."""


def _die_with_parent() -> None:
    """A pool whose parent is killed would wait for work for ever."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _pack_one(number: int) -> dict[str, Any]:
    assert _shared is not None
    work, order = _shared
    return work.pack(number, order)


def _pack_all(
    work: _Work, numbers: list[int], workers: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number, part) of each shard as it is done."""
    global _shared
    _shared = work, work.order()
    if workers <= 1 or len(numbers) <= 1:
        yield from ((number, _pack_one(number)) for number in numbers)
        return
    context = multiprocessing.get_context("fork")
    count = min(workers, len(numbers))
    with ProcessPoolExecutor(count, context, initializer=_die_with_parent) as pool:
        futures = {pool.submit(_pack_one, number): number for number in numbers}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool:
            raise DataError(
                "a process that packs shards was killed, perhaps for want of memory; give the "
                "command again, with fewer --workers"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)
