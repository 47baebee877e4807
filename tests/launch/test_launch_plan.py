"""Which runs a submission is: seeds, chains, the paper's tables."""

from pathlib import Path

import pytest

from daas_dist.config import ConfigError
from launch import plan

SEARCH = ["stage=search_fashion", "preset=tiny"]


def test_seeds_and_what_follows_each(tmp_path: Path) -> None:
    words = [*SEARCH, f"run_dir={tmp_path}/a b", "seed=9"]
    words[2] = f'run_dir="{tmp_path}/a b"'
    todo = plan.chain(words, [0, 3], ["stage=train_fashion train.epochs=3"], table=True)
    assert [run.name for run in todo.runs] == [
        "search-seed0", "search-seed3", "train-seed0", "train-seed3",
    ]  # fmt: skip
    assert [run.config.seed for run in todo.runs] == [0, 3, 0, 3]
    assert [run.after for run in todo.runs] == [(), (), ("search-seed0",), ("search-seed3",)]
    last = todo.runs[-1].config
    assert last.train.epochs == 3
    assert last.train.result == f"{tmp_path}/a b/search-seed3/result.json"
    assert last.run_dir == f"{tmp_path}/a b/train-seed3"


def test_a_stage_may_take_from_any_before_it() -> None:
    then = [
        "stage=search_fashion search.target=policy model=genotype model.genotype={search}",
        "stage=train_fashion train.result={search} train.policy_result={search2}",
    ]
    todo = plan.chain(SEARCH, [1], then, table=False)
    assert todo.runs[2].after == ("search-seed1", "search2-seed1")
    with pytest.raises(ConfigError, match="{nothing} is no run before train"):
        plan.chain(SEARCH, [1], ["stage=train_fashion train.result={nothing}"], table=False)


@pytest.mark.parametrize(
    ("name", "runs", "edges"),
    [
        ("table2", 16, 8),
        ("table4", 8, 4),
        ("table5", 3 * (2 + 6 + 4), 3 * (6 + 4)),
        ("table6", 20, 4 + 4 + 2 * 4),
        ("table7", 3 + 9, 18 - 3),
        ("fashion", 3 * 5, 3 * (1 + 1 + 2)),
    ],
)
def test_the_papers_tables_and_ours(name: str, runs: int, edges: int) -> None:
    """Counted from the paper: searches, trainings, and which needs which."""
    todo = plan.experiment(name, [], None)
    assert len(todo.runs) == runs and todo.table
    assert sum(len(run.after) for run in todo.runs) == edges
    assert all(run.config.train.seeds == [run.config.seed] for run in todo.runs if run.after and
               run.config.kind == "train")  # fmt: skip


def test_table7_is_every_architecture_with_every_policy() -> None:
    runs = {run.name: run.config.train for run in plan.experiment("table7", [], None).runs}
    mixed = runs["train-seed2-policy1"]
    assert str(mixed.result).endswith("search-seed2/result.json")
    assert str(mixed.policy_result).endswith("search-seed1/result.json")


def test_an_experiment_at_another_scale_and_on_other_data() -> None:
    todo = plan.experiment("table4", ["preset=tiny", "data=fashion_mnist", "train.epochs=1"], [5])
    assert [run.config.data.name for run in todo.runs] == ["fashion_mnist"] * 2
    assert todo.runs[1].config.train.epochs == 1 and todo.runs[0].config.model.cells == 3
    with pytest.raises(ConfigError, match="mesh.dat"):
        plan.experiment("table4", ["mesh.dat=1"], None)
    with pytest.raises(ConfigError, match="experiment=table9 is not possible: expected one of"):
        plan.experiment("table9", [], None)


def test_an_override_goes_to_the_runs_of_an_experiment_that_read_it() -> None:
    """Table 6 has searches of both, of the architecture, of a policy on a fixed network, and two
    trainings."""
    extra = ["search.tau.start=5", "search.xi=0.3", "method=ours", "train.epochs=7"]
    runs = {run.group: run.config for run in plan.experiment("table6", extra, [0]).runs}
    assert {name: run.search.tau.start for name, run in runs.items() if "search" in name} == {
        "joint_search": 5.0, "architecture_search": 5.0, "policy_search": 10.0,
    }  # fmt: skip
    assert {name: run.search.xi for name, run in runs.items() if "search" in name} == {
        "joint_search": 0.3, "architecture_search": None, "policy_search": 0.3,
    }  # fmt: skip
    assert runs["joint_search"].search.estimator == "natural"
    assert {runs[name].train.epochs for name in ("joint_train", "independent_train")} == {7}
    with pytest.raises(ConfigError, match="search.most_skips=2 has no effect: no run of"):
        plan.experiment("table6", ["search.most_skips=2"], None)


@pytest.mark.parametrize(
    ("text", "seeds"), [("0-3", [0, 1, 2, 3]), ("7", [7]), ("0,2,5-6", [0, 2, 5, 6])]
)
def test_seeds(text: str, seeds: list[int]) -> None:
    assert plan.parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "3-1", "a", "0,0", "-1"])
def test_wrong_seeds(text: str) -> None:
    with pytest.raises(ConfigError, match="--seeds"):
        plan.parse_seeds(text)
