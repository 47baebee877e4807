"""How many forward-backward passes does an estimator need to find what was planted?

Truths are planted in Fashion-MNIST as in planted_truth.py: validation and test images carry an
operation (of x+y both, one after the other), training images do not. A policy is searched on the
small network, whose weights have had the same short warm-up for all estimators. `paper` is
Algorithm 1 (5 architectures, 2 policies each; on one network 16 passes a step), `ours` is
method=ours_policy (4 policies for each of 64 images; 5.2 passes a step).

    python benchmarks/truth_per_pass.py rewards  what leads under a policy that stays uniform
    python benchmarks/truth_per_pass.py tune     each estimator at each of its rates
    python benchmarks/truth_per_pass.py run      each at its best one, on other seeds
    python benchmarks/truth_per_pass.py table    what is in the results so far

A search is right while the planted operation ranks first by probability × application; of two,
while both lead. What is counted: the fewest passes after which at least four of five seeds are
right and stay so to the end of the search. `ours` gets a fifth of the passes that the others get.
Then the network is trained from scratch under what was found. Control: nothing planted.

Results are appended to --out as JSON lines, one a run; runs that are there are not repeated.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from planted_truth import NOTHING, STRENGTHS, planted, policy_of, read, train_small

from daas_dist import config as configuration
from daas_dist.config import Config
from daas_dist.data import Images
from daas_dist.data.dataset import load_data
from daas_dist.distributed.mesh import Mesh
from daas_dist.methods.estimators import Evidence
from daas_dist.search.loop import build_network
from daas_dist.search.steps import Search, SearchData
from daas_dist.spaces import operations as augment
from daas_dist.spaces.policy import Policy

STAGE = [
    "stage=search_fashion", "model=small", "search.target=policy", "device=cpu",
    "search.warmup_epochs=4", "search.joint_epochs=1000000", "search.log_every=1000000",
]  # fmt: skip
"""The weights' learning rate stays where it starts: a search ends by its passes."""
FIVE = "search.architectures=5"
PAPER = [
    FIVE,
    "preset=paper",
    "model=small",
    "policy.parameters=per_slot",
    "search.warmup_epochs=4",
]
"""per_slot as all: 30 probabilities to learn, not 450, which Eq. (13) could not in so few steps."""
ESTIMATORS: dict[str, tuple[list[str], Sequence[float]]] = {
    "paper": (PAPER, (0.005, 0.015, 0.05)),
    "leave_one_out": ([*PAPER, "search.estimator=leave_one_out"], (0.005, 0.015, 0.05)),
    "ours": (["method=ours_policy"], (0.4, 0.8)),
    "ours, joint": (["method=ours", FIVE], (0.1, 0.2, 0.4)),
}
"""Their overrides, and the learning rates of the policy's optimiser to choose from."""
TRUTHS = (
    "shear_x", "translate_y", "rotate", "invert", "contrast", "translate_x+solarize",
    "translate_y+solarize", "translate_x+translate_y", "translate_x+invert", "translate_y+contrast",
)  # fmt: skip
"""Of the first three pairs, under a uniform policy, one operation earns the most and the other
something; of the last two equalize, which is not planted, earns the most (`rewards`)."""
TUNING_SEED = 100
"""The first of those on which learning rates are chosen; what is below is to show what they do."""
UNMOVED = 1e-9
"""The learning rate of a policy that stays uniform."""
SHOWN = 5
FIFTH = 5


def budget(estimator: str, passes: float) -> float:
    return passes / FIFTH if estimator.startswith("ours") else passes


def plant(images: Images, truth: str, seed: int, part: str) -> Images:
    for number, operation in enumerate(truth.split("+")):
        images = planted(images, operation, seed, part if number == 0 else f"{part}-{number}")
    return images


@dataclass(frozen=True)
class Trial:
    """A search after its warm-up, and what a network is then trained and tested on."""

    config: Config
    search: Search
    train: Images
    test: Images

    @staticmethod
    def of(job: dict[str, Any]) -> "Trial":
        torch.set_num_threads(1)
        truth, seed = job["truth"], job["seed"]
        overrides, _ = ESTIMATORS[job["estimator"]]
        rate = f"search.policy_optimizer.learning_rate={job['rate']}"
        config = configuration.load([*STAGE, *overrides, rate, f"seed={seed}"])
        data = load_data(config.data, config.seed, splits=2)
        train, test = data.train, data.test
        assert isinstance(train, Images) and isinstance(test, Images)
        train, val = train.split(1 - config.data.val_share, seed)
        val, test = plant(val, truth, seed, "val"), plant(test, truth, seed, "test")
        given = SearchData(train, val, data.mean, data.std)
        network = build_network(config, len(train.classes))
        search = Search(config, given, network, Mesh(), torch.device("cpu"))
        while search.warming_up:
            search.step()
        return Trial(config, search, train, test)

    def accuracy(self, found: Policy) -> float:
        data = self.search.data
        return train_small(self.config, self.train, self.test, data.mean, data.std, found)


