"""Every stage composes, every mistake is one clear sentence, a frozen configuration is the same."""

from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from daas_dist.config import (
    Config,
    ConfigError,
    composition,
    difference,
    load,
    load_frozen,
    to_yaml,
)
from daas_dist.config import schema_keys as door

STAGES = door.options("stage")
NEEDS = {
    "search_folder": ["data.root=/pictures"],
    "train_folder": ["data.root=/pictures", "train.result=r.json"],
    "search_imagenet": ["data.root=/shards"],
    "train_imagenet": ["data.root=/shards", "train.result=r.json"],
    "train_fashion": ["train.result=r.json"],
    "train_cifar10": ["train.result=r.json"],
    "train_cifar100": ["train.result=r.json"],
}
"""What only the user can give."""


def message(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(overrides)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("preset", door.options("preset"))
@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_composes_under_every_preset_of_its_kind(stage: str, preset: str) -> None:
    kind, given = stage.partition("_")[0], [f"stage={stage}", f"preset={preset}"]
    config = load([*given, *NEEDS.get(stage, [])])
    assert (config.stage, config.kind) == (stage, kind)


@pytest.mark.parametrize("method", door.options("method"))
@pytest.mark.parametrize("stage", STAGES)
def test_every_search_composes_under_every_method(stage: str, method: str) -> None:
    given = [f"stage={stage}", f"method={method}", *NEEDS.get(stage, [])]
    if stage.startswith("train"):
        assert f"method has no effect: stage={stage} is a train" in message(*given)
    else:
        named = {"ours": "daas", "ours_policy": "daas", "dada": "daas", "none": "daas"}
        assert load(given).search.method == named.get(method, method)


def test_every_method_opens_with_its_claim_number_cost_and_command() -> None:
    for name in set(door.options("method")) - {"none"}:
        text = (door.directory() / "method" / f"{name}.yaml").read_text("utf-8")
        opened = [line.partition(":")[0] for line in text.splitlines()[1:5]]
        assert opened == ["# Claim", "# Number", "# Cost", "# Command"], name


def test_the_groups_on_disk_are_the_known_ones() -> None:
    assert {path.name for path in door.directory().iterdir()} == {
        *("stage", "data", "model", "recipe", "engine", "method", "preset"),
        *("cluster", "experiment"),  # of launch/, and no part of a Config
        "config.yaml",
    }
    assert set(STAGES) >= set(NEEDS) | {"search_fashion", "search_cifar10", "search_cifar100"}


def test_the_default_stage_is_the_one_that_needs_nothing() -> None:
    assert load([]).stage == "search_fashion"


def test_search_cifar10_is_the_papers_search() -> None:
    """Sec. 4.2 and 5, spelt out: 8 cells of 16 channels, 20 + 30 epochs, 5 x 2 and 10 samples."""
    config = load(["stage=search_cifar10"])
    search = config.search
    assert (config.model.cells, config.model.channels) == (8, 16)
    assert (search.warmup_epochs, search.joint_epochs) == (20, 30)
    assert (search.architectures, search.policies_per_architecture) == (5, 2)
    assert (search.weight_architectures, search.weight_gradient) == (10, "sum")
    assert (search.estimator, search.reuse_gradients, search.xi) == ("paper", False, None)
    assert search.architecture.betas == search.policy_optimizer.betas == [0.5, 0.999]
    assert (search.weights.momentum, search.batch_size) == (0.9, 64)
    assert config.policy.parameters == "per_policy"
    assert config.data.limit is None


@pytest.mark.parametrize("stage", STAGES)
def test_preset_paper_makes_any_stage_the_papers(stage: str) -> None:
    """All that is computed is as in the paper's own stage of that kind: its images, what is
    compared and how often it is saved are the stage's."""
    kind, _, data = stage.partition("_")
    paper = stage if data == "imagenet" else f"{kind}_cifar10"
    theirs, given = ([f"stage={name}", *NEEDS.get(name, [])] for name in (paper, stage))
    differs = set(difference(load(theirs), load([*given, "preset=paper"])))
    own = ("data.", "train.compare", "train.seeds", "search.log_every", "search.checkpoint_every")
    assert {key for key in differs if not key.startswith(own)} <= {"stage"}
    if stage == paper or data == "cifar100":
        assert differs <= {"stage", "data.name", "data.mean", "data.std"}


def test_preset_paper_and_a_recipe_are_two_ways_to_train() -> None:
    text = message("stage=train_cifar10", "recipe=shake_shake_96d", "preset=paper")
    assert "preset=paper is not possible" in text and "recipe=shake_shake_96d" in text
    load(["stage=train_cifar10", "train.result=r.json", "recipe=none", "preset=paper"])


def test_a_search_counts_the_network_that_its_training_stage_trains() -> None:
    for data in ("cifar10", "cifar100", "fashion", "imagenet"):
        searched, trained = (
            load([f"stage={kind}_{data}", *NEEDS.get(f"{kind}_{data}", [])])
            for kind in ("search", "train")
        )
        derived, train = searched.search.derived, trained.train
        assert (derived.channels, derived.cells) == (train.channels, train.cells)
        assert (derived.stem or searched.model.stem) == trained.model.stem
        assert derived.classes == (1000 if data == "imagenet" else None)


def test_method_ours_changes_the_estimator_and_its_steps_only() -> None:
    paper, ours = (load(["stage=search_cifar10", f"method={name}"]) for name in ("daas", "ours"))
    assert difference(paper, ours) == {
        "search.reuse_gradients": "false -> true",
        "search.estimator": "paper -> natural",
        "search.policy_optimizer.name": "adam -> sgd",
        "search.evidence.control": "plain -> others",
        "search.policy_optimizer.learning_rate": "0.005 -> 0.2",
        "policy.parameters": "per_policy -> per_slot",
    }


def test_a_preset_wins_over_the_stage_and_the_command_line_over_both() -> None:
    assert load([]).data.limit == 8000
    assert load(["preset=tiny"]).data.limit == 256
    assert load(["preset=tiny", "data.limit=300"]).data.limit == 300
    assert load(["data.limit=300", "preset=tiny"]).data.limit == 300


def test_another_data_set_brings_its_own_values() -> None:
    data = load(["data=cifar10"]).data
    assert (data.name, data.channels, data.crop_padding) == ("cifar10", 3, 4)


def test_values_live_in_yaml_only() -> None:
    with pytest.raises(TypeError, match="missing"):
        Config()  # pyright: ignore[reportCallIssue]


def test_values_have_their_declared_types() -> None:
    config = load(["search.xi=1", "data.root=5"])
    assert type(config.search.xi) is float
    assert config.data.root == "5"
    assert all(is_dataclass(getattr(config, part)) for part in ("data", "search", "train"))
    assert type(config.search.tau.start) is float


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (
            "search.batchsize=3",
            "search.batchsize is not a key: did you mean search.batch_size or train.batch_size?",
        ),
        ("sed=1", "sed is not a key: did you mean seed?"),
        ("search.weights.momentun=.9", "did you mean search.weights.momentum or train.momentum?"),
        ("stge=search_fashion", "stge is not a key: did you mean stage?"),
        ("zzzzzz=1", "zzzzzz is not a key: `daas explain stage=NAME` lists all"),
        ("hydra.run.dir=/tmp", "hydra.run.dir is not a key"),
    ],
)
def test_a_misspelt_key_names_the_nearest_valid_ones(override: str, expected: str) -> None:
    assert expected in message(override)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("seed=first", "seed=first is not possible: expected a whole number"),
        ("seed=1.5", "seed=1.5 is not possible: expected a whole number"),
        ("seed=true", "seed=true is not possible: expected a whole number"),
        ("seed=null", "seed=null is not possible: expected a whole number"),
        ("search.tau.start=hot", "search.tau.start=hot is not possible: expected a number"),
        ("search.xi=fast", "search.xi=fast is not possible: expected a number or null"),
        ("data.flip=maybe", "data.flip=maybe is not possible: expected true or false"),
        ("data.mean=0.5", "data.mean=0.5 is not possible: expected a list of numbers"),
        ("data.mean=[a]", "data.mean=[a] is not possible: expected a list of numbers"),
        ("data.root=[a]", "data.root=[a] is not possible: expected a text or null"),
        ("data.root=", "data.root= is not possible: expected a text or null"),
        ("data.root={a: 1}", "is not possible: expected a text or null"),
    ],
)
def test_a_wrong_type_names_key_value_and_type(override: str, expected: str) -> None:
    assert expected in message(override)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ("seed=-1", "seed=-1 is not possible: expected a whole number of at least 0"),
        ("device=tpu", "device=tpu is not possible: expected one of auto, cpu, cuda"),
        ("search.batch_size=0", "search.batch_size=0 is not possible: expected a whole number of"),
        ("search.estimator=fast", "expected one of paper, leave_one_out, per_image, running_means"),
        ("search.xi=-0.1", "search.xi=-0.1 is not possible: expected a number of 0 or more"),
        ("search.xi=nan", "search.xi=nan is not possible: expected a number of 0 or more"),
        ("search.xi=inf", "search.xi=inf is not possible: expected a number of 0 or more"),
        ("search.architecture.betas=[0.9]", "expected two numbers in [0, 1)"),
        (
            "search.policy_optimizer.name=adam search.policy_optimizer.betas=[0.9,1]",
            "search.policy_optimizer.betas=[0.9, 1]",
        ),
        ("search.weights.clip=0", "search.weights.clip=0 is not possible: expected a number"),
        ("search.evidence.decay=1.5", "expected above 0 and at most 1"),
        ("search.evidence.control=x", "expected one of plain, others"),
        (
            "search.evidence.control=others search.architectures=1",
            "search.evidence.control=others is not possible: expected plain, as",
        ),
        ("search.tau.end=11", "expected at most search.tau.start=10.0"),
        ("search.weights.learning_rate_end=1", "at most search.weights.learning_rate=0.025"),
        ("search.warmup_epochs=0 search.joint_epochs=0", "as search.warmup_epochs is 0 too"),
        (
            "search.estimator=leave_one_out search.policies_per_architecture=1",
            "search.policies_per_architecture=1 is not possible: expected at least 2",
        ),
        ("search.target=policy", "model=supernet is not possible: expected one of genotype"),
        ("model=small", "model=small is not possible: expected supernet, as search.target=joint"),
        ("model=genotype search.target=policy", "model.genotype=runs/…/result.json"),
        ("model.genotype=r.json", "expected null, as model=supernet; add model=genotype"),
        ("model.network=resnet50", "expected null, as model=supernet; add model=torchvision"),
        (
            "model=torchvision search.target=policy data=cifar10",
            "model.network=null is not possible: expected a name, as model=torchvision",
        ),
        (
            "model=torchvision search.target=policy model.network=resnet50",
            "data.channels=1 is not possible: expected 3, as torchvision's networks take colour",
        ),
        ("model=wide_resnet_40_2", "model=wide_resnet_40_2 is not possible: expected supernet"),
        ("model.cells=2", "expected a whole number of at least 3"),
        ("search.max_flops=0", "expected a number above 0"),
        ("search.max_parameters=-1", "expected a number above 0"),
        ("search.derived.channels=7", "=7 is not possible: expected an even number of at least 2"),
        ("search.derived.stem=resnet", "expected one of cifar, imagenet"),
        (
            "search.target=policy model=small search.max_flops=600e6",
            "search.max_flops=600000000.0 is not possible: expected null, as search.target",
        ),
        (
            "search.target=policy model=small search.max_parameters=3e6",
            "search.max_parameters=3000000.0 is not possible: expected null, as search.target",
        ),
        ("policy.fixed=r.json", "policy.fixed=r.json is not possible: expected null"),
        ("policy.slots=0", "policy.slots=0 is not possible"),
        ("data=folder", "data.root=null is not possible: expected the path of a folder"),
        ("data=folder data.root=/a data.size=null", "expected the side in pixels"),
        ("data=cifar10 data.root=null", "expected the path of the folder that holds cifar10"),
        ("data=folder data.root=/a data.download=true", "data.download=true is not possible"),
        ("data=shards", "data.root=null is not possible: expected a folder of shards"),
        ("data=shards data.root=/a data.crop_scale=[0.5,0.1]", "two shares of the area"),
        ("data=shards data.root=/a data.crop_padding=4", "0, as data.crop_scale cuts a part"),
        ("data=shards data.root=/a data.test_resize=100", "at least data.size=224"),
        (
            "search.target=policy model=small search.cuda_graphs=true",
            "expected false, as search.target=policy searches on a network that has no paths",
        ),
        (
            "search.cuda_graphs=true mesh.data=2",
            "search.cuda_graphs=true is not possible: expected false, as ranks exchange",
        ),
        ("data=stream", "data.root=null is not possible: expected where the training shards are"),
        (
            "data=stream data.root=/a data.val_root=/b data.limit=null",
            "data.limit=null is not possible: expected how many training samples make an epoch",
        ),
        (
            "data=stream data.root=/a data.val_root=/b data.limit=9 data.test_limit=9 "
            "data.classes=dada120",
            "data.classes=dada120 is not possible: expected how many classes there are",
        ),
        ("data=stream data.root=pipe:ls data.val_root=/b data.limit=9 data.test_limit=9", "runs a"),
        ("data=stream data.shuffle_window=2 data.root=/a", "expected where the test shards are"),
        ("data.classes=dada120", "all, as data=fashion_mnist: only data=shards has that"),
        ("data.shuffle_window=4", "null, as data=fashion_mnist: only data=shards has that"),
        ("data.size=32", "data.size=32 is not possible: expected null, as fashion_mnist"),
        ("data.val_root=/a", "data.val_root=/a is not possible: expected null"),
        ("data.mean=[0.5]", "data.std=null is not possible: expected numbers, as data.mean has"),
        ("data.std=[0.5]", "data.std=[0.5] is not possible: expected null, as data.mean is null"),
        ("data.mean=[0.5,0.5]", "expected 1 numbers, as data.channels=1"),
        ("data.mean=[0.5] data.std=[0]", "data.std=[0] is not possible: expected numbers above"),
        ("data.mean=[nan] data.std=[1]", "data.mean=[nan] is not possible: expected finite"),
        ("data.val_share=1", "data.val_share=1 is not possible: expected a number between"),
        ("data.limit=1", "data.limit=1 is not possible: expected at least 2 or null for all"),
        ("data.channels=2", "data.channels=2 is not possible: expected one of 1, 3"),
    ],
)
def test_an_impossible_value_says_what_is_possible(overrides: str, expected: str) -> None:
    assert expected in message(*overrides.split(" "))


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (
            "train.compare=[found/best]",
            "train.compare=[found/best] is not possible: expected a list of ARCHITECTURE/POLICY",
        ),
        ("train.compare=[]", "expected one or more, none of them twice"),
        (
            "train.compare=[resnet18/default]",
            "data.channels=1 is not possible: expected 3, as train.compare names torchvision's "
            "resnet18",
        ),
        (
            "data=stream data.root=/a data.val_root=/b data.limit=9 data.test_limit=9 "
            "data.classes=9 data.mean=[0.5,0.5,0.5] data.std=[1,1,1] train.augment_on=reader",
            "train.augment_on=reader is not possible: expected device, as data=stream",
        ),
        ("train.seeds=[1,1]", "train.seeds=[1, 1] is not possible: expected one or more, none"),
        ("train.seeds=[-1]", "expected whole numbers of 0 or more"),
        ("train.drop_path=1", "train.drop_path=1 is not possible"),
        ("train.auxiliary_weight=-1", "expected a number of 0 or more"),
        ("train.cells=1", "train.cells=1 is not possible"),
        ("train.schedule=step", "train.schedule=step is not possible: expected one of cosine, lin"),
        ("train.schedule=steps", "expected epochs as [90, 180, 240], as train.schedule=steps"),
        ("train.milestones=[3]", "expected null, as train.schedule=cosine"),
        ("train.milestones=[3,3]", "one or more epochs from 1 on, each after the one before it"),
        ("train.schedule=linear", "its end alone takes 5 of train.epochs=4"),
        ("train.warmup_epochs=5", "train.warmup_epochs=5 is not possible: expected at most train"),
        ("train.warmup_multiplier=4", "expected null, as train.warmup_epochs=0"),
        ("train.nesterov=true train.momentum=0", "expected false, as train.momentum=0.0"),
        ("data.color_jitter=[0.4,0.4,0.4]", "brightness, contrast, saturation and hue, each 0"),
        ("data.color_jitter=[0,0,0,0.6]", "hue at most 0.5"),
        ("data.lighting=0.1", "expected null, as data.channels=1: it is of colours"),
    ],
)
def test_an_impossible_training_says_what_is_possible(override: str, expected: str) -> None:
    text = message("stage=train_fashion", "train.result=r.json", *override.split(" "))
    assert expected in text


