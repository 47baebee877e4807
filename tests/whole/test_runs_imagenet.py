"""Searches and trainings on shards: any number of ranks, killed in mid-epoch, the same bits."""

import signal
from pathlib import Path

import make_imagenet
import pytest
from torture import same
from whole_runs import column, disturb, finish, needs_fashion_mnist, read

from daas_dist import cli

pytestmark = needs_fashion_mnist


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small pictures of 12 classes."""
    out = tmp_path_factory.mktemp("imagenet")
    small = make_imagenet.make(out / "pictures", 12, 14, 3, side=0.15)
    words = ["--ilsvrc2012", str(small.archives), "--unchecked", "--per-shard", "30"]
    assert cli.main(["shards", "build", str(out / "shards"), *words]) == 0
    return out / "shards"


def words(run_dir: Path, root: Path, ranks: int, *more: str) -> list[str]:
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks), "-m"]
    return [
        *(launcher if ranks > 1 else []), "daas_dist", "stage=search_imagenet", "preset=tiny",
        f"data.root={root}", "data.classes=random:10:0", "data.size=32", "data.test_resize=36",
        "data.limit=null", "data.test_limit=null", "search.joint_epochs=1", "search.log_every=1",
        "search.checkpoint_every=1", f"run_dir={run_dir}", *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def peaceful(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("runs") / "1"
    finish(*words(run_dir, root, 1))
    return run_dir


def test_the_search_streams_its_classes(peaceful: Path, root: Path) -> None:
    result = read(peaceful / "result.json")
    assert len(result["data"]["classes"]) == 10 and result["data"]["shape"] == [3, 32, 32]
    assert result["genotype"] and result["policy"]["ranking"]
    assert len(column(peaceful / "metrics.jsonl", "step")) == 2 * (70 // 16)


@pytest.mark.long
def test_along_arch_the_bits_are_the_same(peaceful: Path, root: Path, tmp_path: Path) -> None:
    """Read by workers and shuffled over all shards, however many ranks read."""
    finish(*words(tmp_path / "run", root, 4, "data.workers=2", "search.architectures=2"))
    same(tmp_path / "run", peaceful)


@pytest.mark.long
def test_killed_in_mid_epoch_it_goes_on_with_the_next_image_on_other_ranks(
    peaceful: Path, root: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    third = run_dir / "checkpoints" / "step_00000003"
    disturb(signal.SIGKILL, third, *words(run_dir, root, 1, "data.workers=1"))
    assert not (run_dir / "DONE").exists()
    finish(*words(run_dir, root, 2, "data.workers=1"))
    events = column(run_dir / "events.jsonl", "event")
    assert "resumed" in events
    same(run_dir, peaceful)


def test_what_was_found_is_trained_on_shards(peaceful: Path, root: Path, tmp_path: Path) -> None:
    more = ["data.size=64", "data.test_resize=72", "data.limit=null", "data.test_limit=null"]
    finish(
        "daas_dist", "stage=train_imagenet", "preset=tiny", f"data.root={root}",
        "data.classes=random:10:0", *more, f"train.result={peaceful / 'result.json'}",
        "train.compare=[found/found,found/trivial_augment]", f"run_dir={tmp_path / 'train'}",
    )  # fmt: skip
    rows = read(tmp_path / "train" / "comparison.json")["rows"]
    assert [row["policy"] for row in rows] == ["found", "trivial_augment"]
    assert all(0 <= row["last"] <= 1 for row in rows)


def test_other_shards_do_not_continue_a_run(
    peaceful: Path, root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    other = make_imagenet.make(tmp_path / "pictures", 12, 14, 3, side=0.1)
    build = ["--ilsvrc2012", str(other.archives), "--unchecked"]
    assert cli.main(["shards", "build", str(tmp_path / "shards"), *build]) == 0
    overrides = words(peaceful, tmp_path / "shards", 1)[1:]
    assert cli.main(["run", *overrides, "resume.allow=[data.root]"]) == 2
    assert "holds a run on other training images" in capfd.readouterr().err
