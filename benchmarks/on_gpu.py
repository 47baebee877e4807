"""The first hour on a GPU: is it right, how fast, what pays, and something real; in that order.

    python benchmarks/on_gpu.py --minutes 9 --data-root FOLDER
    python benchmarks/on_gpu.py --device cpu --quick        # all of it, small, without a GPU

Each check is a process of its own with a time limit of its own, and each of its rows is printed and
appended to OUT/rows.jsonl as soon as it is known, so that being cut off loses nothing. Another call
goes on with what has not ended; --again NAME… makes checks once more. --minutes: of this call; what
does not fit in the rest of it is left for the next. --part or --check: those alone.

Right?       gradients and rewards of every method against float64 on the CPU; image operations
             against the CPU's; the suite's GPU tests; the same bits again, after a stop, on two
             ranks
How fast?    what the machine reaches; steps (benchmarks/step.py) and their projected hours;
             augmentation; every method
What pays?   layouts, TF32, cudnn.benchmark, depthwise regrouped; graphs, compiled operations and
             streams; ratios of passes of the same paths, taken in turn
Real         a search on all of Fashion-MNIST (FOLDER has its four files), then what it found
             trained beside random networks, by the package's own commands

A bare machine with torch, torchvision and what they bring needs a few wheels more (4 MB). Where
there is a registry:

    pip download --no-deps --only-binary=:all: --platform manylinux_2_17_x86_64 \\
        --python-version 3.12 -d carried hydra-core "omegaconf<2.4" submitit webdataset \\
        braceexpand rich pydantic pydantic-core annotated-types typing-inspection typing-extensions
    pip wheel --no-deps -w carried antlr4-python3-runtime==4.9.3
    for each in carried/*.whl; do python -m zipfile -e $each carried/all; done

and there, from the checkout:

    PYTHONPATH=$PWD:$PWD/carried/all python benchmarks/on_gpu.py
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import measure
import torch
from gpu import fast, pays, real, right
from gpu.rows import FAILED, LATE, Check, File, Settings, run

PARTS: dict[str, list[Check]] = {
    "right": [
        Check("gradients", 5, right.gradients),
        Check("operations", 1, right.operations),
        Check("suite", 4, right.suite),
        Check("deterministic", 8, right.deterministic),
        Check("ranks", 4, right.ranks),
    ],
    "fast": [
        Check("machine", 1, fast.machine),
        Check("step at 64", 6, fast.step_at_64),
        Check("methods", 6, fast.methods),
        Check("augmentation", 1, fast.augmentation),
        Check("ImageNet", 6, fast.imagenet),
        Check("step at 96", 6, fast.step_at_96),
        Check("step at 256", 8, fast.step_at_256),
    ],
    "pays": [
        Check("settings", 4, pays.settings_of_kernels),
        Check("graphs", 4, pays.graphs),
        Check("streams", 3, pays.streams),
        Check("compiled", 8, pays.compiled),
    ],
    "real": [
        Check("search", 60, real.search, resumes=True),
        Check("train", 60, real.train, resumes=True),
    ],
}
LEAST = 1.0
"""Minutes without which nothing is begun."""
UNFINISHED = 3
"""The exit status of a check that goes on in the next call."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    names = [check.name for checks in PARTS.values() for check in checks]
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="small networks, few images")
    parser.add_argument("--out", type=Path, default=Path("runs/on_gpu"))
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--data-root", help="of Fashion-MNIST")
    parser.add_argument("--part", nargs="+", choices=PARTS, default=[*PARTS])
    parser.add_argument("--check", nargs="+", choices=names, default=names)
    parser.add_argument("--again", nargs="+", choices=names, default=[])
    parser.add_argument("--alone", type=float, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda, but torch sees no GPU; use --device cpu --quick")
    device = torch.device(given.device)
    machine = measure.machine(device)
    of = {"device": machine["device"], "torch": machine["torch"], "quick": given.quick}
    file = File(given.out / "rows.jsonl", of)
    chosen = {
        part: [check for check in checks if check.name in given.check]
        for part, checks in PARTS.items()
        if part in given.part
    }
    if given.alone is not None:
        (check,) = [check for checks in chosen.values() for check in checks]
        settings = Settings(device, given.quick, given.out, given.alone, given.data_root)
        return 0 if run(check, settings, file) else UNFINISHED
    until = time.monotonic() + 60 * given.minutes
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    left = [
        check.name
        for part, checks in chosen.items()
        for check in checks
        if not ended(part, check, until, file, given.again)
    ]
    print(f"\nleft for another call: {', '.join(left) or 'nothing'}")
    return 0


def ended(part: str, check: Check, until: float, file: File, again: list[str]) -> bool:
    """Make a check, if it has not ended before and there is time; tell whether it has ended."""
    before = file.ended().get(check.name)
    if before is not None and check.name not in again:
        print(f"\n{part}: {check.name}: {before}, in an earlier call")
        return True
    left = (until - time.monotonic()) / 60
    if left < (LEAST if check.resumes else check.minutes):
        return False
    minutes = min(left, check.minutes)
    print(f"\n{part}: {check.name} (at most {minutes:.0f} minutes)", flush=True)
    words = [sys.executable, *sys.argv, "--check", check.name, "--alone", f"{60 * minutes:.0f}"]
    status = within(words, 60 * minutes)
    if status is None and not check.resumes:
        file.add(check.name, "", {"end": f"{LATE}: {check.minutes} minutes"})
    elif status not in (0, None, UNFINISHED):  # it ended before it could say why
        file.add(check.name, "", {"end": f"{FAILED}: exit status {status}"})
    return check.name in file.ended()


def within(command: list[str], seconds: float) -> int | None:
    """Run a command; return its exit status, or None if it took too long. What it has started ends
    with it, and it with this process."""
    process = subprocess.Popen(command, start_new_session=True)
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        signal.signal(signal.SIGTERM, before)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


if __name__ == "__main__":
    sys.exit(main())
