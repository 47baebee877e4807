"""Shards behind a URL: the bytes of those beside you, fetched once, whatever comes between."""

import fcntl
import io
import multiprocessing
import os
import random
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import suppress
from pathlib import Path

import make_imagenet
import pytest
import torch
from loading import load_images
from shard_server import Answer, Server, flipped, held_up, longer, serve, shorter, status, torn
from spoil import put
from whole_runs import needs_fashion_mnist

from daas_dist.config import Config, ConfigError
from daas_dist.config import compose as door
from daas_dist.data import Cache, open_shards, remote
from daas_dist.data.cache import FOLDER as ANYBODY_S
from daas_dist.data.dataset import DataSet, open_feed
from daas_dist.data.manifest import MANIFEST, DataError, Manifest, parse
from daas_dist.data.remote import NotFetched
from daas_dist.data.sharding import build, sources
from daas_dist.data.shards import Reading, ShardFolder, Shards
from daas_dist.rng import WHOLE

pytestmark = needs_fashion_mnist
CLASSES, TRAIN, VAL = 6, 12, 3
FOLDER = f"{ANYBODY_S}-{os.geteuid()}"
GB = 10**9
FORK = multiprocessing.get_context("fork")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train/, of eight shards, and val/."""
    out = tmp_path_factory.mktemp("imagenet")
    small = make_imagenet.make(out / "pictures", CLASSES, TRAIN, VAL, side=0.2)
    for part, pictures in (("train", small.train), ("val", small.val)):
        recipe = build.Recipe(part, per_shard=9)
        build.build(sources.from_folder(pictures), out / "shards" / part, recipe)
    return out / "shards"


@pytest.fixture
def server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Server]:
    monkeypatch.setattr(remote, "WAITS", (0.01, 0.02, 0.03))
    with serve(folder) as server:
        yield server


@pytest.fixture
def cache(server: Server, tmp_path: Path) -> Cache:
    return Cache(f"{server.url}/train", tmp_path / "cache", GB)


def manifest(folder: Path) -> Manifest:
    return parse((folder / MANIFEST).read_text(), "")


def names(folder: Path) -> list[str]:
    return [shard.name for shard in manifest(folder / "train").shards]


def stored(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "cache" / FOLDER).glob("*/*.tar"))


def parts(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "cache" / FOLDER).glob("*/.*.part"))


def in_forks(count: int, target: Callable[[int], None]) -> None:
    """In so many processes at once, each of which must end well."""
    processes = [FORK.Process(target=target, args=(i,)) for i in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
        assert process.exitcode == 0


# --- What comes ----------------------------------------------------------------------------------


MEASURED = "data.mean=[0.5,0.5,0.5]", "data.std=[0.2,0.2,0.2]"
"""So that no picture is read before the first batch."""


def config(root: str, *more: str) -> Config:
    given = [
        "stage=search_imagenet", f"data.root={root}", "data.classes=all", "data.size=24",
        "data.test_resize=28", "data.mean=null", "data.std=null", "search.batch_size=8", *more,
    ]  # fmt: skip
    return door.load(given)


def batches(config: Config, data: DataSet, steps: int = 12) -> list[torch.Tensor]:
    """As a search reads them: two splits, in an order each."""
    assert isinstance(data.train, Shards)
    train, val = data.train.split(0.5, config.seed)
    feed = open_feed(
        config.data,
        {"weights": train, "policy": val},
        batch_size=config.search.batch_size,
        seed=config.seed,
        epochs=4,
        part=WHOLE,
        device=torch.device("cpu"),
    )
    read = (found for step in range(steps) for found in feed.batch(step).values())
    return [each.clone() for found in read for each in found]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_search_reads_the_same_batches_from_a_url(
    folder: Path, server: Server, tmp_path: Path, workers: int
) -> None:
    here = config(str(folder), "data.workers=0")
    there = config(server.url, f"data.workers={workers}", f"data.cache={tmp_path / 'cache'}")
    ours, theirs = load_images(there), load_images(here)
    assert ours.train.digest() == theirs.train.digest() and ours.warnings == ()
    assert ours.test.digest() == theirs.test.digest()
    assert (ours.mean, ours.std) == (theirs.mean, theirs.std)
    for a, b in zip(batches(there, ours), batches(here, theirs), strict=True):
        assert torch.equal(a, b)
    assert set(server.asked.values()) == {1}
    assert len(stored(tmp_path)) == 8  # val's is read when the network is tested


def test_a_file_url_and_other_settings_read_the_same(folder: Path, tmp_path: Path) -> None:
    given = ["data.workers=1", "data.shuffle_window=2", "data.images_per_class=8"]
    here = config(str(folder), *given)
    there = config(f"file://{folder}/", *given, f"data.cache={tmp_path / 'cache'}")
    for a, b in zip(
        batches(there, load_images(there)), batches(here, load_images(here)), strict=True
    ):
        assert torch.equal(a, b)


def test_the_shards_of_one_part_are_split(folder: Path, server: Server, tmp_path: Path) -> None:
    there = config(f"{server.url}/train", f"data.cache={tmp_path / 'cache'}")
    ours, theirs = load_images(there), load_images(config(str(folder / "train")))
    assert ours.test.digest() == theirs.test.digest()
    beside = config(
        f"{server.url}/train", f"data.val_root={server.url}/val", f"data.cache={tmp_path}"
    )
    assert load_images(beside).test.digest() == load_images(config(str(folder))).test.digest()


def test_test_images_that_cannot_be_had_now_are_not_taken_for_absent(
    server: Server, tmp_path: Path
) -> None:
    there = config(server.url, f"data.cache={tmp_path / 'cache'}")
    Cache(f"{server.url}/train", tmp_path / "cache", GB)
    server.faults[MANIFEST].extend([status(503)] * 8)  # train's is in the cache
    with pytest.raises(NotFetched, match="val/manifest.json cannot be fetched .*503"):
        load_images(there)


def test_an_error_names_the_picture(cache: Cache) -> None:
    shards = ShardFolder(cache.root, cache.fetch)
    path = cache.fetch("shard-000000.tar")
    data = bytearray(path.read_bytes())
    data[int(shards.rows[3]["offset"]) + 40] ^= 1  # the size is right: it was whole when it came
    path.write_bytes(data)
    shards.read(2, Reading())
    with pytest.raises(DataError, match=r"shard-000000.tar: sample 3 \(n\d+/.*changed since"):
        shards.read(3, Reading())


# --- Many processes ------------------------------------------------------------------------------


def test_of_many_processes_one_fetches_and_the_others_wait(
    cache: Cache, server: Server, folder: Path
) -> None:
    server.faults["shard-000000.tar"].append(held_up)
    before = (folder / "train" / "shard-000000.tar").read_bytes()

    def read(_: int) -> None:
        assert cache.fetch("shard-000000.tar").read_bytes() == before
        own = Cache(cache.url, cache.root.parents[1], GB)
        for name in random.sample(names(folder), 8):
            assert own.fetch(name).read_bytes() == (folder / "train" / name).read_bytes()

    processes = [FORK.Process(target=read, args=(i,)) for i in range(4)]
    for process in processes:
        process.start()
    assert server.half_sent.wait(20)
    assert not cache.root.joinpath("shard-000000.tar").exists()
    server.go_on.set()
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    assert {name: server.asked[f"train/{name}"] for name in names(folder)} == dict.fromkeys(
        names(folder), 1
    )
    assert server.asked["train/index.bin"] == server.asked["train/names.txt"] == 1


def test_processes_that_start_at_once_read_the_index_once(server: Server, tmp_path: Path) -> None:
    server.faults["index.bin"].append(held_up)

    def start(_: int) -> None:
        assert (Cache(f"{server.url}/train", tmp_path / "cache", GB).root / "names.txt").exists()

    processes = [FORK.Process(target=start, args=(i,)) for i in range(3)]
    for process in processes:
        process.start()
    assert server.half_sent.wait(20)
    while server.asked["train/manifest.json"] < 3:
        time.sleep(0.01)
    time.sleep(0.1)  # so that the others reach the index, which they must not ask for
    server.go_on.set()
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    assert server.asked["train/index.bin"] == server.asked["train/names.txt"] == 1


def test_a_kill_in_the_middle_leaves_nothing_that_is_taken_for_a_shard(
    cache: Cache, server: Server, folder: Path, tmp_path: Path
) -> None:
    server.faults["shard-000001.tar"].append(held_up)
    process = FORK.Process(target=cache.fetch, args=("shard-000001.tar",))
    process.start()
    assert server.half_sent.wait(20)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert [path.name for path in parts(tmp_path)] == [".shard-000001.tar.part"]
    assert stored(tmp_path) == []
    cache.fetch("shard-000000.tar")  # any download removes what nobody is at
    assert parts(tmp_path) == []
    expected = (folder / "train" / "shard-000001.tar").read_bytes()
    assert cache.fetch("shard-000001.tar").read_bytes() == expected
    assert server.asked["train/shard-000001.tar"] == 2


@pytest.mark.parametrize("room", [1, 3])
def test_the_bound_holds_at_every_moment_and_every_byte_is_right(
    server: Server, folder: Path, tmp_path: Path, room: int
) -> None:
    """Three processes at random shards; with room for one shard they take turns."""
    sizes = {shard.name: shard.bytes for shard in manifest(folder / "train").shards}
    most = room * max(sizes.values())
    shards = open_shards(folder / "train", size=8, channels=3)
    cache = Cache(f"{server.url}/train", tmp_path / "cache", most)
    other = tmp_path / "cache" / "mine.tar"
    other.write_bytes(bytes(2 * most))

    def read(number: int) -> None:
        draw, reading = random.Random(number), Reading()
        own = ShardFolder(cache.root, cache.fetch)
        for _ in range(25):
            row = draw.randrange(len(own.rows))
            assert own.read(row, reading) == shards.folder.read(row, Reading())

    largest, done = 0, threading.Event()

    def watch() -> None:
        nonlocal largest
        while not done.is_set():
            with (tmp_path / "cache" / FOLDER / ".lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                found = 0
                for pattern in ("*.tar", ".*.part"):  # in this order none is counted twice
                    for path in cache.root.glob(pattern):
                        with suppress(FileNotFoundError):
                            found += path.stat().st_size
                largest = max(largest, found)
                fcntl.flock(lock, fcntl.LOCK_UN)
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    in_forks(3, read)
    done.set()
    watcher.join()
    assert most / 2 < largest <= most
    assert other.exists() and parts(tmp_path) == []


def test_the_least_recently_opened_goes_first_and_stays_readable(
    server: Server, folder: Path, tmp_path: Path
) -> None:
    shards = manifest(folder / "train").shards
    most = sum(shard.bytes for shard in shards[:3]) + 20_000
    assert all(20_000 < shard.bytes < most for shard in shards)
    cache = Cache(f"{server.url}/train", tmp_path / "cache", most)
    own, reading = ShardFolder(cache.root, cache.fetch), Reading()
    one = own.read(int(own.first[1]), reading)
    for number in (0, 2, 1, 0):
        cache.fetch(shards[number].name)
        time.sleep(0.01)
    cache.fetch(shards[3].name)
    assert shards[2].name not in stored(tmp_path)
    assert {shards[0].name, shards[3].name} <= set(stored(tmp_path))
    for number in (4, 5, 6):
        cache.fetch(shards[number].name)
    assert shards[1].name not in stored(tmp_path)
    asked = server.asked.copy()
    assert own.read(int(own.first[1]), reading) == one and server.asked == asked
    own.read(int(own.first[6]), reading)  # opening another closes what is evicted
    assert list(reading.open) == [6]


# --- What may go wrong ---------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [status(404), status(503), torn, shorter, longer, flipped])
def test_what_goes_wrong_once_is_tried_again(
    cache: Cache, server: Server, folder: Path, fault: Answer
) -> None:
    server.faults["shard-000002.tar"].append(fault)
    expected = (folder / "train" / "shard-000002.tar").read_bytes()
    assert cache.fetch("shard-000002.tar").read_bytes() == expected
    assert server.asked["train/shard-000002.tar"] == 2


@pytest.mark.parametrize(
    ("fault", "asked", "said"),
    [
        (status(404), 4, "is not there"),
        (status(503), 4, r"cannot be fetched \(HTTPError: HTTP Error 503"),
        (torn, 4, r"cannot be fetched \(ConnectionError: ended \d+ bytes too early\)"),
        (flipped, 2, "has the sha256 [0-9a-f]{64}, manifest.json expects "),
        (shorter, 2, "has the sha256 [0-9a-f]{64}, manifest.json expects "),
        (longer, 2, "has the sha256 [0-9a-f]{64}, manifest.json expects "),
    ],
)
def test_what_stays_wrong_is_named_with_its_url(
    cache: Cache, server: Server, folder: Path, tmp_path: Path, fault: Answer, asked: int, said: str
) -> None:
    server.always = fault
    with pytest.raises(DataError, match=said) as caught:
        cache.fetch("shard-000002.tar")
    assert f"{server.url}/train/shard-000002.tar" in str(caught.value)
    assert "expects" not in said or manifest(folder / "train").shards[2].sha256 in str(caught.value)
    assert server.asked["train/shard-000002.tar"] == asked
    assert stored(tmp_path) == [] and parts(tmp_path) == []


def test_no_more_is_kept_of_a_file_than_was_asked_for(server: Server, folder: Path) -> None:
    """However much a server sends."""
    server.always = longer
    size, file = (folder / "train" / "shard-000000.tar").stat().st_size, io.BytesIO()
    remote.copy(f"{server.url}/train/shard-000000.tar", file, size)
    assert len(file.getvalue()) <= size


def test_a_server_that_falls_silent_is_taken_for_dead(
    cache: Cache, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "SILENT", 0.1)
    server.always = held_up
    with pytest.raises(NotFetched, match="shard-000000.tar cannot be fetched .TimeoutError"):
        cache.fetch("shard-000000.tar")


def test_a_failing_network_is_no_bad_sample(cache: Cache, server: Server) -> None:
    """Otherwise another image would take its place on this rank alone."""
    shards = open_shards(cache.root, size=8, channels=3, max_bad=50, locate=cache.fetch)
    server.always = status(503)
    with pytest.raises(NotFetched, match="503"):
        shards.central(torch.arange(3))
    assert shards.reading.bad == {}
    server.always = None
    shards.central(torch.arange(3))


def test_a_full_disk_is_named(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NotFetched, match="shard-000000.tar cannot be kept in .*No space left"):
        cache.fetch("shard-000000.tar")
    assert stored(tmp_path) == [] and parts(tmp_path) == []


def test_what_is_in_the_cache_is_read_when_the_server_is_gone(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(remote, "WAITS", (0.01,))
    with serve(folder) as server:
        there = config(server.url, "data.workers=2", f"data.cache={tmp_path / 'cache'}")
        expected = batches(there, load_images(there))
    assert capsys.readouterr().err == ""
    for a, b in zip(batches(there, load_images(there)), expected, strict=True):
        assert torch.equal(a, b)
    said = capsys.readouterr().err
    assert f"{server.url}/train/manifest.json cannot be fetched" in said and "going on with" in said
    first = next((tmp_path / "cache" / FOLDER).glob("*/shard-000000.tar"))
    first.unlink()
    data = load_images(config(server.url, f"data.cache={tmp_path / 'cache'}", *MEASURED))
    with pytest.raises(NotFetched, match=f"{server.url}/train/shard-000000.tar cannot be fetched"):
        batches(there, data)  # by a worker
    with pytest.raises(NotFetched, match="train/manifest.json .*; .*/manifest.json cannot"):
        load_images(config(server.url, f"data.cache={tmp_path / 'empty'}"))


def test_nothing_is_believed_that_another_user_may_have_planted(
    cache: Cache, tmp_path: Path, folder: Path
) -> None:
    """Of the right name and size, in a folder that a server which is away cannot contradict."""
    [name, other] = names(folder)[:2]
    planted = [cache.fetch(name), cache.fetch(other)]
    true = [path.read_bytes() for path in planted]
    for path in planted:
        path.write_bytes(bytes(path.stat().st_size))
    if os.geteuid() == 0:
        os.chown(planted[0], 4711, -1)
    else:
        planted[0].chmod(0o602)
    planted[1].chmod(0o620)
    assert [cache.fetch(each).read_bytes() for each in (name, other)] == true
    assert planted[0].stat().st_mode & 0o777 == 0o600
    mine = tmp_path / "cache" / FOLDER
    assert mine.stat().st_mode & 0o777 == 0o700
    for mode in (0o720, 0o702, 0o777):
        mine.chmod(mode)
        with pytest.raises(NotFetched, match=f"{mine} .* set data.cache"):
            cache.fetch(name)
        with pytest.raises(NotFetched, match=f"{mine} .* set data.cache"):
            Cache(cache.url, tmp_path / "cache", GB)
    mine.chmod(0o755)
    assert cache.fetch(name).read_bytes() == true[0]
    mine.rename(tmp_path / "planted")
    mine.symlink_to(tmp_path / "planted")
    with pytest.raises(NotFetched, match=f"{mine} .* set data.cache"):
        Cache(cache.url, tmp_path / "cache", GB)


def test_other_shards_under_the_same_url_do_not_mix(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "train", tmp_path / "served")
    cache = Cache(f"file://{tmp_path}/served", tmp_path / "cache", GB)
    before = {name: cache.fetch(name).read_bytes() for name in names(folder)}
    shutil.rmtree(tmp_path / "served")
    source = sources.from_folder(folder.parent / "pictures" / "train")
    build.build(source, tmp_path / "served", build.Recipe("train", seed=1, per_shard=9))
    again = Cache(cache.url, tmp_path / "cache", GB)
    for name in names(folder):
        now = again.fetch(name).read_bytes()
        assert now == (tmp_path / "served" / name).read_bytes() != before[name]
        assert cache.fetch(name).read_bytes() == before[name]  # of a run that began before


def test_a_file_of_another_size_is_fetched_again(cache: Cache, server: Server) -> None:
    path = cache.fetch("shard-000000.tar")
    data = path.read_bytes()
    path.write_bytes(data[:-512])
    assert cache.fetch("shard-000000.tar").read_bytes() == data
    assert server.asked["train/shard-000000.tar"] == 2


def test_a_shard_larger_than_the_cache_names_the_setting(server: Server, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"shard-000000.tar has .* GB, more than data.cache_gb=1e-05"
    ):
        Cache(f"{server.url}/train", tmp_path / "cache", 10_000)


@pytest.mark.parametrize("name", ["index.bin", ".shard.tar"])
def test_a_shard_is_not_called_like_the_caches_own_files(
    folder: Path, tmp_path: Path, name: str
) -> None:
    shutil.copytree(folder / "train", tmp_path / "served")
    put("shards", 0, "name", value=name)(tmp_path / "served")
    with pytest.raises(DataError, match=f"name is '{name}', expected a plain file name"):
        Cache(f"file://{tmp_path}/served", tmp_path / "cache", GB)


@pytest.mark.parametrize(("damaged", "said"), [("index.bin", "sha256"), (MANIFEST, "is no JSON")])
def test_a_damaged_list_is_not_kept(
    server: Server, tmp_path: Path, damaged: str, said: str
) -> None:
    server.faults[damaged].extend([shorter, shorter])
    with pytest.raises(DataError, match=f"{server.url}/train/{damaged}.*{said}"):
        Cache(f"{server.url}/train", tmp_path / "cache", GB)
    server.faults.clear()
    cache = Cache(f"{server.url}/train", tmp_path / "cache", GB)
    assert len(ShardFolder(cache.root, cache.fetch).rows) == CLASSES * TRAIN


@pytest.mark.parametrize(("scheme", "package"), [("s3", "s3fs"), ("gs", "gcsfs")])
def test_what_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        DataError, match=f"{scheme}://bucket/path cannot be .*pip install {package}"
    ):
        Cache(f"{scheme}://bucket/path", tmp_path, GB)


def test_an_unknown_scheme_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="fsspec knows no nothing://"):
        Cache("nothing://bucket/path", tmp_path, GB)


# --- A cache that is small -----------------------------------------------------------------------


def test_a_cache_that_thrashes_is_told(server: Server, tmp_path: Path) -> None:
    """The training images have some 0.4 MB, each of the eight shards some 0.05."""
    small = [f"data.cache={tmp_path / 'cache'}", "data.cache_gb=0.0003"]
    (said,) = load_images(config(server.url, *small)).warnings
    assert "data.cache_gb=0.0003 holds less" in said and "set data.shuffle_window" in said
    (said,) = load_images(config(server.url, *small, "data.shuffle_window=2")).warnings
    assert "every epoch downloads shards again" in said
    with pytest.raises(
        ConfigError, match="data.cache_gb=0.0003 is not .* lower data.shuffle_window"
    ):
        load_images(config(server.url, *small, "data.shuffle_window=4"))


def test_a_window_downloads_each_shard_about_once_an_epoch(
    folder: Path, server: Server, tmp_path: Path
) -> None:
    there = config(
        f"{server.url}/train", f"data.cache={tmp_path / 'cache'}", "data.cache_gb=0.00025",
        "data.shuffle_window=1", "data.workers=2",
    )  # fmt: skip
    data = load_images(there)
    server.asked.clear()
    here = config(str(folder / "train"), "data.shuffle_window=1")
    expected = batches(here, load_images(here), 9)
    for a, b in zip(batches(there, data, 9), expected, strict=True):
        assert torch.equal(a, b)
    assert isinstance(data.train, Shards)
    shards = [count for name, count in server.asked.items() if name.endswith(".tar")]
    assert sum(shards) < 60
