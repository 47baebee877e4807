"""Training from scratch: what was found, beside baselines, under the same recipe (paper, Sec. 5).

Order of the input: crop and flip, the policy, normalise, cutout (peer: DADA's evaluation).
"""

import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchvision.transforms import v2

from daas_dist import augment, checkpoint, models
from daas_dist.config import Config
from daas_dist.data import Batches
from daas_dist.models.network import Network
from daas_dist.policy import Policy
from daas_dist.result import load_genotype, load_policy, read
from daas_dist.rng import stream
from daas_dist.run import DataSet, choose_device, load_data, open_run_dir
from daas_dist.runlog import RunLog, read_metrics, write_json
from daas_dist.search import cosine
from daas_dist.space import random_genotype
from daas_dist.watch import plain_line


def run_training(config: Config) -> Path:
    """Train every row of train.compare with every seed; what is complete is not trained again."""
    device = torch.device(choose_device(config.device))
    if config.train.result is not None:
        read(config.train.result)  # a wrong file fails here, before anything is written
    run_dir = open_run_dir(config)
    data = load_data(config)
    log = RunLog(run_dir)
    log.event("started")
    rows = []
    for pair in config.train.compare:
        for seed in config.train.seeds:
            architecture, policy = pair.split("/")
            rows.append(_train(config, data, run_dir, architecture, policy, seed, device))
            write_json(
                run_dir / "comparison.json",
                {"schema": 1, "kind": "training", "search": config.train.result, "rows": rows},
            )
    log.finish("DONE")
    return run_dir


def _train(
    config: Config,
    data: DataSet,
    run_dir: Path,
    architecture: str,
    policy: str,
    seed: int,
    device: torch.device,
) -> dict[str, object]:
    """One network: a row of the comparison. Resumes at its last complete epoch."""
    settings = config.train
    folder = run_dir / "trainings" / f"{architecture}-{policy}-seed{seed}"
    log = RunLog(folder)
    network = _network(config, data, architecture, seed).to(device)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    parameters, multiply_adds = models.cost(network, tuple(data.train.images.shape[1:]))
    optimiser = torch.optim.SGD(
        network.parameters(),
        lr=settings.learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )
    batches = Batches(len(data.train), settings.batch_size, seed, "training")
    epoch, seconds = 0, 0.0
    saved = checkpoint.load_newest(folder / "checkpoints")
    if saved is not None:
        epoch, state = saved
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        seconds = state["seconds"]
    log.truncate_after(epoch, "epoch")
    augmented = _augmentation(config, policy)
    while epoch < settings.epochs:
        began = time.monotonic()
        rate = cosine(settings.learning_rate, 0.0, epoch / settings.epochs)
        for group in optimiser.param_groups:
            group["lr"] = rate
        loss, accuracy = _epoch(config, data, network, optimiser, batches, epoch, augmented, seed)
        test_loss, test_accuracy = evaluate(network, data, settings.batch_size)
        epoch += 1
        seconds += time.monotonic() - began
        images = batches.steps_per_epoch * settings.batch_size
        row = {
            "epoch": epoch,
            "epochs": settings.epochs,
            "time": time.time(),
            "learning_rate": rate,
            "train_loss": loss,
            "train_accuracy": accuracy,
            "test_loss": test_loss,
            "test_accuracy": test_accuracy,
            "images_per_second": images / (time.monotonic() - began),
        }
        log.metric(row)
        print(f"{folder.name}: {plain_line(row)}", flush=True)
        state = {
            "network": network.state_dict(),
            "optimiser": optimiser.state_dict(),
            "seconds": seconds,
        }
        checkpoint.save(folder / "checkpoints", epoch, state, keep=2)
    history = [row["test_accuracy"] for row in read_metrics(folder)]
    best = max(history)
    result = {
        "architecture": architecture,
        "policy": policy,
        "seed": seed,
        "last": history[-1],
        "best": best,
        "best_epoch": history.index(best) + 1,
        "parameters": parameters,
        "multiply_adds": multiply_adds,
        "seconds": seconds,
        "epochs": settings.epochs,
    }
    write_json(folder / "result.json", result)
    return result


