"""What a folder of shards holds: manifest.json, index.bin and names.txt beside its tar files.

A shard is a plain tar as webdataset reads it, two members a sample: 00000042.jpg, the picture's own
bytes, and 00000042.cls, its class as a number. The manifest names the classes and gives each
shard's size, sha256 and classes; the index says where each picture lies; the names say what it was
called before, for errors. Nothing here runs what it reads: JSON, numbers and text.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from daas_dist.data.formats import FULL, bits_for
from daas_dist.runs.log import write_bytes, write_text

FORMAT = 1
MANIFEST, INDEX, NAMES = "manifest.json", "index.bin", "names.txt"

ROW = np.dtype([("offset", "<u8"), ("size", "<u4"), ("label", "<u4"), ("crc", "<u4")])
"""A picture: where its bytes begin in its shard, how many they are, its class, their crc32.
index.bin is these rows, shard after shard, and nothing else."""

LARGEST_PICTURE = 1 << 28
"""Bytes. ImageNet's largest is 15 MB."""


DEEPEST = "greatest number of more than 8 bits"
"""In `made`: of the pictures."""

LONGEST_NAME = 255
"""Bytes of a file's name, which systems allow."""


class DataError(ValueError):
    """Shards or pictures that are not as they should be: which, and what to do."""


@dataclass(frozen=True)
class Shard:
    """One tar file."""

    name: str
    bytes: int
    sha256: str
    samples: int
    histogram: dict[str, int]
    """How many of each class, by its number."""


@dataclass(frozen=True)
class Manifest:
    """manifest.json of a folder of shards."""

    part: str
    """train or val."""
    class_ids: tuple[str, ...]
    """What the source calls its classes, sorted: folder names, WordNet ids."""
    class_names: tuple[str, ...]
    """What people call them; the ids where the source has no names."""
    seed: int
    """Of the order in which the samples were written."""
    resize: int | None
    """The shorter side to which the pictures were brought; None left their bytes as they were."""
    shards: tuple[Shard, ...]
    index_sha256: str
    names_sha256: str
    made: dict[str, Any]
    """By what and from what: versions, the source and its checksums."""

    @property
    def samples(self) -> int:
        return sum(shard.samples for shard in self.shards)

    @property
    def deepest(self) -> int | None:
        """The greatest number of all pictures of more than 8 bits; 0 where there are none such,
        None where whoever made the shards did not look."""
        found = self.made.get(DEEPEST)
        return found if type(found) is int else None

    @property
    def bits(self) -> int | None:
        """Return how many bits such pictures use."""
        return bits_for(self.deepest) if self.deepest else None

    @property
    def digest(self) -> str:
        """sha256 (hex) of what the shards hold, whatever made them: what a run was trained on."""
        shards = [[shard.sha256, shard.samples] for shard in self.shards]
        held = [FORMAT, list(self.class_ids), shards, self.index_sha256]
        return hashlib.sha256(json.dumps(held).encode()).hexdigest()

    def to_json(self) -> str:
        fields = {"format": FORMAT, **asdict(self)}
        return json.dumps({**fields, "sha256": _own_sha256(fields)}, indent=1) + "\n"


def read_manifest(root: Path) -> Manifest:
    """The manifest of a folder of shards. FileNotFoundError or DataError says what is wrong."""
    path = root / MANIFEST
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError:
        raise FileNotFoundError(
            f"no {path}; make shards by `daas shards build`, or an index of shards that are there "
            "by `daas shards index`"
        ) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); get it again") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no text ({error}); get it again") from None
    return parse(text, str(path))


