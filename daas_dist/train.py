"""Training from scratch: what was found, beside baselines, under the same recipe (paper, Sec. 5).

A row of the comparison is an architecture, a policy and a seed. One rank trains a whole row, and
what comes out does not depend on how many ranks there are. What a network sees of an image is in
inputs.py, how its learning rate moves in schedules.py, what its tests count in evaluation.py.
"""

import json
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchvision.transforms import v2

from daas_dist import checkpoint, evaluation, inputs, models, optimiser
from daas_dist.config import Config, ConfigError
from daas_dist.dataset import (
    DataSet,
    load_data_in_turn,
    open_feed,
    read_tests,
    tell_replaced,
    tell_warnings,
)
from daas_dist.faults import Watchdog
from daas_dist.job import Job, at_work
from daas_dist.models.network import Network
from daas_dist.result import load_genotype, load_policy, read
from daas_dist.rng import WHOLE, stream
from daas_dist.runlog import RunLog, read_metrics, write_json
from daas_dist.schedules import Schedule, learning_rate
from daas_dist.schema import ANY_SIZE, ARCHITECTURES, Train
from daas_dist.space import random_genotype
from daas_dist.stopping import REASONS, Stop
from daas_dist.watch import plain_line

PLAIN: dict[str, Any] = {
    "crop_padding": 0, "crop_scale": None, "flip": False, "color_jitter": None, "lighting": None,
    "cutout": 0,
}  # fmt: skip
"""data.* of the policy "none"."""


@dataclass(frozen=True)
class Row:
    """What is trained: an "architecture/policy" of train.compare, and a seed."""

    pair: str
    seed: int

    @property
    def architecture(self) -> str:
        return self.pair.partition("/")[0]

    @property
    def policy(self) -> str:
        return self.pair.partition("/")[2]

    @property
    def name(self) -> str:
        return f"{self.architecture}-{self.policy}-seed{self.seed}"


def run_training(config: Config) -> Path:
    """Train every row of train.compare with every seed, or until stopped; the run directory.

    What is complete is not trained again; what is not goes on after the step at which it stopped,
    or after its last complete epoch if it was killed.
    """
    # A wrong file fails here, before anything is written.
    searched = _found(config)
    with at_work(config, exchanges=False) as job:
        if searched is not None:
            job.mesh.led(lambda: _keep(searched, job.run_dir))
        data = load_data_in_turn(config, job.mesh)
        sha256 = data.train.digest()
        job.mesh.led(lambda: job.record_provenance(sha256))
        if job.log is not None:
            job.log.start()
            tell_warnings(data, job.log)
        rows = [Row(*each) for each in product(config.train.compare, config.train.seeds)]
        done: dict[int, dict[str, Any]] = {}
        for i in job.mesh.mine(len(rows)):
            trained = _train(data, rows[i], job)
            if trained is None:
                break
            done[i] = trained
            if job.log is not None:
                _write_comparison(job, done)
        done = {i: row for part in job.mesh.gather(done) for i, row in part.items()}
        why = job.mesh.highest(job.stop.asked())
        if job.log is not None:
            _write_comparison(job, done)
            if len(done) == len(rows):
                job.log.finish("DONE")
            else:
                job.log.event("stopped", reason=REASONS[why])
        return job.run_dir


def _found(config: Config) -> dict[str, Any] | None:
    """What the found rows train: train.result, with the policy of train.policy_result if given."""
    if config.train.result is None:
        return None
    searched = read(config.train.result)
    if config.train.policy_result is not None:
        searched["policy"] = read(config.train.policy_result)["policy"]
    return searched


def _keep(searched: dict[str, Any], run_dir: Path) -> None:
    """A copy of the search's result, since a comparison is of one architecture and one policy.

    ConfigError where the run directory has trainings of another.
    """
    kept = run_dir / "search.json"
    if not kept.exists():
        write_json(kept, searched)
    elif any(read(kept)[part] != searched[part] for part in ("genotype", "policy")):
        raise ConfigError(
            f"{run_dir} holds trainings of another architecture or policy than train.result has "
            f"now ({kept} has theirs); set run_dir to a new folder"
        )


def _write_comparison(job: Job, done: Mapping[int, dict[str, Any]]) -> None:
    job.check_ours()
    rows = [done[i] for i in sorted(done)]
    document = {"schema": 1, "kind": "training", "search": job.config.train.result, "rows": rows}
    write_json(job.run_dir / "comparison.json", document)