def _network(config: Config, data: DataSet, architecture: str, seed: int) -> Network:
    settings = config.train
    if architecture == "found":
        genotype = load_genotype(Path(str(settings.result)))
    else:
        genotype = random_genotype(stream(seed, "random-architecture"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream(seed, "training-weights").initial_seed())
        return Network(
            genotype,
            settings.channels,
            settings.cells,
            len(data.train.classes),
            data.train.images.shape[1],
            config.model.stem,
            auxiliary=settings.auxiliary_weight > 0,
        )


class _Augmentation:
    """What a policy name of train.compare does to a batch of uint8 images."""

    def __init__(self, found: Policy | None, fixed: nn.Module | None) -> None:
        self.found, self.fixed = found, fixed

    def __call__(self, images_u8: Tensor, generator: torch.Generator) -> Tensor:
        if self.found is not None:
            return self.found.apply(images_u8, generator)
        if self.fixed is None:
            return images_u8
        # torchvision's policies draw from torch's own generator, one policy a call.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
            return torch.stack([self.fixed(image) for image in images_u8])


def _augmentation(config: Config, policy: str) -> _Augmentation:
    found = load_policy(Path(str(config.train.result))) if policy == "found" else None
    fixed = {"trivial_augment": v2.TrivialAugmentWide, "rand_augment": v2.RandAugment}.get(policy)
    return _Augmentation(found, None if fixed is None else fixed())


def _epoch(
    config: Config,
    data: DataSet,
    network: Network,
    optimiser: torch.optim.Optimizer,
    batches: Batches,
    epoch: int,
    augmented: _Augmentation,
    seed: int,
) -> tuple[float, float]:
    """One epoch of training: mean loss and accuracy."""
    settings, device = config.train, next(network.parameters()).device
    network.train()
    total = torch.zeros(2)
    first = epoch * batches.steps_per_epoch
    for step in range(first, first + batches.steps_per_epoch):
        index = batches.indices(step)
        generator = stream(seed, "training-augment", step)
        images = augment.crop_flip(
            data.train.images[index], config.data.crop_padding, config.data.flip, generator
        )
        images = augment.normalise(augmented(images, generator).to(device), data.mean, data.std)
        if config.data.cutout:
            images = augment.cutout_square(images, config.data.cutout, generator)
        labels = data.train.labels[index].to(device)
        # Drop-path ramps up linearly (peer: DARTS).
        share = settings.drop_path * epoch / settings.epochs
        network.set_drop_path(share, stream(seed, "drop-path", step))
        output = network(images.contiguous(memory_format=torch.channels_last))
        logits, auxiliary = output if isinstance(output, tuple) else (output, None)
        loss = cross_entropy(logits, labels, label_smoothing=settings.label_smoothing)
        whole = loss
        if auxiliary is not None:
            beside = cross_entropy(auxiliary, labels, label_smoothing=settings.label_smoothing)
            whole = loss + settings.auxiliary_weight * beside
        if not bool(whole.isfinite()):
            raise FloatingPointError(
                f"step {step} of seed {seed}: the loss is not finite; lower train.learning_rate"
            )
        optimiser.zero_grad()
        whole.backward()
        nn.utils.clip_grad_norm_(network.parameters(), settings.clip)
        optimiser.step()
        accuracy = (logits.argmax(-1) == labels).float().mean()
        total += torch.stack([loss.detach(), accuracy]).cpu()
    loss_accuracy = (total / batches.steps_per_epoch).tolist()
    return loss_accuracy[0], loss_accuracy[1]


@torch.no_grad()
def evaluate(network: Network, data: DataSet, batch_size: int) -> tuple[float, float]:
    """Mean loss and accuracy on the test images, each counted once."""
    device = next(network.parameters()).device
    network.eval()
    total = torch.zeros(2)
    for images, labels in zip(
        data.test.images.split(batch_size), data.test.labels.split(batch_size), strict=True
    ):
        inputs = augment.normalise(images.to(device), data.mean, data.std)
        logits = network(inputs.contiguous(memory_format=torch.channels_last)).cpu()
        loss = cross_entropy(logits, labels, reduction="sum")
        total += torch.stack([loss, (logits.argmax(-1) == labels).sum()])
    mean = (total / len(data.test)).tolist()
    return mean[0], mean[1]
