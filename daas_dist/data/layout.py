"""Whether a root is one level too high or too low: parts of a data set taken for classes, one
class's pictures taken for all, a folder around the classes.

Every error is one sentence: what was seen, what is expected, and which key with which path would be
right. A root that holds the training and the test pictures, and nothing else, is read as that.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from daas_dist.data.formats import is_picture_name
from daas_dist.data.leftovers import is_archive_name, why_left_out
from daas_dist.data.words import name_some, pictures
from daas_dist.documents.escaping import printable

EXPECTED = "one folder a class (ROOT/cat/1.jpg, ROOT/dog/2.jpg)"

TRAIN = re.compile(r"(train|training|trn)(val)?")
TEST = re.compile(r"test|testing|tst|val|valid|validate|validation|dev|eval|evaluation|holdout")
OTHER = re.compile(r"unlabell?ed|extra|predict|pred|inference|submission")
SUFFIX = r"[ _-]?(set|data|dataset|images?|imgs?|pictures?|split|part|folder)?[ _-]?\d*"
NUMBERED = re.compile(
    r"(k?folds?|cv|split|part|partition|portion|batch|chunk|shard|subset)([ _.-]?\d+|[ _.-][a-z])"
)
"""Names of parts of a data set, in small letters."""

PICTURES = re.compile(
    r"(images?|imgs?|pictures?|pics|photos?|jpegimages|jpe?gs?|png|data)[ _-]?\d*"
)
LABELS = re.compile(
    r"(labels?|annotations?|annot|anns?|masks?|segmentations?|segmentation(class|object)|gt|"
    r"ground_?truths?|imagesets|bboxes|boxes|attributes|trimaps|xmls?|json|csv|meta(data)?)"
    r"[ _-]?\d*"
)
"""Names of folders of pictures, and of what is said of them in files."""


@dataclass(frozen=True)
class Keys:
    """How a user names a root, and the root of the test pictures beside it; None where this is that
    one."""

    root: str
    test: str | None

    def set(self, path: Path) -> str:
        return f"{self.root}={printable(path)}"


DATA = Keys("data.root", "data.val_root")
DATA_TEST = Keys("data.val_root", None)


def parts(root: Path, test_root: Path | None, keys: Keys = DATA) -> tuple[Path, Path | None, str]:
    """Find the folders of training and of test pictures: returns them, and what was decided, if
    anything was.

    A root that holds two folders, called such as train and val, with the same classes in both, is
    read as these two, as a folder of shards is. Any other is returned as it was given.
    """
    if test_root is not None:
        return root, test_root, ""
    names = subfolders(root)
    trains = [name for name in names if _is(TRAIN, name)]
    tests = [name for name in names if _is(TEST, name)]
    if len(names) != 2 or len(trains) != 1 or len(tests) != 1 or _loose(root):
        return root, None, ""
    train, test = root / trains[0], root / tests[0]
    classes = subfolders(train)
    if len(classes) < 2 or classes != subfolders(test):
        return root, None, ""
    said = f"{printable(root)} holds {trains[0]} and {tests[0]}: the training and the test pictures"
    return train, test, said


def class_folders(root: Path, keys: Keys) -> list[str]:
    """List the names of the class folders, sorted. ValueError if the root is of another level."""
    _check_folder(root, keys)
    names = subfolders(root)
    if len(names) < 2:
        raise ValueError(_too_few(root, names, keys))
    wrong = _parts(root, names, keys) or _labels_apart(root, names, keys)
    if wrong:
        raise ValueError(wrong)
    return names


def subfolders(root: Path) -> list[str]:
    """Folders that may be classes, sorted; none where there is no folder or it cannot be listed."""
    return sorted(
        entry.name
        for entry in _entries(root)
        if why_left_out(entry.name, True) is None and _is_folder(entry)
    )


def same_inside(root: Path, names: list[str]) -> list[str]:
    """Folders that all of the class folders hold, where these are two or more."""
    inside = [set(subfolders(root / name)) for name in names]
    common = sorted(set.intersection(*inside)) if inside else []
    return common if len(common) > 1 else []


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """Return what a folder holds; nothing where it cannot be listed, which listing.py says."""
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Links followed. Asks the disk of links alone, as a class may hold a million files."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _loose(folder: Path) -> list[str]:
    """Pictures that lie in a folder itself, by their names."""
    return [
        entry.name
        for entry in _entries(folder)
        if is_picture_name(entry.name)
        and why_left_out(entry.name, False) is None
        and not _is_folder(entry)
    ]


def _is(kind: re.Pattern[str], name: str) -> bool:
    return re.fullmatch(f"({kind.pattern}){SUFFIX}", name.lower()) is not None


def _has_word(kind: re.Pattern[str], name: str) -> bool:
    """Tell whether a name has a part's word in it, as seg_train, train2017 or TrainingSet."""
    words = re.split(r"[^A-Za-z]+|(?<=[a-z])(?=[A-Z])", name)
    return any(kind.fullmatch(word.lower()) for word in words)


def _check_folder(root: Path, keys: Keys) -> None:
    """ValueError, or FileNotFoundError, if it is no folder or cannot be listed."""
    try:
        os.listdir(root)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"no folder {printable(root)}; set {keys.root} to a folder with {EXPECTED}"
        ) from None
    except NotADirectoryError:
        raise ValueError(
            f"{printable(root)} is a file, expected a folder with {EXPECTED}; unpack it if it is "
            f"an archive, and set {keys.root}"
        ) from None
    except OSError as error:
        raise ValueError(
            f"the folder {printable(root)} cannot be listed ({error.strerror}); make it readable, "
            f"or set {keys.root}"
        ) from None


