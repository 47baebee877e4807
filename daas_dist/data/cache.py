"""Shards on another machine, each fetched when it is first needed into a folder that is bounded.

All processes that name the folder share it. A shard is downloaded by one of them while the others
wait, checked against the manifest's sha256 and only then given its name, so a kill leaves nothing
that could be taken for a shard; later openings check its size alone. What was opened least recently
is evicted, whole shards at a time. Whoever has one open can still read it.
"""

import fcntl
import hashlib
import io
import json
import os
import re
import stat
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO
from urllib.parse import quote

from daas_dist.data import remote
from daas_dist.data.manifest import INDEX, MANIFEST, NAMES, DataError, Manifest, parse
from daas_dist.data.remote import NotFetched
from daas_dist.documents.escaping import told
from daas_dist.runs.log import sync_folder, write_bytes

FOLDER = "daas-shards"
"""Inside the folder that a user names, which may hold other things: nothing else is evicted. With
the user's number, as nobody believes what another user may have put there."""

LISTS = (MANIFEST, INDEX, NAMES)
LARGEST_LIST = 1 << 30
"""Bytes. ImageNet's have some 40 MB."""


class Cache:
    """The shards beneath one URL: `root` is a ShardFolder's root, `fetch` its `locate`."""

    def __init__(self, url: str, folder: Path | str, most_bytes: int) -> None:
        """url: one that schema.Data allows. most_bytes: of all shards in the folder, whatever URL
        they are from; the lists beside them come on top.

        NotFetched if neither the server nor the cache has a manifest.
        """
        self.url, self.most_bytes = url.rstrip("/"), most_bytes
        remote.check_scheme(self.url)
        self._folder = Path(folder).absolute() / f"{FOLDER}-{os.geteuid()}"
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._check_ours()
        data = self._read_manifest()
        try:
            manifest = parse(data.decode(), self._at(MANIFEST))
        except UnicodeDecodeError as error:
            raise DataError(f"{self._at(MANIFEST)} is no text ({error})") from None
        self._shards = {shard.name: shard for shard in manifest.shards}
        self._check_shards()
        held = json.dumps([manifest.digest, list(self._shards)]).encode()
        self.root = self._folder / f"{self._key()}-{hashlib.sha256(held).hexdigest()[:12]}"
        self._keep_lists(data, manifest)

    def fetch(self, name: str) -> Path:
        """Return where a shard lies, once it does. Another process may evict it again: open it at
        once.

        NotFetched, with the URL and the reason.
        """
        self._check_ours()
        try:
            with _alone(self.root / f".{name}.lock"):
                if not self._has(name):
                    self._download(name)
        except OSError as error:
            raise NotFetched(
                f"{self._at(name)} cannot be kept in {self.root} ({error}); make room there, lower "
                "data.cache_gb or set data.cache"
            ) from None
        return self.root / name

    def _check_ours(self) -> None:
        """NotFetched where another user could have put something into the folder: a shard is
        hashed when it comes, not each time that it is opened."""
        if not _ours(self._folder.lstat(), stat.S_ISDIR):
            raise NotFetched(
                f"{self._folder} belongs to another user or may be written by others, so what is "
                "in it may be anything; remove it, or set data.cache to a folder of your own"
            )

    def _at(self, name: str) -> str:
        return f"{self.url}/{quote(name) if self.url.lower().startswith('http') else name}"

    def _key(self) -> str:
        """Name a URL as a folder: its end, for people, and its hash."""
        readable = re.sub(r"[^A-Za-z0-9]+", "-", self.url)[-40:].strip("-")
        return f"{readable}-{hashlib.sha256(self.url.encode()).hexdigest()[:12]}"

    # --- Manifest, index and names ---------------------------------------------------------------

    def _read_manifest(self) -> bytes:
        file = io.BytesIO()
        try:
            remote.copy(self._at(MANIFEST), file, LARGEST_LIST)
        except NotFetched as error:
            kept = self._folder.glob(f"{self._key()}-*/{MANIFEST}")
            latest = max(kept, key=lambda path: path.stat().st_mtime_ns, default=None)
            if latest is None:
                raise
            print(told(f"{error}; going on with what is in {latest.parent}"), file=sys.stderr)
            return latest.read_bytes()
        return file.getvalue()

    def _check_shards(self) -> None:
        for shard in self._shards.values():
            if shard.bytes > self.most_bytes:
                raise DataError(
                    f"{self._at(shard.name)} has {shard.bytes / 1e9:.3g} GB, more than "
                    f"data.cache_gb={self.most_bytes / 1e9:.3g}; raise data.cache_gb"
                )

    def _keep_lists(self, data: bytes, manifest: Manifest) -> None:
        """The manifest last, as it says that the others are there."""
        expected = manifest.index_sha256, manifest.names_sha256, hashlib.sha256(data).hexdigest()
        self.root.mkdir(exist_ok=True)
        with _alone(self.root / ".lists.lock"):
            for torn in self.root.glob(".*.tmp-*"):
                torn.unlink()
            for name, sha256 in zip((INDEX, NAMES, MANIFEST), expected, strict=True):
                path = self.root / name
                if path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256:
                    os.utime(path)
                    continue
                file = io.BytesIO(data)
                if name != MANIFEST:
                    self._copy(name, file, LARGEST_LIST, sha256)
                write_bytes(path, file.getvalue())

    # --- One shard, under its lock ---------------------------------------------------------------

    def _has(self, name: str) -> bool:
        path = self.root / name
        try:
            found = path.lstat()
            if not _ours(found, stat.S_ISREG) or found.st_size != self._shards[name].bytes:
                return False
            os.utime(path)  # opened just now
            return True
        except FileNotFoundError:
            return False

    def _download(self, name: str) -> None:
        shard, part = self._shards[name], self.root / f".{name}.part"
        (self.root / name).unlink(missing_ok=True)
        while not self._take_room(part, shard.bytes):
            time.sleep(0.1)  # others are fetching all that the cache may hold
        try:
            with part.open("r+b") as file:
                self._copy(name, file, shard.bytes, shard.sha256)
                file.flush()
                os.fsync(file.fileno())
            part.rename(self.root / name)
        finally:
            part.unlink(missing_ok=True)
        sync_folder(self.root)

    def _take_room(self, part: Path, needed: int) -> bool:
        """Evict what was opened least recently until `needed` bytes fit, and make `part` so large.

        False, and nothing is evicted, if that would not do."""
        with _alone(self._folder / ".lock"):
            part.unlink(missing_ok=True)
            room = self.most_bytes - needed - sum(self._being_fetched())
            if room < 0:
                return False
            for _, size, path in sorted(self._held(), reverse=True):
                room -= size
                if room < 0:
                    path.unlink(missing_ok=True)
            with part.open("wb") as file:
                os.fchmod(file.fileno(), 0o600)  # _ours, whatever the umask is
                file.truncate(needed)
            return True

    def _held(self) -> Iterator[tuple[int, int, Path]]:
        """(when it was opened last, bytes, path) of each shard, of any URL."""
        for path in self._folder.glob("*/[!.]*"):
            with suppress(FileNotFoundError):
                if path.name not in LISTS:
                    yield path.stat().st_mtime_ns, path.stat().st_size, path

    def _being_fetched(self) -> Iterator[int]:
        """The bytes of each shard that is. What a dead process left is removed."""
        for part in self._folder.glob("*/.*.part"):
            try:
                with _alone(part.with_suffix(".lock"), wait=False):
                    part.unlink(missing_ok=True)
            except BlockingIOError:
                with suppress(FileNotFoundError):
                    yield part.stat().st_size

    def _copy(self, name: str, file: IO[bytes], most: int, sha256: str) -> None:
        """Fetch a shard with the right bytes; a second time if the first brought others."""
        found = remote.copy(self._at(name), file, most)
        if found != sha256:
            found = remote.copy(self._at(name), file, most)
        if found != sha256:
            raise NotFetched(
                f"{self._at(name)} has the sha256 {found}, {MANIFEST} expects {sha256}; put the "
                "right file there"
            )


def _ours(found: os.stat_result, kind: Callable[[int], bool]) -> bool:
    """Tell whether nobody but this user and root may have written it."""
    alone = found.st_uid in (0, os.geteuid()) and not found.st_mode & 0o022
    return alone and kind(found.st_mode)


@contextmanager
def _alone(lock: Path, wait: bool = True) -> Generator[None]:
    """One process at a time; a crash lets go. BlockingIOError where waiting is not wanted."""
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # a child that another thread forked has it open too
        os.close(descriptor)
