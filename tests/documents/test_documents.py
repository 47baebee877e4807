"""Documents: what is written is read back, what is not right is named, and what is long stays
cheap."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import fake_run
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daas_dist.documents import Damaged, checked, lines, strict
from daas_dist.documents.checked import Rule
from daas_dist.documents.events import Event
from daas_dist.documents.run import OWNER, Owner
from daas_dist.runs.log import RunLog, read_events, read_metrics

# --- JSON ----------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63) + 1, 2**63 - 1) | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(st.text(), inside, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(JSON)
def test_json_as_python_writes_it_is_read(value: Any) -> None:
    assert strict.parse(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "the key 'c' is there twice"),
        (b"[NaN]", "NaN is no number"),
        (b"[-Infinity]", "-Infinity is no number"),
        (b"[1e400]", "too large"),
        (b"[" + b"1" * 30 + b"]", "too large"),
        (b"[" * 60 + b"]" * 60, "nested too deep"),
        (b"[" * 10**6, "nested too deep"),
        (b'"\xc3"', "not UTF-8 at byte 1"),
        (b'{"a": }', "at character 7"),
    ],
)
def test_json_that_could_not_be_shown_or_written_is_refused(text: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why.replace("[", r"\[")):
        strict.parse(text)


@dataclass(frozen=True)
class Part:
    count: Annotated[int, Rule(lambda n: n % 2 == 0, "an even number")]
    share: float | None = None


@dataclass(frozen=True)
class Whole:
    kind: Literal["a", "b"]
    parts: list[Part]
    pair: tuple[str, int]


def whole(**changed: Any) -> dict[str, Any]:
    return {"kind": "b", "parts": [{"count": 4, "share": 3}], "pair": ["x", 7], **changed}


def test_a_value_becomes_a_frozen_dataclass() -> None:
    found = checked(Whole, whole(newer="than this version"))
    assert found == Whole("b", [Part(4, 3)], ("x", 7))


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        (whole(kind="c"), "kind is 'c', expected 'a' or 'b'"),
        (whole(parts=[{"count": 4}, {"count": 5}]), r"parts\[1\].count is 5, expected an even"),
        (whole(parts=[{"count": True}]), r"parts\[0\].count is True, expected a whole number"),
        (whole(parts=[{"count": 4, "share": "3"}]), r"share is '3', expected a number"),
        (whole(parts=[{"count": 4, "share": 1e300}]), "expected a number"),
        (whole(parts=[{}]), r"has no parts\[0\].count"),
        (whole(parts={}), "parts is {}, expected a list"),
        (whole(pair=["x"]), "pair is .*, expected a list of 2"),
        ([], r"is \[\], expected a table"),
    ],
)
def test_what_does_not_fit_is_named_by_its_key(changed: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        checked(Whole, changed)


def test_a_document_is_read_as_it_was_written(tmp_path: Path) -> None:
    owner = Owner("höst", 12, None, "ab")
    OWNER.write(tmp_path, owner)
    assert OWNER.read(tmp_path) == owner and OWNER.read(tmp_path / "nowhere") is None
    os.unlink(tmp_path / "lock")
    os.mkfifo(tmp_path / "lock")
    with pytest.raises(Damaged, match=r"lock: is a pipe, expected a file; it names no owner"):
        OWNER.read(tmp_path)


# --- Lines ---------------------------------------------------------------------------------------


def event(number: int) -> dict[str, Any]:
    return {"time": 1.0 + number, "event": "warning", "message": "x" * (number % 50)}


@given(st.integers(0, 60), st.integers(0, 3000), st.binary(max_size=200), st.integers(1, 9))
def test_from_its_end_a_file_reads_as_from_its_beginning(
    count: int, cut: int, torn: bytes, most: int
) -> None:
    import tempfile

    data = b"".join(json.dumps(event(n)).encode() + b"\n" for n in range(count))
    data = data[: len(data) - min(cut, 40)] + torn.replace(b"\n", b"")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.jsonl"
        path.write_bytes(data)
        forward, _ = lines.read_rows(path)
        assert list(lines.backward(path, lines.whole))[::-1] == forward
        assert lines.last(path, lines.whole, most)[0] == forward[-most:]
        assert lines.spread(path, lines.whole).rows == forward
        lines.mend(path)
        assert lines.read_rows(path)[0] == forward
        assert path.read_bytes() in (b"", data) or path.read_bytes().endswith(b"\n")


@pytest.mark.parametrize(
    "torn", [b'{"time": 3, "ev', b"\0" * 4096, b'{"time": 3, "e\0\0\0\0t"}\n', b"}\n", b"\n\0\0\n"]
)
def test_what_a_power_cut_leaves_is_no_damage(tmp_path: Path, torn: bytes) -> None:
    log = RunLog(tmp_path)
    log.start()
    log.metric({"step": 4})
    for name in ("events.jsonl", "metrics.jsonl"):
        with (tmp_path / name).open("ab") as file:
            file.write(torn)
    assert [row["event"] for row in read_events(tmp_path)] == ["started"]
    again = RunLog(tmp_path)
    again.resume(4)
    again.metric({"step": 5})
    assert [row["event"] for row in read_events(tmp_path)] == ["started", "resumed"]
    assert [row["step"] for row in read_metrics(tmp_path)] == [4, 5]


def test_a_bad_line_is_named_by_its_number_from_wherever_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    rows = [json.dumps(event(n)) for n in range(900)]
    rows[777] = '{"time": 7.0}'
    path.write_text("\n".join(rows) + "\n")
    for read in (lines.read, lines.spread, lambda *both: list(lines.backward(*both))):
        with pytest.raises(Damaged, match=r"events.jsonl, line 778: has no event; repair or"):
            read(path, Event.parse)
    found, wrong = lines.salvaged(path, Event.parse, 10_000)
    assert len(found) == 899 and "line 778" in str(wrong)


# --- What is long --------------------------------------------------------------------------------

MEASURE = """
import resource, sys, time
began = time.monotonic()
exec(sys.argv[1])
used = resource.getrusage(resource.RUSAGE_SELF)
print(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
"""


def cost(code: str, run: Path) -> tuple[float, float]:
    """(seconds of the processor, MiB) of a process that does it."""
    environment = {**os.environ, "RUN": str(run), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, code],
        env=environment, capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    seconds, memory = done.stdout.split()[-2:]
    return float(seconds), float(memory)


@pytest.fixture(scope="module")
def long_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run, and the same with 130,000 lines of metrics (270 MB) and 400,000 events."""
    root = tmp_path_factory.mktemp("long")
    short = fake_run.search(root / "short", state="failed", lines=100)
    long = fake_run.search(root / "long", state="failed", lines=100)
    rows = [json.loads(line) for line in (long / "metrics.jsonl").read_text().splitlines()]
    with (long / "metrics.jsonl").open("w") as file:
        for row in rows:
            head, tail = json.dumps({**row, "steps": 10**6, "step": 0}).split('"step": 0')
            # The steps of a row: 1,300 lines.
            file.writelines(
                f'{head}"step": {row["step"] * 10 + n // 130}{tail}\n' for n in range(1300)
            )
    with (long / "events.jsonl").open("a") as file:
        warning = '{"time": 2.0, "event": "warning", "message": "x"}\n'
        file.writelines(warning for _ in range(400_000))
    return short, long


READ = "import os; from pathlib import Path; run = Path(os.environ['RUN'])\n"
LONG = {
    "page": "from daas_dist.report.record import Run; assert Run.read(run).metrics",
    "watch": "from daas_dist.report import watch; import io, contextlib\n"
    "with contextlib.redirect_stdout(io.StringIO()):\n"
    "    assert watch.main(run, poll_seconds=0) == 1",
    "status": "from launch import jobs; assert jobs._progress(run)[1]",
    "resume": "from daas_dist.runs.log import RunLog; RunLog(run).truncate_after(99_999)",
    "attempt": "from launch import attempt; attempt.before(run)",
}


@pytest.mark.parametrize("what", LONG)
def test_time_and_memory_follow_what_is_shown(long_run: tuple[Path, Path], what: str) -> None:
    short, long = long_run
    seconds, memory = cost(READ + LONG[what], short)
    longer, more = cost(READ + LONG[what], long)
    assert longer < seconds + 6, f"{what}: {seconds:.1f} s became {longer:.1f} s"
    assert more < memory + 80, f"{what}: {memory:.0f} MiB became {more:.0f} MiB"


def test_of_many_lines_those_shown_are_spread_over_all(long_run: tuple[Path, Path]) -> None:
    _, long = long_run
    found = lines.spread(long / "metrics.jsonl", lines.whole)
    steps = [row["step"] for row in found.rows]
    assert not found.whole and 500 < len(steps) <= lines.PLACES * lines.RUN + lines.RUN
    assert (
        steps == sorted(steps)
        and steps[0] < 1100
        and found.lines == pytest.approx(130_000, rel=0.1)
    )
    gaps = [b - a for a, b in zip(steps, steps[1:], strict=False)]
    assert max(gaps) < 2100, "no row of the hundred is passed over"
