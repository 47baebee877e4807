"""`daas shards build | index | verify | list`."""

import argparse
import os
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from daas_dist.config.overrides import to_path
from daas_dist.data import fashion_mnist, layout, open_shards
from daas_dist.data.layout import Keys
from daas_dist.data.manifest import MANIFEST, Manifest
from daas_dist.data.sharding import build, sources, verify
from daas_dist.data.sharding.sources import Source
from daas_dist.documents.escaping import told, visible
from daas_dist.runs.progress import shown

WRONG = 1


def main(words: Sequence[str]) -> int:
    """Exit status: 0, WRONG if verify found something. ValueError and OSError are the caller's."""
    given = _parser().parse_args(words)
    return given.task(given)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="daas shards", description=__doc__)
    tasks = parser.add_subparsers(required=True, metavar="build | index | verify | list")

    make = tasks.add_parser("build", help="shards from a folder, the ILSVRC2012 archives, …")
    make.set_defaults(task=_build)
    make.add_argument(
        "out", type=to_path, help="gets train/ and val/; a rerun finishes what is there"
    )
    source = make.add_mutually_exclusive_group(required=True)
    source.add_argument("--folder", type=to_path, help="of pictures, one sub-folder a class")
    source.add_argument("--ilsvrc2012", type=to_path, help="the folder of ImageNet's archives")
    source.add_argument(
        "--fashion-mnist", action="store_true", help="Debian's dataset-fashion-mnist"
    )
    make.add_argument("--val-folder", type=to_path, help="of test pictures, beside --folder")
    for name, value, text in (
        ("--seed", 0, "of the order of the samples (0)"),
        ("--per-shard", build.PER_SHARD, f"pictures a shard ({build.PER_SHARD})"),
        ("--resize", None, "the shorter side of larger pictures, as JPEG; else bytes stay"),
        ("--max-bad-files", 0, "files that are no pictures and may be left out, each named"),
    ):
        make.add_argument(name, type=int, default=value, metavar="N", help=text)
    make.add_argument(
        "--unchecked", action="store_true", help="take archives whose md5 is not the published one"
    )
    make.add_argument("--workers", type=int, default=os.cpu_count() or 1, metavar="N")

    index = tasks.add_parser("index", help="manifest and index for shards that others wrote")
    index.set_defaults(task=_index)
    index.add_argument("folder", type=to_path, help="of *.tar, of pictures and .cls numbers")
    index.add_argument("--classes", type=to_path, help="a file of class names, one a line")
    index.add_argument("--workers", type=int, default=os.cpu_count() or 1, metavar="N")

    check = tasks.add_parser("verify", help="whether shards are what their manifest says")
    check.set_defaults(task=_verify)
    check.add_argument("folder", type=to_path)
    how = check.add_mutually_exclusive_group()
    how.add_argument("--quick", action="store_true", help="manifest, index and sizes (default)")
    how.add_argument("--full", action="store_true", help="every byte")
    check.add_argument("--decode", type=int, default=0, metavar="N", help="and N of the pictures")
    check.add_argument("--workers", type=int, default=os.cpu_count() or 1, metavar="N")

    show = tasks.add_parser("list", help="what a folder of shards, or a view of it, holds")
    show.set_defaults(task=_list)
    show.add_argument("folder", type=to_path)
    show.add_argument("--classes", default="all", help="as data.classes")
    show.add_argument("--images-per-class", type=int, metavar="N", help="as data.images_per_class")
    show.add_argument("--seed", type=int, default=0, help="as seed")
    return parser


def _build(given: argparse.Namespace) -> int:
    if given.val_folder is not None and given.folder is None:
        raise ValueError("--val-folder goes with --folder")
    parts: dict[str, Callable[[], Source]] = {}
    if given.folder is not None:
        train, val, said = layout.parts(given.folder, given.val_folder)
        if said:
            _tell(said)
        parts["train"] = lambda: _from_folder(train, sources.TRAIN_KEYS)
        if val is not None:
            parts["val"] = lambda: _from_folder(val, sources.TEST_KEYS)
    elif given.ilsvrc2012 is not None:
        for part in ("train", "val"):
            parts[part] = lambda part=part: sources.ilsvrc2012(
                given.ilsvrc2012, part, check=not given.unchecked, tell=_tell
            )
    else:
        for part in ("train", "val"):
            parts[part] = lambda part=part: sources.from_images(
                fashion_mnist(None, part == "train"), "Fashion-MNIST"
            )
    for part, source in parts.items():
        recipe = build.Recipe(part, given.seed, given.per_shard, given.resize, given.max_bad_files)
        listed = source()
        with _progress(f"{given.out / part}") as report:
            manifest = build.build(
                listed, given.out / part, recipe, workers=given.workers, report=report
            )
        _tell_made(given.out / part, manifest)
        for remark in listed.remarks:
            print(told(remark))
    return 0


