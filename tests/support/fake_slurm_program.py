"""What tests/fake_slurm.py puts on PATH: python fake_slurm_program.py STATE COMMAND ARGUMENTS…"""

import json
import re
import sys
from pathlib import Path
from typing import Any


def submit(state: dict[str, Any], arguments: list[str]) -> str:
    testing = "--test-only" in arguments
    script = sys.stdin.read() if testing else Path(arguments[-1]).read_text()
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)", script, re.M))
    wanted = options.get("partition", "low").strip("'")
    if wanted != state["partition"]["PartitionName"]:
        sys.exit(f"sbatch: error: invalid partition specified: {wanted}")
    if testing:
        return ""
    number = str(state["next"])
    state["next"] += 1
    count = re.match(r"0-(\d+)", options.get("array", "").strip("'"))
    names = [number] if count is None else [f"{number}_{i}" for i in range(int(count[1]) + 1)]
    for name in names:
        waits = "Dependency" if "dependency" in options else "Priority"
        state["jobs"][name] = {
            "JobId": name, "JobState": "PENDING", "Reason": waits, "Restarts": "0",
            "RunTime": "00:00:00", "TimeLimit": "1-00:00:00", "script": script,
            "dependency": options.get("dependency", ""),
        }  # fmt: skip
    return f"Submitted batch job {number}\n"


def control(state: dict[str, Any], arguments: list[str]) -> str:
    what = [word for word in arguments if not word.startswith("-")]
    if what[0] == "requeue":
        job = state["jobs"][what[1]]
        job |= {"JobState": "PENDING", "Restarts": str(int(job["Restarts"]) + 1)}
        return ""
    if what[1] == "job":
        if what[2] not in state["jobs"]:
            sys.exit("slurm_load_jobs error: Invalid job id specified")
        return " ".join(f"{k}={v}" for k, v in state["jobs"][what[2]].items() if k != "script")
    values = state["config" if what[1] == "config" else "partition"]
    joint = "\n" if what[1] == "config" else " "
    equals = " = " if what[1] == "config" else "="
    return joint.join(f"{key}{equals}{value}" for key, value in values.items())


def main(path: Path, command: str, arguments: list[str]) -> None:
    state = json.loads(path.read_text())
    if command == "sbatch":
        print(submit(state, arguments), end="")
    elif command == "squeue":
        for name, job in state["jobs"].items():
            if job["JobState"] != "CANCELLED":
                print(f"{name}|{job['JobState']}|({job['Reason']})|N/A|1-00:00:00")
    elif command == "srun":
        state["srun"] = [*state.get("srun", []), arguments]
        print("slurm-wlm 22.05.8")
    elif command == "scancel":
        for name in arguments:
            state["jobs"][name]["JobState"] = "CANCELLED"
    else:
        print(control(state, arguments))
    path.write_text(json.dumps(state))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
