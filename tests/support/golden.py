"""Tiny runs of every kind, and the hashes of what they found: same bits before and after a change.

    python tests/support/golden.py write /tmp/golden.json      before
    python tests/support/golden.py check /tmp/golden.json      after; names what differs

Searches of each target, estimator and way to step, on one rank and on two along arch; trainings by
each engine. A hash is over the genotype, the policy, α, β, the evidence, the derived costs, every
metric that is no time, and the network's weights. The hashes hold on one machine and one version of
torch. A change that is meant to move bits says so, and writes them anew.
"""

import argparse
import hashlib
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import torch
from torture import FOUND, TIMES
from whole_runs import TWO_RANKS, finish

from daas_dist.runs import checkpoint
from daas_dist.runs.log import read_metrics

SEARCH = ("stage=search_fashion", "preset=tiny", "data.limit=128", "search.joint_epochs=1")
TRAIN = ("stage=train_fashion", "preset=tiny", "data.limit=128", "train.compare=[random/none]")
LEAVE_ONE_OUT = "search.estimator=leave_one_out"
RUNS: dict[str, Sequence[str]] = {
    "paper": (*SEARCH, "search.estimator=paper", "search.warmup_epochs=1"),
    "leave one out": (*SEARCH, LEAVE_ONE_OUT),
    "per image": (*SEARCH, "search.estimator=per_image"),
    "running means": (*SEARCH, "search.estimator=running_means"),
    "natural": (*SEARCH, "search.estimator=natural"),
    "architecture": (*SEARCH, "search.target=architecture"),
    "policy": (*SEARCH, "search.target=policy", "model=small"),
    "at theta": (*SEARCH, "search.architecture_gradient_at=theta"),
    "reused": (*SEARCH, "search.reuse_gradients=true"),
    "others": (*SEARCH, "search.evidence.control=others", "search.estimator=natural"),
    "limit": (*SEARCH, "search.max_parameters=20000"),
    "plain warm-up": (*SEARCH, "search.warmup_epochs=1", "search.warmup_policy=plain"),
    "alone": (*TRAIN, "engine=alone"),
    "ddp": (*TRAIN, "engine=ddp"),
    "deepspeed": (*TRAIN, "engine=deepspeed"),
}
ON_TWO = ("paper", "per image", "natural", "architecture", "policy", "reused", "ddp", "deepspeed")


def names() -> list[str]:
    return [*RUNS, *(f"{name}, two ranks" for name in ON_TWO)]


def run(name: str, folder: Path) -> str:
    """Run one and return the hash of what it left."""
    kind, _, ranks = name.partition(", ")
    run_dir = folder / name.replace(", ", "-").replace(" ", "_")
    words = [*RUNS[kind], f"run_dir={run_dir}", "tensorboard=false"]
    if ranks or kind == "deepspeed":
        finish(*(TWO_RANKS if ranks else TWO_RANKS[:-2] + ("1", "-m")), "daas_dist", *words)
    else:
        finish("daas_dist", *words)
    return found(run_dir) if kind not in ("alone", "ddp", "deepspeed") else trained(run_dir)


def found(run_dir: Path) -> str:
    """Hash what a search found, its metrics and its weights."""
    result = json.loads((run_dir / "result.json").read_text(encoding="utf-8"))
    apart = (*TIMES, "entropy")  # of what is learned, which is compared itself
    rows = [{k: v for k, v in row.items() if k not in apart} for row in read_metrics(run_dir)]
    state = checkpoint.load(run_dir / "checkpoints", checkpoint.steps(run_dir / "checkpoints")[-1])
    said = [{key: result.get(key) for key in FOUND}, result.get("derived"), rows]
    return digest([said, state["network"]])


def trained(run_dir: Path) -> str:
    """Hash the networks that a training left."""
    folders = sorted((run_dir / "trainings").iterdir())
    last = [checkpoint.steps(folder / "checkpoints")[-1] for folder in folders]
    networks = (
        checkpoint.load(folder / "checkpoints", step)["network"]
        for folder, step in zip(folders, last, strict=True)
    )
    return digest(list(networks))


def digest(value: Any) -> str:
    sums = hashlib.sha256()
    for tensor in sorted(_tensors(value, "")):
        sums.update(tensor)
    return sums.hexdigest()


def _tensors(value: Any, name: str) -> list[bytes]:
    """Each leaf as bytes, with its name in front."""
    if isinstance(value, torch.Tensor):
        plain = value.detach().cpu().contiguous()
        return [f"{name} {plain.dtype} {tuple(plain.shape)} ".encode() + plain.numpy().tobytes()]
    if isinstance(value, Mapping):
        return [leaf for key, each in value.items() for leaf in _tensors(each, f"{name}.{key}")]
    if isinstance(value, list | tuple):
        return [leaf for i, each in enumerate(value) for leaf in _tensors(each, f"{name}[{i}]")]
    if name.endswith("seconds"):
        return []
    return [f"{name} {value!r}".encode()]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=("write", "check"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--only", nargs="*", default=names(), choices=names())
    given = parser.parse_args()
    before = json.loads(given.file.read_text()) if given.what == "check" else {}
    hashes, differ = {}, []
    for name in given.only:
        with tempfile.TemporaryDirectory() as folder:
            hashes[name] = run(name, Path(folder))
        same = given.what == "write" or hashes[name] == before.get(name)
        differ += [] if same else [name]
        print(f"{name}: {hashes[name][:16]}{'' if same else ' DIFFERS'}", flush=True)
    if given.what == "write":
        given.file.write_text(json.dumps(hashes, indent=2) + "\n")
    elif not differ:
        print("the same bits")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
