"""Searches for a part only, and on one's own pictures. In this process: the runs are short."""

from pathlib import Path

import found_results as results
import pytest
from make_jpeg_tree import make
from whole_runs import column, needs_fashion_mnist, read

from daas_dist import cli
from daas_dist.spaces.cells import DARTS_V2, OPERATIONS

pytestmark = needs_fashion_mnist
FASHION = ("stage=search_fashion", "data.limit=64", "data.test_limit=64")


def run(run_dir: Path, *words: str) -> int:
    return cli.main(["run", "preset=tiny", f"run_dir={run_dir}", *words])


def test_policy_alone_on_a_small_network(tmp_path: Path) -> None:
    words = *FASHION, "search.target=policy", "model=small", "tensorboard=true"
    assert run(tmp_path, *words) == 0
    result = read(tmp_path / "result.json")
    assert result["genotype"] is result["alpha"] is result["beta"] is None
    assert abs(sum(result["policy"]["probabilities"][1]) - 1) < 1e-5
    moved = {probability for slot in result["policy"]["probabilities"] for probability in slot}
    assert len(moved) > 2  # it started uniform
    assert list((tmp_path / "tensorboard").glob("events.out.tfevents.*"))


def test_policy_alone_on_a_genotype(tmp_path: Path) -> None:
    words = "search.target=policy", "model=genotype", f"model.genotype={results.save(tmp_path)}"
    assert run(tmp_path / "run", *FASHION, *words) == 0
    result = read(tmp_path / "run" / "result.json")
    assert result["genotype"] is None and result["policy"]["slots"] == 2
    metrics = tmp_path / "run" / "metrics.jsonl"
    rows = zip(column(metrics, "phase"), column(metrics, "val_accuracy"), strict=True)
    # Nothing is validated in the warm-up of a network that has no architecture to search.
    assert {(phase, accuracy is None) for phase, accuracy in rows} == {
        ("warmup", True), ("joint", False),
    }  # fmt: skip


def test_policy_alone_on_a_wide_resnet(tmp_path: Path) -> None:
    words = "search.target=policy", "model=wide_resnet_40_2", "data.limit=32", "data.test_limit=32"
    words += "search.warmup_epochs=0", "search.joint_epochs=1", "search.architectures=1"
    assert run(tmp_path, "stage=search_fashion", *words) == 0
    result = read(tmp_path / "result.json")
    assert result["genotype"] is None and result["policy"]["slots"] == 2
    assert result["config"]["model"]["name"] == "wide_resnet_40_2"


def test_a_network_that_torchvision_does_not_have_is_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = "search.target=policy", "model=torchvision", "model.network=resnet5", "data.channels=3"
    tree = make(tmp_path / "pictures", classes=2, images=6)
    folder = "stage=search_folder", f"data.root={tree.root}", "data.size=32", "data.max_bad_files=1"
    assert run(tmp_path / "run", *folder, *words, "search.batch_size=4") == 2
    assert "unknown network 'resnet5'; known: small" in capfd.readouterr().err


def test_architecture_alone_under_a_fixed_policy(tmp_path: Path) -> None:
    words = "search.target=architecture", f"policy.fixed={results.save(tmp_path)}"
    assert run(tmp_path / "run", *FASHION, *words) == 0
    result = read(tmp_path / "run" / "result.json")
    assert result["policy"] == results.plain(results.mixed_policy())
    assert result["evidence"] is None
    assert {name for name, _ in result["genotype"]["normal"]} <= set(OPERATIONS)
    assert result["genotype"] != results.plain(DARTS_V2)


def test_a_search_on_ones_own_pictures_names_the_broken_one(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tree = make(tmp_path / "pictures", classes=3, images=18)
    words = "stage=search_folder", f"data.root={tree.root}", "data.size=16", "data.max_bad_files=1"
    assert run(tmp_path / "run", *words) == 0
    warned = [
        line for line in capfd.readouterr().err.splitlines() if "left out, unreadable" in line
    ]
    assert len(warned) == 1 and str(tree.broken) in warned[0]
    events = (tmp_path / "run" / "events.jsonl").read_text()
    assert events.count(tree.broken.name) == 1
    data = read(tmp_path / "run" / "result.json")["data"]
    assert data["shape"] == [3, 16, 16] and data["classes"][-1] == tree.broken.parent.name


def test_more_broken_pictures_than_allowed_stop_a_run(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tree = make(tmp_path / "pictures", classes=2, images=6)
    words = "stage=search_folder", f"data.root={tree.root}", "data.max_bad_files=0"
    assert run(tmp_path / "run", *words) == 2
    said = capfd.readouterr().err
    assert "data.max_bad_files" in said and str(tree.broken) in said
    assert not (tmp_path / "run" / "result.json").exists()
