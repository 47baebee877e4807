"""Values that are texts are taken as they were typed; a ~ is somebody's home."""

import pwd
import random
from dataclasses import asdict
from pathlib import Path

import pytest

from daas_dist import cli
from daas_dist.config import ConfigError, load, load_frozen, to_yaml
from daas_dist.config import schema_keys as door
from daas_dist.config.compose import text
from daas_dist.config.explain import explain
from daas_dist.config.overrides import quoted
from launch import plan

STAGE = ["stage=search_folder", "data.root=pictures"]
TRAINING = ["stage=train_folder", "data.root=pictures", "train.result=r.json"]
SHARDS = ["stage=search_imagenet", "data.root=https://host/shards", "data.cache=c"]
FIXED = [*STAGE, "search.target=architecture"]
GENOTYPE = [*STAGE, "search.target=policy", "model=genotype", "model.genotype=g.json"]

PATHS = {
    "run_dir": STAGE,
    "data.root": STAGE,
    "data.val_root": STAGE,
    "data.classes": SHARDS,
    "data.cache": SHARDS,
    "policy.fixed": FIXED,
    "model.genotype": GENOTYPE,
    "train.result": TRAINING,
    "train.policy_result": TRAINING,
}

TYPED = [
    *("1_000_000", "0x1F", "0b11", "1e-3", "-5", "+7", "3.", ".5", "00", "1,5", "inf", "NaN"),
    *("True", "FALSE", "yes", "off", "None", "NULL", "nil", "2024-03-09", "12:30:00"),
    *("my pictures (1)/x=1", "a=b=c", "50%", "#1", "a #b", "R&D; more", "what?*", "a|b"),
    *("it's", '12" prints', "'90s", '"', "$5", "$HOME", "a$b", "{0..9}", "a{b,c}", "[1]/a"),
    *("täglich/猫/Ж", "😀", "a@b", "x:y", "\\server\\share", "a\\ b", " a", "a ", "a~b", "!x"),
    *("choice(a,b)", "range(1,3)", "int(3)", "str(4)", "glob(*)", "a,b", "-", "--", "="),
]


@pytest.mark.parametrize("typed", TYPED)
def test_a_text_is_taken_as_it_was_typed(typed: str) -> None:
    for key in PATHS:
        assert text([f"{key}={typed}"], key) == typed


@pytest.mark.parametrize("i", range(0, len(TYPED) - 2, 12))
def test_so_it_is_in_a_whole_configuration(i: int) -> None:
    run_dir, root, val_root = TYPED[i : i + 3]
    read = load([*STAGE, f"run_dir={run_dir}", f"data.root={root}", f"data.val_root={val_root}"])
    assert [read.run_dir, read.data.root, read.data.val_root] == [run_dir, root, val_root]


def test_every_text_of_the_schema_is_one() -> None:
    """A new text key is taken as typed without being named anywhere."""
    values = door.flat(asdict(load(TRAINING)))
    texts = {key for key, value in values.items() if isinstance(value, str)}
    texts = (texts | set(PATHS)) - {"stage", *door.BROUGHT}
    assert {"device", "search.estimator", "train.schedule"} <= texts
    for key in texts:
        assert text([f"{key}=1_0"], key) == "1_0"


def test_two_names_are_two_folders() -> None:
    names = ["1_1", "11", "011", "1.1e1", "11.0"]
    assert [load([*STAGE, f"run_dir={name}"]).run_dir for name in names] == names


def test_numbers_and_switches_are_read_as_ever() -> None:
    read = load([*STAGE, "seed=1_0", "search.xi=1e-3", "data.flip=False", "data.mean=[0.5,1,1]",
                 "data.std=[1,1,1]", "data.limit=null"])  # fmt: skip
    assert (read.seed, read.search.xi, read.data.flip, read.data.limit) == (10, 1e-3, False, None)


def test_null_is_none_and_in_quotes_a_name() -> None:
    assert load([*STAGE, "run_dir=null"]).run_dir is None
    assert load([*STAGE, "run_dir='null'"]).run_dir == "null"


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ('"a (1)"', "a (1)"),
        ("'7'", "7"),
        (r'"say \"x\""', 'say "x"'),
        ('"it\'s"', "it's"),
        (r"'C:\new'", r"C:\new"),
        (r'"end\\"', "end\\"),
        ("'${stage}'", "${stage}"),
    ],
)
def test_quotes_around_a_whole_value_are_none_of_it(typed: str, read: str) -> None:
    assert load([*STAGE, f"run_dir={typed}"]).run_dir == read


