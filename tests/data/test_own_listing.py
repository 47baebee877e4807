"""Whatever lies in a folder of pictures is read, or left out and named."""

import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from own_pictures import picture, tree
from spoil import ends_within

from daas_dist.data import folder
from daas_dist.data.images import Images
from daas_dist.data.leftovers import ARCHIVES, BESIDE, HIDDEN, LINKED_TWICE, SYSTEM, why_left_out
from daas_dist.data.manifest import DataError
from daas_dist.data.sharding import build, sources

CLASSES = {"rose": 5, "tulip": 5}


@pytest.fixture
def root() -> Generator[Path]:
    """A small tree where any user may look, which is not so below pytest's own folders."""
    top = Path(tempfile.mkdtemp())
    top.chmod(0o755)
    yield tree(top / "p", CLASSES)
    shutil.rmtree(top)


@contextmanager
def ordinary_user() -> Generator[None]:
    """Permissions mean nothing to root."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


def counts(read: tuple[Images, Images]) -> list[int]:
    labels = [*read[0].labels.tolist(), *read[1].labels.tolist()]
    return [labels.count(i) for i in range(len(read[0].classes))]


def bad(read: tuple[Images, Images]) -> tuple[str, ...]:
    return read[0].bad_files + read[1].bad_files


# --- Left beside pictures ------------------------------------------------------------------------

LEFT = {
    SYSTEM: [
        *("@eaDir/1.png/SYNOPHOTO_THUMB_XL.jpg", "#recycle/1.png", "@Recycle/1.png"),
        *("#snapshot/1.png", "@tmp/1.png"),
        *("__MACOSX/._1.png", "._1.png", ".AppleDouble/1.png", ".DS_Store", "Icon\r"),
        *("Thumbs.db", "THUMBS.DB", "ehthumbs.db", "desktop.ini", "Desktop.ini"),
        *("$RECYCLE.BIN/1.png", "System Volume Information/x", "lost+found/1.png"),
        *(".ipynb_checkpoints/1-checkpoint.png", "__pycache__/x.pyc", ".Trash-1000/files/1.png"),
        *(".@__thumb/default1.png", ".thumbnails/1.png", ".git/config", ".nfs000123", "Picasa.ini"),
        *("1.png:Zone.Identifier", "1.png@SynoEAStream", ".fseventsd/x", "RECYCLER/1.png"),
    ],
    HIDDEN: [".cache/1.png", ".1.png", ".private"],
    BESIDE: [
        *("1.xmp", "1.XMP", "1.json", "1.txt", "labels.csv", "1.xml", "IMG_1.AAE", "IMG_1.THM"),
        *("README", "README.md", "LICENSE", "license.txt", "Makefile", "index.html", "MD5SUMS"),
        *("1.png.json", "1.pp3", "notes.yaml", "go.sh", "classes"),
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("why", "name"), [(why, name) for why, names in LEFT.items() for name in names]
)
def test_what_is_left_beside_pictures_is_left_out_and_counted(
    why: str, name: str, root: Path
) -> None:
    """In a class, and beside the classes; of shards as well."""
    plain = folder(root, size=8)
    one = (root / "rose" / "0.png").read_bytes()
    for where in (root / "rose", root):
        place = where / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(one)
    read = folder(root, size=8)
    assert read[0].classes == ("rose", "tulip") and counts(read) == [5, 5]
    assert [part.digest() for part in read] == [part.digest() for part in plain]
    told = read[0].account.left_out
    assert list(told) == [why] and len(told[why]) == 2
    assert str(root / "rose" / name.split("/")[0]).replace("\r", "\\r") in told[why][1]
    source = sources.from_folder(root)
    assert len(source.names) == 10 and source.bad == {}
    assert any(f"2 {why}" in remark for remark in source.remarks)


def test_an_archive_beside_the_classes_is_told_and_in_one_is_bad(root: Path) -> None:
    (root / "lily.tar.gz").write_bytes(b"\x1f\x8b")
    assert folder(root, size=8)[0].account.left_out == {ARCHIVES: (f"{root}/lily.tar.gz",)}
    (root / "rose" / "more.zip").write_bytes(b"PK\x03\x04")
    with pytest.raises(ValueError, match="1 of 11 .*rose/more.zip: .*a ZIP archive"):
        folder(root, size=8)


def test_what_may_be_a_picture_is_none_of_these() -> None:
    for name in (
        "1.jpg",
        "1",
        "IMG_0001.JPG",
        "a.heic",
        "x.part",
        "1.jpg~",
        "b.nef",
        "c.pdf",
        "d.zip",
    ):
        assert why_left_out(name, False) is None
    for name in ("readme", "labels", "notes.txt", "1.json", "thumbs", "recycle", "MACOSX", "eaDir"):
        assert why_left_out(name, True) is None


def test_a_hidden_folder_says_how_many_pictures_it_holds(root: Path) -> None:
    tree(root, {".lily": 7, ".lily/more": 2})
    (told,) = folder(root, size=8)[0].account.left_out[HIDDEN]
    assert told == f"{root}/.lily (9 pictures)"


def test_a_class_of_leftovers_is_none(root: Path) -> None:
    (root / "lily" / "@eaDir").mkdir(parents=True)
    (root / "lily" / "@eaDir" / "1.jpg").write_bytes(b"x")
    (root / "lily" / "Thumbs.db").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"class folders without a file .*: lily; .*data\.root"):
        folder(root, size=8, max_bad_files=9)


# --- Links ---------------------------------------------------------------------------------------


def test_a_class_that_is_a_link_to_nowhere_ends_it(root: Path) -> None:
    (root / "lily").symlink_to("/mnt/gone/lily")
    for read in (lambda: folder(root, size=8, max_bad_files=9), lambda: sources.from_folder(root)):
        with pytest.raises(ValueError, match=rf"{root}/lily is a link to /mnt/gone/lily.*a class"):
            read()
    (root / "lily").unlink()
    (root / "lily").symlink_to("lily")
    with pytest.raises(ValueError, match=f"{root}/lily is a link to lily"):
        folder(root, size=8)


def test_a_link_to_nowhere_in_a_class_is_a_bad_file(root: Path) -> None:
    (root / "rose" / "more").symlink_to("/mnt/gone/more")
    (root / "rose" / "x.png").symlink_to("x.png")
    with pytest.raises(
        ValueError, match="2 of 12 files .*allows 1: .*rose/more: a link to /mnt/gone"
    ):
        folder(root, size=8, max_bad_files=1)
    read = folder(root, size=8, max_bad_files=2)
    assert counts(read) == [5, 5] and len(bad(read)) == 2
    with pytest.raises(DataError, match="2 files are no pictures, --max-bad-files allows 1"):
        build.build(sources.from_folder(root), root.parent / "out", build.Recipe(max_bad_files=1))
    made = build.build(
        sources.from_folder(root), root.parent / "out", build.Recipe(max_bad_files=2)
    ).made
    assert set(made["left_out"]) == {f"{root}/rose/more", f"{root}/rose/x.png"}


def test_a_link_to_the_root_brings_no_class_into_another(root: Path) -> None:
    (root / "rose" / "all").symlink_to(root)
    (root / "rose" / "up").symlink_to(root.parent)
    read = folder(root, size=8)
    assert counts(read) == [5, 5]
    assert set(read[0].account.left_out[LINKED_TWICE]) == {f"{root}/rose/all", f"{root}/rose/up"}


def test_a_ring_and_a_folder_linked_twice_are_read_once(root: Path) -> None:
    (root / "rose" / "deep").mkdir()
    picture(root / "rose" / "deep" / "x.png")
    (root / "rose" / "deep" / "ring").symlink_to(root / "rose")
    (root / "rose" / "again").symlink_to("deep")
    read = folder(root, size=8)
    assert counts(read) == [6, 5] and len(read[0].account.left_out[LINKED_TWICE]) == 2


def test_links_to_pictures_and_to_folders_elsewhere_are_followed(root: Path) -> None:
    other = tree(root.parent / "other", {"a": 2})
    (root / "rose" / "more").symlink_to(other / "a")
    (root / "tulip" / "x.png").symlink_to(picture(other / "x.png"))
    (root / "lily").symlink_to(other / "a")
    read = folder(root, size=8)
    assert counts(read) == [2, 7, 6] and read[0].classes == ("lily", "rose", "tulip")
    assert any("2 pictures are in two classes" in said for said in read[0].account.remarks)


# --- Permissions ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rose", "tulip/deep", "."])
def test_a_folder_that_may_not_be_listed_ends_it(name: str, root: Path) -> None:
    folder(root, size=8)  # imports what another user may not
    tree(root, {"tulip/deep": 2})
    (root / name).chmod(0o111)
    try:
        for read in (
            lambda: folder(root, size=8, max_bad_files=99),
            lambda: sources.from_folder(root),
        ):
            with ordinary_user(), pytest.raises(ValueError) as refused:
                read()
            said = str(refused.value)
            assert str((root / name).resolve()) in said and "Permission denied" in said
            assert "data.root" in said or "--folder" in said
    finally:
        (root / name).chmod(0o755)


def test_a_file_that_may_not_be_read_is_a_bad_file(root: Path) -> None:
    folder(root, size=8)
    path = root / "rose" / "1.png"
    path.chmod(0)
    out = root.parent / "out"
    out.mkdir(mode=0o777)
    out.chmod(0o777)
    with ordinary_user():
        with pytest.raises(ValueError, match=f"1 of 10 .*{path}: cannot be read .Permission"):
            folder(root, size=8)
        read = folder(root, size=8, max_bad_files=1)
        source = sources.from_folder(root)
        with pytest.raises(DataError, match=f"1 files are no pictures.*{path}: cannot be read"):
            build.build(source, out / "a")
        made = build.build(source, out / "b", build.Recipe(max_bad_files=1))
    assert counts(read) == [4, 5] and made.samples == 9
    assert list(made.made["left_out"]) == [str(path)]


def test_a_link_through_a_folder_that_may_not_be_entered(root: Path) -> None:
    folder(root, size=8)
    closed = tree(root.parent / "closed", {"lily": 2})
    (root / "lily").symlink_to(closed / "lily")
    closed.chmod(0)
    with ordinary_user(), pytest.raises(ValueError, match=f"{root}/lily is a link to {closed}"):
        folder(root, size=8, max_bad_files=9)
    closed.chmod(0o755)


# --- No files ------------------------------------------------------------------------------------


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as each:
        each.bind(str(path))


@pytest.mark.parametrize(
    "make",
    [
        os.mkfifo,
        _socket,
        lambda path: path.symlink_to("/dev/zero"),
        lambda p: p.symlink_to("/dev/tty"),
    ],
)
@pytest.mark.parametrize("where", ["rose/0.jpg", "x.jpg"])
def test_a_pipe_a_socket_and_a_device_are_not_waited_for(
    make: Callable[[Path], object], where: str, root: Path
) -> None:
    make(root / where)
    with ends_within(20):
        read = folder(root, size=8, max_bad_files=1)
        assert len(sources.from_folder(root).bad) == 1
    assert counts(read) == [5, 5]
    assert bad(read)[0].startswith(f"{root / where}: ")


def test_an_empty_file_is_a_bad_one(root: Path) -> None:
    (root / "rose" / "x.jpg").touch()
    with pytest.raises(ValueError, match="1 of 11 .*x.jpg: empty"):
        folder(root, size=8)


# --- Names ---------------------------------------------------------------------------------------


def test_names_that_are_no_text(root: Path) -> None:
    odd = os.fsencode(root) + b"/caf\xe9"
    os.mkdir(odd)
    for number in range(5):
        shutil.copy(picture(root.parent / "x.png"), os.fsdecode(odd + b"/\xff%d.png" % number))
    (root / "rose" / "new\nline\x1b[31m.png").write_bytes(b"x")
    read = folder(root, size=8, max_bad_files=1)
    assert read[0].classes == ("caf\\udce9", "rose", "tulip") and counts(read) == [5, 5, 5]
    assert "new\\nline\\x1b[31m.png" in bad(read)[0] and bad(read)[0].isprintable()
    os.symlink(b"/nowhere/\xfe", odd + b"/link")
    with pytest.raises(ValueError) as refused:
        folder(root, size=8, max_bad_files=1)
    assert str(refused.value).encode() and str(refused.value).isprintable()


def test_classes_that_look_alike_are_told(root: Path) -> None:
    tree(root, {"Rose": 2, "caf\u00e9": 2, "cafe\u0301": 2})
    remarks = folder(root, size=8)[0].account.remarks
    assert len(remarks) == 2
    assert any("Rose; rose" in said for said in remarks)
    assert any("cafe\u0301; caf\u00e9" in said for said in remarks)
    for name in (os.fsencode(root) + b"/\xff", os.fsencode(root / "\\udcff")):
        os.mkdir(name)
        shutil.copy(root / "rose" / "0.png", os.fsdecode(name))
    with pytest.raises(ValueError, match="two class folders"):
        folder(root, size=8)


# --- What occurs twice ---------------------------------------------------------------------------


def test_the_same_picture_in_training_and_testing_is_told(root: Path) -> None:
    tests = tree(root.parent / "tests", CLASSES)
    for name in ("0", "1"):
        shutil.copy(root / "rose" / f"{name}.png", tests / "rose" / f"copy{name}.png")
    remarks = folder(root, tests, size=8)[0].account.remarks
    (said,) = remarks
    assert "2 pictures of testing are in training too" in said
    assert f"{root}/rose/0.png = {tests}/rose/copy0.png" in said


def test_the_same_picture_in_two_classes_is_told(root: Path) -> None:
    shutil.copy(root / "rose" / "0.png", root / "tulip" / "copy.png")
    for name in ("rose", "tulip"):  # of one colour: nothing is known of these
        shutil.copy(_white(root.parent / "white.png"), root / name / "white.png")
    remarks = folder(root, size=8)[0].account.remarks
    assert any("1 picture" in said and "in two classes" in said for said in remarks)


def _white(path: Path) -> Path:
    from PIL import Image

    Image.new("RGB", (9, 9), "white").save(path)
    return path
