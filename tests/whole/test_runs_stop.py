"""Whole searches that are asked to stop, disturbed by a second job, or resumed as another."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torture
from whole_runs import ENVIRONMENT, TWO_RANKS, disturb, finish, needs_fashion_mnist, read, start

from daas_dist import cli
from daas_dist.report.record import read_rows

pytestmark = needs_fashion_mnist
EPOCHS = 2


def words(run_dir: Path, *more: str) -> tuple[str, ...]:
    return (*torture.words(run_dir, EPOCHS, 1), *more)


@pytest.fixture(scope="module")
def peaceful(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("runs") / "peaceful"
    finish(*words(run_dir))
    return run_dir


def events(run_dir: Path) -> list[tuple[str, str]]:
    rows, _ = read_rows(run_dir / "events.jsonl")
    return [(row["event"], row.get("reason", "")) for row in rows]


def wait_for(path: Path) -> None:
    until = time.monotonic() + 90
    while not path.exists() and time.monotonic() < until:
        time.sleep(0.01)
    assert path.exists()


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGUSR2, marks=pytest.mark.long)]
)
def test_a_signal_stops_a_search_and_it_goes_on(
    peaceful: Path, tmp_path: Path, number: signal.Signals
) -> None:
    run_dir = tmp_path / "run"
    status, output = disturb(number, run_dir / "metrics.jsonl", *words(run_dir))
    assert status == 0 and f"run_dir={run_dir} goes on" in output
    assert events(run_dir)[-1] == ("stopped", number.name)
    finish(*words(run_dir))
    torture.same(run_dir, peaceful)


@pytest.mark.long
def test_torchrun_stops_its_ranks(peaceful: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    command = *TWO_RANKS, *words(run_dir)
    status, _ = disturb(signal.SIGTERM, run_dir / "metrics.jsonl", *command)
    assert status != 0  # torchrun's, whatever its ranks return: events.jsonl has the truth
    assert events(run_dir)[-1] == ("stopped", "SIGTERM")
    finish(*command)
    torture.same(run_dir, peaceful)


@pytest.mark.long
def test_the_file_and_the_clock_stop_a_search(
    peaceful: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    process = start(*words(run_dir))
    wait_for(run_dir / "metrics.jsonl")
    (run_dir / "STOP").touch()
    process.communicate()
    assert process.returncode == 0 and events(run_dir)[-1] == ("stopped", "the file STOP")
    assert cli.main(["run", *words(run_dir)[1:]]) == 2
    assert f"{run_dir / 'STOP'} is there; remove it to go on" in capfd.readouterr().err
    (run_dir / "STOP").unlink()
    finish(*words(run_dir, "stop_after_minutes=0.0001"))
    assert events(run_dir)[-1] == ("stopped", "stop_after_minutes")
    finish(*words(run_dir))
    torture.same(run_dir, peaceful)


def test_a_second_job_is_refused_and_does_no_harm(
    peaceful: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    process = start(*words(run_dir))
    wait_for(run_dir / "lock")
    assert cli.main(["run", *words(run_dir)[1:]]) == 2
    assert re.search(rf"{run_dir} is in use by process \d+ on ", capfd.readouterr().err)
    process.communicate()
    torture.same(run_dir, peaceful)
    assert not (run_dir / "lock").exists()


@pytest.mark.long
def test_another_configuration_or_other_images_are_refused_unless_allowed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    finish(*words(run_dir, "stop_after_minutes=0.0001"))
    longer = ["run", *words(run_dir, "search.joint_epochs=3")[1:]]
    assert cli.main(longer) == 2
    assert "search.joint_epochs: 2 -> 3" in capfd.readouterr().err
    provenance = run_dir / "provenance.json"
    provenance.write_text(provenance.read_text().replace('"data_sha256": "', '"data_sha256": "f'))
    assert cli.main(["run", *words(run_dir)[1:]]) == 2
    assert "on other training images (sha256 f" in capfd.readouterr().err
    allowed = [*longer, "resume.allow=[search.joint_epochs, data]"]
    assert cli.main(allowed) == 0
    assert read(run_dir / "result.json")["telemetry"]["steps"] == 4 * (3 + 1)
    assert ("reconfigured", "") in events(run_dir)


def test_a_start_that_found_no_images_is_corrected_in_its_place(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    assert cli.main(["run", *words(run_dir, f"data.root={tmp_path / 'no'}")[1:]]) == 2
    assert f"in {tmp_path / 'no'}" in capfd.readouterr().err
    finish(*words(run_dir, "stop_after_minutes=0.0001"))
    assert events(run_dir)[-1] == ("stopped", "stop_after_minutes")


def test_a_search_that_is_not_finite_fails_by_name(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    command = [sys.executable, "-m", *words(run_dir, "search.weights.learning_rate=1e30")]
    ended = subprocess.run(command, env=ENVIRONMENT, text=True, capture_output=True)
    assert ended.returncode == 1
    assert re.search(r"daas run: step \d+: .* is not finite; lower search", ended.stderr)
    assert "is not finite" in (run_dir / "FAILED").read_text()
    assert events(run_dir)[-1][0] == "failed"


@pytest.mark.long
def test_a_killed_and_a_hung_peer_are_told_in_a_line(tmp_path: Path) -> None:
    """kill -9 and kill -STOP of rank 1: what rank 0 says, and how soon."""
    for number, status, said in (
        (signal.SIGKILL, 3, "rank 0: another rank is gone, or late, while "),
        (signal.SIGSTOP, 4, "rank 0: no step for 3 s (patience_minutes), waiting for others while"),
    ):
        run_dir, ranks = tmp_path / number.name, []
        for rank in range(2):
            environment = {
                **ENVIRONMENT, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2",
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(29_000 + number),
            }  # fmt: skip
            command = [sys.executable, "-m", *words(run_dir, "patience_minutes=0.05")]
            command[command.index("search.joint_epochs=2")] = "search.joint_epochs=99"
            ranks.append(
                subprocess.Popen(
                    command, env=environment, text=True,
                    stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                )
            )  # fmt: skip
        wait_for(run_dir / "metrics.jsonl")
        ranks[1].send_signal(number)
        _, errors = ranks[0].communicate(timeout=60)
        ranks[1].kill()
        ranks[1].communicate()
        assert ranks[0].returncode == status, errors
        assert said in errors and "Traceback" not in errors
