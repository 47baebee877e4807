"""Runs of a stage: data and network from a configuration, a run directory, resume, the result."""

import json
import signal
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import torch
from torch import nn

from daas_dist import board, checkpoint, models
from daas_dist import config as configuration
from daas_dist.config import Config, ConfigError
from daas_dist.data import Images, cifar, digest, fashion_mnist, folder, limit, measure, split
from daas_dist.mesh import Mesh, connect
from daas_dist.models.network import Network
from daas_dist.models.small import FixedNetwork
from daas_dist.models.supernet import Supernet
from daas_dist.report.samples import Samples
from daas_dist.result import load_genotype, load_policy
from daas_dist.rng import stream
from daas_dist.runlog import RunLog, provenance, read_metrics, write_json, write_text
from daas_dist.search import Search, SearchData
from daas_dist.watch import Display


@dataclass(frozen=True)
class DataSet:
    """The training images (before any split), the test images, and how to normalise them."""

    train: Images
    test: Images
    mean: list[float]
    std: list[float]


def choose_device(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device=cuda but torch sees no GPU; set device=cpu or device=auto")
    return name


def place(device: str, mesh: Mesh) -> torch.device:
    """Where this rank computes."""
    return torch.device(device if device == "cpu" else f"cuda:{mesh.local_rank}")


def load_data_in_turn(config: Config, mesh: Mesh) -> DataSet:
    """load_data on every rank; what has to be downloaded is there before the others look."""
    if config.data.download and not mesh.leads:
        mesh.barrier()
    data = load_data(config)
    if config.data.download and mesh.leads:
        mesh.barrier()
    return data


def load_data(config: Config) -> DataSet:
    """The images that data.* names, limited as it says."""
    data = config.data
    if data.name == "fashion_mnist":
        train, test = (fashion_mnist(data.root, part, data.download) for part in (True, False))
    elif data.name in ("cifar10", "cifar100"):
        classes = int(data.name.removeprefix("cifar"))
        root = data.root or "datasets"
        train, test = (cifar(root, classes, part, data.download) for part in (True, False))
    else:
        if data.root is None or data.size is None:
            raise ConfigError("data=folder needs data.root and data.size")
        train, test = folder(
            data.root,
            data.val_root,
            size=data.size,
            channels=data.channels,
            max_bad_files=data.max_bad_files,
            seed=config.seed,
        )
    train, test = (
        part if count is None else limit(part, min(count, len(part)), config.seed)
        for part, count in ((train, data.limit), (test, data.test_limit))
    )
    mean, std = measure(train) if data.mean is None or data.std is None else (data.mean, data.std)
    return DataSet(train, test, list(mean), list(std))


def build_network(config: Config, classes: int) -> nn.Module:
    """The supernet, or the fixed network whose policy is searched."""
    model, channels = config.model, config.data.channels
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream(config.seed, "weights").initial_seed())
        if model.name == "supernet":
            return Supernet(model.channels, model.cells, classes, channels, model.stem)
        if model.name == "small":
            return FixedNetwork(models.build("small", classes=classes, in_channels=channels))
        genotype = load_genotype(Path(str(model.genotype)))
        return FixedNetwork(
            Network(genotype, model.channels, model.cells, classes, channels, model.stem)
        )


def open_run_dir(config: Config) -> Path:
    """The run directory; it freezes the configuration, or holds the same one already."""
    if config.tensorboard:
        board.require()
    name = f"{config.stage}-{datetime.now():%Y%m%d-%H%M%S}"
    run_dir = Path(config.run_dir) if config.run_dir else Path("runs") / name
    frozen = run_dir / "config.yaml"
    if frozen.exists():
        differs = configuration.difference(configuration.load_frozen(frozen), config)
        if differs:
            raise ConfigError(
                f"{run_dir} holds a run of another configuration ({'; '.join(differs)}); "
                "set run_dir to a new folder"
            )
    else:
        run_dir.mkdir(parents=True, exist_ok=True)
        write_text(frozen, configuration.to_yaml(config))
    return run_dir