def _own_sha256(fields: dict[str, Any]) -> str:
    """Return the digest of what a manifest.json says but for this, however it is laid out."""
    said = {key: value for key, value in fields.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def parse(text: str, where: str) -> Manifest:
    """The manifest of a manifest.json, each field checked. DataError says which is wrong."""
    try:
        return _checked(json.loads(text), where)
    except DataError:
        raise
    except ValueError as error:
        raise DataError(f"{where}: is no JSON ({error}); {_AGAIN}") from None
    except RecursionError:
        raise DataError(f"{where}: is no manifest (nested too deep); {_AGAIN}") from None


MOST = 1 << 62
"""More than any number in a manifest."""

_AGAIN = "get it again, or take it away and build or index the shards again"


def _checked(read: Any, where: str) -> Manifest:
    def wrong(what: str) -> DataError:
        return DataError(f"{where}: {what}; {_AGAIN}")

    def text_of(value: Any, key: str) -> str:
        # JSON can hold half of a pair of surrogates, which can neither be printed nor opened.
        if not isinstance(value, str) or any("\ud800" <= c <= "\udfff" for c in value):
            raise wrong(f"{key} is {value!a:.60}, expected text")
        return value

    def texts(value: Any, key: str) -> tuple[str, ...]:
        if not isinstance(value, list):
            raise wrong(f"{key} is no list")
        return tuple(text_of(each, key) for each in value)

    def natural(value: Any, key: str) -> int:
        if type(value) is not int or not 0 <= value < MOST:
            raise wrong(f"{key} is {value!a:.60}, expected a whole number of 0 or more")
        return value

    if not isinstance(read, dict):
        raise wrong("is no manifest")
    if read.get("format") != FORMAT:
        raise wrong(f"has the format {read.get('format')!a:.20}, this program reads {FORMAT}")
    lacking = [key for key in (*Manifest.__dataclass_fields__, "sha256") if key not in read]
    if lacking:
        raise wrong(f"has no {', '.join(lacking)}")
    if read["sha256"] != _own_sha256(read):
        raise wrong("has been changed since it was written, as its sha256 says")
    class_ids = texts(read["class_ids"], "class_ids")
    class_names = texts(read["class_names"], "class_names")
    if len(class_ids) < 1 or len(class_names) != len(class_ids):
        raise wrong(f"names {len(class_names)} of {len(class_ids)} classes")
    if list(class_ids) != sorted(set(class_ids)):
        raise wrong("class_ids are not sorted, or one is there twice")
    if not isinstance(read["shards"], list) or not read["shards"]:
        raise wrong("lists no shards")
    shards, labels = [], set(map(str, range(len(class_ids))))
    for number, each in enumerate(read["shards"]):
        key = f"shards[{number}]"
        if not isinstance(each, dict) or set(each) != set(Shard.__dataclass_fields__):
            raise wrong(f"{key} has not the fields {', '.join(Shard.__dataclass_fields__)}")
        histogram = each["histogram"]
        if not isinstance(histogram, dict):
            raise wrong(f"{key}.histogram is no table")
        counts = histogram.values()
        # ImageNet's have 700,000 entries in all: each is looked at only where one is wrong.
        if not (
            set(map(type, counts)) <= {int} and min(counts, default=0) >= 0 and sum(counts) < MOST
        ):
            for count in counts:
                natural(count, f"{key}.histogram")
        for label in histogram.keys() - labels:
            raise wrong(f"{key}.histogram has the class {label!a:.20} of {len(class_ids)}")
        shard = Shard(
            name=text_of(each["name"], f"{key}.name"),
            bytes=natural(each["bytes"], f"{key}.bytes"),
            sha256=text_of(each["sha256"], f"{key}.sha256"),
            samples=natural(each["samples"], f"{key}.samples"),
            histogram=histogram,
        )
        if not _is_plain(shard.name):
            raise wrong(f"{key}.name is {shard.name!a:.60}, expected a plain file name")
        if sum(histogram.values()) != shard.samples:
            raise wrong(f"{key}.histogram does not sum to its {shard.samples} samples")
        shards.append(shard)
    if len({shard.name for shard in shards}) != len(shards):
        raise wrong("names a shard twice")
    if read["resize"] is not None:
        natural(read["resize"], "resize")
    if not isinstance(read["made"], dict):
        raise wrong(f"made is {read['made']!a:.60}, expected a table")
    natural(read["made"].get(DEEPEST, 0), f"made[{DEEPEST!r}]")
    return Manifest(
        part=text_of(read["part"], "part"),
        class_ids=class_ids,
        class_names=class_names,
        seed=natural(read["seed"], "seed"),
        resize=read["resize"],
        shards=tuple(shards),
        index_sha256=text_of(read["index_sha256"], "index_sha256"),
        names_sha256=text_of(read["names_sha256"], "names_sha256"),
        made=read["made"],
    )


def _is_plain(name: str) -> bool:
    """Tell whether a name is that of a file here: no path, no hidden file, no pipe: or URL."""
    plain = name.isprintable() and name[:1] not in ("", ".") and not set(name) & set("/\\:|")
    return plain and len(name.encode()) <= LONGEST_NAME and name not in (MANIFEST, INDEX, NAMES)


def parse_index(data: bytes, manifest: Manifest, where: str) -> np.ndarray:
    """[N] of ROW, each inside its shard. DataError if it is not the manifest's index."""
    found = hashlib.sha256(data).hexdigest()
    if found != manifest.index_sha256:
        raise DataError(
            f"{where} has the sha256 {found[:12]}…, {MANIFEST} expects "
            f"{manifest.index_sha256[:12]}…; get both again, or take both away and build or index "
            "the shards again"
        )
    if len(data) != manifest.samples * ROW.itemsize:
        raise DataError(
            f"{where} has {len(data)} bytes, expected {ROW.itemsize} for each of "
            f"{manifest.samples} samples; {_AGAIN}"
        )
    rows = np.frombuffer(data, ROW)
    check_rows(rows, manifest.shards, len(manifest.class_ids), where)
    return rows


def check_rows(rows: np.ndarray, shards: Sequence[Shard], classes: int, where: str) -> None:
    """DataError if a row points outside its shard or the classes."""
    ends = np.repeat([s.bytes for s in shards], [s.samples for s in shards]).astype(np.uint64)
    size = rows["size"].astype(np.uint64)
    bad = (rows["label"] >= classes) | (size == 0) | (size > LARGEST_PICTURE)
    bad |= (size > ends) | (rows["offset"] > ends - np.minimum(size, ends))
    if bad.any():
        row = int(bad.argmax())
        counts = np.cumsum([shard.samples for shard in shards])
        shard = int(np.searchsorted(counts, row, side="right"))
        sample = row - int(counts[shard]) + shards[shard].samples
        offset, size, label, _ = rows[row].tolist()
        raise DataError(
            f"{where} has sample {sample} of {shards[shard].name} at byte {offset}, of {size} "
            f"bytes and class {label}; expected 1 to {LARGEST_PICTURE} of the shard's "
            f"{shards[shard].bytes} bytes, and one of {classes} classes; {_AGAIN}"
        )


def deepest(depths: Iterable[tuple[int, str]]) -> dict[str, int]:
    """Return what `made` says of the depth of all pictures, from (greatest number of more than 8
    bits, a picture of that with several such numbers a pixel or "") of some of them each.

    DataError if there is such a picture and the numbers do not use all its bits.
    """
    found = list(depths)
    greatest = max((each for each, _ in found), default=0)
    colours = [name for _, name in found if name]
    if colours and bits_for(greatest) != FULL:
        raise DataError(
            f"{colours[0]} has 16 bits a colour, of which the upper 8 are read, but no number of "
            f"more than 8 bits here is above {greatest}; save such pictures with 8 bits a colour"
        )
    return {DEEPEST: greatest}


def publish(root: Path, manifest: Manifest, rows: bytes, names: bytes) -> None:
    """Write index, names and, last, the manifest, which makes it a folder of shards. DataError,
    and nothing is written, if what the manifest would say could not be read again."""
    parse(manifest.to_json(), str(root))
    write_bytes(root / INDEX, rows)
    write_bytes(root / NAMES, names)
    write_text(root / MANIFEST, manifest.to_json())