def run(job: dict[str, Any]) -> dict[str, Any]:
    """One search, what led after every step, and a training under what it found."""
    trial = Trial.of(job)
    search = trial.search
    began, warm = time.monotonic(), search.state.passes
    right = Leads(set(job["truth"].split("+")))
    while search.state.passes - warm < job["passes"]:
        search.step()
        right.add(policy_of(search).ranking(), round(search.state.passes - warm))
    found = policy_of(search)
    row = {
        **job,
        "seconds": round(time.monotonic() - began, 1),
        "steps": right.steps,
        "since": right.since,
        "changes": right.changes,
        "ranking": found.ranking()[:4],
    }
    if job["train"]:
        row["accuracy"] = trial.accuracy(found)
    return row


def rewards(job: dict[str, Any]) -> list[tuple[str, float]]:
    """What an operation's application adds to a reward, in standard deviations, mean of the slots;
    the most first. Of a policy that does not move: no estimator is to blame."""
    search = Trial.of(job).search
    warm = search.state.passes
    while search.state.passes - warm < job["passes"]:
        search.step()
    evidence = Evidence.from_tensors(search.state.memory["evidence"])
    gain_O = evidence.applied()[0].mean(0)
    order = gain_O.argsort(descending=True).tolist()
    return [(augment.NAMES[o], float(gain_O[o])) for o in order]


class Leads:
    """Since how many passes the planted operations lead; None while they do not."""

    def __init__(self, planted: set[str]) -> None:
        self.planted, self.steps, self.changes = planted, 0, 0
        self.since: int | None = None

    def add(self, ranking: list[tuple[str, float]], passes: int) -> None:
        self.steps += 1
        leads = {name for name, _ in ranking[: len(self.planted)]} == self.planted
        if leads != (self.since is not None):
            self.since = passes if leads else None
            self.changes += 1


# --- Which runs, and what they say ---------------------------------------------------------------


def tuning(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    return [
        {"estimator": name, "truth": truth, "seed": TUNING_SEED + number, "rate": rate,
         "passes": budget(name, arguments.passes), "train": False}
        for number in range(arguments.seeds) for truth in arguments.truths
        for name in arguments.estimators for rate in ESTIMATORS[name][1]
    ]  # fmt: skip


def running(arguments: argparse.Namespace, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"estimator": name, "truth": truth, "seed": seed, "rate": best_rate(rows, name),
         "passes": budget(name, arguments.passes), "train": True}
        for seed in range(arguments.seeds) for truth in [*arguments.truths, NOTHING]
        for name in arguments.estimators
    ]  # fmt: skip


def best_rate(rows: list[dict[str, Any]], estimator: str) -> float:
    """By how many truths it is right about at the end, then by how early (means of passes)."""
    tuned = [r for r in rows if r["estimator"] == estimator and r["seed"] >= TUNING_SEED]
    if not tuned:
        raise SystemExit(f"{estimator}: no learning rate chosen yet; run `tune` first")

    def score(rate: float) -> float:
        mine = [r for r in tuned if r["rate"] == rate]
        return statistics.mean(2 * r["passes"] if r["since"] is None else r["since"] for r in mine)

    return min(dict.fromkeys(r["rate"] for r in tuned), key=score)


def print_rewards(arguments: argparse.Namespace) -> None:
    jobs = [
        {"estimator": "ours", "truth": truth, "seed": TUNING_SEED, "rate": UNMOVED,
         "passes": budget("ours", arguments.passes)}
        for truth in arguments.truths
    ]  # fmt: skip
    with ProcessPoolExecutor(arguments.jobs) as pool:
        for job, gains in zip(jobs, pool.map(rewards, jobs), strict=True):
            told = ", ".join(f"{name} {gain:.2f}" for name, gain in gains[:SHOWN])
            print(f"{job['truth']:<24}{told}", flush=True)