def test_training_what_was_found_needs_the_result() -> None:
    text = message("stage=train_fashion")
    assert "train.result=null is not possible" in text
    assert text.endswith("train.result=runs/…/result.json")
    assert load(["stage=train_fashion", "train.compare=[random/none]"]).train.result is None


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("seed", "seed cannot be read: expected KEY=VALUE"),
        ("search.xi=(1)", "search.xi=(1) cannot be read: expected KEY=VALUE"),
        ("+search.extra=1", "no key added or removed"),
        ("~seed", "no key added or removed"),
        ("data@model=cifar10", "no key added or removed"),
        ("seed=1,2", "seed=1,2 has several values: a list is written seed=[A,B]"),
        ("search.tau=3", "sets a whole group: set its keys, such as search.tau.start=VALUE"),
        ("data.root=${nowhere}", "data.root=${nowhere} cannot be composed"),
        ("stage=search_cifr10", "stage=search_cifr10 is not possible: expected one of search_"),
        ("preset=[tiny]", "expected one of none, paper, tiny"),
        ("data.name=cifar10", "data.name comes with its group: use data=NAME"),
        ("kind=train", "kind comes with its group: use stage=NAME"),
        ("train.epochs=3", "train.epochs has no effect: stage=search_fashion is a search"),
        ("recipe=resnet_50", "recipe has no effect: stage=search_fashion is a search"),
        ("data.lighting=0.1", "data.lighting has no effect: stage=search_fashion is a search"),
    ],
)
def test_what_is_no_override_says_how_to_write_one(override: str, expected: str) -> None:
    assert expected in message(override)


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        (["data.root=https://host/shards"], "data.cache=null is not possible: expected a local"),
        (["data.root=/shards", "data.val_root=s3://b/p"], "folder, as data.val_root is a URL"),
        (["data.root=/shards", "data.cache=/c"], "expected null, as data.root is no URL"),
        (["data.root=s3://b/p", "data.cache=s3://b/c"], "data.cache=s3://b/c is not possible"),
        (["data.root='pipe:curl host|cat'"], "data.root=pipe:curl host|cat is not possible: expec"),
        (["data.root='pipe:curl host|cat'"], "pipe: runs a command"),
        (["data.root=PIPE:cat"], "pipe: runs a command"),
        (["data.root=/s", "data.val_root='pipe:cat f'", "data.cache=/c"], "data.val_root=pipe:cat"),
        (["data.root=memory://p", "data.cache=/c"], "memory:// is another one in each process"),
        (["data.root=simplecache::s3://b/p", "data.cache=/c"], "one URL, as :: chains several"),
        (["data.root='https://host/p?key'", "data.cache=/c"], "of a folder, without ? and #"),
        (["data.root=https://me:secret@host/p", "data.cache=/c"], "token before its @, which"),
        (["data=imagenet", "data.root=/shards", "data.cache=/c"], "expected null, as data.root is"),
    ],
)
def test_a_url_needs_a_cache_and_runs_nothing(places: list[str], expected: str) -> None:
    text = message("stage=search_imagenet", "data=shards", *places)
    assert expected in text and "secret" not in text


