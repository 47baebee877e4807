"""Damaged and hostile documents of a run directory, through every reader and every way out.

For longer, with other seeds, until the time is over; it prints what it tried and what it met:

    python tests/documents/test_documents_fuzz.py --minutes 10 --seed 7
"""

import argparse
import contextlib
import io
import json
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Generator
from html.parser import HTMLParser
from pathlib import Path
from types import FrameType
from typing import Any

import fake_run
import hostile
import pytest
import trained_rows
from rich.console import Console

import daas_dist
from daas_dist import cli
from daas_dist.export import export
from daas_dist.report import page as pages
from daas_dist.report import pictures, plots, watch
from daas_dist.runs import lock
from launch import attempt, submit

SECONDS = 180
"""After which a reader is taken to hang."""
JOB = {
    "cluster": "local", "id": "", "name": "run", "after": [], "command": ["submit.py"],
    "resources": {"kind": "local"}, "submitted": 1_790_000_000.0,
}  # fmt: skip


class Hangs(BaseException):
    """A reader that waits."""


@contextlib.contextmanager
def in_time() -> Generator[None]:
    def heard(number: int, frame: FrameType | None) -> None:
        raise Hangs(f"more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, heard)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def whole_run(root: Path) -> Path:
    """A submitted run with every document: a search, a training, an event of each kind."""
    run = fake_run.search(root / "plan" / "run", lines=5)
    fake_run.training(run, epochs=3, seeds=1, result=run / "result.json", throughput=True)
    events = (run / "events.jsonl").read_text()
    moves = [{"event": "attempt", "position": 4, "host": "n1"}, {"event": "died", "status": 9}]
    lines = "".join(json.dumps({"time": 1_790_000_000.0, **move}) + "\n" for move in moves)
    (run / "events.jsonl").write_text(lines + events)
    (run / "job.json").write_text(json.dumps({**JOB, "plan": str(run.parent), "cwd": str(root)}))
    (run.parent / "logs").mkdir()
    (run.parent / "logs" / "run.log").write_text("step 1\n" + "\n".join(hostile.ESCAPES[:13]))
    (run / "lock").write_text(json.dumps(OWNER))
    trained_rows.save(run / "trainings" / "small-default-seed4", trained_rows.document("small"))
    return run


OWNER = {"host": "elsewhere", "pid": 1, "started": "1", "token": "theirs", "place": lock.place()}
"""Dead, and known to be: of an owner at another place each reader would wait half a minute."""
DRAWN = ("comparison.json", "samples.pt", "report.html", "search.json")
"""Whose readers make a whole page each time."""
DOCUMENTS = (
    "config.yaml", "provenance.json", "events.jsonl", "metrics.jsonl", "lock", "job.json",
    "result.json", "search.json", "comparison.json", "samples.pt", "DONE", "FAILED", "STALLED",
    "STOP", "report.html", "trainings", "checkpoints", "../logs/run.log",
    "trainings/found-found-seed0/metrics.jsonl", "trainings/found-found-seed0/evaluation.json",
    "trainings/small-default-seed4/result.json",
    "trainings/small-default-seed4/weights.safetensors",
)  # fmt: skip


# --- Readers -------------------------------------------------------------------------------------


def _watch(run: Path, terminal: bool) -> int:
    console = Console(force_terminal=terminal, color_system=None, width=90, legacy_windows=False)
    return watch.main(run, poll_seconds=0.0, console=console)


def _load(path: Path) -> int:
    def task() -> None:
        found = daas_dist.load(path)
        found.network()
        found.transform()

    return cli.attempt("load", task)[0]


def _export(path: Path) -> int:
    with tempfile.TemporaryDirectory() as out:
        targets = ["torchvision", "module", "model_card"]
        kind = "trained" if "trainings" in path.parts else "search"
        if kind == "trained":
            targets = ["module", "safetensors", "model_card"]
        status = cli.attempt("export", lambda: export(path, targets, Path(out)))[0]
        for file in Path(out).iterdir():
            check_export(file)
        return status


def check_export(file: Path) -> None:
    text = (
        file.read_bytes().decode("utf-8", "surrogatepass") if file.suffix != ".safetensors" else ""
    )
    assert not hostile.FORBIDDEN & set(text), f"{file.name} holds {hostile.FORBIDDEN & set(text)}"
    if file.suffix == ".py":
        compile(text, file.name, "exec")
    if file.suffix == ".md":
        assert hostile.SECRET not in text
        plain = re.sub(r"(`+) ?.*?[^`]\1(?!`)", "", text.split("```python")[0])
        assert not re.search(r"<\w|\]\(", plain), plain


READERS: dict[str, Callable[[Path], int]] = {
    "report": lambda run: cli.main(["report", str(run)]),
    "watch": lambda run: _watch(run, False),
    "watch on a terminal": lambda run: _watch(run, True),
    "status": lambda run: submit.main(["status", str(run)]),
    "status --json": lambda run: submit.main(["status", "--json", str(run)]),
    "list": lambda run: submit.main(["list", str(run.parent)]),
    "logs": lambda run: submit.main(["logs", str(run)]),
    "table": lambda run: submit.main(["table", str(run.parent)]),
    "load": lambda run: _load(run / "result.json"),
    "load a training": lambda run: _load(run / "trainings/small-default-seed4/result.json"),
    "export": lambda run: _export(run / "result.json"),
    "export a training": lambda run: _export(run / "trainings/small-default-seed4/result.json"),
    "before": lambda run: attempt.main(["before", str(run)]),
    "after": lambda run: attempt.main(["after", "1", str(run)]),
    "cancel": lambda run: submit.main(["cancel", str(run)]),
}
TAGS = (
    "html head meta title style body header div h1 h2 h3 p nav a main section figure figcaption "
    "small table thead tbody tr th td span b i ul li details summary pre code img svg g path defs "
    "use text tspan rect polygon ellipse clippath footer br image metadata lineargradient stop "
    "circle line polyline"
)


class Tags(HTMLParser):
    """Every tag and attribute of a page is one that the page's own code writes."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in TAGS.split(), f"<{tag}>"
        for name, value in attrs:
            assert not name.startswith("on"), f"{tag} {name}={value}"
            wanted = {"href": "#", "xlink:href": ("#", "data:image/png"), "src": "data:image/png"}
            if name in wanted:
                assert str(value).startswith(wanted[name]), f"{tag} {name}={value}"

    handle_startendtag = handle_starttag


def check_page(path: Path) -> None:
    if not path.is_file() or path.is_symlink():
        return
    text = path.read_text(encoding="utf-8")
    assert not hostile.FORBIDDEN & set(text), f"{hostile.FORBIDDEN & set(text)} in the page"
    assert hostile.SECRET not in text
    Tags().feed(text)


def check_said(name: str, said: str) -> None:
    if name == "watch on a terminal":  # without what moves the cursor
        said = re.sub(r"\x1b\[(\?25[lh]|1A|2K)|\r", "", said)
    odd = hostile.FORBIDDEN & set(said)
    assert not odd, f"{odd} reached the terminal: {said!r:.300}"
    assert hostile.SECRET not in said
    assert "Traceback" not in said


def read_all(run: Path, counts: Counter[str], what: str, readers: tuple[str, ...] = ()) -> None:
    """Every reader ends, with a status of the table in docs/stopping.md, and says one sentence."""
    for name in readers or tuple(READERS):
        out = io.StringIO()
        began = time.monotonic()
        try:
            with in_time(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
                status = READERS[name](run)
        except SystemExit as error:
            status = int(error.code or 0)
        except BaseException as error:
            raise AssertionError(f"{name} with {what}: {type(error).__name__}: {error}") from error
        assert status in (0, 1, 2, attempt.STOPPED), f"{name} with {what}: status {status}"
        try:
            check_said(name, out.getvalue())
            if name == "report" and status == 0:
                check_page(run / "report.html")
        except AssertionError as error:
            raise AssertionError(f"{name} with {what}: {error}") from error
        if status == 2:
            assert out.getvalue().strip(), f"{name} with {what}: nothing said"
        counts[f"{name}: {'read' if status == 0 else 'told'}"] += 1
        counts["seconds, the longest"] = max(
            counts["seconds, the longest"], round(time.monotonic() - began)
        )


def undrawn(name: str, plot: Callable[[Any], None], size: Any = None) -> str:
    """In place of matplotlib, which would take nine tenths of the time."""
    return f"<svg><text>{pages.text(name)}</text></svg>"


@contextlib.contextmanager
def without_drawing() -> Generator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for module in (pictures, plots):
            patch.setattr(module, "draw", undrawn)
        patch.setenv("PATH", "")
        yield


def told(counts: Counter[str]) -> None:
    print("\n" + "\n".join(f"{count:7d}  {name}" for name, count in sorted(counts.items())))


# --- The tests -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return whole_run(tmp_path_factory.mktemp("kept"))


def readers_of(document: str) -> tuple[str, ...]:
    """Those that look at it; what they share is read once."""
    if document.startswith("trainings/small"):
        return ("load a training", "export a training", "report")
    if document in ("result.json", "search.json", "samples.pt", "comparison.json", "report.html"):
        return ("report", "table", "load", "export", "status")
    if document == "../logs/run.log":
        return ("logs", "status")
    return ("report", "watch", "status", "before", "after", "cancel")


@pytest.mark.parametrize(
    "document",
    [pytest.param(d, marks=pytest.mark.long) if d in DRAWN else d for d in DOCUMENTS],
)
def test_a_damaged_document_is_told_in_one_sentence(
    kept: Path, tmp_path: Path, document: str, capsys: pytest.CaptureFixture[str]
) -> None:
    counts: Counter[str] = Counter()
    run = tmp_path / "plan" / "run"
    with without_drawing():
        for name, damage in hostile.DAMAGES.items():
            run.parent.mkdir()
            hostile.shutil.copytree(kept.parent, run.parent, dirs_exist_ok=True)
            path = run / document
            if path.is_dir():
                hostile.shutil.rmtree(path)
            if not path.exists():
                path.write_bytes(b"x\n")
            damage(path)
            read_all(run, counts, f"{document}: {name}", readers_of(document))
            hostile.shutil.rmtree(run.parent)
    with capsys.disabled():
        told(counts)


def documents_of(run: Path) -> dict[str, Any]:
    """The JSON documents, those of lines by their lines."""
    found: dict[str, Any] = {}
    for path in sorted(run.rglob("*.json")):
        found[str(path.relative_to(run))] = json.loads(path.read_text())
    for path in sorted(run.rglob("*.jsonl")):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        found[str(path.relative_to(run))] = rows
    return found


def write(path: Path, document: Any) -> None:
    if path.suffix == ".jsonl" and isinstance(document, list):
        path.write_text("".join(json.dumps(row) + "\n" for row in document))
    else:
        path.write_text(json.dumps(document))


def one_round(kept: Path, run: Path, rng: random.Random, counts: Counter[str]) -> None:
    """One document changed in one to three places, or every name in all of them hostile."""
    hostile.shutil.copytree(kept.parent, run.parent, dirs_exist_ok=True)
    documents = documents_of(run)
    changed = rng.choice(list(documents))
    document = documents[changed]
    for _ in range(rng.choice((1, 1, 2, 3))):
        document = hostile.mutated(document, rng)
    write(run / changed, document)
    if rng.random() < 0.5:
        (run / "DONE").unlink(missing_ok=True)
        (run / "FAILED").write_bytes(rng.choice(hostile.NAMES).encode("utf-8", "surrogatepass"))
    readers = readers_of(changed) if rng.random() < 0.8 else tuple(READERS)
    what = f"{changed} changed (kept in {run})"
    read_all(run, counts, what, readers)
    counts["documents changed"] += 1
    hostile.shutil.rmtree(run.parent)


@pytest.mark.long
def test_hostile_values_at_any_place_do_no_harm(
    kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    counts: Counter[str] = Counter()
    rng = random.Random(20)
    with without_drawing():
        for number in range(120):
            one_round(kept, tmp_path / str(number) / "run", rng, counts)
    with capsys.disabled():
        told(counts)


def named(value: Any, name: str) -> Any:
    """Every text of a document that is no choice of ours replaced by a name."""
    keep = ("kind", "phase", "parameters", "ranges", "operations", "operation", "genotype", "file",
            "sha256", "commit", "cluster", "plan", "cwd", "stem", "normal", "reduce",
            "event")  # fmt: skip
    if isinstance(value, dict):
        return {k: v if k in keep and k != "event" else named(v, name) for k, v in value.items()}
    if isinstance(value, list):
        return [named(each, name) for each in value]
    return name if isinstance(value, str) else value


@pytest.mark.parametrize("number", range(3))
def test_hostile_names_everywhere_are_shown_as_text(
    kept: Path, tmp_path: Path, number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """The pictures are drawn here, and every name of a run is hostile at once."""
    counts: Counter[str] = Counter()
    run = tmp_path / "plan" / "run"
    names = hostile.NAMES[number::3]
    rng = random.Random(number)
    hostile.shutil.copytree(kept.parent, run.parent)
    for name, document in documents_of(run).items():
        if name != "job.json":
            made = (
                named(document, rng.choice(names))
                if not name.startswith("trainings/small")
                else (
                    hostile.put(
                        document, ("data", "classes"), [rng.choice(names) for _ in range(10)]
                    )
                )
            )
            write(run / name, made)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rows[-1]["policy_weight"] |= {name: 0.5 for name in names if "\0" not in name}
    write(run / "metrics.jsonl", rows)
    (run / "config.yaml").write_text("\n".join(json.dumps(name) for name in names))
    folder = rng.choice([name for name in names if "/" not in name and "\0" not in name and
                         "\ud800" not in name and len(name) < 99])  # fmt: skip
    hostile.shutil.copytree(
        run / "trainings/found-found-seed0", run / "trainings" / f"{folder}-found-seed0"
    )
    moved = run.with_name(folder.replace("/", "-"))
    run.rename(moved)
    events = [
        {"time": 1.0, "event": rng.choice(("warning", "failed")), "message": name, name: name}
        for name in names
    ]
    with (moved / "events.jsonl").open("a") as file:
        file.writelines(json.dumps(event) + "\n" for event in events)
    read_all(moved, counts, f"names {number}")
    (moved / "DONE").unlink()
    (moved / "result.json").unlink()
    (moved / "FAILED").write_bytes("".join(names).encode("utf-8", "surrogatepass"))
    read_all(moved, counts, f"names {number}, unfinished", ("report", "watch", "status"))
    assert counts["report: read"] == 2, counts
    with capsys.disabled():
        told(counts)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(3)))
    given = parser.parse_args()
    counts: Counter[str] = Counter()
    rng, end = random.Random(given.seed), time.monotonic() + 60 * given.minutes
    print(f"seed {given.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder, without_drawing():
        kept, number = whole_run(Path(folder) / "kept"), 0
        while time.monotonic() < end:
            one_round(kept, Path(folder) / str(number) / "run", rng, counts)
            number += 1
    told(counts)
    return 0


if __name__ == "__main__":
    sys.exit(main())
