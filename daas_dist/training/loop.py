"""The training of one network: its steps, its epochs, its tests, on one rank or on many.

What it sees of an image is in inputs.py, how its learning rate moves in schedules.py, what its
tests count in evaluation.py.
"""

import resource
import time
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from daas_dist import models
from daas_dist.config import Config
from daas_dist.data import DataError
from daas_dist.data.dataset import DataSet, open_feed
from daas_dist.distributed.cut import Cut
from daas_dist.distributed.mesh import Mesh
from daas_dist.rng import Part, stream
from daas_dist.runs.loop import Asked, Beat
from daas_dist.schedules import learning_rate
from daas_dist.training import engine, evaluation, rows
from daas_dist.training.engine.compiled import compile_checked
from daas_dist.training.rows import Row


@dataclass
class Measured:
    """What the training of a row took so far, over all its lives."""

    seconds: float = 0.0
    """Tests included."""
    training_seconds: float = 0.0
    images: int = 0
    peak_memory_mb: float = 0.0
    """Of the rank with most."""

    def add(self, images: int, seconds: float) -> None:
        """Steps."""
        self.images += images
        self.seconds += seconds
        self.training_seconds += seconds

    def save(self) -> dict[str, Any]:
        return asdict(self)


def peak_memory_mb(device: torch.device) -> float:
    """The most that this process has had so far, on the device."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10  # Linux counts in KiB


class Training:
    """One network and its optimiser. What an epoch draws is a function of (seed, epoch) alone."""

    def __init__(
        self, config: Config, data: DataSet, row: Row, mesh: Mesh, cut: Cut, device: torch.device
    ) -> None:
        """mesh: the ranks that train it together. cut: how they share a batch."""
        self.settings, self.data, self.row = config.train, data, row
        self.mesh, self.cut, self.device = mesh, cut, device
        self.images = rows.images(config, row)
        self.inputs = rows.inputs(config, row, data.mean, data.std)
        network = rows.network(config, data, row).to(device)
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.cost = models.cost(self.network, data.train.shape)
        self.average = None
        if self.settings.ema_decay is not None:
            decay = get_ema_multi_avg_fn(self.settings.ema_decay)
            self.average = AveragedModel(self.network, multi_avg_fn=decay, use_buffers=True)
        if config.engine.compile:
            some = torch.arange(min(self.cut.micro_batch, len(data.train)))
            compile_checked(self.network, self._tested(data.train.central(some)))
        self.optimiser = torch.optim.SGD(
            self.network.parameters(),
            lr=self.settings.learning_rate,
            momentum=self.settings.momentum,
            nesterov=self.settings.nesterov,
            weight_decay=self.settings.weight_decay,
        )
        self.schedule = rows.schedule(self.settings)
        self.engine = engine.build(
            config.engine.name,
            self.network,
            self.optimiser,
            mesh,
            cut,
            clip=self.settings.clip,
            precision=config.engine.precision,
        )
        self.feed = open_feed(
            self.images,
            {"training": data.train},
            batch_size=self.settings.batch_size,
            seed=row.seed,
            epochs=self.settings.epochs,
            part=cut.part,
            device=device,
            change=self._change if self.settings.augment_on == "reader" else None,
        )
        self.batches = self.feed.batches
        self.tested = data.test.share_of(Part(mesh.rank, mesh.world))
        self.evaluation: evaluation.Evaluation | None = None
        """Of the network as it was after the last epoch of this process."""
        self.epoch, self.step = 0, 0
        self.measured = Measured()
        self.sums = torch.zeros(2, dtype=torch.float64)
        """Loss and accuracy over the epoch's steps so far, as a stop may come between two."""

    def state(self) -> dict[str, Any]:
        """Return the state for a checkpoint of this step: the same whatever the ranks and the
        engine are."""
        return {
            "network": self.network.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "engine": self.engine.save(),
            "measured": self.measured.save(),
            "epoch": self.epoch,
            "sums": self.sums,
        }

    def load(self, step: int, state: dict[str, Any]) -> None:
        self.step, self.epoch, self.sums = step, state["epoch"], state["sums"]
        self.network.load_state_dict(state["network"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.engine.load(state["engine"])
        self.measured = Measured(**state["measured"])

    def train_epoch(self, beat: Beat, asked: Asked) -> dict[str, Any] | None:
        """Train an epoch, or the rest of one, and test: a line of metrics.jsonl; None if it was
        stopped between two steps or in its tests, which a resume makes from their beginning. beat
        is called at every step."""
        began, first = time.monotonic(), self.step
        self.network.train()
        steps = self.batches.steps_per_epoch
        while self.step < (self.epoch + 1) * steps:
            if asked():
                self._measure(first, began)
                return None
            self.train_step()
            beat()
        trained = self._measure(first, began)
        tested = self.evaluate(self.network, beat, asked)
        averaged = None
        if tested is not None and self.average is not None:
            averaged = self.evaluate(self.average.module, beat, asked)
        if tested is None or (self.average is not None and averaged is None):
            return None
        self.evaluation = tested
        train_loss, train_accuracy = (self.sums / steps).tolist()
        metrics = {
            "epoch": self.epoch + 1,
            "epochs": self.settings.epochs,
            "time": time.time(),
            "learning_rate": self.optimiser.param_groups[0]["lr"],
            "train_loss": train_loss,
            "train_accuracy": train_accuracy,
            **self.evaluation.metrics(),
            "images_per_second": (self.step - first)
            * self.settings.batch_size
            / max(trained, 1e-9),
        }
        if averaged is not None:
            metrics |= {"ema_loss": averaged.loss, "ema_accuracy": averaged.top1}
        self.epoch += 1
        self.sums = torch.zeros(2, dtype=torch.float64)
        self.measured.seconds += time.monotonic() - began - trained
        return metrics

    def note_memory(self) -> None:
        """All ranks together."""
        now = max(self.mesh.gather(peak_memory_mb(self.device)))
        self.measured.peak_memory_mb = max(self.measured.peak_memory_mb, now)

    def _measure(self, first: int, began: float) -> float:
        """The seconds in which the steps since `first` were made."""
        trained = time.monotonic() - began
        self.measured.add((self.step - first) * self.settings.batch_size, trained)
        return trained

    def train_step(self) -> None:
        """One optimiser step, with the other ranks of the mesh. FloatingPointError names it."""
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.schedule, self.step / self.batches.steps_per_epoch)
        read = self.feed.batch(self.step)["training"]
        images = read.images.to(self.device, non_blocking=True).contiguous()
        labels = read.labels.to(self.device, non_blocking=True).split(self.cut.micro_batch)
        passes = [
            partial(self._pass, *each)
            for each in zip(self.cut.own, images.split(self.cut.micro_batch), labels, strict=True)
        ]
        try:
            self.sums = self.sums + self.engine.step(passes)
        except FloatingPointError as error:
            raise FloatingPointError(
                f"step {self.step} of {self.row.name}: {error}; lower train.learning_rate"
            ) from error
        if self.average is not None:
            self.average.update_parameters(self.network)
        self.step += 1

    def _pass(self, number: int, images_u8: Tensor, labels: Tensor) -> engine.Passed:
        """The forward pass over a micro-batch, by its number in the step."""
        part = Part(number, self.cut.count)
        if self.settings.augment_on == "device":
            images_u8 = self._change(images_u8, self.step, part)
        images = self.inputs.normalised(images_u8, self.row.seed, self.step, part)
        # Drop-path ramps up linearly (peer: DARTS).
        share = self.settings.drop_path * self.epoch / self.settings.epochs
        noise = stream(self.row.seed, "drop-path", self.step)
        models.set_noise(self.network, share, noise, part)
        output = self.engine.forward(images.contiguous(memory_format=torch.channels_last))
        logits, auxiliary = output if isinstance(output, tuple) else (output, None)
        smoothing = self.settings.label_smoothing
        whole = loss = cross_entropy(_full(logits), labels, label_smoothing=smoothing)
        if auxiliary is not None:
            beside = cross_entropy(_full(auxiliary), labels, label_smoothing=smoothing)
            whole = loss + self.settings.auxiliary_weight * beside
        accuracy = (logits.argmax(-1) == labels).float().mean()
        return engine.Passed(whole, torch.stack([loss, accuracy]))

    @torch.no_grad()
    def evaluate(
        self, network: nn.Module, beat: Beat, asked: Asked
    ) -> evaluation.Evaluation | None:
        """Test on the test images, each counted once, on one of the ranks; None if stopped.

        beat is called at every batch. In float32 whatever the engine's precision: so do they who
        load it.
        """
        network.eval()
        classes = len(self.data.train.classes)
        total = torch.zeros(evaluation.size(classes), dtype=torch.float64)
        tests = self.feed.tests(self.tested, self.cut.micro_batch)
        for number, (images, labels) in enumerate(tests):
            if number < self._batches_of_all and asked():
                return None
            total += evaluation.sums(network(self._tested(images)), labels.to(self.device)).cpu()
            beat()
        found = evaluation.numbers(self.mesh.total(total, "tests"), classes)
        if found.images != len(self.data.test):  # a stream was said to have as many
            raise DataError(f"{found.images} test images; set data.test_limit to that")
        return found

    @property
    def _batches_of_all(self) -> int:
        """Return how many batches of test images every rank has: after each they can agree to
        stop."""
        return -(-self.data.test.fewest_of(self.mesh.world) // self.cut.micro_batch)

    def _change(self, images_u8: Tensor, step: int, part: Part) -> Tensor:
        return self.inputs.changed(images_u8, self.row.seed, step, part)

    def _tested(self, images_u8: Tensor) -> Tensor:
        """Return what the network sees of test images."""
        images = self.inputs.test(images_u8.to(self.device))
        return images.contiguous(memory_format=torch.channels_last)


def _full(logits: Tensor) -> Tensor:
    """Return logits in float32 at least, whatever the network computed in."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
