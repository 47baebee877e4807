"""A root of the wrong level, or of parts, is used, or refused with the path that is right."""

from pathlib import Path

import pytest
from own_pictures import picture, tree

from daas_dist.data import folder
from daas_dist.data.layout import DATA, class_folders, parts
from daas_dist.data.sharding import command, sources

CLASSES = {"rose": 6, "tulip": 6}


def inside(*folders: str, counts: dict[str, int] | None = None) -> dict[str, int]:
    counts = CLASSES if counts is None else counts
    return {f"{each}/{name}": n for each in folders for name, n in counts.items()}


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train", "test"),
        ("Training", "Testing"),
        ("train", "valid"),
        ("training_set", "test_set"),
        ("TRAIN", "validation"),
        ("train2017", "val2017"),
        ("trainset", "eval"),
        ("train_images", "holdout"),
    ],
)
def test_a_root_of_training_and_test_pictures_is_read_as_both(
    train: str, test: str, tmp_path: Path
) -> None:
    tree(tmp_path, inside(train, test, counts={"rose": 3, "tulip": 2}))
    (tmp_path / "README.md").write_text("x")
    (tmp_path / "@eaDir" / "rose").mkdir(parents=True)
    learns, tests = folder(tmp_path, size=8)
    assert learns.classes == tests.classes == ("rose", "tulip")
    assert (len(learns), len(tests)) == (5, 5)
    (said,) = learns.account.remarks
    assert train in said and test in said and str(tmp_path) in said
    by_hand = folder(tmp_path / train, tmp_path / test, size=8)
    assert [part.digest() for part in by_hand] == [learns.digest(), tests.digest()]


@pytest.mark.parametrize(
    ("counts", "right"),
    [
        # Three parts: which of two is for testing is not known.
        (inside("train", "val", "test"), ["data.root={}/train", "data.val_root={}/test"]),
        (inside("train", "unlabeled"), ["data.root={}/train"]),
        (inside("train", "val") | {"annotations": 0}, ["data.root={}/train", "l_root={}/val"]),
        (inside("train") | {"test": 4}, ["data.root={}/train"]),
        (inside("train") | inside("val", counts={"lily": 3}), ["data.val_root={}/val"]),
        (inside("fold_1", "fold_2", "fold_3"), ["data.root={}/fold_1", "data.val_root={}/fold_2"]),
        (inside("Fold1", "Fold2"), ["data.root={}/Fold1"]),
        (inside("split-a", "split-b"), ["data.root={}/split-a"]),
        (inside("part_0", "part_1"), ["data.root={}/part_0"]),
        (inside("batch 1", "batch 2"), ["data.root={}/batch 1"]),
        (inside("seg_train/seg_train", "seg_test/seg_test"), ["data.root={}/seg_train/seg_train",
                                                               "data.val_root={}/seg_test/seg_test"]),
        # Parts without classes.
        ({"train": 4, "test": 4}, ["rename them"]),
        ({"part_0": 4, "part_1": 4, "part_2": 4}, ["rename them"]),
        ({"fold1": 4, "fold2": 4}, ["rename them"]),
        ({"train": 4, "val": 4, "labels": 0}, ["rename them"]),
        # Pictures apart from what is said of them.
        ({"images": 4, "labels": 0}, ["a folder for each class"]),
        ({"JPEGImages": 4, "Annotations": 0, "SegmentationClass": 4}, ["a folder for each class"]),
        ({"images": 4, "masks": 4}, ["a folder for each class"]),
        (inside("images") | {"annotations": 0}, ["data.root={}/images"]),
        (inside("images/train", "images/val") | {"labels/train": 0}, ["data.root={}/images"]),
        # A folder around the classes.
        (inside("flowers"), ["holds 1 class folders (flowers)", "data.root={}/flowers"]),
        (inside("a/b"), ["data.root={}/a/b"]),
        (inside("flowers/train", "flowers/test"), ["data.root={}/flowers"]),
        (inside("train"), ["data.root={}/train"]),
        ({"rose": 4}, ["holds 1 class folders (rose)", "add the other classes"]),
    ],
)  # fmt: skip
def test_a_root_of_the_wrong_level_is_refused_with_the_right_one(
    counts: dict[str, int], right: list[str], tmp_path: Path
) -> None:
    root = tree(tmp_path / "my pictures", counts)
    with pytest.raises(ValueError) as refused:
        folder(root, size=8)
    said = str(refused.value)
    assert said.startswith(str(root)) and "one folder a class" in said and "\n" not in said
    for each in right:
        assert each.format(root) in said


@pytest.mark.parametrize(
    ("counts", "right"),
    [(inside("train", "val"), "data.val_root={}/val"), (inside("x"), "data.val_root={}/x")],
)
def test_so_is_a_root_of_test_pictures(counts: dict[str, int], right: str, tmp_path: Path) -> None:
    good, wrong = tree(tmp_path / "good", CLASSES), tree(tmp_path / "wrong", counts)
    with pytest.raises(ValueError) as refused:
        folder(good, wrong, size=8)
    assert right.format(wrong) in str(refused.value)
    with pytest.raises(ValueError, match=f"data.root={wrong}"):
        folder(wrong, good, size=8)