class StopFlag:
    """Raised by SIGTERM or SIGINT while entered; a run looks at it between two steps."""

    def __init__(self) -> None:
        self.raised = False

    def __enter__(self) -> "StopFlag":
        self._before = {n: signal.signal(n, self._raise) for n in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _raise(self, _number: int, _frame: object) -> None:
        self.raised = True


@contextmanager
def joined(device: str, patience: timedelta | None = None) -> Generator[tuple[Mesh, StopFlag]]:
    """The mesh of this process and the flag that signals raise, both let go of at the end."""
    mesh = connect(device, patience)
    try:
        with StopFlag() as stop:
            yield mesh, stop
    finally:
        mesh.close()


def run_search(config: Config) -> Path:
    """Search, to the end or until stopped; the run directory. Resumes what is already there."""
    device = choose_device(config.device)
    with joined(device) as (mesh, stop):
        return _run_search(config, mesh, device, stop)


def _run_search(config: Config, mesh: Mesh, device: str, stop: StopFlag) -> Path:
    run_dir = Path(mesh.agree(str(open_run_dir(config)) if mesh.leads else ""))
    data = load_data_in_turn(config, mesh)
    train, val = split(data.train, 1 - config.data.val_share, config.seed)
    fixed = load_policy(Path(config.policy.fixed)) if config.policy.fixed else None
    search = Search(
        config,
        SearchData(train, val, data.mean, data.std, fixed),
        build_network(config, len(train.classes)),
        mesh,
        place(device, mesh),
    )
    mesh.barrier()
    log = RunLog(run_dir, config.tensorboard) if mesh.leads else None
    _resume(search, mesh, run_dir / "checkpoints", log)
    if log is not None:
        write_json(run_dir / "provenance.json", provenance(sys.argv, device, digest(data.train)))
        # A start without a checkpoint repeats everything: nothing logged before it is kept.
        log.resume(search.state.step) if (run_dir / "metrics.jsonl").exists() else log.start()
        warn_of_bad_files(data, log)
    finished = _steps(config, search, mesh, run_dir, log, stop)
    if log is not None and finished:
        _finish(config, search, data, run_dir, log)
    return run_dir


def warn_of_bad_files(data: DataSet, log: RunLog) -> None:
    for name in (*data.train.bad_files, *data.test.bad_files):
        log.event("warning", message=f"left out, unreadable: {name}")
        print(f"left out, unreadable: {name}", file=sys.stderr)


def _resume(search: Search, mesh: Mesh, folder: Path, log: RunLog | None) -> None:
    """The newest whole checkpoint: rank 0 finds it, the others load the step it found."""
    step, state = "", None
    if log is not None:
        saved = checkpoint.load_newest(folder, warn=lambda text: log.event("warning", message=text))
        if saved is not None:
            step, state = str(saved[0]), saved[1]
    step = mesh.agree(step)
    if step:
        search.state.load(checkpoint.load(folder, int(step)) if state is None else state)


def _steps(
    config: Config, search: Search, mesh: Mesh, run_dir: Path, log: RunLog | None, stop: StopFlag
) -> bool:
    """Step, log, save, stop. Whether the last step was reached."""
    settings, state = config.search, search.state
    with Display(run_dir.name) if mesh.leads else _Silent() as display:
        began, before, images = time.monotonic(), state.seconds, 0
        while state.step < search.steps:
            search.step()
            images += settings.batch_size
            state.seconds = before + time.monotonic() - began
            last = state.step == search.steps
            if state.step % settings.log_every == 0 or last:
                row = search.metrics(images / max(time.monotonic() - began, 1e-9))
                if log is not None:
                    log.metric(row)
                    display.row(row)
            stopped = mesh.any(stop.raised)
            if log is not None and (state.step % settings.checkpoint_every == 0 or last or stopped):
                checkpoint.save(
                    run_dir / "checkpoints", state.step, state.save(), settings.keep_checkpoints
                )
            if stopped and not last:
                if log is not None:
                    log.event("stopped", step=state.step)
                return False
    return True


class _Silent:
    """The display of a rank that does not print."""

    def __enter__(self) -> "_Silent":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def row(self, row: dict[str, Any]) -> None:
        pass


def _finish(config: Config, search: Search, data: DataSet, run_dir: Path, log: RunLog) -> None:
    result = search.result()
    result["data"] = {
        "name": config.data.name,
        "classes": list(data.train.classes),
        "mean": data.mean,
        "std": data.std,
        "shape": list(data.train.images.shape[1:]),
    }
    result["telemetry"]["val_accuracy"] = read_metrics(run_dir)[-1]["val_accuracy"]
    result["config"] = asdict(config)
    result["provenance"] = json.loads((run_dir / "provenance.json").read_text())
    policy = search.policy()
    if policy is not None:
        shown = data.train.images[:8]
        Samples.draw(shown, policy.apply, stream(config.seed, "samples")).save(run_dir)
    write_json(run_dir / "result.json", result)
    log.finish("DONE")
