"""Watching: what is shown is what the rows say, on a terminal and in a log, until the run ends."""

import io
import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import fake_run
import pytest
from rich.console import Console
from rich.text import Text

from daas_dist.documents import lines
from daas_dist.documents.events import Event
from daas_dist.documents.metrics import SearchRow, TrainingRow
from daas_dist.report import panels, watch
from daas_dist.report.record import read_rows

Maker = Callable[[], tuple[Console, io.StringIO]]


def log() -> tuple[Console, io.StringIO]:
    written = io.StringIO()
    return Console(file=written, width=60), written


def terminal(width: int = 100) -> tuple[Console, io.StringIO]:
    written = io.StringIO()
    return Console(file=written, width=width, force_terminal=True, color_system=None), written


def search_rows(path: Path) -> list[SearchRow]:
    return lines.read(path / "metrics.jsonl", SearchRow.parse)[0]


def training_rows(path: Path) -> list[TrainingRow]:
    return lines.read(path / "metrics.jsonl", TrainingRow.parse)[0]


def rows_of(tmp_path: Path, done: float = 0.6) -> list[SearchRow]:
    return search_rows(fake_run.search(tmp_path / "run", state="in progress", done=done, lines=30))


def test_a_row_of_a_search_is_one_line(tmp_path: Path) -> None:
    row = rows_of(tmp_path)[-1]
    line = panels.plain_line(row, left=3725)
    assert "\n" not in line
    assert "epoch 30/50 | joint step 6000/10000" in line
    assert f"loss {row.train_loss:.3f} val {row.val_loss:.3f}" in line
    assert f"τ {row.tau:.2f}" in line and line.endswith("1 h 02 min left")


def test_a_row_of_a_training_is_one_line(tmp_path: Path) -> None:
    path = fake_run.training(tmp_path / "train", epochs=8)
    row = training_rows(path / "trainings/found-found-seed1")[-1]
    assert f"test {100 * row.test_accuracy:.1f}%" in panels.plain_line(row)


def test_time_left_is_at_the_pace_of_the_phase_without_the_pauses(tmp_path: Path) -> None:
    moments: list[tuple[int, float, Literal["warmup", "joint"]]]
    moments = [(100, 0.0, "warmup"), (200, 50.0, "warmup"), (300, 300.0, "joint"),
               (400, 500.0, "joint"), (500, 9500.0, "joint"), (600, 9700.0, "joint")]  # fmt: skip
    row = rows_of(tmp_path)[-1]
    rows = [
        replace(row, step=step, steps=1000, time=time, phase=phase) for step, time, phase in moments
    ]
    assert panels.seconds_left(rows) == pytest.approx(400 * 2.0)
    assert panels.seconds_left(rows[:2]) == pytest.approx(800 * 0.5)
    assert panels.seconds_left(rows[:1]) is None and panels.seconds_left([]) is None


@pytest.mark.parametrize("width", [60, 100, 160])
def test_the_panel_of_a_search_fits_and_tells_the_leading_operations(
    tmp_path: Path, width: int
) -> None:
    rows = rows_of(tmp_path)
    console, written = terminal(width)
    console.print(panels.search_panel("[red]a run[/]", rows, notes=[Text("skip [b]share[/]")]))
    shown = written.getvalue()
    assert max(map(len, shown.splitlines())) <= width
    weights = rows[-1].policy_weight or {}
    leader = max(weights, key=lambda op: weights[op])
    assert leader.replace("_", " ")[:8] in shown
    for words in ("[red]a run[/]", "epoch 30 of 50", "skip [b]share[/]"):
        assert words in shown


@pytest.mark.parametrize("target", ["policy", "architecture"])
def test_a_search_for_one_thing_is_shown(tmp_path: Path, target: str) -> None:
    path = fake_run.narrow(fake_run.search(tmp_path / "run", lines=10), target)
    rows = search_rows(path)
    console, written = terminal()
    console.print(panels.search_panel("run", rows))
    assert ("normal cell" in written.getvalue()) == (target == "architecture")
    assert "epoch 50/50" in panels.plain_line(rows[-1])


def test_a_run_without_rows_is_starting() -> None:
    console, written = terminal()
    console.print(panels.search_panel("new", []))
    assert "No metrics yet" in written.getvalue()


def test_the_policy_of_a_warm_up_is_not_shown(tmp_path: Path) -> None:
    for done, shown in ((0.2, False), (0.6, True)):
        path = fake_run.search(tmp_path / str(done), state="in progress", done=done, lines=30)
        console, written = terminal()
        console.print(panels.search_panel("run", search_rows(path)))
        assert ("policy" in written.getvalue()) == shown