@pytest.mark.parametrize(
    "names",
    [
        ("train", "bus", "car"),  # a vehicle
        ("bullet_train", "steam_train"),
        ("valid", "invalid"),
        ("test_tube", "flask"),
        ("parts", "tools"),
        ("0", "1", "2"),
        ("images", "drawings"),
        ("mask", "no_mask"),
        ("part", "whole"),
        ("val", "kyrie"),
        ("batch_norm", "dropout"),
    ],
)
def test_classes_that_are_called_like_parts_are_classes(
    names: tuple[str, ...], tmp_path: Path
) -> None:
    tree(tmp_path / "flat", dict.fromkeys(names, 3))
    assert folder(tmp_path / "flat", size=8)[0].classes == tuple(sorted(names))
    tree(tmp_path / "deep", inside(*names, counts={"2019": 2, "2020": 2}))
    learns, _ = folder(tmp_path / "deep", size=8)
    assert learns.classes == tuple(sorted(names))
    (said,) = learns.account.remarks
    assert "2019; 2020" in said and "data.root is one level too high" in said


def test_a_folder_inside_each_class_is_no_class(tmp_path: Path) -> None:
    """As tiny-imagenet has it."""
    tree(tmp_path, {"n01/images": 4, "n02/images": 4})
    learns, _ = folder(tmp_path, size=8)
    assert learns.classes == ("n01", "n02") and learns.account.remarks == ()


# --- Too low -------------------------------------------------------------------------------------


def test_the_folder_of_one_class_names_the_one_above(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tree(tmp_path / "flowers", CLASSES)
    with pytest.raises(ValueError) as refused:
        folder(root / "rose", size=8)
    said = str(refused.value)
    assert "holds 6 pictures and 0 class folders" in said
    assert f"set data.root={root}" in said and "rose; tulip" in said
    monkeypatch.chdir(root / "rose")
    with pytest.raises(ValueError, match=f"set data.root={root}$"):
        folder(".", size=8)
    lonely = tree(tmp_path / "other", {"rose": 3})
    with pytest.raises(ValueError, match="a folder of its own, or set data.root"):
        folder(lonely / "rose", size=8)


def test_pictures_in_no_class_count_as_bad_files(tmp_path: Path) -> None:
    tree(tmp_path, CLASSES)
    for name in ("a.jpg", "b.png"):
        picture(tmp_path / name)
    (tmp_path / "no-ending").write_bytes((tmp_path / "b.png").read_bytes())
    with pytest.raises(ValueError) as refused:
        folder(tmp_path, size=8, max_bad_files=2)
    said = str(refused.value)
    assert "3 of 15 files" in said and f"{tmp_path}/a.jpg: lies in no class" in said
    assert "data.root is the folder of one class" in said
    learns, tests = folder(tmp_path, size=8, max_bad_files=3)
    assert len(learns) + len(tests) == 12
    assert {name.partition(": ")[0] for name in learns.bad_files} == {
        str(tmp_path / name) for name in ("a.jpg", "b.png", "no-ending")
    }


@pytest.mark.parametrize(
    ("name", "right"),
    [("flowers.zip", "unpack"), ("shard-000000.tar", "data=shards"), ("x.txt", "set data.root")],
)
def test_a_root_without_folders_and_pictures(name: str, right: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(b"x")
    with pytest.raises(ValueError, match=f"0 class folders and no pictures.*{right}"):
        folder(tmp_path / "in", size=8)
    with pytest.raises(ValueError, match="is a file, expected a folder.*data.root"):
        folder(tmp_path / "in" / name, size=8)


# --- Shards --------------------------------------------------------------------------------------


def test_shards_are_built_of_a_root_of_both_parts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tree(tmp_path / "pictures", inside("training", "valid"))
    assert command.main(["build", str(tmp_path / "out"), "--folder", str(root)]) == 0
    said = capsys.readouterr()
    assert "training and valid" in said.err
    for part in ("train", "val"):
        assert f"{tmp_path}/out/{part}: 12 pictures of 2 classes" in said.out


@pytest.mark.parametrize(
    ("counts", "right"),
    [
        (inside("train", "val", "test"), "--folder={}/train and --val-folder={}/test"),
        (inside("fold1", "fold2"), "--folder={}/fold1"),
        (inside("flowers"), "--folder={}/flowers"),
        ({"images": 4, "labels": 0}, "set --folder"),
    ],
)
def test_shards_are_not_built_of_the_wrong_level(
    counts: dict[str, int], right: str, tmp_path: Path
) -> None:
    root = tree(tmp_path, counts)
    with pytest.raises(ValueError) as refused:
        sources.from_folder(root)
    assert right.format(root, root) in str(refused.value)


def test_a_link_around_is_followed_and_named(tmp_path: Path) -> None:
    """What is decided depends on what is in a folder, not on whether it is a link."""
    real = tree(tmp_path / "disk", inside("train", "val"))
    (tmp_path / "data").symlink_to(real)
    root, test, said = parts(tmp_path / "data", None)
    assert (root, test) == (tmp_path / "data" / "train", tmp_path / "data" / "val") and said
    assert class_folders(root, DATA) == ["rose", "tulip"]
