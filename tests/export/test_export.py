"""What `daas export` writes, used where this package cannot be imported, and what it refuses."""

import hashlib
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import fake_run
import found_results as results
import pytest
import safetensors
import safetensors.torch
import torch
import trained_rows
from found_results import mixed_policy
from images import fashion, from_pil, photographs, to_pil
from rank_processes import forks, in_processes
from torch import Tensor

from daas_dist import cli
from daas_dist.export import TARGETS, export, programs
from daas_dist.export.torch_only import normalise, read_safetensors
from daas_dist.results import trained
from daas_dist.results.transform import PolicyTransform
from daas_dist.spaces import operations as augment
from daas_dist.spaces.policy import Policy

ISOLATED = """
import importlib.abc, sys

class Forbidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {forbidden}:
            raise ImportError(name + " is forbidden here")

sys.meta_path.insert(0, Forbidden())
sys.path.insert(0, {folder})
import torch
torch.set_num_threads(1)
"""


def run_isolated(code: str, folder: Path, forbidden: tuple[str, ...], cwd: Path) -> None:
    """Run code beside exported files, in a process that cannot import these packages."""
    head = ISOLATED.format(forbidden=set(forbidden), folder=repr(str(folder)))
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-I", "-c", head + code],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    document = trained_rows.document(policy=results.plain(mixed_policy()))
    return trained_rows.save(tmp_path_factory.mktemp("row"), document)


@pytest.fixture(scope="module")
def folder(result: Path) -> Path:
    """Everything exported, by the command: torch.export starts threads, after which a process must
    not fork to compute, as other tests' do."""
    command = [sys.executable, "-m", "daas_dist.cli", "export", str(result), "--to", "all"]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return result.parent / "export"


# ---------------------------------------------------------------- elsewhere

NETWORKS = """
import network
images = torch.load("images.pt", weights_only=True)
with torch.no_grad():
    torch.save(network.load()(network.prepare(images)), "module.pt")
try:
    import daas_dist
except ImportError:
    torch.save(torch.tensor(list(map(len, network.CLASSES))), "classes.pt")
"""

PROGRAMS = """
import onnxruntime
inputs = torch.load("inputs.pt", weights_only=True)
program = torch.export.load({pt2!r}).module()
with torch.no_grad():
    torch.save(program(inputs), "torch_export.pt")
session = onnxruntime.InferenceSession({onnx!r})
torch.save(torch.from_numpy(session.run(["logits"], {{"images": inputs.numpy()}})[0]), "onnx.pt")
"""

POLICY = """
import policy
images = torch.load("images.pt", weights_only=True)
transform = policy.policy(torch.Generator().manual_seed(17))
torch.save([transform(images), transform(images)], "policy.pt")
"""


@pytest.mark.usefixtures("single_thread")
def test_network_and_weights_elsewhere_with_torch_alone_give_the_same_bits(
    folder: Path, result: Path, tmp_path: Path
) -> None:
    images = fashion(256, 1)
    torch.save(images, tmp_path / "images.pt")
    forbidden = ("daas_dist", "torchvision", "safetensors", "PIL")
    run_isolated(NETWORKS, folder, forbidden, tmp_path)
    row = trained.load(result)
    with torch.no_grad():
        expected = row.network()(row.preprocess()(images))
    assert torch.equal(torch.load(tmp_path / "module.pt", weights_only=True), expected)
    lengths = torch.load(tmp_path / "classes.pt", weights_only=True)
    assert lengths.tolist() == [len(name) for name in trained_rows.CLASSES]


@pytest.mark.usefixtures("single_thread")
def test_programs_elsewhere_give_the_same_logits(
    folder: Path, result: Path, tmp_path: Path
) -> None:
    """torch.export bit for bit, ONNX within its tolerance, at another batch size than exported."""
    row = trained.load(result)
    inputs = row.preprocess()(fashion(256, 1))
    torch.save(inputs, tmp_path / "inputs.pt")
    code = PROGRAMS.format(pt2=str(folder / "model.pt2"), onnx=str(folder / "model.onnx"))
    run_isolated(code, folder, ("daas_dist", "torchvision", "safetensors"), tmp_path)
    with torch.no_grad():
        expected = row.network()(inputs)
    assert torch.equal(torch.load(tmp_path / "torch_export.pt", weights_only=True), expected)
    onnx = torch.load(tmp_path / "onnx.pt", weights_only=True)
    largest = float(expected.abs().max())
    assert float((onnx - expected).abs().max()) <= programs.TOLERANCE * largest
    assert not torch.equal(onnx, expected)  # another library: equal bits would mean it is not