@pytest.mark.parametrize("url", ["https://host:80/a/b", "s3://b/p", "gs://b/p", "file:///shards"])
def test_a_url_with_a_cache_is_a_place(url: str) -> None:
    data = load(["stage=search_imagenet", f"data.root={url}", "data.cache=/local"]).data
    assert (data.root, data.cache) == (url, "/local")


def test_a_value_with_brackets_can_be_quoted() -> None:
    assert load(['data.root="/a (1)/b=c"']).data.root == "/a (1)/b=c"


def test_a_training_refuses_the_searchs_settings() -> None:
    text = message("stage=train_fashion", "train.result=r.json", "search.batch_size=8")
    assert "stage=train_fashion is a train" in text
    load(["stage=train_fashion", "train.result=r.json", "model.stem=imagenet"])


@pytest.mark.parametrize("stage", STAGES)
def test_a_frozen_configuration_is_the_same(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load([f"stage={stage}", "seed=7", 'run_dir="/a (1)"', *NEEDS.get(stage, [])])
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config), encoding="utf-8")
    monkeypatch.setattr(door, "directory", lambda: pytest.fail("configs/ must not be read"))
    assert load_frozen(path) == config
    assert difference(config, load_frozen(path)) == {}


def test_a_small_number_and_an_odd_text_survive_freezing(tmp_path: Path) -> None:
    config = load(["search.xi=1e-7", "data.root='null'", "run_dir='1e-3'"])
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config), encoding="utf-8")
    frozen = load_frozen(path)
    assert (frozen.search.xi, frozen.data.root, frozen.run_dir) == (1e-7, "null", "1e-3")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("seed: 0\n", "", "seed is missing: expected a whole number"),
        ("seed: 0\n", "seed: 0\nsede: 1\n", "sede is not a key: did you mean seed?"),
        ("    end: 0.1\n", "", "search.tau.end is missing: expected a number"),
        ("    end: 0.1\n", "    end: [1]\n", "search.tau.end=[1] is not possible"),
        ("seed: 0\n", "seed: {a: 1}\n", "is not possible: expected a whole number"),
        ("seed: 0\n", "seed: '7'\n", "seed='7' is not possible: expected a whole number"),
        ("seed: 0\n", "seed: 7.0\n", "seed=7.0 is not possible: expected a whole number"),
        ("  channels: 1\n", "  channels: true\n", "data.channels=true is not possible: expected a"),
        ("  flip: true\n", "  flip: 1\n", "data.flip=1 is not possible: expected true or false"),
        ("    end: 0.1\n", "    end: '.1'\n", "search.tau.end='.1' is not possible: expected a nu"),
        ("run_dir: null\n", "run_dir: 5\n", "run_dir=5 is not possible: expected a text or null"),
        (
            "run_dir: null\n",
            'run_dir: "\\uDCE9"\n',
            r"run_dir=\udce9 is not possible: exp",
        ),
        ("  allow: []\n", "  allow: [1]\n", "resume.allow=[1] is not possible: expected a list [A"),
        ("seed: 0\n", "seed: 0\nseed: 1\n", "is not a configuration ("),
        ("seed: 0\n", "seed: ${x}\n", "is not a configuration (Interpolation key 'x' not found"),
    ],
)
def test_a_damaged_frozen_configuration_says_where(
    old: str, new: str, expected: str, tmp_path: Path
) -> None:
    text = to_yaml(load([]))
    assert old in text
    path = tmp_path / "config.yaml"
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_frozen(path)
    assert str(caught.value).startswith(str(path))
    assert expected in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"- 1\n", b"7", b"a: [", b"\xff\xfe\x00\xd8", None])
