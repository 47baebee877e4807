"""The policy by other libraries' operations: how near they come, and that they draw as it does."""

import os
import random
import runpy
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import found_results as results
import numpy as np
import pytest
import torch
from images import photographs
from PIL import Image

from daas_dist.export import albumentations_policy, export, parity, stages, timm_policy
from daas_dist.rng import stream
from daas_dist.spaces import operations as augment
from daas_dist.spaces.policy import Policy, all_policies, certain
from daas_dist.spaces.space import Space

# albumentations asks a package registry for a newer version otherwise.
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"

PAPER = Space.whole("autoaugment")
OPERATIONS = len(PAPER.operations)


def two_operations(parameters: str) -> Policy:
    """Invert and posterize (to 4 bits), weights and applications all different and away from 0, 1.

    Of a sequence of the two, an application of its own where the policy has one.
    """
    invert, posterize = augment.NAMES.index("invert"), augment.NAMES.index("posterize")
    probability = torch.zeros(2, OPERATIONS)
    probability[0, invert], probability[0, posterize] = 0.7, 0.3
    probability[1, invert], probability[1, posterize] = 0.4, 0.6
    shape = (2, OPERATIONS) if parameters == "per_slot" else (OPERATIONS**2, 2)
    return Policy(
        probability_KO=probability,
        application=0.15 + 0.7 * torch.rand(shape, generator=stream(0, "application")),
        magnitudes=certain(torch.full(shape, 9)),
        parameters=parameters,
        space=PAPER,
    )


def expected_levels(policy: Policy, level: int) -> dict[int, float]:
    """P(level after the policy), by going through every sequence and every choice to apply."""
    functions: dict[str, Callable[[int], int]] = {
        "invert": lambda value: 255 - value,
        "posterize": lambda value: value & 0xF0,
    }
    found = defaultdict[int, float](float)
    for r, (first, second) in enumerate(all_policies(2, OPERATIONS).tolist()):
        drawn = float(policy.probability_KO[0, first] * policy.probability_KO[1, second])
        for applied in ((False, False), (False, True), (True, False), (True, True)):
            chance, value = drawn, level
            for k, operation in enumerate((first, second)):
                own = policy.parameters == "per_slot"
                p = float(policy.application[k, operation] if own else policy.application[r, k])
                chance *= p if applied[k] else 1 - p
                if applied[k] and drawn:
                    value = functions[augment.NAMES[operation]](value)
            found[value] += chance
    return {value: chance for value, chance in found.items() if chance}


DRAWS = 1500
LEVEL = 201
"""What was applied, and in which order, shows: 54 inverted, 192 posterized, 48 and 63 both."""


def check_frequencies(policy: Policy, draw: Callable[[], int]) -> None:
    expected = expected_levels(policy, LEVEL)
    assert set(expected) == {201, 54, 192, 48, 63}
    counted = Counter(draw() for _ in range(DRAWS))
    assert set(counted) <= set(expected)
    for level, chance in expected.items():
        error = (chance * (1 - chance) / DRAWS) ** 0.5
        assert abs(counted[level] / DRAWS - chance) < 4 * error, (level, chance)


@pytest.mark.parametrize("parameters", ["per_slot", "per_policy"])
def test_timms_file_draws_with_the_policys_probabilities(parameters: str, tmp_path: Path) -> None:
    policy = two_operations(parameters)
    export(results.save(tmp_path, policy=results.plain(policy)), ["timm"], tmp_path)
    transform = runpy.run_path(str(tmp_path / "timm_policy.py"))["policy"]()
    image = Image.new("RGB", (2, 2), (LEVEL,) * 3)
    state = random.getstate()
    random.seed(7)
    check_frequencies(policy, lambda: transform(image).getpixel((0, 0))[0])
    random.setstate(state)


@pytest.mark.parametrize("parameters", ["per_slot", "per_policy"])
def test_albumentations_file_draws_with_the_policys_probabilities(
    parameters: str, tmp_path: Path
) -> None:
    policy = two_operations(parameters)
    export(results.save(tmp_path, policy=results.plain(policy)), ["albumentations"], tmp_path)
    transform = runpy.run_path(str(tmp_path / "albumentations_policy.py"))["policy"](seed=8)
    image = np.full((2, 2, 3), LEVEL, np.uint8)
    check_frequencies(policy, lambda: int(transform(image=image.copy())["image"][0, 0, 0]))


