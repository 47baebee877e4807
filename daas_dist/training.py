"""The training of one network: its steps, its epochs, its tests, on one rank or on many.

Order of the input: crop and flip, the policy, normalise, cutout (peer: DADA's evaluation).
"""

import resource
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from daas_dist import augment, engine, models, rows
from daas_dist.config import Config
from daas_dist.dataset import DataSet, open_feed
from daas_dist.engine.compiled import compile_checked
from daas_dist.engine.cut import Cut
from daas_dist.mesh import Mesh
from daas_dist.rng import stream
from daas_dist.rows import Row
from daas_dist.schedules import cosine
from daas_dist.stopping import Stop


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
        plain = {"crop_padding": 0, "crop_scale": None, "flip": False, "cutout": 0}
        self.images = replace(config.data, **plain) if row.policy == "none" else config.data
        self.augmented = rows.augmentation(config, row.policy)
        network = rows.network(config, data, row).to(device)
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.cost = models.cost(self.network, data.train.shape)
        self.average = None
        if self.settings.ema_decay is not None:
            decay = get_ema_multi_avg_fn(self.settings.ema_decay)
            self.average = AveragedModel(self.network, multi_avg_fn=decay, use_buffers=True)
        if config.engine.compile:
            some = torch.arange(min(self.cut.micro_batch, len(data.train)))
            compile_checked(self.network, self._normalised(data.train.central(some)))
        self.optimiser = torch.optim.SGD(
            self.network.parameters(),
            lr=self.settings.learning_rate,
            momentum=self.settings.momentum,
            weight_decay=self.settings.weight_decay,
            fused=config.engine.fused,
        )
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
        )
        self.batches = self.feed.orders["training"].batches
        shares = torch.arange(len(data.test)).tensor_split(mesh.world)
        self.tested = data.test if mesh.world == 1 else data.test.take(shares[mesh.rank])
        """This rank's share of the test images; the shares differ by one at most."""
        self.epoch, self.step = 0, 0
        self.measured = Measured()
        self.sums = torch.zeros(2, dtype=torch.float64)
        """Loss and accuracy over the epoch's steps so far, as a stop may come between two."""

    def state(self) -> dict[str, Any]:
        """For a checkpoint of this step: the same whatever the ranks and the engine are."""
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

    def train_epoch(self, beat: Callable[[], None], stop: Stop) -> dict[str, Any] | None:
        """Train an epoch, or the rest of one, and test: a line of metrics.jsonl; None if it was
        stopped between two steps. beat is called at every step."""
        began, first = time.monotonic(), self.step
        rate = cosine(self.settings.learning_rate, 0.0, self.epoch / self.settings.epochs)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.network.train()
        steps = self.batches.steps_per_epoch
        while self.step < (self.epoch + 1) * steps:
            if self.step > first and self.mesh.highest(stop.asked()):
                self._measure(first, began)
                return None
            self.train_step()
            beat()
        trained = self._measure(first, began)
        train_loss, train_accuracy = (self.sums / steps).tolist()
        test_loss, test_accuracy = self.evaluate(self.network, beat)
        metrics = {
            "epoch": self.epoch + 1,
            "epochs": self.settings.epochs,
            "time": time.time(),
            "learning_rate": rate,
            "train_loss": train_loss,
            "train_accuracy": train_accuracy,
            "test_loss": test_loss,
            "test_accuracy": test_accuracy,
            "images_per_second": (self.step - first) * self.settings.batch_size / trained,
        }
        if self.average is not None:
            metrics["ema_loss"], metrics["ema_accuracy"] = self.evaluate(self.average.module, beat)
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
        read = self.feed.batch(self.step)["training"]
        images = read.images.to(self.device, non_blocking=True).split(self.cut.micro_batch)
        labels = read.labels.to(self.device, non_blocking=True).split(self.cut.micro_batch)
        passes = [
            partial(self._pass, *each) for each in zip(self.cut.own, images, labels, strict=True)
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
        images = self._input(images_u8, number)
        # Drop-path ramps up linearly (peer: DARTS).
        share = self.settings.drop_path * self.epoch / self.settings.epochs
        rows.set_noise(self.network, share, stream(self.row.seed, "drop-path", self.step, number))
        output = self.engine.forward(images)
        logits, auxiliary = output if isinstance(output, tuple) else (output, None)
        smoothing = self.settings.label_smoothing
        whole = loss = cross_entropy(_full(logits), labels, label_smoothing=smoothing)
        if auxiliary is not None:
            beside = cross_entropy(_full(auxiliary), labels, label_smoothing=smoothing)
            whole = loss + self.settings.auxiliary_weight * beside
        accuracy = (logits.argmax(-1) == labels).float().mean()
        return engine.Passed(whole, torch.stack([loss, accuracy]))

    def _input(self, images_u8: Tensor, number: int) -> Tensor:
        """What the network sees of a micro-batch that was cut."""
        generator = stream(self.row.seed, "training-augment", self.step, number)
        images = self._normalised(self.augmented(images_u8, generator))
        if self.images.cutout:
            images = augment.cutout_square(images, self.images.cutout, generator)
        return images.contiguous(memory_format=torch.channels_last)

    def _normalised(self, images_u8: Tensor) -> Tensor:
        images = augment.normalise(images_u8.to(self.device), self.data.mean, self.data.std)
        return images.contiguous(memory_format=torch.channels_last)

    @torch.no_grad()
    def evaluate(self, network: nn.Module, beat: Callable[[], None]) -> tuple[float, float]:
        """Mean loss and accuracy on the test images, each counted once, on one of the ranks; beat
        at every batch. In float32 whatever the engine's precision: so do they who load it."""
        network.eval()
        total = torch.zeros(2, dtype=torch.float64)
        for images, labels in self.feed.tests(self.tested, self.cut.micro_batch):
            total += _sums(network(self._normalised(images)).cpu(), labels)
            beat()
        mean = self.mesh.total(total, "tests") / len(self.data.test)
        return mean[0].item(), mean[1].item()


def _full(logits: Tensor) -> Tensor:
    """In float32 at least, whatever the network computed in."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _sums(logits: Tensor, labels: Tensor) -> Tensor:
    """[2] float64: the loss and how many are right, summed over images."""
    loss = cross_entropy(logits.double(), labels, reduction="sum")
    return torch.stack([loss, (logits.argmax(-1) == labels).sum().double()])