def test_a_file_that_is_no_configuration_is_a_config_error(
    content: bytes | None, tmp_path: Path
) -> None:
    path = tmp_path / "config.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match="config.yaml"):
        load_frozen(path)


def test_difference_names_each_key_once_and_not_the_place() -> None:
    changed = ["seed=1", "search.xi=0.1", "data.flip=false", "run_dir=/elsewhere"]
    changed += ["search.architecture.betas=[0.9,0.99]"]
    assert difference(load([]), load(changed)) == {
        "seed": "0 -> 1",
        "data.flip": "true -> false",
        "search.xi": "null -> 0.1",
        "search.architecture.betas": "[0.5, 0.999] -> [0.9, 0.99]",
    }
    assert difference(load([]), load(["run_dir=/elsewhere", "device=cpu"])) == {}


def test_the_schema_has_no_field_without_a_value_and_no_default() -> None:
    leaves = door.keys()
    values = composition([]).values
    assert sorted(door.flat(values)) == sorted(leaves)
    assert len(set(leaves)) == len(leaves)
    for group in {type(load([])), type(load([]).search), type(load([]).search.tau)}:
        assert all(field.default_factory is field.default for field in fields(group))


def test_an_installed_package_reads_the_configs_inside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wheel has daas_dist/configs; a stranger's ../configs next to it is not ours."""
    package = tmp_path / "site-packages" / "daas_dist"
    package.mkdir(parents=True)
    (tmp_path / "site-packages" / "configs").mkdir()
    (package / "configs").symlink_to(door.directory())
    monkeypatch.setattr(door, "__file__", str(package / "config" / "schema_keys.py"))
    assert door.directory() == package / "configs"
    assert load([]).stage == "search_fashion"
    (package / "configs").unlink()
    with pytest.raises(ConfigError, match="reinstall daas-dist"):
        door.directory()