@pytest.mark.parametrize("parameters", ["per_slot", "per_policy"])
def test_stages_have_the_policys_weight_of_every_operation(parameters: str) -> None:
    generator = stream(0, "weights")
    shape = (2, OPERATIONS) if parameters == "per_slot" else (OPERATIONS**2, 2)
    policy = Policy(
        torch.rand(2, OPERATIONS, generator=generator).softmax(-1),
        torch.rand(shape, generator=generator),
        certain(torch.randint(10, shape, generator=generator)),
        parameters,
        Space.whole("dada"),
    )
    for each in (policy, results.drawn(policy)):
        weight = defaultdict[str, float](float)
        for stage in stages.of(each):
            assert sum(sequence.weight for sequence in stage) == pytest.approx(1, abs=1e-4)
            for sequence in stage:
                for step in sequence.steps:
                    weight[step.operation] += sequence.weight * step.applied
        for name, expected in policy.ranking():
            assert weight[name] == pytest.approx(expected, abs=1e-5)


def test_a_drawn_magnitude_is_a_choice_of_its_own() -> None:
    """Of an operation whose magnitude means nothing there is one alone."""
    policy = results.drawn(results.mixed_policy(Space("wide", ("rotate", "invert"))))
    turned = [each for each in stages.of(policy)[1] if each.steps[0].operation == "rotate"]
    assert [each.steps[0].value for each in turned] == pytest.approx(
        [30 * m / 9 for m in range(10)]
    )
    shares = policy.probability_KO[1, 0] * policy.magnitudes[1, 0]
    assert [each.weight for each in turned] == pytest.approx(shares.tolist())
    assert len(stages.of(policy)[1]) == 11


def test_too_many_sequences_of_drawn_magnitudes_are_refused() -> None:
    space, shape = Space("wide", ("rotate", "blur", "noise")), (3**4, 4)
    policy = Policy(
        torch.full((4, 3), 1 / 3),
        torch.full(shape, 0.5),
        certain(torch.full(shape, 3)),
        "per_policy",
        space,
    )
    assert len(stages.of(policy)[0]) == 81
    with pytest.raises(ValueError, match="81 sequences, more than 100000 in all; .*torchvision"):
        stages.of(results.drawn(policy))


def every_magnitude(magnitudes: tuple[int, int], ranges: str) -> Policy:
    space = Space.whole(ranges)
    shape = 2, len(space.operations)
    return Policy(
        torch.full(shape, 1 / len(space.operations)),
        torch.full(shape, 0.5),
        certain(torch.tensor(magnitudes)[:, None].expand(shape)),
        "per_slot",
        space,
    )


@pytest.mark.parametrize("ranges", augment.RANGES)
@pytest.mark.parametrize("channels", [1, 3])
def test_timm_is_exact_at_every_magnitude_of_what_it_has(channels: int, ranges: str) -> None:
    for m in range(0, augment.MAGNITUDES, 2):
        policy = every_magnitude((m, m + 1), ranges)
        rows = table(timm_policy.report(policy, (channels, 27, 32)))
        verdicts = {name: cells[1] for name, cells in rows.items()}
        assert verdicts.keys() == set(augment.names(ranges))
        lacking = {verdicts.pop(name, "impossible") for name in timm_policy.LACKING}
        assert lacking == {"impossible"}
        assert set(verdicts.values()) == {"exact"}, (m, verdicts)


@pytest.mark.parametrize("channels", [1, 3])
def test_albumentations_is_as_near_as_its_report_says(channels: int) -> None:
    rows = table(
        albumentations_policy.report(every_magnitude((4, 7), "autoaugment"), (channels, 32, 32))
    )
    for name in ("invert", "solarize", "posterize"):
        assert rows[name][1] == "exact", rows[name]
    for name, largest in (("contrast", 2), ("color", 3), ("brightness", 2), ("auto_contrast", 8)):
        assert int(rows[name][3]) <= largest, rows[name]
    for name in ("shear_x", "shear_y", "translate_x", "translate_y", "equalize", "sharpness"):
        assert float(rows[name][2]) < 16, rows[name]  # of 255; the other sign is off by 30 to 60
    assert "of the image on average, ours" in rows["cutout"][4]