def _train(data: DataSet, row: Row, job: Job) -> dict[str, Any] | None:
    """The numbers of a row, None if it was stopped."""
    config, folder = job.config, job.run_dir / "trainings" / row.name
    training = Training(config, data, row, job.device)
    training.load(folder / "checkpoints")
    log = RunLog(folder, config.tensorboard)
    log.truncate_after(training.epoch, "epoch")
    replaced = 0
    with Watchdog(job.mesh.rank, 60 * config.patience_minutes, job.run_dir) as watchdog:
        while training.epoch < config.train.epochs:
            metrics = None if job.stop.asked() else training.train_epoch(watchdog.beat, job.stop)
            replaced = tell_replaced(training.feed, replaced, log)
            if metrics is not None:
                write_json(folder / "evaluation.json", training.evaluation.document())
                log.metric(metrics)
                print(f"{row.name}: {plain_line(metrics)}", flush=True)
            training.save(folder / "checkpoints")
            if metrics is None:
                return None
    result = training.result(
        read_metrics(folder), json.loads((folder / "evaluation.json").read_text())
    )
    write_json(folder / "result.json", result)
    return result


class Training:
    """One network and its optimiser. What an epoch draws is a function of (seed, epoch) alone."""

    def __init__(self, config: Config, data: DataSet, row: Row, device: torch.device) -> None:
        self.settings, self.data, self.row, self.device = config.train, data, row, device
        self.images = replace(config.data, **PLAIN) if row.policy == "none" else config.data
        self.inputs = inputs.Inputs(
            _policy(config, row.policy),
            self.images.color_jitter,
            self.images.lighting,
            data.mean,
            data.std,
            self.images.cutout,
        )
        network = _network(config, data, row).to(device)
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimiser = optimiser.sgd(
            self.network,
            self.settings.learning_rate,
            momentum=self.settings.momentum,
            nesterov=self.settings.nesterov,
            weight_decay=self.settings.weight_decay,
            decay_norms=self.settings.decay_norms,
        )
        self.schedule = schedule_of(self.settings)
        self.feed = open_feed(
            self.images,
            {"training": data.train},
            batch_size=self.settings.batch_size,
            seed=row.seed,
            epochs=self.settings.epochs,
            part=WHOLE,
            device=device,
        )
        self.batches = self.feed.orders["training"].batches
        self.epoch, self.step, self.seconds = 0, 0, 0.0
        self.sums = torch.zeros(2)
        """Loss and accuracy over the epoch's steps so far, as a stop may come between two."""

    def save(self, folder: Path) -> None:
        state = {
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "seconds": self.seconds,
            "epoch": self.epoch,
            "sums": self.sums,
        }
        checkpoint.save(folder, self.step, state, keep=2)

    def load(self, folder: Path) -> None:
        """The newest whole checkpoint, if there is one."""
        saved = checkpoint.load_newest(folder)
        if saved is not None:
            self.step, state = saved
            self.epoch, self.sums = state["epoch"], state["sums"]
            self.network.load_state_dict(state["network"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.seconds = state["seconds"]

    def train_epoch(self, beat: Callable[[], None], stop: Stop) -> dict[str, Any] | None:
        """Train an epoch, or the rest of one, and test: a line of metrics.jsonl; None if it was
        stopped between two steps. beat is called at every step."""
        began, first = time.monotonic(), self.step
        self.network.train()
        steps = self.batches.steps_per_epoch
        while self.step < (self.epoch + 1) * steps:
            if self.step > first and stop.asked():
                self.seconds += time.monotonic() - began
                return None
            self.train_step()
            beat()
        trained = time.monotonic() - began
        train_loss, train_accuracy = (self.sums / steps).tolist()
        self.evaluation = self.evaluate(beat)
        self.epoch += 1
        self.sums = torch.zeros(2)
        self.seconds += time.monotonic() - began
        return {
            "epoch": self.epoch,
            "epochs": self.settings.epochs,
            "time": time.time(),
            "learning_rate": self.optimiser.param_groups[0]["lr"],
            "train_loss": train_loss,
            "train_accuracy": train_accuracy,
            **self.evaluation.metrics(),
            "images_per_second": (self.step - first) * self.settings.batch_size / trained,
        }

    def train_step(self) -> None:
        step = self.step
        read = self.feed.batch(step)["training"]
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.schedule, step / self.batches.steps_per_epoch)
        images = self.inputs(read.images.to(self.device, non_blocking=True), self.row.seed, step)
        images = images.contiguous(memory_format=torch.channels_last)
        labels = read.labels.to(self.device, non_blocking=True)
        # Drop-path ramps up linearly (peer: DARTS).
        share = self.settings.drop_path * self.epoch / self.settings.epochs
        models.set_noise(self.network, share, stream(self.row.seed, "drop-path", step))
        loss, whole, logits = self._losses(images, labels)
        if not bool(whole.isfinite()):
            raise FloatingPointError(
                f"step {step} of {self.row.name}: the loss is not finite; lower train.learning_rate"
            )
        self.optimiser.zero_grad()
        whole.backward()
        if self.settings.clip is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.clip)
        self.optimiser.step()
        accuracy = (logits.argmax(-1) == labels).float().mean()
        self.sums = self.sums + torch.stack([loss.detach(), accuracy]).cpu()
        self.step += 1

    def _losses(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(loss, loss with the auxiliary head's, logits)."""
        smoothing = self.settings.label_smoothing
        output = self.network(images)
        logits, auxiliary = output if isinstance(output, tuple) else (output, None)
        loss = cross_entropy(logits, labels, label_smoothing=smoothing)
        if auxiliary is None:
            return loss, loss, logits
        beside = cross_entropy(auxiliary, labels, label_smoothing=smoothing)
        return loss, loss + self.settings.auxiliary_weight * beside, logits

    @torch.no_grad()
    def evaluate(self, beat: Callable[[], None]) -> evaluation.Evaluation:
        """On the test images, each counted once; beat at every batch."""
        self.network.eval()
        classes = len(self.data.train.classes)
        total = torch.zeros(evaluation.size(classes), dtype=torch.float64)
        for images, labels in read_tests(self.feed, self.data.test, self.settings.batch_size):
            tested = self.inputs.test(images.to(self.device))
            logits = self.network(tested.contiguous(memory_format=torch.channels_last))
            total += evaluation.sums(logits, labels.to(self.device)).cpu()
            beat()
        return evaluation.numbers(total, classes)

    def result(self, lines: list[dict[str, Any]], last: dict[str, Any]) -> dict[str, Any]:
        """A row of comparison.json: from its metrics, and the evaluation after the last epoch."""
        parameters, multiply_adds = models.cost(self.network, self.data.train.shape)
        return {
            "architecture": self.row.architecture,
            "policy": self.row.policy,
            "seed": self.row.seed,
            **evaluation.summary(lines, last),
            "parameters": parameters,
            "multiply_adds": multiply_adds,
            "seconds": self.seconds,
            "epochs": self.settings.epochs,
            "data": {
                "classes": list(self.data.train.classes),
                "shape": list(self.data.train.shape),
            },
        }


def _network(config: Config, data: DataSet, row: Row) -> nn.Module:
    settings = config.train
    classes, in_channels = len(data.train.classes), data.train.shape[0]
    if row.architecture not in ARCHITECTURES:
        with _weights_of(row):
            return models.build(row.architecture, classes=classes, in_channels=in_channels)
    if row.architecture == "found":
        genotype = load_genotype(Path(str(settings.result)))
    else:
        genotype = random_genotype(stream(row.seed, "random-architecture"))
    with _weights_of(row):
        return Network(
            genotype,
            settings.channels,
            settings.cells,
            classes,
            in_channels,
            config.model.stem,
            auxiliary=settings.auxiliary_weight > 0,
        )


@contextmanager
def _weights_of(row: Row) -> Generator[None]:
    """What a network draws inside, from torch's own generator, is the row's first weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream(row.seed, "training-weights").initial_seed())
        yield


def _policy(config: Config, name: str) -> inputs.ImagePolicy:
    found = None
    if name == "found":
        found = load_policy(Path(str(config.train.policy_result or config.train.result)))
    natural = config.data.name in ANY_SIZE
    which = v2.AutoAugmentPolicy.IMAGENET if natural else v2.AutoAugmentPolicy.CIFAR10
    return inputs.named_policy(name, found, which)


def schedule_of(settings: Train) -> Schedule:
    return Schedule(
        curve=settings.schedule,
        start=settings.learning_rate,
        epochs=settings.epochs,
        by_step=settings.schedule_by == "step",
        milestones=tuple(settings.milestones or ()),
        warmup_epochs=settings.warmup_epochs,
        warmup_multiplier=settings.warmup_multiplier,
    )
