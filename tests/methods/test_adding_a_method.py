"""docs/adding_a_method.md, followed word for word in a copy of the checkout."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from slurm_cluster import ROOT, checkout
from whole_runs import needs_fashion_mnist

PAGE = (ROOT / "docs" / "adding_a_method.md").read_text(encoding="utf-8")
FILES = re.findall(r"^`([\w/]+\.\w+)`:\n\n```\w+\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
COMMAND = re.search(r"^```sh\n(torchrun .*?)\n```", PAGE, re.MULTILINE)


@needs_fashion_mnist
def test_the_page_adds_a_method_that_runs_on_two_ranks_and_is_on_the_page(tmp_path: Path) -> None:
    copy = checkout(tmp_path)
    assert [name for name, _ in FILES] == [
        "daas_dist/methods/uniform.py", "configs/method/uniform.yaml",
    ]  # fmt: skip
    for name, text in FILES:
        (copy / name).write_text(text, encoding="utf-8")
    assert COMMAND is not None
    words = COMMAND[1].split()
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *words[1:], "data.limit=128"],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"},
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((copy / "runs/uniform/result.json").read_text())
    assert result["genotype"] is not None and result["policy"] is None
    assert result["telemetry"]["passes"] == (2 + 1) * result["telemetry"]["steps"]
    assert "Normal cell" in (copy / "runs/uniform/report.html").read_text()


def test_the_page_s_method_is_as_the_house_wants_it() -> None:
    """It passes the linter of the house."""
    for name, text in FILES:
        if name.endswith(".py"):
            for command in (["check", "--stdin-filename", name, "-"], ["format", "--diff", "-"]):
                done = subprocess.run(
                    [Path(sys.executable).with_name("ruff"), *command],
                    input=text, text=True, capture_output=True, cwd=ROOT,
                )  # fmt: skip
                assert done.returncode == 0, done.stdout + done.stderr