def test_the_policy_elsewhere_draws_and_changes_the_same(folder: Path, tmp_path: Path) -> None:
    images = fashion(256, 1)
    torch.save(images, tmp_path / "images.pt")
    run_isolated(POLICY, folder, ("daas_dist", "safetensors"), tmp_path)
    transform = PolicyTransform(mixed_policy(), seeded(17))
    first, second = torch.load(tmp_path / "policy.pt", weights_only=True)
    assert torch.equal(first, transform(images)) and torch.equal(second, transform(images))
    assert not torch.equal(first, second)


@pytest.fixture
def single_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# ---------------------------------------------------------------- the policy's source


def exported_policy(policy: Policy, folder: Path) -> dict[str, Any]:
    """The names of policy.py of a search's result."""
    folder.mkdir(exist_ok=True)
    export(results.save(folder, policy=results.plain(policy)), ["torchvision"], folder)
    return runpy.run_path(str(folder / "policy.py"))


def joint_policy() -> Policy:
    """Own numbers for every ordered pair: none of them round, none like another's."""
    generator = seeded(2)
    return Policy(
        probability_KO=torch.rand(2, len(augment.NAMES), generator=generator).softmax(-1),
        application=torch.rand(225, 2, generator=generator),
        magnitude=torch.randint(10, (225, 2), generator=generator),
        parameters="per_policy",
        ranges="dada",
    )


@pytest.mark.parametrize("policy", [mixed_policy(), joint_policy()], ids=["per_slot", "joint"])
def test_the_source_has_the_policys_very_numbers_and_draws(policy: Policy, tmp_path: Path) -> None:
    names = exported_policy(policy, tmp_path)
    copied = names["POLICY"]
    for part in ("probability_KO", "application", "magnitude"):
        assert torch.equal(getattr(copied, part), getattr(policy, part)), part
    images = photographs(60, 3, 25, 34)
    ours, theirs = PolicyTransform(policy, seeded(5)), names["policy"](seeded(5))
    for batch in images.split(20):
        assert torch.equal(theirs(batch), ours(batch))
    assert theirs(to_pil(images[0])).tobytes() == ours(to_pil(images[0])).tobytes()