@pytest.mark.parametrize("channels", [1, 3])
def test_albumentations_has_near_operations_for_the_wide_ones(channels: int) -> None:
    policy = every_magnitude((4, 9), "wide")
    rows = table(albumentations_policy.report(policy, (channels, 32, 32)))
    assert rows.keys() == set(augment.names("wide"))
    for name, mean in (("scale", 6), ("blur", 1), ("pixelate", 1)):
        assert rows[name][1] == "approximate" and float(rows[name][2]) < mean, rows[name]
    from daas_dist.export.albumentations_operations import composed

    (image,) = photographs(1, channels, 32, 32).permute(0, 2, 3, 1).numpy()
    for name, value in (("noise", 20.0), ("perspective", 0.3)):
        assert rows[name][1:3] == ["approximate", ""] and rows[name][4]
        changed = composed((((1.0, ((name, 1.0, value),)),),), 121, seed=3)(image=image)["image"]
        assert 5 < np.abs(changed.astype(float) - image).mean() < 60, name


def test_a_wide_policy_runs_as_both_libraries_files(tmp_path: Path) -> None:
    policy = results.drawn(results.mixed_policy(Space.whole("wide")))
    export(
        results.save(tmp_path, policy=results.plain(policy)), ["timm", "albumentations"], tmp_path
    )
    (picture,) = photographs(1, 3, 32, 32).permute(0, 2, 3, 1).numpy()
    state = random.getstate()
    random.seed(1)
    timms = runpy.run_path(str(tmp_path / "timm_policy.py"))["policy"]()
    theirs = runpy.run_path(str(tmp_path / "albumentations_policy.py"))["policy"](seed=2)
    made = [np.asarray(timms(Image.fromarray(picture))) for _ in range(60)]
    made += [theirs(image=picture.copy())["image"] for _ in range(60)]
    random.setstate(state)
    assert all(each.shape == (32, 32, 3) and each.dtype == np.uint8 for each in made)
    for half in (made[:60], made[60:]):
        assert len({each.tobytes() for each in half}) > 20


def table(report: str) -> dict[str, list[str]]:
    """Operation -> [at, verdict, mean, largest, why]."""
    lines = [line.strip("|").split("|") for line in report.splitlines() if line.startswith("|")]
    return {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in lines[2:]}


def test_a_difference_is_measured_with_the_nearer_sign_and_is_not_zero_when_wrong() -> None:
    """The report's own ruler, against an operation that is ours turned, and one that is not."""
    images = photographs(6, 3, 24, 24)

    def turned(name: str, value: float, batch: torch.Tensor) -> torch.Tensor:
        return augment.rotate(batch, torch.full((len(batch),), -value).double(), batch)

    assert not parity.difference("rotate", 5, "autoaugment", images, turned).any()
    off = parity.difference("rotate", 6, "autoaugment", images, lambda *_: turned("", 10.0, images))
    assert 1 < float(off.mean()) < 40


@pytest.mark.parametrize("target", ["timm", "albumentations"])
def test_without_the_library_the_file_is_written_and_nothing_is_claimed(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import daas_dist.export as package

    monkeypatch.setitem(sys.modules, f"daas_dist.export.{target}_operations", None)
    monkeypatch.delattr(package, f"{target}_operations", raising=False)
    export(results.save(tmp_path), [target], tmp_path)
    report = (tmp_path / f"{target}_parity.md").read_text()
    rows = table(report)
    measured = {cells[1] for name, cells in rows.items() if name not in timm_policy.LACKING}
    assert measured == {"not measured here"} and f"{target} is not installed" in report
    compile((tmp_path / f"{target}_policy.py").read_text(), target, "exec")


def test_measuring_leaves_pythons_random_as_it_was(tmp_path: Path) -> None:
    random.seed(5)
    expected: list[Any] = [random.random() for _ in range(3)]
    random.seed(5)
    timm_policy.report(every_magnitude((3, 4), "dada"), (3, 16, 16))
    albumentations_policy.report(every_magnitude((3, 4), "dada"), (3, 16, 16))
    assert [random.random() for _ in range(3)] == expected
