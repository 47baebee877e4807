"""Slurm's commands as small programs on PATH, for machines without Slurm: jobs are taken, shown,
cancelled and requeued, but never run. What a job does is tested on a real Slurm (test_slurm_*.py).

The state is one JSON file: {"next": id, "jobs": {id: {…}}, "config": {…}, "partition": {…}}.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).with_name("fake_slurm_program.py")
COMMANDS = ("sbatch", "srun", "squeue", "scontrol", "scancel")
CONFIG = {
    "SLURM_VERSION": "22.05.8", "JobRequeue": "1", "KillWait": "30 sec",
    "PreemptType": "preempt/partition_prio", "PreemptMode": "REQUEUE",
    "SlurmctldParameters": "preempt_send_user_signal",
}  # fmt: skip
PARTITION = {
    "PartitionName": "low", "Default": "YES", "MaxTime": "UNLIMITED", "PreemptMode": "REQUEUE",
    "GraceTime": "60",
}  # fmt: skip


class FakeSlurm:
    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder.mkdir()
        self.state = folder / "slurm.json"
        self.write({"next": 1, "jobs": {}, "config": CONFIG, "partition": PARTITION})
        commands = folder / "bin"
        commands.mkdir()
        for name in COMMANDS:
            script = commands / name
            script.write_text(
                f'#!/bin/sh\nexec {sys.executable} -S {PROGRAM} {self.state} {name} "$@"\n'
            )
            script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")

    def read(self) -> dict[str, Any]:
        return json.loads(self.state.read_text())

    def write(self, state: dict[str, Any]) -> None:
        self.state.write_text(json.dumps(state))

    def change(self, part: str, **values: str) -> None:
        """Settings of "config" or "partition"."""
        state = self.read()
        state[part] = state[part] | values
        self.write(state)

    def change_job(self, identifier: str, **values: str) -> None:
        state = self.read()
        state["jobs"][identifier] |= values
        self.write(state)
