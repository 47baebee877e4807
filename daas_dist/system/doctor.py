"""`daas doctor`: is this machine, and its cluster, fit for a run? Each check tells what to do.

    daas doctor [--json] [stage=NAME key=value …]

Without a stage the data are not looked at. Exit status 0 where nothing fails, else 1.
"""

import json
import multiprocessing
import os
import platform
import queue
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from daas_dist import config as configuration
from daas_dist.config import ConfigError
from daas_dist.documents.escaping import told
from daas_dist.system import slurm
from daas_dist.system.published import pace
from daas_dist.system.slurm import SlurmError

if TYPE_CHECKING:
    from daas_dist.config.schema import Data
    from daas_dist.data import Shards

RUNS = "runs"
"""Where run directories are made that nobody names."""
SIGNAL_SECONDS = 90
"""How long before its time limit launch/submit.py has a job told to save, unless told otherwise."""
LEAST_TORCH = (2, 11)
SAVE_SECONDS = 10
"""What a step, a save and a requeue want at the least."""
LEAST_SHM = 2**30
SLOW_FSYNC = 0.5
DECODED = 200
"""Pictures: a fraction of a second of ImageNet's."""
PATIENCE = 120
COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@dataclass(frozen=True)
class Check:
    name: str
    state: str
    """ok | warn | fail"""
    reason: str
    remedy: str = ""


def main(arguments: Sequence[str]) -> int:
    as_json = "--json" in arguments
    words = [word for word in arguments if word != "--json"]
    try:
        config = configuration.load(words) if words else None
    except ConfigError as error:
        print(f"daas doctor: {told(error)}", file=sys.stderr)
        return 2
    looks = _looks(Path(config.run_dir or RUNS if config else RUNS))
    if config is not None:
        splits = 2 if config.kind == "search" else 1
        looks["data"] = partial(images, config.data, config.seed, splits, config.stage)
    checks: list[Check] = []
    console = Console(stderr=as_json)
    with console.status("looking …") as shown:
        for name, look in looks.items():
            shown.update(f"{name} …")
            checks += look()
    if as_json:
        print(json.dumps([asdict(check) for check in checks], indent=2))
    else:
        console.print(table(checks))
    return 1 if any(check.state == "fail" for check in checks) else 0


def table(checks: Sequence[Check]) -> Table:
    shown = Table("check", "", "what was found", "what to do")
    for check in checks:
        state = Text(check.state, COLOURS[check.state])
        words = (Text(told(part)) for part in (check.name, check.reason, check.remedy))
        name, reason, remedy = words
        shown.add_row(name, state, reason, remedy)
    return shown


def _looks(run_dir: Path) -> dict[str, Callable[[], list[Check]]]:
    """Return what is looked at without a configuration, in turn."""
    return {
        "versions": versions,
        "GPUs": devices,
        "two processes": two_processes,
        "host": host,
        "run directory": partial(run_directory, run_dir),
        "stages": stages,
        "Slurm": partial(preflight, None, None, SIGNAL_SECONDS),
    }


# --- This machine --------------------------------------------------------------------------------


def versions() -> list[Check]:
    import torch
    import torchvision

    told = f"Python {platform.python_version()}, torch {torch.__version__}, torchvision "
    told += torchvision.__version__
    number = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if number < LEAST_TORCH:
        wanted = ".".join(map(str, LEAST_TORCH))
        return [Check("versions", "fail", told, f"pip install 'torch>={wanted}'")]
    checks = [Check("versions", "ok", told)]
    if shutil.which("dot") is None:
        remedy = "install Debian's package graphviz (or conda's); only `daas report` needs it"
        checks.append(Check("graphviz", "warn", "no `dot` on PATH: reports have no cells", remedy))
    return checks


def devices() -> list[Check]:
    import torch

    if not torch.cuda.is_available():
        remedy = "on a login node this is as it should be; else install torch for your driver"
        return [Check("GPUs", "warn", "torch sees none: device=auto is the CPU", remedy)]
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    nccl = ".".join(map(str, torch.cuda.nccl.version()))  # type: ignore[no-untyped-call]
    return [Check("GPUs", "ok", f"{', '.join(names)}; CUDA {torch.version.cuda}, NCCL {nccl}")]


def two_processes() -> list[Check]:
    """An all-reduce of two processes, over NCCL where there are two GPUs."""
    import torch

    backend = "nccl" if torch.cuda.device_count() > 1 else "gloo"
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        ranks = [
            context.Process(target=_reduce, args=(rank, backend, f"{folder}/store", answers))
            for rank in range(2)
        ]
        for rank in ranks:
            rank.start()
        try:
            sums = [answers.get(timeout=PATIENCE) for _ in ranks]
        except queue.Empty:
            sums = []
        for rank in ranks:
            rank.join(timeout=10)
            rank.kill()
    seconds = time.monotonic() - began
    if sums == [3.0, 3.0]:
        return [Check("all-reduce", "ok", f"{backend}, two processes, {seconds:.0f} s with start")]
    remedy = "look at firewall and GLOO_SOCKET_IFNAME / NCCL_SOCKET_IFNAME, NCCL_DEBUG=INFO"
    return [Check("all-reduce", "fail", f"{backend} gave {sums or 'nothing'}, not 3", remedy)]


