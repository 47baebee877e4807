"""Every recipe's values, against a table written from the paper and the peers' files."""

import pytest

from daas_dist import config
from daas_dist.config import load

TABLE = {
    # recipe: (network, epochs, batch, rate, multiplier, warm-up epochs, weight decay)
    "wide_resnet_40_2": ("wide_resnet_40_2", 200, 512, 0.1, 4, 5, 2e-4),
    "wide_resnet_40_2_cifar100": ("wide_resnet_40_2", 200, 512, 0.1, 4, 5, 5e-4),
    "wide_resnet_28_10": ("wide_resnet_28_10", 200, 512, 0.1, 4, 5, 5e-4),
    "shake_shake_32d": ("shake_shake_32d", 1800, 512, 0.01, 4, 5, 1e-3),
    "shake_shake_96d": ("shake_shake_96d", 1800, 512, 0.01, 4, 5, 1e-3),
    "shake_shake_96d_cifar100": ("shake_shake_96d", 1800, 512, 0.01, 4, 5, 2.5e-3),
    "shake_shake_112d": ("shake_shake_112d", 1800, 512, 0.01, 4, 5, 2e-3),
    "pyramidnet_272": ("pyramidnet_272", 1800, 64, 0.05, None, 0, 5e-5),
    "pyramidnet_272_cifar100": ("pyramidnet_272", 1800, 64, 0.025, None, 0, 5e-4),
    "resnet_50": ("resnet50", 270, 1024, 0.2, 2, 3, 1e-4),
}


def given(recipe: str) -> list[str]:
    stage = "train_imagenet" if recipe == "resnet_50" else "train_cifar10"
    root = ["data.root=/shards"] if recipe == "resnet_50" else []
    return [f"stage={stage}", f"recipe={recipe}", "train.result=r.json", *root]


def test_the_table_is_of_every_recipe() -> None:
    assert {*TABLE, "none"} == set(config.options("recipe"))


@pytest.mark.parametrize("recipe", TABLE)
def test_a_recipe_is_the_peers(recipe: str) -> None:
    made = load(given(recipe))
    train, data = made.train, made.data
    network, epochs, batch, rate, multiplier, warmup, decay = TABLE[recipe]
    assert train.compare == [f"{network}/found", f"{network}/default"]
    assert (train.epochs, train.batch_size) == (epochs, batch)
    assert (train.learning_rate, train.warmup_multiplier) == (rate, multiplier)
    assert (train.warmup_epochs, train.weight_decay) == (warmup, decay)
    # What they share.
    assert (train.momentum, train.nesterov) == (0.9, True)
    assert (train.auxiliary_weight, train.drop_path, train.label_smoothing) == (0, 0, 0)
    assert train.schedule_by == "step"
    if recipe == "resnet_50":
        assert (train.schedule, train.milestones) == ("steps", [90, 180, 240])
        assert (train.clip, data.cutout) == (None, 0)
        assert (data.color_jitter, data.lighting) == ([0.4, 0.4, 0.4, 0.0], 0.1)
        assert (data.crop_scale, data.size, data.test_resize) == ([0.08, 1.0], 224, 256)
    else:
        assert (train.schedule, train.milestones, train.clip) == ("cosine", None, 5)
        assert (data.cutout, data.crop_padding, data.flip) == (16, 4, True)
        assert (data.color_jitter, data.lighting) == (None, None)


@pytest.mark.parametrize("stage", ["train_cifar10", "train_cifar100"])
def test_cifars_training_is_darts(stage: str) -> None:
    made = load([f"stage={stage}", "train.result=r.json"])
    train, data = made.train, made.data
    assert (train.epochs, train.batch_size, train.channels, train.cells) == (600, 96, 36, 20)
    assert (train.learning_rate, train.schedule, train.schedule_by) == (0.025, "cosine", "epoch")
    assert (train.warmup_epochs, train.warmup_multiplier, train.milestones) == (0, None, None)
    assert (train.momentum, train.nesterov, train.weight_decay) == (0.9, False, 3e-4)
    assert (train.clip, train.label_smoothing) == (5, 0)
    assert (train.auxiliary_weight, train.drop_path, data.cutout) == (0.4, 0.2, 16)
    assert (data.crop_padding, data.flip, data.color_jitter) == (4, True, None)
    if stage == "train_cifar10":
        assert data.mean == pytest.approx([0.49140, 0.48216, 0.44653], abs=1e-9)
        assert data.std == [0.24703, 0.24349, 0.26159]


def test_imagenets_training_is_pc_darts() -> None:
    made = load(["stage=train_imagenet", "data.root=/shards", "train.result=r.json"])
    train, data = made.train, made.data
    assert (train.epochs, train.batch_size, train.channels, train.cells) == (250, 1024, 48, 14)
    assert (train.learning_rate, train.schedule, train.schedule_by) == (0.5, "linear", "epoch")
    assert (train.warmup_epochs, train.warmup_multiplier, train.milestones) == (5, None, None)
    assert (train.momentum, train.nesterov, train.weight_decay) == (0.9, False, 3e-5)
    assert (train.clip, train.label_smoothing) == (5, 0.1)
    assert (train.auxiliary_weight, train.drop_path, data.cutout) == (0.4, 0, 0)
    assert (data.color_jitter, data.lighting) == ([0.4, 0.4, 0.4, 0.2], None)
    assert (data.crop_scale, data.size, data.test_resize) == ([0.08, 1.0], 224, 256)
    assert made.model.stem == "imagenet"


def test_a_preset_wins_over_a_recipe_and_a_recipe_over_its_stage() -> None:
    words = given("wide_resnet_40_2")
    assert load([*words, "train.weight_decay=0.003"]).train.weight_decay == 0.003
    tiny = load([*words, "preset=tiny"]).train
    assert (tiny.epochs, tiny.warmup_epochs, tiny.nesterov) == (2, 0, True)


@pytest.mark.parametrize("recipe", TABLE)
@pytest.mark.parametrize("preset", config.options("preset"))
def test_a_recipe_goes_with_a_rehearsal_and_no_preset_of_another_kind(
    recipe: str, preset: str
) -> None:
    words = [*given(recipe), f"preset={preset}"]
    if preset in ("none", "tiny"):
        assert load(words).train.compare
        return
    with pytest.raises(config.ConfigError, match=f"preset={preset} (is not possible|has no effec)"):
        load(words)
