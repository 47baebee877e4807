"""What tests of a site's batch script look at."""

import shlex
from pathlib import Path

import pytest
from fake_slurm import FakeSlurm

from launch import submit

SEARCH = ["stage=search_fashion", "preset=tiny"]


def site_file(folder: Path, text: str) -> str:
    (folder / "site.yaml").write_text(f"kind: slurm\n{text}\n", encoding="utf-8")
    return str(folder / "site.yaml")


def script(slurm: FakeSlurm, job: str = "1") -> str:
    return str(slurm.read()["jobs"][job]["script"])


def srun_line(text: str) -> list[str]:
    return shlex.split(next(line for line in text.splitlines() if line.startswith("srun ")))


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert submit.main(words) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "Traceback" not in said
    return said
