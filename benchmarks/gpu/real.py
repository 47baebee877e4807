"""Something real, by the package's own commands: a search on Fashion-MNIST, then trainings."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from daas_dist.data import FASHION_MNIST_ROOT
from daas_dist.runs.log import read_metrics
from daas_dist.spaces.cells import KINDS
from gpu.right import GRAPHS, ROOT
from gpu.rows import Rows, Settings, Skipped, Unfinished, Values

SEARCH_MINUTES = 40
"""A search has as many epochs, up to 50, as fit in this at the pace of a trial's joint phase."""
SPARE = 45.0
"""Seconds of a check in which a run starts, and saves when it is stopped."""
SEARCH = ["stage=search_fashion"]
FULL = ["data.limit=50000", "model.channels=16", "model.cells=8", "search.checkpoint_every=390"]
QUICK = ["data.limit=256", "model.channels=4", "model.cells=3"]
TRAIN = ["stage=train_fashion", "data.test_limit=null", "train.seeds=[0,1]"]
COMPARED = (
    "found/trivial_augment", "random/trivial_augment", "found/found", "found/default",
    "random/default",
)  # fmt: skip
TRAIN_FULL = ["data.limit=null", "train.channels=16", "train.cells=8", "train.epochs=8"]
TRAIN_QUICK = ["data.limit=256", "data.test_limit=256", "train.channels=4", "train.epochs=1"]


def search(settings: Settings) -> Rows:
    """search_fashion on 25,000 + 25,000 images, 8 cells of 16 channels."""
    folder = settings.folder / "search"
    words, chosen = [*SEARCH, *(QUICK if settings.quick else FULL)], folder / "words.json"
    words += [GRAPHS] if settings.on_gpu else []
    if not chosen.exists():
        epochs, pace = _epochs(words, folder / "trial", settings)
        chosen.parent.mkdir(parents=True, exist_ok=True)
        chosen.write_text(json.dumps(epochs))
        yield "trial", {"images/s": pace, "epochs": " ".join(epochs)}
    run_dir = folder / "run"
    _run([*words, *json.loads(chosen.read_text()), f"run_dir={run_dir}"], settings)
    rows = read_metrics(run_dir)
    for row in rows[-1 :: -max(1, len(rows) // 10)][::-1]:
        yield f"step {row['step']}", _progress(row)
    if not (run_dir / "DONE").exists():
        raise Unfinished(f"the search is at step {rows[-1]['step'] if rows else 0}")
    found = json.loads((run_dir / "result.json").read_text(encoding="utf-8"))
    for kind in KINDS:
        pairs = (f"{name}-{source}" for name, source in found["genotype"][kind])
        yield f"found {kind}", {"pairs": " ".join(pairs)}


def _progress(row: dict[str, Any]) -> Values:
    names = ("epoch", "train_loss", "val_loss", "val_accuracy", "images_per_second")
    return {name: row[name] for name in names}


def _epochs(words: list[str], run_dir: Path, settings: Settings) -> tuple[list[str], float]:
    """Epochs of warm-up and of the joint phase, as settings; images a second of the latter."""
    minutes = 0.4 if settings.quick else 1.5
    own = ["search.warmup_epochs=0", "search.log_every=1", f"stop_after_minutes={minutes}"]
    _run([*words, *own, f"run_dir={run_dir}"], settings)
    rows = read_metrics(run_dir)
    rows = rows[len(rows) // 2 :]  # the first half warms up, and records
    if len(rows) < 2:
        raise Unfinished("the trial was too short")
    images = (rows[-1]["step"] - rows[0]["step"]) * 64
    pace = images / (rows[-1]["time"] - rows[0]["time"])
    fits = int(SEARCH_MINUTES * 60 * pace / 25_000)
    total = 2 if settings.quick else max(2, min(50, fits))
    warm_up = max(1, 2 * total // 5)
    return [f"search.warmup_epochs={warm_up}", f"search.joint_epochs={total - warm_up}"], pace


def train(settings: Settings) -> Rows:
    """What was found beside random networks, under TrivialAugment too."""
    searched, run_dir = settings.folder / "search" / "run", settings.folder / "train"
    if not (searched / "DONE").exists():
        raise Unfinished("waits for the search")
    words = [*TRAIN, *(TRAIN_QUICK if settings.quick else TRAIN_FULL), f"run_dir={run_dir}"]
    words += [f"train.compare=[{','.join(COMPARED)}]", f"train.result={searched / 'result.json'}"]
    _run(words, settings)
    made = json.loads((run_dir / "comparison.json").read_text(encoding="utf-8"))
    for row in made["rows"]:
        name = f"{row['architecture']}/{row['policy']}, seed {row['seed']}"
        yield name, {key: row[key] for key in ("last", "best", "epochs", "seconds", "parameters")}
    if not (run_dir / "DONE").exists():
        raise Unfinished(f"{len(made['rows'])} networks are trained")


def _run(words: list[str], settings: Settings) -> None:
    """daas run, stopped before this check is. Skipped where there are no images."""
    root = settings.data_root or str(FASHION_MNIST_ROOT)
    if not Path(root).is_dir():
        raise Skipped(f"skipped: no folder {root}; give --data-root")
    minutes = max(0.1, (settings.seconds - SPARE) / 60)
    given = [f"data.root={root}", f"device={settings.device.type}", *words]
    if not any(word.startswith("stop_after_minutes=") for word in words):
        given.append(f"stop_after_minutes={minutes:.2f}")
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = [sys.executable, "-m", "daas_dist", *given]
    done = subprocess.run(command, env=environment, text=True, stderr=subprocess.PIPE)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no word"])[-1])