def _reduce(rank: int, backend: str, store: str, answers: "multiprocessing.Queue[float]") -> None:
    import torch
    import torch.distributed as dist

    place = f"cuda:{rank}" if backend == "nccl" else "cpu"
    dist.init_process_group(backend, init_method=f"file://{store}", rank=rank, world_size=2)
    total = torch.tensor(float(rank + 1), device=place)
    dist.all_reduce(total)
    answers.put(float(total))
    dist.destroy_process_group()


def host() -> list[Check]:
    checks = []
    name = socket.gethostname()
    try:
        address = socket.gethostbyname(name)
        checks.append(Check("host name", "ok", f"{name} is {address}"))
    except OSError:
        told = f"{name} resolves to nothing; ranks are reached by the address of their route"
        checks.append(
            Check("host name", "warn", told, "set GLOO_SOCKET_IFNAME if they do not meet")
        )
    shm = shutil.disk_usage("/dev/shm") if Path("/dev/shm").is_dir() else None
    if shm is not None and shm.free < LEAST_SHM:
        told = f"/dev/shm has {shm.free / 2**20:.0f} MiB free"
        remedy = "NCCL and data loaders want 1 GiB: docker --shm-size=8g, or clear it"
        checks.append(Check("shared memory", "warn", told, remedy))
    elif shm is not None:
        checks.append(Check("shared memory", "ok", f"{shm.free / 2**30:.1f} GiB free"))
    return checks


def run_directory(folder: Path) -> list[Check]:
    """Return what a run does with its disk: make, fsync, rename, link."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    try:
        with tempfile.TemporaryDirectory(dir=place, prefix=".doctor-") as name:
            path = Path(name) / "a"
            path.write_text("text", encoding="utf-8")
            began = time.monotonic()
            with path.open("a", encoding="utf-8") as file:
                os.fsync(file.fileno())
            path.rename(Path(name) / "b")
            seconds = time.monotonic() - began
            try:
                os.link(Path(name) / "b", Path(name) / "c")
            except OSError as error:
                told = f"{place} has no hard links ({error.strerror}): no lock on a run directory"
                return [Check("run directory", "fail", told, "set run_dir to another disk")]
    except OSError as error:
        remedy = "set run_dir to a folder that you may write to, which all nodes share"
        return [Check("run directory", "fail", f"{place}: {error.strerror}", remedy)]
    free = shutil.disk_usage(place).free
    told = (
        f"{place}: writable, {free / 2**30:.1f} GiB free, fsync and rename {1000 * seconds:.0f} ms"
    )
    if free < 2**30:
        return [
            Check("run directory", "warn", told, "checkpoints want some 100 MiB a run; free some")
        ]
    if seconds > SLOW_FSYNC:
        remedy = "a checkpoint waits for some 20 of these; raise search.checkpoint_every"
        return [Check("run directory", "warn", told, remedy)]
    return [Check("run directory", "ok", told)]


def stages() -> list[Check]:
    """Every stage composes, with what the user has to give."""
    bad = []
    names = configuration.options("stage")
    for name in names:
        given = ["data.root=x"] if name.endswith(("folder", "imagenet")) else []
        given += ["train.result=x"] if name.startswith("train") else []
        try:
            configuration.load([f"stage={name}", *given])
        except ConfigError as error:
            bad.append(f"{name}: {error}")
    if bad:
        return [Check("stages", "fail", "; ".join(bad), "mend the file of configs/stage/")]
    return [Check("stages", "ok", f"all {len(names)} compose")]


def images(data: "Data", seed: int, splits: int, stage: str) -> list[Check]:
    """The images of a stage, read as its run will read them. splits: as load_data has it."""
    import torch

    from daas_dist.data import Shards, Stream
    from daas_dist.data.dataset import load_data

    began = time.monotonic()
    try:
        found = load_data(data, seed, splits)
        train, test = found.train, found.test
        if isinstance(train, Shards):
            return [_decoding(data, stage, train)]
        if isinstance(train, Stream):
            for part in (train, test):
                part.central(torch.arange(1))
            told = f"{len(train)} samples an epoch are said to be in"
            told += f" {len(train.urls)} shards; the first can be read"
            return [Check("data", "warn", told, found.warnings[0])]
    except (ValueError, OSError) as error:
        return [Check("data", "fail", str(error), "set data.root, or data.download=true")]
    count, seconds = len(train) + len(test), time.monotonic() - began
    left_out = [*train.bad_files, *test.bad_files]
    told = f"{data.name}: {count} images of {len(train.classes)} classes, read in "
    told += f"{seconds:.1f} s ({count / seconds:.0f} a second)"
    if left_out:
        return [Check("data", "warn", f"{told}; left out: {left_out[0]} …", "mend or remove them")]
    return [Check("data", "ok", told)]


def _decoding(data: "Data", stage: str, images: "Shards") -> Check:
    """Some pictures of shards, whose manifest, index and sizes are right."""
    import torch

    from daas_dist.data import workers_for
    from daas_dist.data.dataset import crop
    from daas_dist.rng import WHOLE, stream

    index = torch.randperm(len(images), generator=stream(0, "doctor"))[:DECODED]
    images.central(index[:1])  # imports, and opens a file
    began = time.monotonic()
    images.training(index, crop(data), stream(0, "doctor", "crops"), WHOLE)
    rate = len(index) / (time.monotonic() - began)
    workers = workers_for(images, data.workers)
    told = f"{len(images)} pictures of {len(images.classes)} classes in {images.folder.root}; "
    told += f"{rate:.0f} a second are read and cut by one process, a rank here has {workers}"
    needed = pace(stage, len(images))
    if needed is None:
        return Check("data", "ok", told)
    told += f"; a search at the paper's pace, of one 2080 Ti, reads {needed:.0f}"
    if rate * max(1, workers) < needed:
        remedy = "raise --cpus-per-gpu and data.workers, or build shards with --resize 256"
        return Check("data", "warn", told, remedy)
    return Check("data", "ok", told)


# --- The cluster ---------------------------------------------------------------------------------


def preflight(partition: str | None, minutes: int | None, signal_seconds: int) -> list[Check]:
    """Return what Slurm's settings mean for a run. minutes: its time limit; None is the
    partition's."""
    if not slurm.available():
        remedy = "nothing, unless this is a login node: then put sbatch on PATH"
        return [Check("Slurm", "ok", "not on this machine", remedy)]
    try:
        settings, found = slurm.settings(), slurm.partition(partition)
    except SlurmError as error:
        remedy = (
            "ask for a partition of `sinfo`" if "artition" in str(error) else "is slurmctld up?"
        )
        return [Check("Slurm", "fail", str(error), remedy)]
    told = f"{settings.get('SLURM_VERSION', '?')}, partition {found.get('PartitionName', 'none')}"
    return [
        Check("Slurm", "ok", told),
        _requeue(settings),
        _preemption(settings, found),
        _kill_wait(settings),
        _limit(found, minutes, signal_seconds),
    ]