# --- Too few folders -----------------------------------------------------------------------------


def _too_few(root: Path, names: list[str], keys: Keys) -> str:
    """Return what a root with no class folder, or one, seems to be."""
    loose, shown = _loose(root), printable(root)
    if names and not loose:
        return _wrapped(root, names[0], keys)
    if loose:
        said = f"{shown} holds {pictures(len(loose))} and {len(names)} class folders, expected "
        return f"{said}{EXPECTED}; {_one_class(root, keys)}"
    said = f"{shown} holds 0 class folders and no pictures, expected {EXPECTED}; "
    names = [entry.name for entry in _entries(root)]
    if any(name.endswith(".tar") or name == "manifest.json" for name in names):
        return f"{said}its tar files are read by data=shards, or set {keys.root}"
    if any(map(is_archive_name, names)):
        return f"{said}unpack its archives first, or set {keys.root}"
    return f"{said}set {keys.root}"


def _wrapped(root: Path, name: str, keys: Keys) -> str:
    """A folder around the classes, as archives make one when they are unpacked."""
    inner = root / name
    while len(subfolders(inner)) == 1 and not _loose(inner):
        inner /= subfolders(inner)[0]
    within = subfolders(inner)
    said = f"{printable(root)} holds 1 class folders ({printable(name)}), expected two or more: "
    said += EXPECTED
    if len(within) < 2:
        return f"{said}; add the other classes, or set {keys.root}"
    return f"{said}; if the classes are {_named(within)}, set {keys.set(inner)}"


def _one_class(root: Path, keys: Keys) -> str:
    """Return what to do with a root that seems to be the folder of one class."""
    parent = Path(os.path.abspath(root)).parent
    siblings = [name for name in subfolders(parent) if _loose(parent / name)]
    if len(siblings) > 1:
        which = f"the folder of one class beside others ({_named(siblings)})"
        return f"if it is {which}, set {keys.set(parent)}"
    return f"put the pictures of each class into a folder of its own, or set {keys.root}"


# --- Parts of a data set -------------------------------------------------------------------------


def _parts(root: Path, names: list[str], keys: Keys) -> str:
    """Return what is wrong if the folders are parts of a data set (train and val, folds), else
    nothing."""
    names = [name for name in names if not LABELS.fullmatch(name.lower())]
    called = [n for n in names if _is(TRAIN, n) or _is(TEST, n) or _is(OTHER, n)]
    worded = [n for n in names if _has_word(TRAIN, n) or _has_word(TEST, n)]
    numbered = [n for n in names if NUMBERED.fullmatch(n.lower())]
    if not any(_is(TRAIN, name) or _is(TEST, name) for name in called):
        called = []
    if not (any(_has_word(TRAIN, n) for n in worded) and any(_has_word(TEST, n) for n in worded)):
        worded = []  # classes may be called bullet_train and steam_train
    for some, enough in ((called, any), (worded, all), (numbered, all)):
        if len(some) < 2:
            continue
        inside = {name: subfolders(root / name) for name in some}
        hold_classes = enough(map(bool, inside.values()))
        if hold_classes or (some is not worded and len(some) == len(names)):
            return _say_parts(root, some, inside, keys)
    return ""


def _say_parts(root: Path, parted: list[str], inside: dict[str, list[str]], keys: Keys) -> str:
    said = f"{printable(root)} holds {_named(parted)}, which seem to be parts of a data set and "
    said += f"not classes; expected {EXPECTED}; "
    whole = [name for name in parted if inside[name]]
    if not whole:
        return (
            f"{said}sort their pictures into a folder for each class, rename them if they are the "
            f"classes, or set {keys.root}"
        )
    trains = [n for n in whole if _has_word(TRAIN, n) or _is(TRAIN, n)]
    train = (trains or whole)[0]
    tests = [name for name in whole if name != train and name not in trains]
    if keys.test is None:
        train = (tests or whole)[0]
        return f"{said}set {keys.set(_unwrapped(root / train))}"
    said += f"set {keys.set(_unwrapped(root / train))}"
    if not tests:
        return said
    paths = [printable(_unwrapped(root / name)) for name in tests]
    many = f" (or {name_some(paths[1:], 4)})" if len(paths) > 1 else ""
    return f"{said} and {keys.test}={paths[0]}{many}"


def _unwrapped(folder: Path) -> Path:
    """The folder below it that holds more than one, as seg_train/seg_train/…"""
    while len(subfolders(folder)) == 1 and not _loose(folder):
        folder /= subfolders(folder)[0]
    return folder


def _labels_apart(root: Path, names: list[str], keys: Keys) -> str:
    """Return what is wrong if pictures and what is said of them lie in a folder each, else
    nothing."""
    of_pictures = [name for name in names if PICTURES.fullmatch(name.lower())]
    of_labels = [name for name in names if LABELS.fullmatch(name.lower())]
    if not of_pictures or not of_labels or len(of_pictures) + len(of_labels) < len(names):
        return ""
    said = (
        f"{printable(root)} holds {_named(names)}: pictures, and in folders of their own what is "
    )
    said += f"said of them, and not classes; expected {EXPECTED}; "
    inner = root / of_pictures[0]
    if len(subfolders(inner)) > 1:
        return f"{said}if {_named(subfolders(inner))} are the classes, set {keys.set(inner)}"
    return f"{said}sort the pictures into a folder for each class, or set {keys.root}"


def _named(names: list[str]) -> str:
    return name_some(list(map(printable, names)), 6)