def test_of_many_trainings_those_under_way_are_shown(tmp_path: Path) -> None:
    path = fake_run.training(tmp_path / "train", epochs=8)
    row = training_rows(path / "trainings/found-found-seed1")[-1]
    trainings = {f"network-{n}": panels.Progress([row], 0.5) for n in range(30)}
    trainings |= {"late": panels.Progress([replace(row, epoch=3)], 0.5)}
    console, written = terminal(80)
    console.print(panels.trainings_panel("run", trainings | {"new": panels.Progress([], None)}))
    shown = written.getvalue()
    assert "3/8" in shown and "and 15 more" in shown and "1 in their first epoch" in shown
    assert len(shown.splitlines()) < 24


def test_a_silent_run_is_asked_about_a_stopped_one_is_not(tmp_path: Path) -> None:
    path = fake_run.search(tmp_path / "run", state="in progress", done=0.6, lines=30)
    os.utime(path / "metrics.jsonl", (0, 0))
    earlier = time.time() - 1000
    os.utime(path / "events.jsonl", (earlier, earlier))
    console, written = terminal()
    for _ in range(2):
        watched = watch.Watched(path)
        watched.poll()
        console.print(watched.panel())
        with (path / "events.jsonl").open("a") as file:
            file.write('{"time": 2.0, "event": "stopped", "step": 6000}\n')
        os.utime(path / "events.jsonl", (earlier, earlier))
    going, stopped = written.getvalue().split("run stopped")
    assert "nothing written for 16 min" in going and "left" in going
    assert "goes on from here" in stopped and "alive" not in stopped and " left" not in stopped


def test_a_display_writes_lines_where_there_is_no_terminal(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, done=0.2)
    console, written = log()
    with watch.Display("run", console) as display:
        for row in rows:
            display.row(row)
    lines = written.getvalue().splitlines()
    assert len(lines) == len(rows), "no line is wrapped"
    assert lines[-1].endswith("left")


def test_a_display_redraws_one_panel_on_a_terminal(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, done=0.2)
    console, written = terminal()
    with watch.Display("run", console) as display:
        for row in rows:
            display.row(row)
    assert f"step {rows[-1].step} of 10000" in written.getvalue()


@pytest.mark.parametrize(("state", "code"), [("finished", 0), ("failed", 1)])
@pytest.mark.parametrize("make", [log, terminal])
def test_watching_an_ended_run_shows_it_and_ends(
    tmp_path: Path, state: str, code: int, make: Maker
) -> None:
    path = fake_run.search(tmp_path / "run", state=state, lines=10)
    console, written = make()
    assert watch.main(path, console=console) == code
    assert f"run: {state}" in written.getvalue().replace("\n", "")


@pytest.mark.parametrize("make", [log, terminal])
def test_watching_a_growing_training_follows_it_to_its_end(tmp_path: Path, make: Maker) -> None:
    path = tmp_path / "train"
    fake_run.training(path, state="in progress", epochs=8)
    console, written = make()
    seen: list[int] = []
    thread = threading.Thread(
        target=lambda: seen.append(watch.main(path, poll_seconds=0.02, console=console))
    )
    thread.start()
    metrics = path / "trainings/random-default-seed2/metrics.jsonl"
    row = read_rows(metrics)[0][-1]
    with metrics.open("a") as file:
        file.write(json.dumps({**row, "epoch": 7, "test_accuracy": 0.98765}) + "\n")
    (path / "DONE").touch()
    thread.join(timeout=10)
    assert seen == [0]
    assert "98.8%" in written.getvalue() and "random-default-seed2" in written.getvalue()


def test_a_file_that_a_resume_cut_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n')
    follower = watch.Follower(path, lines.whole)
    assert [row["step"] for row in follower.poll()] == [1, 2, 3]
    path.write_text('{"step": 1}\n')
    follower.poll()
    with path.open("a") as file:
        file.write('{"step": 20}\n')
    follower.poll()
    assert [row["step"] for row in follower.rows] == [1, 20]


def test_what_is_no_run_is_told_clearly(tmp_path: Path) -> None:
    console, written = log()
    assert watch.main(tmp_path, console=console) == 2
    assert "is no run: it holds none of config.yaml" in written.getvalue()


def test_an_event_is_one_line() -> None:
    def line(**row: object) -> str:
        return panels.event_line(Event.parse({"time": 1.0, **row}))

    told = line(event="warning", message="skip share above one half")
    assert told == "warning: skip share above one half"
    assert line(event="resumed", step=5) == "resumed: step 5"
    assert line(event="finished") == "finished"
