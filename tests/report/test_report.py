"""The report: what it says is what the run says, it stands alone, and it escapes every name."""

import json
import math
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import fake_run
import numpy as np
import pytest
import torch

from daas_dist.report import cells, compare, markup, pictures, policy, tested, write
from daas_dist.report.record import Run, read_rows
from daas_dist.report.samples import Samples
from daas_dist.spaces.policy import Policy, all_policies

VOID = {"meta", "br", "img", "link", "input", "hr"}
HOSTILE = "<script>alert(1)</script>"


class Page(HTMLParser):
    """Checks nesting, and gathers tags, attributes, ids, links and the text that is shown."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.shown: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.shown.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.shown).split())

    def values(self, *names: str) -> list[str]:
        return [value for name, value in self.attributes if name in names]


def read(runs: list[Path], out: Path | None = None) -> Page:
    html = write(runs, out).read_text(encoding="utf-8")
    page = Page(html)
    assert not [v for v in page.values("src", "href", "xlink:href") if re.match(r"\w+:|//", v)
                and not v.startswith("data:image/png")]  # fmt: skip
    assert not re.search(r"url\(\s*['\"]?\s*(https?:|//)|@import", html)
    assert "script" not in page.tags
    ids = page.values("id")
    assert len(ids) == len(set(ids)), "an id stands twice"
    inner = [v[1:] for v in page.values("href", "xlink:href") if v.startswith("#")]
    assert set(inner) <= set(ids)
    return page


@pytest.fixture(scope="module")
def search_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_run.search(tmp_path_factory.mktemp("runs") / "joint", lines=30)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Page]:
    path = fake_run.search(tmp_path_factory.mktemp("runs") / "both", lines=30)
    fake_run.training(path, result=path / "result.json", epochs=8)
    return path, read([path])


def test_a_search_with_its_trainings_shows_every_part(both: tuple[Path, Page]) -> None:
    path, page = both
    for part in ("What was found", "Against the baselines", "The policy in full", "Normal cell",
                 "Images under the policy", "The search over time", "config.yaml"):  # fmt: skip
        assert part in page.text
    assert (path / "report.html").stat().st_size < 1_500_000
    assert not list(path.glob("*.partial"))


def test_key_numbers_are_those_of_the_files(both: tuple[Path, Page]) -> None:
    path, page = both
    result = json.loads((path / "result.json").read_text())
    rows = json.loads((path / "comparison.json").read_text())["rows"]
    found = [r["last"] for r in rows if (r["architecture"], r["policy"]) == ("found", "found")]
    mean = sum(found) / 3
    deviation = math.sqrt(sum((x - mean) ** 2 for x in found) / 2)
    assert f"{100 * result['telemetry']['val_accuracy']:.2f} %" in page.text
    assert f"{100 * mean:.2f} ± {100 * deviation:.2f} %" in page.text
    assert "3.35 M" in page.text and "528 M" in page.text and "210 k" in page.text
    assert "1 h 56 min" in page.text


def test_the_ranking_is_the_policys_with_its_evidence(both: tuple[Path, Page]) -> None:
    path, page = both
    result = json.loads((path / "result.json").read_text())
    ranking = [row["operation"].replace("_", " ") for row in result["policy"]["ranking"]]
    table = page.text[page.text.index("Ranking") : page.text.index("More than chance?")]
    places = [table.index(f" {operation} ") for operation in ranking]
    assert places == sorted(places)
    first = result["policy"]["operations"].index(result["policy"]["ranking"][0]["operation"])
    evidence = result["evidence"]["applied"]
    means = [slot[first] for slot in evidence["mean"]]
    errors = [slot[first] for slot in evidence["standard_error"]]
    ratio = sum(means) / math.hypot(*errors)
    assert f"{ratio:+.1f} SE".replace("-", "−") in table
    pairs = [
        (mean, error)
        for means, errors in zip(evidence["mean"], evidence["standard_error"], strict=True)
        for mean, error in zip(means, errors, strict=True)
    ]
    clear = sum(abs(mean) > 2 * error for mean, error in pairs)
    assert f"{clear} of 30 clearly help or harm" in page.text
    assert "chance alone would make about 1.4 so" in page.text


def test_a_policy_that_did_not_move_is_not_said_to_be_led(search_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    shutil.copytree(search_dir, path)
    result = json.loads((path / "result.json").read_text())
    leader = result["policy"]["ranking"][0]
    assert f"led by {leader['operation'].replace('_', ' ')} and" in read([path]).text
    place = result["policy"]["operations"].index(leader["operation"])
    result["policy"]["probabilities"] = [[1 / 15] * 15] * 2
    applied = [0.7425 if o == place else 0.5 for o in range(15)]
    result["policy"]["application"] = [applied] * 2  # of two slots: undecided is 2 / 15 / 2
    (path / "result.json").write_text(json.dumps(result))
    assert "to 9.9 % from 6.7 %" in read([path]).text


@pytest.mark.parametrize(
    ("derived", "said"),
    [
        (
            fake_run.derived((3, 224, 224), 698_000_000),
            "As 14 cells of 48 channels on images of 224 × 224 it has 4.72 M parameters and 698 M "
            "multiply-adds, outside the 600 M mobile setting.",
        ),
        (
            fake_run.derived((3, 224, 256), 599_000_000, most=6e8),
            "599 M multiply-adds, within the 600 M mobile setting. It was searched under a limit "
            "of 600 M multiply-adds, within which the search ended by itself.",
        ),
        (
            fake_run.derived((3, 192, 224), 601_000_000, most=6.2e8, freely=640_000_000),
            "601 M multiply-adds. It was searched under a limit of 620 M multiply-adds and is what "
            "α and β prefer within it; what they prefer of all has 640 M multiply-adds.",
        ),
        (
            fake_run.derived((3, 192, 224), 601_000_000, 6.2e8, 640_000_000, most_parameters=5e6),
            "under a limit of 620 M multiply-adds and 5.00 M parameters and is what α and β prefer "
            "within it; what they prefer of all has 640 M multiply-adds and 5.10 M parameters.",
        ),
    ],
)
def test_what_was_found_is_told_with_its_costs_and_the_mobile_setting(
    derived: dict[str, object], said: str, tmp_path: Path
) -> None:
    path = fake_run.search(tmp_path / "run", lines=12)
    result = json.loads((path / "result.json").read_text())
    (path / "result.json").write_text(json.dumps(result | {"derived": derived}))
    page = read([path])
    assert said in page.text
    assert ("multiply-adds of what was found" in page.text) == ("mobile" in said), "a tile"
    del result["derived"]  # as before it was told
    (path / "result.json").write_text(json.dumps(result))
    assert "multiply-adds" not in read([path]).text


def test_evidence_that_was_never_gathered_is_told_as_such() -> None:
    mean, error = [[0.3, 0.1], [0.1, 0.2]], [[0.1, None], [None, None]]
    gains = np.array(mean, float), np.array(error, float)
    found = policy.certainty(policy.Evidence(gains, gains, gains)).tolist()
    assert found[0] == pytest.approx(3.0) and math.isnan(found[1])


def test_a_search_alone(search_dir: Path, tmp_path: Path) -> None:
    page = read([search_dir], tmp_path / "deep" / "page.html")
    assert "baselines" not in page.text and "Normal cell" in page.text
    assert (tmp_path / "deep" / "page.html").exists()


def test_a_training_alone_compares_with_the_default_policy(tmp_path: Path) -> None:
    page = read([fake_run.training(tmp_path / "train", epochs=8)])
    run = Run.read(tmp_path / "train")
    groups = {(g.architecture, g.policy): g for g in compare.groups(run)}
    ours, base = groups["found", "found"], groups["found", "default"]
    gains = [a.last - b.last for a, b in zip(ours.rows, base.rows, strict=True)]
    mean = sum(gains) / 3
    error = math.sqrt(sum((g - mean) ** 2 for g in gains) / 2 / 3)
    assert f"{100 * mean:+.2f} ± {100 * error:.2f}".replace("-", "−") in page.text
    assert "The search over time" not in page.text


def test_one_seed_has_no_spread(tmp_path: Path) -> None:
    page = read([fake_run.training(tmp_path / "train", epochs=8, seeds=1)])
    assert "(one seed)" in page.text
    assert not re.search(r"\d ± \d", page.text)


def test_an_unfinished_training_shows_how_far_it_is_and_claims_no_gain(tmp_path: Path) -> None:
    path = fake_run.training(tmp_path / "train", epochs=8, state="in progress")
    page = read([path])
    assert "in progress" in page.text and "3 of 3 at epoch 4" in page.text
    groups = compare.groups(Run.read(path))
    best = next(g for g in groups if (g.architecture, g.policy) == ("found", "found"))
    assert {(g.architecture, g.policy) for g in compare.rivals(best, groups)} == {
        ("found", "default"), ("found", "trivial_augment"), ("random", "found")
    }  # fmt: skip
    assert compare.rivals(groups[-1], groups) == []


@pytest.mark.parametrize(
    ("state", "done", "said"),
    [
        ("in progress", 0.6, "The search is at epoch 30 of 50 (joint phase)"),
        ("in progress", 1 / 30, "The search is at epoch 2 of 50 (warm-up)"),
        ("in progress", 0.0, "The search has written no metrics yet."),
        ("failed", 0.3, "non-finite loss at step 612: sample 48 <of the batch>"),
    ],
)
def test_a_run_without_a_result(tmp_path: Path, state: str, done: float, said: str) -> None:
    page = read([fake_run.search(tmp_path / "run", state=state, done=done, lines=30)])
    assert said in page.text and state in page.text
    assert "skip share above one half" in page.text, "its warning"


def test_a_stopped_run_is_told_from_a_running_one(tmp_path: Path) -> None:
    path = fake_run.search(tmp_path / "run", state="in progress", done=0.6, lines=30)
    with (path / "events.jsonl").open("a") as file:
        file.write('{"time": 2.0, "event": "stopped", "step": 6000}\n')
        file.write('{"time": 2.5, "event": "checkpointed", "step": 6000}\n')
    page = read([path])
    assert "run stopped" in page.text and "stands at epoch 30 of 50" in page.text
    assert "stopped and can be resumed" in page.text and "in progress" not in page.text


@pytest.mark.parametrize(
    ("target", "absent", "present"),
    [
        ("policy", ("Normal cell", "sampled paths"), ("Ranking", "Reward", "fixed network")),
        (
            "architecture",
            ("Ranking", "Reward", "of the policy"),
            ("Normal cell", "Operations of the normal"),
        ),
    ],
)
def test_a_search_for_one_thing_shows_that_thing(
    tmp_path: Path, target: str, absent: tuple[str, ...], present: tuple[str, ...]
) -> None:
    path = fake_run.narrow(fake_run.search(tmp_path / "run", lines=12), target)
    page = read([path])
    assert not [words for words in absent if words in page.text]
    assert all(words in page.text for words in present)
    assert "settled on a" in page.text


def test_a_torn_last_line_is_left_out_and_a_broken_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n\n{"step": 2}\n{"ste')
    rows, offset = read_rows(path)
    assert (rows, offset) == ([{"step": 1}, {"step": 2}], 25)
    path.write_bytes(b'{"step": 1}\nnonsense\n{"step": 3}\n')
    with pytest.raises(ValueError, match=r"metrics.jsonl, line 2: is not JSON"):
        read_rows(path)


def test_a_search_and_its_training_are_told_as_one(search_dir: Path, tmp_path: Path) -> None:
    trained = fake_run.training(tmp_path / "train", result=search_dir / "result.json", epochs=8)
    moved = shutil.copytree(search_dir, tmp_path / "moved" / search_dir.name)
    page = read([trained, moved], tmp_path / "page.html")
    assert "side by side" not in page.text and "joint finished + train finished" in page.text
    best, *rest = compare.groups(Run.read(trained))
    mean, error = compare.difference(best, next(g for g in rest if g.architecture == "random"))
    lead = f"{100 * mean:+.2f} ± {100 * error:.2f}".replace("-", "−") if error else ""
    assert f"{lead} against a random architecture, " in page.text
    assert page.text.index("Against the baselines") < page.text.index("The policy in full")
    of_another = fake_run.training(tmp_path / "other", result=tmp_path / "result.json", epochs=8)
    two = read([search_dir, of_another], tmp_path / "two.html").text
    assert "2 runs, side by side" in two and "Multiply-adds" in two
    narrow = read([search_dir, fake_run.search(tmp_path / "b", lines=10)], tmp_path / "b.html").text
    assert "Multiply-adds" not in narrow[: narrow.index("Searches over time")]


def test_several_runs_are_side_by_side_and_trainings_joined(
    search_dir: Path, tmp_path: Path
) -> None:
    other = fake_run.search(
        tmp_path / "second", lines=30, seed=4, parameters="per_policy", samples=False
    )
    training = fake_run.training(tmp_path / "train", result=other / "result.json", epochs=8)
    unfinished = fake_run.search(tmp_path / "third", state="in progress", done=0.5, lines=30)
    page = read([search_dir, other, training, unfinished], tmp_path / "all.html")
    assert "4 runs, side by side" in page.text
    assert page.text.count("B second") >= 5 + 2, "overview, five groups, its own part"
    assert "Searches over time" in page.text and "D · " not in page.text


def test_every_name_is_escaped(tmp_path: Path) -> None:
    path = fake_run.search(tmp_path / "a<img src=x onerror=alert(2)>&'", lines=12,
                           classes=(HOSTILE, "cat & \"dog\"", "猫"))  # fmt: skip
    (path / "config.yaml").write_text(f"stage: {HOSTILE}\n</pre>")
    result = json.loads((path / "result.json").read_text())
    result["data"]["name"] = HOSTILE
    (path / "result.json").write_text(json.dumps(result))
    made_by = fake_run.provenance("fashion")
    made_by |= {"host": HOSTILE, "command": [HOSTILE], "versions": {HOSTILE: HOSTILE}}
    (path / "provenance.json").write_text(json.dumps(made_by))
    with (path / "events.jsonl").open("a") as file:
        file.write(json.dumps({"time": 1.0, "event": "warning", HOSTILE: HOSTILE}) + "\n")
    fake_run.training(path, epochs=4)
    shutil.copytree(
        path / "trainings/found-found-seed0", path / "trainings" / HOSTILE.replace("/", "-")
    )
    page = read([path, path], tmp_path / "page.html")
    assert page.text.count(HOSTILE) >= 6
    assert "onerror" not in [name for name, _ in page.attributes]
    assert "img src=x onerror" in page.text


def test_without_dot_the_cells_are_tables(
    search_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    page = read([search_dir], tmp_path / "page.html")
    assert "needs graphviz" in page.text
    genotype = json.loads((search_dir / "result.json").read_text())["genotype"]
    operation, source = genotype["normal"][5]
    origin = f"node {source}" if source > 1 else ("cell k−2", "cell k−1")[source]
    assert f"{cells.WORDS[operation]} {origin}" in page.text


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no run: it holds none of config.yaml"):
        write([tmp_path])
    with pytest.raises(ValueError, match="expected a directory"):
        write([tmp_path / "nowhere"])
    with pytest.raises(ValueError, match="at least one"):
        write([])


def test_another_schema_is_refused(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"schema": 2, "kind": "search"}')
    with pytest.raises(ValueError, match=r"result.json: schema is 2, expected 1"):
        write([tmp_path])


def test_the_strength_of_a_policy_of_sequences_is_weighed_over_them() -> None:
    generator = torch.Generator().manual_seed(3)
    found = Policy(
        probability_KO=torch.randn(2, 15, generator=generator).softmax(-1),
        application=torch.rand(225, 2, generator=generator),
        magnitude=torch.randint(10, (225, 2), generator=generator),
        parameters="per_policy",
        ranges="dada",
    )
    magnitude_KO, share_KO = policy.strength(found)
    slot, operation = 1, 6
    totals = [0.0] * 10
    for r, (first, second) in enumerate(all_policies(2).tolist()):
        if second == operation:
            weight = float(found.probability_KO[0, first] * found.probability_KO[1, second])
            totals[int(found.magnitude[r, 1])] += weight * float(found.application[r, 1])
    assert int(magnitude_KO[slot, operation]) == totals.index(max(totals))
    assert float(share_KO[slot, operation]) == pytest.approx(max(totals) / sum(totals), rel=1e-5)


def test_differing_seeds_are_compared_by_welchs_error() -> None:
    def group(policy: str, values: dict[int, float]) -> compare.Group:
        rows = [compare.Trained("found", policy, s, x, x, 9, 9) for s, x in values.items()]
        return compare.Group("", "found", policy, tuple(rows))

    ours = group("found", {0: 0.91, 1: 0.95, 2: 0.93})
    theirs = group("default", {3: 0.90, 4: 0.92})
    mean, error = compare.difference(ours, theirs)
    assert mean == pytest.approx(0.93 - 0.91)
    assert error == pytest.approx(math.sqrt(0.02**2 / 3 + 0.0002 / 2))


def test_labels_are_pushed_apart_but_keep_their_order() -> None:
    placed = pictures.spread([0.50, 0.98, 0.52, 0.97], 0.1, 0.0, 1.0)
    assert placed == pytest.approx([0.50, 1.0, 0.60, 0.90])


def test_long_curves_are_drawn_through_the_means_of_blocks() -> None:
    values = pictures.blocks(torch.arange(1000, dtype=torch.float64).numpy())
    assert len(values) == pictures.POINTS
    assert values[:2].tolist() == [2.0, 7.0]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(12.4, "12 s"), (200, "3 min 20 s"), (7500, "2 h 05 min"), (100_000, "1 d 3 h")],
)
def test_durations(seconds: float, words: str) -> None:
    assert markup.duration(seconds) == words


def test_samples_return_as_they_were_saved(tmp_path: Path) -> None:
    made = fake_run.pictures(5, size=130, channels=1)
    made.save(tmp_path)
    back = Samples.load(tmp_path)
    assert back is not None and torch.equal(back.after_MNCHW, made.after_MNCHW)
    with pytest.raises(ValueError, match="should be draws of"):
        Samples(made.before_NCHW[:2], made.after_MNCHW)


@pytest.fixture(scope="module")
def many_classes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Page]:
    """120 classes of 224 pixels, one of which wants to be a script."""
    names = [*(f"class number {c}" for c in range(119)), HOSTILE]
    path = fake_run.training(
        tmp_path_factory.mktemp("runs") / "many", epochs=4, seeds=2, classes=names,
        shape=(3, 224, 224), throughput=True,
    )  # fmt: skip
    return path, read([path])


def test_the_page_tells_top_5_calibration_speed_and_the_mobile_setting(
    many_classes: tuple[Path, Page],
) -> None:
    path, page = many_classes
    rows = json.loads((path / "comparison.json").read_text())["rows"]
    found = [row for row in rows if row["architecture"] == row["policy"] == "found"]
    mean = sum(row["last_top5"] for row in found) / 2
    assert f"{100 * mean:.2f} ± 0.00 %" in page.text
    errors = [row["calibration_error"] for row in found]
    spread = abs(errors[0] - errors[1]) / math.sqrt(2)
    assert f"{50 * sum(errors):.2f} ± {100 * spread:.2f} %" in page.text
    assert f"expected calibration error {50 * sum(errors):.2f} %" in page.text
    assert "8 × ddp" in page.text and "5,170" in page.text and "10,240 MB" in page.text
    assert "698 M ▲" in page.text and "outside the mobile setting" in page.text
    assert "above the mobile setting's 600 M" in page.text


def test_what_no_run_tells_has_no_column(tmp_path: Path) -> None:
    path = fake_run.training(tmp_path / "small", epochs=4, seeds=1, classes=("a", "b", "c"))
    page = read([path])
    for absent in ("Top-5", "Ranks × engine", "Images a second", "mobile setting", "▲"):
        assert absent not in page.text
    assert "Calibration error" in page.text and "Multiply-adds" in page.text


def test_the_classes_of_many_are_the_lowest_and_the_highest_and_escaped(
    many_classes: tuple[Path, Page],
) -> None:
    path, page = many_classes
    folders = [path / "trainings" / f"found-found-seed{seed}" for seed in (0, 1)]
    each = [json.loads((f / "evaluation.json").read_text())["class_accuracy"] for f in folders]
    means = sorted((a + b) / 2 for a, b in zip(*each, strict=True) if None not in (a, b))
    assert "the 12 lowest and the 4 highest of 120" in page.text
    # The last class is the hardest, so the hostile name is among those shown, as text.
    assert HOSTILE in page.text
    shown = [float(x) for x in re.findall(r"(\d+\.\d) %", page.text.split("Class by class")[1])]
    assert shown == [float(f"{100 * mean:.1f}") for mean in (*means[:12], *means[-4:])]


def test_seeds_are_put_together_in_the_reliability_diagram_and_the_classes() -> None:
    documents = [fake_run.evaluation(seed, 0.9, 9) for seed in (0, 1, 2)]
    pooled = tested.pooled_bins(documents)
    assert pooled[:, 0].sum() == 3 * 2000
    right = sum(d.class_images[c] * (d.class_accuracy[c] or 0) for d in documents for c in range(9))
    assert pooled[:, 1].sum() == pytest.approx(right)
    rows = tested.class_rows(documents, fake_run.CLASSES)
    assert [row.mean for row in rows] == sorted(row.mean for row in rows)
    for row in rows:
        c = fake_run.CLASSES.index(row.name)
        taken = [sum((d.confusion or [])[c][o] for d in documents) for o in range(9)]
        images, taken[c] = sum(taken), 0
        most = max(range(9), key=lambda o: taken[o])
        assert row.taken_for == (fake_run.CLASSES[most], pytest.approx(taken[most] / images))


def test_a_found_policy_on_a_fixed_network_leads_those_on_the_same_network() -> None:
    def group(architecture: str, policy: str, last: float) -> compare.Group:
        row = compare.Trained(architecture, policy, 0, last, last, 9, 9)
        return compare.Group("", architecture, policy, (row,))

    wide, plain = (
        group("wide_resnet_40_2", "found", 0.96),
        group("wide_resnet_40_2", "default", 0.97),
    )
    other, random = group("small", "default", 0.98), group("random", "found", 0.99)
    assert compare.leading([plain, wide, other, random]) == wide
    assert compare.rivals(wide, [plain, wide, other, random]) == [plain]
    searched = group("found", "found", 0.90)
    assert compare.leading([plain, wide, searched]) == searched
    assert compare.rivals(searched, [plain, wide, searched]) == [plain, wide]