KEY = ("estimator", "truth", "seed", "rate", "passes")


def perform(
    jobs: list[dict[str, Any]], rows: list[dict[str, Any]], arguments: argparse.Namespace
) -> None:
    done = {tuple(row[k] for k in KEY) for row in rows}
    wanted = [job for job in jobs if tuple(job[k] for k in KEY) not in done]
    with ProcessPoolExecutor(arguments.jobs) as pool, arguments.out.open("a") as out:
        for row in pool.map(run, wanted):
            rows.append(row)
            out.write(json.dumps(row) + "\n")
            out.flush()
            what = f"{row['estimator']} {row['truth']}, seed {row['seed']}, rate {row['rate']}"
            print(f"{what}: right since {row['since']} ({row['seconds']} s)", flush=True)


def lasting(mine: list[dict[str, Any]]) -> int | None:
    """The passes after which four of five seeds (all but a fifth) are right to the end."""
    since = sorted(r["since"] for r in mine if r["since"] is not None)
    needed = -(-4 * len(mine) // 5)
    return since[needed - 1] if len(since) >= needed else None


def print_table(rows: list[dict[str, Any]]) -> None:
    """A column for each estimator and each length of its searches."""
    final = [row for row in rows if row["seed"] < TUNING_SEED]
    known = {(row["estimator"], row["passes"]) for row in final}
    columns = sorted(known, key=lambda column: (list(ESTIMATORS).index(column[0]), column[1]))
    for name in dict.fromkeys(r["estimator"] for r in rows):
        print(f"{name}: learning rate {best_rate(rows, name)}")

    def of(column: tuple[str, float], truth: str) -> list[dict[str, Any]]:
        wanted = *column, truth
        return [r for r in final if (r["estimator"], r["passes"], r["truth"]) == wanted]

    told: dict[str, Callable[[list[dict[str, Any]]], str]] = {
        "passes until right": _passes,
        "seconds until right": _seconds,
        "right at the end": lambda mine: f"{sum(r['since'] is not None for r in mine)}/{len(mine)}",
        "test accuracy": lambda mine: f"{statistics.mean(r['accuracy'] for r in mine):.1%}",
    }
    for title, cell in told.items():
        heads = (f"{name} ({passes:.0f})" for name, passes in columns)
        print(f"\n{title:<24}" + "".join(f"{head:>20}" for head in heads))
        for truth in dict.fromkeys(r["truth"] for r in final):
            if truth == NOTHING and title != "test accuracy":
                continue
            cells = [cell(mine) if (mine := of(column, truth)) else "" for column in columns]
            print(f"{truth:<24}" + "".join(f"{text:>20}" for text in cells))
    for name, passes in columns:
        tops = (r["ranking"][0] for r in of((name, passes), NOTHING))
        print(
            f"control, {name} ({passes:.0f}): top "
            + ", ".join(f"{top} {weight:.3f}" for top, weight in tops)
        )


def _passes(mine: list[dict[str, Any]]) -> str:
    passes = lasting(mine)
    return f"> {mine[0]['passes']:.0f}" if passes is None else str(passes)


def _seconds(mine: list[dict[str, Any]]) -> str:
    passes = lasting(mine)
    rate = statistics.median(r["seconds"] / r["passes"] for r in mine)
    return f"{'> ' * (passes is None)}{rate * (passes or mine[0]['passes']):.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=["rewards", "tune", "run", "table"])
    parser.add_argument("--truths", nargs="+", default=list(TRUTHS))
    parser.add_argument("--estimators", nargs="+", choices=ESTIMATORS, default=["paper", "ours"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--passes", type=float, default=2000, help="of a search; a fifth for ours")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, default=Path("benchmarks/truth_per_pass.jsonl"))
    arguments = parser.parse_args()
    for operation in {name for truth in arguments.truths for name in truth.split("+")}:
        if operation not in STRENGTHS:
            parser.error(f"--truths {operation}: known are {', '.join(STRENGTHS)}, and x+y")
    if arguments.what == "rewards":
        print_rewards(arguments)
        return
    rows = read(arguments.out)
    if arguments.what == "tune":
        perform(tuning(arguments), rows, arguments)
    if arguments.what == "run":
        perform(running(arguments, rows), rows, arguments)
    print_table(rows)


if __name__ == "__main__":
    main()