def _from_folder(folder: Path, keys: Keys) -> Source:
    with shown() as report:
        return sources.from_folder(
            folder, keys, lambda count: report(f"listing {folder}", count, None)
        )


def _tell(text: str) -> None:
    print(told(text), file=sys.stderr, flush=True)


def _tell_made(where: Path, manifest: Manifest) -> None:
    size = sum(shard.bytes for shard in manifest.shards)
    print(
        f"{visible(where)}: {manifest.samples} pictures of {len(manifest.class_ids)} classes in "
        f"{len(manifest.shards)} shards, {size / 1e9:.2f} GB"
    )
    for name, why in manifest.made.get("left_out", {}).items():
        print(told(f"left out: {name}: {why}"))


@contextmanager
def _progress(what: str) -> Generator[build.Report]:
    """Show progress on stderr."""
    with shown() as report:
        yield lambda done, total: report(what, done, total)


def _index(given: argparse.Namespace) -> int:
    ids = None
    if given.classes is not None:
        ids = [line for line in given.classes.read_text("utf-8").splitlines() if line.strip()]
        if ids != sorted(set(ids)):
            raise ValueError(f"{given.classes}: expected sorted classes, none of them twice")
    total = len(list(given.folder.glob("*.tar")))
    with _progress(f"{given.folder}") as report:
        manifest = verify.index(
            given.folder, class_ids=ids, workers=given.workers, done=_counted(report, total)
        )
    _tell_made(given.folder, manifest)
    return 0


def _counted(report: build.Report, total: int) -> Callable[[str], None]:
    names: list[str] = []

    def done(name: str) -> None:
        names.append(name)
        report(len(names), total)

    return done


def _verify(given: argparse.Namespace) -> int:
    wrong: list[str] = []
    folders = _parts(given.folder)
    for folder in folders:
        with _progress(f"{folder}") as report:
            done = _counted(report, len(list(folder.glob("*.tar"))))
            wrong += verify.verify(
                folder, full=given.full, decode=given.decode, workers=given.workers, done=done
            )
    for sentence in wrong:
        print(told(sentence))
    how = "every byte" if given.full else "sizes, not bytes"
    decoded = f", {given.decode} pictures decoded" if given.decode else ""
    count = "1 fault" if len(wrong) == 1 else f"{len(wrong)} faults"
    print(f"{count if wrong else 'well'} ({how}{decoded})")
    return WRONG if wrong else 0


def _parts(folder: Path) -> list[Path]:
    """The folder itself, or train and val in it."""
    inside = [folder / part for part in ("train", "val") if (folder / part).is_dir()]
    return inside if inside and not (folder / MANIFEST).exists() else [folder]


def _list(given: argparse.Namespace) -> int:
    for folder in _parts(given.folder):
        view = open_shards(folder, classes=given.classes, size=1, channels=3)
        if given.images_per_class is not None:
            view = view.limit_classes(given.images_per_class, given.seed)
        manifest = view.folder.manifest
        count_C = torch.bincount(view.labels, minlength=len(view.classes))
        print(
            f"{visible(folder)}: {len(view)} of {manifest.samples} pictures, "
            f"{len(view.classes)} of {len(manifest.class_ids)} classes, "
            f"in {len(view.file_N().unique())} of {len(manifest.shards)} shards; "
            f"order of seed {manifest.seed}, "
            + ("bytes as they were" if manifest.resize is None else f"resized to {manifest.resize}")
            + f"; sha256 {manifest.digest[:12]}…"
        )
        table = Table("class", "pictures")
        for name, count in zip(view.classes, count_C.tolist(), strict=True):
            table.add_row(Text(visible(name)), str(count))
        Console().print(table)
    return 0
