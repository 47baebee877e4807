"""Every value of configs/ says where it is from, and `daas explain` shows the one that counts."""

from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from daas_dist import config
from daas_dist.config import ConfigError, explain
from daas_dist.config.explain import YOURS, Row, labels, main

FILES = sorted(config.directory().rglob("*.yaml"))


def row(*arguments: str) -> Row:
    rows = explain.explain(arguments)
    assert len(rows) == 1
    return rows[0]


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_value_says_its_source(path: Path) -> None:
    """Counted against the parsed YAML itself: as many labels as leaves, all of them real keys."""
    values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    values.pop("defaults", None)
    leaves = config.flat(values)
    found = labels(path)
    group, launch = path.parent.name, ("cluster", "experiment")
    prefix = f"{group}." if group in ("data", "model", "engine", *launch) else ""
    assert list(found) == [f"{prefix}{key}" for key in leaves]
    assert group in launch or set(found) <= set(config.keys())
    assert all(label.startswith(("paper ", "peer ", "ours: ")) for label in found.values())


def test_a_label_is_found_behind_values_of_every_kind(tmp_path: Path) -> None:
    path = tmp_path / "group" / "file.yaml"
    path.parent.mkdir()
    path.write_text(
        'a: [1, 2] # paper Sec. 5\nb: "x # peer y" # ours: the hash inside is a text\n'
        "c:\n  d: null # peer DARTS train.py (# 3)\n"
    )
    assert labels(path) == {
        "group.a": "paper Sec. 5",
        "group.b": "ours: the hash inside is a text",
        "group.c.d": "peer DARTS train.py (# 3)",
    }


@pytest.mark.parametrize("line", ["a: 1", "a: 1 # because", "a: 1 # ours:", "a: 1# paper x", "a:"])
def test_a_value_without_a_source_is_refused(line: str, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(f"# @package _global_\n{line}\nb: 2 # paper Eq. 1")
    with pytest.raises(ConfigError, match=r"x\.yaml: a does not say its source"):
        labels(path)


SEVERAL = "paper Sec. 4.2 (n_w); of a fixed network, which is always the same, 1"


def test_the_source_of_a_base_value() -> None:
    assert row("stage=search_cifar10", "search.weight_architectures") == Row(
        "search.weight_architectures", "10", SEVERAL, "config.yaml"
    )


def test_the_source_of_a_group_a_stage_and_a_preset_value() -> None:
    assert row("stage=search_cifar10", "model.cells").file == "model/supernet.yaml"
    assert row("stage=search_fashion", "model.cells").file == "stage/search_fashion.yaml"
    tiny = row("stage=search_fashion", "preset=tiny", "model.cells")
    assert (tiny.file, tiny.value) == ("preset/tiny.yaml", "3")
    assert row("stage=train_cifar10", "data.cutout").file == "stage/train_cifar10.yaml"
    assert row("data=cifar100", "data.channels").file == "data/cifar100.yaml"


def test_an_override_is_marked_as_yours_and_remembers_what_it_replaced() -> None:
    assert row("search.xi=0.1", "search.xi") == Row(
        "search.xi",
        "0.1",
        'in place of paper Eq. 10 ("the learning rate": null is that of θ, by its schedule)',
        YOURS,
    )
    assert row("preset=tiny", "search.xi=0.1", "data.limit").file == "preset/tiny.yaml"


def test_all_values_are_explained_and_are_those_that_load_gives() -> None:
    """Against load itself, which goes through types and checks."""
    overrides = ["stage=search_folder", "preset=tiny", "data.root=/p", "search.tau.end=0.2"]
    expected = config.flat(asdict(config.load(overrides)))
    rows = explain.explain(overrides)
    assert [(r.key, r.value) for r in rows] == [(k, config.shown(v)) for k, v in expected.items()]


def test_a_stage_that_still_needs_something_is_explained() -> None:
    assert row("stage=train_folder", "data.root").value == "null"


def test_a_part_is_explained_by_its_name() -> None:
    assert [r.key for r in explain.explain(["search.tau", "seed"])] == [
        "seed",
        "search.tau.start",
        "search.tau.end",
    ]


def test_main_prints_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stage=search_fashion", "search.xi=0.1"]) == 0
    printed = capsys.readouterr().out
    assert "search.xi=0.1" in printed
    assert "(your override)" in printed
    assert "train.compare=[found/found" in printed
    assert "(stage/search_fashion.yaml)" in printed


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("search.xii", "daas explain: search.xii is not a key: did you mean search.xi?"),
        (
            "preset",
            "preset is not a key but a choice: preset=none|paper|tiny",
        ),
        ("search.xii=1", "search.xii is not a key"),
    ],
)
def test_main_says_what_is_wrong(
    argument: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([argument]) == 2
    assert expected in capsys.readouterr().err
