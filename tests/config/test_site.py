"""Where the data sets of a site lie: data.root, a cluster file, DAAS_DATA, in this order."""

from pathlib import Path

import make_imagenet
import pytest
from fake_slurm import FakeSlurm

from daas_dist import cli, config
from daas_dist.config import ConfigError, explain, load, site
from launch import submit

IMAGENET = "stage=search_imagenet"


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (site.DATA, site.CLUSTER):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a folder for each of two data sets."""
    for name in ("imagenet", "cifar100"):
        (tmp_path / "data" / name).mkdir(parents=True)
    monkeypatch.setenv(site.DATA, str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cluster file that DAAS_CLUSTER names."""
    path = tmp_path / "ours.yaml"
    path.write_text(f"kind: local\nroots: {{imagenet: {tmp_path}/shards, cifar10: /fast/c10}}\n")
    monkeypatch.setenv(site.CLUSTER, str(path))
    return path


def refusal(*words: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(words)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_order_is_command_line_site_s_file_folder_default(
    data: Path, own_file: Path, tmp_path: Path
) -> None:
    assert load([IMAGENET, "data.root=/mine"]).data.root == "/mine"
    assert load([IMAGENET]).data.root == f"{tmp_path}/shards"
    assert load(["stage=search_cifar100"]).data.root == f"{data}/cifar100"
    assert load(["stage=search_cifar10"]).data.root == "/fast/c10"
    assert load(["stage=search_fashion"]).data.root is None
    own_file.write_text("kind: slurm\n")
    assert load([IMAGENET]).data.root == f"{data}/imagenet"
    assert load(["stage=search_cifar10"]).data.root == "datasets"
    # Which data set it is says data=, whatever the stage.
    assert load(["stage=search_cifar10", "data=cifar100"]).data.root == f"{data}/cifar100"


def test_a_stream_has_two_places_and_each_may_be_given(own_file: Path) -> None:
    own_file.write_text(
        "kind: slurm\nroots: {stream: {root: '/d/t-{000..9}.tar', val_root: 'https://h/v.tar'}}\n"
    )
    words = ["stage=train_imagenet", "train.result=r.json", "data=stream", "data.limit=9",
             "data.test_limit=9"]  # fmt: skip
    found = load(words).data
    assert (found.root, found.val_root) == ("/d/t-{000..9}.tar", "https://h/v.tar")
    assert load([*words, "data.val_root=/v.tar"]).data.root == "/d/t-{000..9}.tar"
    # One that is given is of other images: the site's test images are not theirs.
    assert "data.val_root=null" in refusal(*words, "data.root=/t.tar")


def test_explain_shows_who_said_it(
    data: Path, own_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def row(*words: str) -> explain.Row:
        return explain.explain([*words, "data.root"])[0]

    assert row(IMAGENET).source == f"roots of {own_file}" and row(IMAGENET).file == explain.SITE
    assert row("stage=search_cifar100").source == f"DAAS_DATA={data}"
    assert row(IMAGENET, "data.root=/x").file == explain.YOURS
    assert row("stage=search_fashion").file == "data/fashion_mnist.yaml"
    assert cli.main(["explain", "stage=search_cifar100"]) == 0
    assert f"DAAS_DATA={data} (your site)" in capsys.readouterr().out


def test_a_missing_folder_names_all_ways(
    data: Path, own_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_file.write_text("kind: slurm\n")
    (data / "imagenet").rmdir()
    for said in ("data.root=PATH", f"roots: {{imagenet: PATH}} in {own_file}",
                 f"DAAS_DATA={data} has no folder imagenet"):  # fmt: skip
        assert said in refusal(IMAGENET)
    monkeypatch.delenv(site.DATA)
    assert "DAAS_DATA is not set" in refusal(IMAGENET)
    assert "roots: {folder: PATH}" in refusal("stage=search_folder")
    assert refusal(IMAGENET).startswith("data.root=null is not possible: expected a folder of sh")
    monkeypatch.setenv(site.DATA, str(own_file))
    assert refusal("stage=search_cifar10") == (
        f"DAAS_DATA={own_file} is no folder: expected one with a folder a data set"
    )
    assert load([IMAGENET, "data.root=/x"]).data.root == "/x"  # nobody asks it


def test_a_site_s_folder_that_is_not_there_is_refused_before_anything_begins(
    own_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    for command in (
        lambda: cli.main(["run", IMAGENET, "run_dir=r"]),
        lambda: submit.main([IMAGENET, "run_dir=r"]),
    ):
        assert command() == 2
        said = capsys.readouterr().err
        assert f"data.root={tmp_path}/shards is not there (roots of {own_file})" in said
        assert "data.root=PATH" in said and "DAAS_DATA" in said
    assert not (tmp_path / "r").exists()
    # A cluster's nodes may have it all the same.
    own_file.write_text(own_file.read_text().replace("local", "slurm"))
    FakeSlurm(tmp_path / "slurm", monkeypatch)
    assert submit.main(["--nodes", "4", IMAGENET, "run_dir=r"]) == 0
    assert f"warning: on this machine data.root={tmp_path}/shards" in capsys.readouterr().err


def test_variables_and_the_home_in_a_site_s_file(
    own_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_file.write_text(
        "kind: slurm\nroots: {imagenet: '$DISK/${WHO}/in', cifar10: ~/c, cifar100: $NO/x}"
    )
    monkeypatch.setenv("DISK", "/scratch")
    monkeypatch.setenv("WHO", "me")
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.delenv("NO", raising=False)
    assert load([IMAGENET]).data.root == "/scratch/me/in"
    assert load(["stage=search_cifar10"]).data.root == "/home/me/c"
    assert "$NO is not" in refusal("stage=search_cifar100")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("roots: {imagnet: /x}", "imagnet=/x is not possible: expected one of cifar10"),
        ("roots: {imagenet: shards}", "root=shards is not possible: expected an absolute path"),
        ("roots: {imagenet: 5}", "expected an absolute path"),
        ("roots: {imagenet: {val_root: /x}}", "{root: PATH, val_root: PATH}"),
        ("roots: {imagenet: {root: /x, test: /y}}", "{root: PATH, val_root: PATH}"),
        ("roots: [imagenet]", "paths by name"),
        ("- kind", "expected keys and values"),
        ("", "expected keys and values"),
        ("kind: [", "is not YAML"),
    ],
)
def test_what_is_wrong_in_a_site_s_file_is_named(text: str, said: str, own_file: Path) -> None:
    own_file.write_text(text)
    assert said in refusal("stage=search_fashion")


def test_a_cluster_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(site.CLUSTER, "moon")
    assert "DAAS_CLUSTER moon is not known: expected one of debug" in refusal(
        "stage=search_fashion"
    )
    monkeypatch.setenv(site.CLUSTER, f"{tmp_path}")
    assert "cannot be read: Is a directory" in refusal("stage=search_fashion")


def test_a_dry_run_shows_where_the_images_lie_and_who_said_so(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    FakeSlurm(tmp_path / "slurm", monkeypatch)
    monkeypatch.chdir(tmp_path)
    then = "stage=train_imagenet"
    words = ["--nodes", "4", "--dry-run", "--then", then, IMAGENET]
    assert submit.main(words) == 0
    told = capsys.readouterr().out
    assert told.count(f"data.root={data}/imagenet, from DAAS_DATA={data}") == 2


def test_the_found_place_is_frozen_and_nothing_is_asked_again(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stage as it is named, off a cluster: shards of a thousand classes, as ImageNet has."""
    make_imagenet.shards_of_all_classes(data / "imagenet")
    run_dir = tmp_path / "run"
    shorter = ("search.batch_size=60", "search.warmup_epochs=0", "search.joint_epochs=1")
    assert cli.main(["run", IMAGENET, "preset=tiny", *shorter, f"run_dir={run_dir}"]) == 0
    frozen = config.load_frozen(run_dir / "config.yaml").data
    assert (frozen.root, frozen.val_root) == (f"{data}/imagenet", None)
    monkeypatch.setenv(site.DATA, "/elsewhere")
    assert config.load_frozen(run_dir / "config.yaml").data.root == f"{data}/imagenet"