def _requeue(settings: dict[str, str]) -> Check:
    if settings.get("JobRequeue") == "0":
        remedy = "submit.py asks for --requeue; your own scripts need it too; or JobRequeue=1"
        told = "JobRequeue=0: a job whose node is lost is not put back by itself"
        return Check("requeue", "warn", told, remedy)
    return Check("requeue", "ok", "a job whose node is lost goes back into the queue")


def _preemption(settings: dict[str, str], found: dict[str, str]) -> Check:
    name = "preemption"
    if settings.get("PreemptType", "").endswith("none"):
        return Check(name, "ok", "jobs are not preempted here")
    mode, grace = found.get("PreemptMode", settings.get("PreemptMode", "")), _grace(found)
    if "CANCEL" in mode:
        told = f"PreemptMode={mode}: a preempted job is ended for good"
        return Check(name, "warn", told, "`submit.py resume` goes on; or a partition that requeues")
    said = settings.get("SlurmctldParameters", "") + settings.get("PreemptParameters", "")
    signal = "its user signal" if "send_user_signal" in said else "SIGTERM"
    if grace < SAVE_SECONDS and "OFF" not in mode:
        told = f"GraceTime={grace} s after {signal}: too short to save"
        remedy = "lower search.checkpoint_every; or GraceTime=60 in slurm.conf"
        return Check(name, "warn", told, remedy)
    return Check(name, "ok", f"PreemptMode={mode}: {signal}, then {grace} s to save and requeue")


def _grace(found: dict[str, str]) -> int:
    try:
        return int(found.get("GraceTime", "0"))
    except ValueError:
        return 0


def _kill_wait(settings: dict[str, str]) -> Check:
    seconds = int(settings.get("KillWait", "30").split()[0])
    if seconds < SAVE_SECONDS:
        told = f"KillWait={seconds} s: scancel leaves too little time to save"
        remedy = "end a run by `touch RUN/STOP` instead; or KillWait=30 in slurm.conf"
        return Check("scancel", "warn", told, remedy)
    return Check("scancel", "ok", f"KillWait={seconds} s to save")


def _limit(found: dict[str, str], minutes: int | None, signal_seconds: int) -> Check:
    name, most = "time limit", slurm.duration(found.get("MaxTime", ""))
    asked = most if minutes is None else 60.0 * minutes
    if most is not None and asked is not None and asked > most:
        told = f"{minutes} minutes, but the partition has at most {most / 60:.0f}"
        return Check(name, "fail", told, f"--time {most / 60:.0f}; a run goes on after its limit")
    if asked is not None and asked <= signal_seconds:
        told = f"{asked:.0f} s, and a job is told to save {signal_seconds} s before"
        remedy = "a longer --time or another partition; or a smaller signal_seconds"
        return Check(name, "fail", told, remedy)
    told = "none" if asked is None else f"{asked / 3600:.1f} h at a time, then it goes on"
    return Check(name, "ok", told)