@pytest.mark.parametrize("ranges", augment.RANGES)
def test_every_operation_at_every_magnitude_is_ours(ranges: str, tmp_path: Path) -> None:
    apply = exported_policy(mixed_policy(), tmp_path)["PolicyTransform"]
    apply = apply.transform.__globals__["operations_apply"]
    images = torch.cat([photographs(5, 3, 21, 30), photographs(5, 1, 21, 30).expand(-1, 3, -1, -1)])
    count = len(images)
    for number in range(len(augment.NAMES)):
        changed = 0
        for magnitude in range(augment.MAGNITUDES):
            draws = (
                torch.full((count,), number),
                torch.full((count,), magnitude),
                torch.tensor([1, -1]).repeat(count // 2),
                torch.rand(count, 2, generator=seeded(magnitude)),
                ranges,
            )
            expected = augment.apply(images, *draws)
            assert torch.equal(apply(images, *draws), expected)
            changed += int((expected != images).any())
        assert changed >= 1, augment.NAMES[number]


# ---------------------------------------------------------------- the network's source


def test_a_fixed_network_is_copied_without_the_others(tmp_path: Path) -> None:
    path = trained_rows.save(tmp_path, trained_rows.document("small"))
    export(path, ["module"], tmp_path / "out")
    names = runpy.run_path(str(tmp_path / "out" / "network.py"))
    images = fashion(6, 1)
    given = names["load"]()(names["prepare"](images))
    row = trained.load(path)
    assert torch.equal(given, row.network()(row.preprocess()(images)))
    assert "DerivedCell" not in names and names["FIXED"].keys() == {"small"}


def test_a_searchs_network_is_copied_untrained_and_trains_like_ours(tmp_path: Path) -> None:
    """Auxiliary tower and drop-path too: the same draws, logits and gradients."""
    path = results.save(tmp_path)
    export(path, ["module"], tmp_path)
    made = runpy.run_path(str(tmp_path / "network.py"))["untrained"]
    sizes: dict[str, Any] = {"channels": 4, "cells": 3, "auxiliary": True}
    theirs, ours = made(**sizes), trained_like(path, **sizes)
    theirs.load_state_dict(ours.state_dict())
    images = photographs(4, 3, 32, 32).float() / 255
    for network in (theirs, ours):
        network.train().set_noise(0.3, seeded(6))
        logits, auxiliary = network(images)
        (logits.square().mean() + auxiliary.square().mean()).backward()
    gradients = [[p.grad for p in network.parameters()] for network in (theirs, ours)]
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def trained_like(path: Path, **sizes: Any) -> Any:
    import daas_dist

    return daas_dist.load(path).network(**sizes)


# ---------------------------------------------------------------- weights


def test_the_header_has_what_a_program_needs(folder: Path, result: Path) -> None:
    with safetensors.safe_open(folder / "weights.safetensors", "pt") as opened:
        header = opened.metadata()
        names = set(opened.keys())
    assert json.loads(header["classes"]) == list(trained_rows.CLASSES)
    assert json.loads(header["mean"]) == [trained_rows.MEAN]
    assert json.loads(header["shape"]) == [1, 28, 28]
    origin = json.loads(header["origin"])
    assert origin["result_sha256"] == hashlib.sha256(result.read_bytes()).hexdigest()
    assert names == set(trained_rows.network().state_dict())


def test_weights_are_read_with_torch_alone_as_by_safetensors(tmp_path: Path) -> None:
    tensors: dict[str, Tensor] = {
        "float": torch.randn(3, 2, 5),
        "half": torch.randn(4).half(),
        "brain": torch.randn(2, 3).bfloat16(),
        "whole": torch.tensor(2**40 + 1),
        "bytes": torch.arange(7, dtype=torch.uint8),
        "truth": torch.tensor([True, False]),
    }
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file(tensors, path, metadata={"a": "b"})
    read = read_safetensors(path)
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype and torch.equal(read[name], tensor)


def test_pixels_are_normalised_as_in_training() -> None:
    images, mean, std = photographs(3, 3, 9, 8), (0.49, 0.48, 0.45), (0.247, 0.243, 0.261)
    assert torch.equal(normalise(images, mean, std), augment.normalise(images, mean, std))


# ---------------------------------------------------------------- hostile names

HOSTILE = [
    '"""; import os; open("PWNED", "w")',
    "'''; open('PWNED', 'w') #",
    "a\nopen('PWNED', 'w')\n",
    '\\"); open("PWNED", "w")',
    "{open('PWNED', 'w')}",
    "`</script><script>alert(1)</script>`` | **b**",
    "\u202eltr \x1b[31m \ud800",
    "Träger 鞋",
]


def test_names_of_classes_are_never_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = [*HOSTILE, "eight", "nine"]
    document = trained_rows.document("small", results.plain(mixed_policy()))
    document["data"]["classes"] = names
    document["architecture"] = HOSTILE[0]
    document["recipe"]["train"] = {HOSTILE[5]: HOSTILE[2]}
    path = trained_rows.save(tmp_path, document)
    targets = [target for target in TARGETS if target not in ("onnx", "torch_export")]
    export(path, targets, tmp_path / "out")
    assert runpy.run_path("out/network.py")["CLASSES"] == tuple(names)
    runpy.run_path("out/policy.py")
    with safetensors.safe_open("out/weights.safetensors", "pt") as opened:
        assert json.loads(opened.metadata()["classes"]) == names
    card = Path("out/MODEL_CARD.md").read_text()
    assert len([line for line in card.splitlines() if line.startswith("- 10 classes:")]) == 1
    assert "\x1b" not in card and not any(line.startswith("open(") for line in card.splitlines())
    assert "``` `</script><script>alert(1)</script>`` | **b** ```" in card
    assert not Path("PWNED").exists()


# ---------------------------------------------------------------- the card


def test_the_card_has_the_numbers_and_what_they_are_not(folder: Path) -> None:
    card = (folder / "MODEL_CARD.md").read_text()
    for words in (
        "last of 8 epochs: 91.37%",
        "best on the test images: 91.51%",
        "7.65 M, within 600 M at 28 x 28",
        "Seed `4`",
        "`Ankle boot`",
        "Recipe, `train.learning_rate`: `0.025`",
        "The search's own result did not lie beside",
    ):
        assert words in card, words


def test_the_card_tells_of_the_search_that_the_training_keeps(tmp_path: Path) -> None:
    row = trained_rows.document(policy=results.plain(mixed_policy()))
    row["multiply_adds"] = 698_000_000  # what the paper's own network has
    path = trained_rows.save(tmp_path / "trainings" / "found-found-seed4", row)
    search = results.document(telemetry={"steps": 1234, "passes": 5678, "seconds": 9.5})
    (tmp_path / "search.json").write_text(json.dumps(search))
    (tmp_path / "provenance.json").write_text(json.dumps(fake_run.provenance("fashion")))
    export(path, ["model_card", "torchvision"], tmp_path / "out")
    card = (tmp_path / "out" / "MODEL_CARD.md").read_text()
    assert "Search, `passes`: `5678`" in card and "`commit`: `3f9c2ab41d`" in card
    assert "698 M, above 600 M" in card
    origin = runpy.run_path(str(tmp_path / "out" / "policy.py"))["ORIGIN"]
    assert origin["commit"] == "3f9c2ab41d" and origin["seed"] == 4


# ---------------------------------------------------------------- the command


def test_exporting_again_writes_the_same_bytes_and_never_over_others(
    folder: Path, result: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = [target for target in TARGETS if target not in ("onnx", "torch_export")]
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert cli.main(["export", str(result), "--to", *again]) == 0
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    card = folder / "MODEL_CARD.md"
    card.write_text("mine")
    assert cli.main(["export", str(result), "--to", "model_card", "torchvision"]) == 2
    assert "MODEL_CARD.md is there and holds something else" in capsys.readouterr().err
    assert card.read_text() == "mine"
    card.write_bytes(before[card])


@pytest.mark.parametrize(
    ("target", "change", "words"),
    [
        ("onx", {}, "unknown target 'onx'; known: torchvision, module, safetensors, onnx"),
        ("onnx", {}, "onnx: this result has no weights"),
        ("safetensors", {}, "safetensors: this result has no weights"),
        ("timm", {"policy": None}, "timm: this result has no policy"),
        ("module", {"genotype": None}, "module: this result has no architecture"),
    ],
)
def test_what_does_not_apply_is_one_sentence(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    target: str,
    change: dict[str, Any],
    words: str,
) -> None:
    path = results.save(tmp_path, **change)
    assert cli.main(["export", str(path), "--to", target]) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1
    assert not (tmp_path / "export").exists()


def test_all_leaves_out_what_does_not_apply_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = results.save(tmp_path, policy=None)
    assert cli.main(["export", str(path), "--to", "all", "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out.splitlines()
    left_out = {line.partition(":")[0] for line in said if "left out" in line}
    assert left_out == {
        "torchvision", "safetensors", "onnx", "torch_export", "timm", "albumentations"
    }  # fmt: skip
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"network.py", "MODEL_CARD.md"}


def test_a_missing_library_is_named_with_how_to_get_it(
    result: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match=r"onnx: onnxruntime is not installed; pip install 'daas-"):
        export(result, ["onnx"], tmp_path)


@forks
def test_a_program_that_computes_something_else_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = trained_rows.save(tmp_path, trained_rows.document("small"))
    load = torch.export.load

    def tampered(file: Any) -> Any:
        program = load(file)
        program.state_dict["classifier.3.bias"].data += 0.01
        return program

    def attempt() -> str:
        try:
            return str(export(path, ["torch_export"], tmp_path / "out"))
        except ValueError as error:
            return str(error)

    monkeypatch.setattr(torch.export, "load", tampered)
    (said,) = in_processes(1, attempt)
    assert re.match(r"torch_export: the program's logits differ .* by .*e-0", said)
    assert not (tmp_path / "out").exists()


def test_images_of_the_checks_are_pictures(tmp_path: Path) -> None:
    from daas_dist.export import photographs as shipped

    images = shipped.crops(12, (3, 20, 16))
    assert images.dtype == torch.uint8 and images.shape == (12, 3, 20, 16)
    assert int(images.flatten(1).float().std(1).min()) > 10  # no flat one
    assert len({image.numpy().tobytes() for image in images}) == 12
    assert torch.equal(from_pil(to_pil(images[3])), images[3])
