"""What a check of benchmarks/on_gpu.py is given, and where what it says goes: a line of JSON for
each row in a file, and a table on the screen."""

import json
import traceback
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

Value = float | int | str | bool | None
Values = dict[str, Value]
Rows = Iterator[tuple[str, Values]]
"""Name and values of each row, as soon as it is known."""

NEEDS_CUDA = "skipped: needs CUDA"
DONE, FAILED, LATE = "done", "failed", "out of time"
"""How a check ends; one that was cut off, or goes on in the next call, has no end."""


@dataclass(frozen=True)
class Settings:
    """quick: small networks, few images. folder: for files that stay. seconds: until this check is
    ended."""

    device: torch.device
    quick: bool
    folder: Path
    seconds: float
    data_root: str | None

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def network(self) -> list[str]:
        return ["model.channels=4", "model.cells=3"] if self.quick else []

    @property
    def side(self) -> int:
        return 16 if self.quick else 32

    def batch(self, size: int) -> int:
        return 4 if self.quick else size


class Skipped(Exception):
    """A check cannot be made here; says why."""


class Unfinished(Exception):
    """A check goes on in the next call; says how far it is."""


@dataclass(frozen=True)
class Check:
    """minutes: after which it is ended. resumes: it goes on where it was, so that any time left is
    of use to it."""

    name: str
    minutes: float
    run: Callable[[Settings], Rows]
    resumes: bool = False


@dataclass
class File:
    """The rows so far. Lines that are cut off are passed over. of: what every row of this machine
    and these sizes has; rows of others do not count."""

    path: Path
    of: Values
    columns: list[str] = field(default_factory=list)

    def add(self, check: str, row: str, values: Values) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            print(json.dumps({"check": check, "row": row, **self.of, **values}), file=file)
        self._show(row, values)

    def ended(self) -> dict[str, str]:
        """Return how each check has ended, of those that have since they were last begun."""
        found: dict[str, str] = {}
        for line in self.path.read_text(encoding="utf-8").splitlines() if self.exists else ():
            try:
                row = json.loads(line)
            except ValueError:  # the machine was taken away in the midst of it
                continue
            if any(row.get(key) != value for key, value in self.of.items()):
                continue
            found.pop(row["check"], None)
            if "end" in row:
                found[row["check"]] = row["end"]
        return found

    @property
    def exists(self) -> bool:
        return self.path.exists()

    def _show(self, row: str, values: Values) -> None:
        if "end" in values:
            print(f"  {values['end']}", flush=True)
            return
        if list(values) != self.columns:
            self.columns = list(values)
            print(f"  {'':<34}" + " ".join(f"{name:>{_width(name)}}" for name in values))
        shown = (f"{told(value):>{_width(name)}}" for name, value in values.items())
        print(f"  {row:<34}" + " ".join(shown), flush=True)


def _width(name: str) -> int:
    return max(len(name), 9) + 1


def told(value: Value) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "NO"
        case float():
            return f"{value:.3g}"
        case _:
            return str(value)


def run(check: Check, settings: Settings, file: File) -> bool:
    """Make the rows of a check, and the one that ends it; tell whether it is at its end."""
    end = DONE
    try:
        for name, values in check.run(settings):
            file.add(check.name, name, values)
    except Unfinished as error:
        print(f"  {error}; goes on in the next call", flush=True)
        return False
    except Skipped as error:
        end = str(error)
    except Exception as error:  # the other checks are worth as much
        end = f"{FAILED}: {failure(error)['error']}"
    file.add(check.name, "", {"end": end})
    return True


def attempt(name: str, measure: Callable[..., Values], *given: Any) -> tuple[str, Values]:
    """Return a row of what a function returns, or of the error that it raises: the rows behind it
    are worth as much."""
    try:
        return name, measure(*given)
    except Exception as error:
        return name, failure(error)


def failure(error: Exception) -> Values:
    traceback.print_exception(error)
    return {"error": in_a_line(error)}


def in_a_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


@contextmanager
def precision(name: str) -> Generator[None]:
    """Compute float32 convolutions and matrix products on CUDA as "ieee" or as "tf32" has it.
    torch starts with TF32 for convolutions, and without for matrix products."""
    cudnn, cublas = torch.backends.cudnn, torch.backends.cuda.matmul
    places = (cudnn.conv, cudnn.rnn, cublas)  # of one mind, or torch's older switches raise
    before = [place.fp32_precision for place in places]
    try:
        for place in places:
            place.fp32_precision = name
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.fp32_precision = value
