"""A file on another machine, copied: over http, or from whatever else fsspec opens.

Nothing of a connection outlives a call: a process may fork between any two.
"""

import base64
import gc
import hashlib
import netrc
import os
import time
import urllib.error
import urllib.request
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import IO, Any

import fsspec
import fsspec.core

from daas_dist.config.rules import is_url
from daas_dist.data.manifest import DataError

WAITS = (0.25, 0.5, 1.0)
"""Seconds before each new attempt where the network failed."""

SILENT = 60.0
"""Seconds without a byte after which a server is taken for dead. A download may take for ever."""

PIECE = 1 << 20
PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs"}


class NotFetched(DataError):
    """A file could not be had. That says nothing of the samples in it."""


class Absent(NotFetched):
    """The server is there and says that the file is not."""


def check_scheme(url: str) -> None:
    """DataError if what reads such a URL is not installed."""
    scheme = _scheme(url)
    try:
        if not _is_http(url):
            fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        install = PACKAGES.get(scheme)
        remedy = f"; pip install {install}" if install else ""
        raise DataError(f"{url} cannot be read: {error}{remedy}") from None
    except ValueError:
        raise DataError(f"{url} cannot be read: fsspec knows no {scheme}://") from None


def copy(url: str, file: IO[bytes], most: int) -> str:
    """Write a remote file over `file`, no more than `most` bytes; the sha256 of them.

    NotFetched, with the URL and the reason, where several attempts failed.
    """
    for wait in WAITS:
        try:
            return _attempt(url, file, most)
        except NotFetched:
            time.sleep(wait)
    return _attempt(url, file, most)


def _attempt(url: str, file: IO[bytes], most: int) -> str:
    file.seek(0)
    sha256, size = hashlib.sha256(), 0
    wrong = None
    try:
        for piece in _over_http(url) if _is_http(url) else _by_fsspec(url):
            sha256.update(piece)
            size += len(piece)
            if size > most:  # and the sha256 is not the one that is wanted
                break
            file.write(piece)
    except FileNotFoundError:
        wrong = Absent(f"{url} is not there")
    except Exception as error:  # each file system has errors of its own
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        wrong = NotFetched(f"{url} cannot be fetched ({reason})")
    if not _is_http(url) and fsspec.get_filesystem_class(_scheme(url)).async_impl:
        # Such a file system refers to itself, and closes its connections only when it is collected:
        # in a fork, that would take them from its parent.
        gc.collect()
    if wrong is not None:
        raise wrong
    file.truncate()
    return sha256.hexdigest()


def _scheme(url: str) -> str:
    return url.partition("://")[0].lower()


def _is_http(url: str) -> bool:
    return _scheme(url) in ("http", "https")


@contextmanager
def opened(place: str) -> Generator[IO[bytes]]:
    """A file to be read once, from its beginning: a path, or a URL that is not kept."""
    if _is_http(place):
        with _ask(place) as response:
            yield response
    elif is_url(place):
        system, path = fsspec.core.url_to_fs(place, skip_instance_cache=True)
        with system.open(path, "rb") as file:
            yield file
    else:
        with open(place, "rb") as file:
            yield file


def _ask(url: str) -> Any:
    """Ask by Python's own client: fsspec's keeps connections in a thread, which a fork would
    share."""
    request = urllib.request.Request(url, headers={"User-Agent": "daas-dist"})
    secret = _from_netrc(request.host.partition(":")[0])
    if secret is not None and request.type == "https":
        # Not to whom the server may send us on.
        request.add_unredirected_header("Authorization", f"Basic {secret}")
    return urllib.request.urlopen(request, timeout=SILENT)


def _from_netrc(host: str) -> str | None:
    """Name and password of a host, as the header has them, from ~/.netrc or the file NETRC."""
    try:
        found = netrc.netrc(os.environ.get("NETRC")).authenticators(host)
    except FileNotFoundError:
        return None
    except (OSError, netrc.NetrcParseError) as error:
        raise NotFetched(f"~/.netrc cannot be read ({type(error).__name__})") from error
    if found is None:
        return None
    return base64.b64encode(f"{found[0]}:{found[2] or ''}".encode()).decode()


def _over_http(url: str) -> Iterator[bytes]:
    try:
        with _ask(url) as response:
            while piece := response.read(PIECE):
                yield piece
            if response.length:  # what is still to come
                raise ConnectionError(f"ended {response.length} bytes too early")
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 404:
            raise FileNotFoundError(url) from None
        raise


def _by_fsspec(url: str) -> Iterator[bytes]:
    with opened(url) as file:
        while piece := file.read(PIECE):
            yield piece