@pytest.mark.parametrize(
    "typed",
    ["", " ", "''", "'a' or 'b'", '"a""b"', r'"a\"', "[a]", "{a: 1}", "a\nb", "\x1b[31m",
     "caf\udce9", "${nothing.there}", "${", "~nobody.of.this.name/x"],
)  # fmt: skip
def test_what_is_no_text_is_refused_by_its_key(typed: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load([*STAGE, f"run_dir={typed}"])
    said = str(refused.value)
    assert "run_dir" in said and said.isprintable()


def test_an_interpolation_outside_quotes_is_one() -> None:
    run_dir = load([*STAGE, "seed=7", "run_dir=my runs/${stage}-${seed}"]).run_dir
    assert run_dir == "my runs/search_folder-7"


def test_any_text_can_be_quoted_frozen_and_read_again(tmp_path: Path) -> None:
    draw, letters = random.Random(3), ["\\", '"', "'", "$", "{", "}", "~", "=", " ", ",", "ß", "1"]
    path = tmp_path / "config.yaml"
    for _ in range(6):
        text = "x" + "".join(draw.choices(letters, k=draw.randrange(1, 9)))
        config = load([*STAGE, f"data.root={quoted(text)}"])
        assert config.data.root == text
        path.write_text(to_yaml(config), "utf-8")
        assert load_frozen(path) == config


# --- Home ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", [STAGE, SHARDS, FIXED, GENOTYPE, TRAINING])
def test_a_tilde_is_home_in_every_path(stage: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/homes/me")
    paths = [key for key in PATHS if PATHS[key] is stage]
    read = load([*stage, *(f"{key}=~/some thing" for key in paths)])
    for key in paths:
        assert door.flat(asdict(read))[key] == "/homes/me/some thing"


def test_whoever_it_belongs_to_and_in_quotes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/homes/me")
    root = pwd.getpwnam("root").pw_dir
    for typed, read in (
        ("~", "/homes/me"),
        ("'~/a b'", "/homes/me/a b"),
        ("~root/a", f"{root}/a"),
        ('"~root"', root),
        ("./~/a", "./~/a"),
        ("a/~root", "a/~root"),
    ):
        assert load([*STAGE, f"data.root={typed}"]).data.root == read
    with pytest.raises(ConfigError, match=r"run_dir=~noone1/x .*\./~noone1/x"):
        load([*STAGE, "run_dir=~noone1/x"])


def test_explain_shows_what_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/homes/me")
    rows = {row.key: row.value for row in explain([*STAGE, "run_dir=1_0", "data.val_root=~/(v)"])}
    assert (rows["run_dir"], rows["data.val_root"]) == ("1_0", "/homes/me/(v)")
    for typed in ("None", "True", "null", "'null'"):
        (row,) = explain([*STAGE, f"run_dir={typed}", "run_dir"])
        assert row.value == typed


# --- Where overrides pass through launch/ --------------------------------------------------------


def test_a_plan_has_the_very_paths(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "me (2)"))
    (tmp_path / "cwd ${x}").mkdir()
    monkeypatch.chdir(tmp_path / "cwd ${x}")
    (run,) = plan.one([*STAGE, "run_dir=2_5=ü"]).runs
    assert run.config.run_dir == str(tmp_path / "cwd ${x}" / "2_5=ü")
    (run,) = plan.one([*STAGE, "run_dir=~/1e2"]).runs
    assert run.config.run_dir == str(tmp_path / "me (2)" / "1e2")


def test_so_have_the_runs_that_follow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    then = "stage=train_folder 'data.root=~/b (2)'"
    todo = plan.chain([*STAGE, "run_dir=~/3_0 'x'"], [0], [then], table=False)
    search, train = todo.runs
    root = tmp_path / "3_0 'x'"
    assert todo.root == root
    assert search.config.run_dir == str(root / "search-seed0")
    assert train.config.data.root == str(tmp_path / "b (2)")
    assert train.config.train.result == str(root / "search-seed0" / "result.json")


def test_so_has_an_experiment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    todo = plan.experiment("fashion", ["run_dir=first", "run_dir='~/4_0'"], [0])
    assert todo.root == tmp_path / "4_0"
    assert all(Path(str(run.config.run_dir)).parent == tmp_path / "4_0" for run in todo.runs)


# --- Paths that stand for themselves -------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["watch", "~/1_0"],
        ["report", "~/1_0"],
        ["export", "~/1_0", "--to", "module"],
        ["shards", "verify", "~/1_0"],
        ["shards", "build", "~/out", "--folder=~/1_0"],
    ],
)
def test_commands_look_for_a_path_at_home(
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) in (1, 2)
    assert str(tmp_path / "me" / "1_0") in "".join(capsys.readouterr()).replace("\n", "")
    assert not (tmp_path / "~").exists()
