"""A real Slurm for the tests, from slurm/devcluster, and the searches that are run on it."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from whole_runs import wait

ROOT = Path(__file__).parents[2]
DEVCLUSTER = ROOT / "slurm" / "devcluster"
SUBMIT = ROOT / "launch" / "submit.py"


@dataclass(frozen=True)
class Cluster:
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return {
            **os.environ, "PATH": path, "SLURM_CONF": f"{self.folder}/slurm.conf",
            "OMP_NUM_THREADS": "1", "COLUMNS": "200",
        }  # fmt: skip

    def ask(self, *command: str) -> str:
        """What a command prints; it must end well."""
        done = self.run(*command)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    def run(self, *command: str) -> "subprocess.CompletedProcess[str]":
        return self.run_in(self.folder.parent, *command)

    def run_in(self, folder: Path, *command: str) -> "subprocess.CompletedProcess[str]":
        """In a folder, whose own code is taken if it has some."""
        own = {"PYTHONPATH": str(folder)} if (folder / "daas_dist").is_dir() else {}
        return subprocess.run(
            command, env=self.environment | own, cwd=folder, text=True, capture_output=True
        )

    def submit(self, *words: str) -> str:
        return self.ask(sys.executable, str(SUBMIT), *words)

    def try_submit(self, *words: str) -> "subprocess.CompletedProcess[str]":
        return self.run(sys.executable, str(SUBMIT), *words)

    def submit_in(self, folder: Path, *words: str) -> str:
        done = self.run_in(folder, sys.executable, str(SUBMIT), *words)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    def states(self, *run_dirs: Path) -> list[dict[str, Any]]:
        return json.loads(self.submit("status", "--json", *map(str, run_dirs)))

    def state(self, run_dir: Path) -> str:
        return str(self.states(run_dir)[0]["state"])

    def let_go(self, run_dir: Path) -> None:
        """A requeued job waits two minutes, which is Slurm's own: not here."""
        job = self.states(run_dir)[0]["job"]
        wait(lambda: "PENDING" in self.ask("squeue", "-h", "-j", job, "-o", "%T"))
        self.ask("scontrol", "update", f"jobid={job}", "StartTime=now")

    def hurry(self, run_dir: Path) -> None:
        """Let a job that waits in the queue start now; one that does not is left as it is."""
        job = self.states(run_dir)[0]["job"]
        if "PENDING" in self.run("squeue", "-h", "-j", job, "-o", "%T").stdout:
            self.run("scontrol", "update", f"jobid={job}", "StartTime=now")

    def devcluster(self, *words: str) -> None:
        self.ask(str(DEVCLUSTER), *words, str(self.folder))

    def orphans(self) -> list[str]:
        """The command lines of this cluster's jobs' processes."""
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                environment = path.read_text(errors="replace").split("\0")
                if f"SLURM_CONF={self.folder}/slurm.conf" in environment and any(
                    word.startswith("SLURM_JOB_ID=") for word in environment
                ):
                    found.append((path.parent / "cmdline").read_text().replace("\0", " "))
            except OSError:
                continue
        return found


def up(folder: Path, *options: str) -> Cluster:
    started = subprocess.run(
        [str(DEVCLUSTER), "up", *options, str(folder)], text=True, capture_output=True
    )
    if started.returncode == 2 and "not found" in started.stderr:
        pytest.skip(started.stderr.strip())
    assert started.returncode == 0, started.stderr + started.stdout
    return Cluster(folder)


def checkout(folder: Path) -> Path:
    """A copy of the parts that a user types at, which may be edited."""
    for name in ("daas_dist", "launch", "slurm", "configs"):
        shutil.copytree(ROOT / name, folder / "checkout" / name)
    return folder / "checkout"
