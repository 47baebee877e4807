"""What a training leaves: the weights of its network, and result.json, which says what they are."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import save
from torch import Tensor, nn

from daas_dist.config import Config, values_of
from daas_dist.data.dataset import DataSet
from daas_dist.documents.metrics import TrainingRow
from daas_dist.documents.results import (
    Evaluation,
    NetworkSize,
    Recipe,
    Tested,
    Throughput,
    TrainedData,
    TrainedResult,
    WeightsFile,
)
from daas_dist.results import searched
from daas_dist.runs.log import write_bytes
from daas_dist.training import evaluation, rows
from daas_dist.training.loop import Training
from daas_dist.training.rows import Row

LAST, BEST, EMA = "weights.safetensors", "weights-best.safetensors", "weights-ema.safetensors"

RECIPE = ("crop_padding", "crop_scale", "flip", "color_jitter", "lighting", "cutout", "size")
"""Of data.*"""


def write_weights(path: Path, network: nn.Module) -> WeightsFile:
    """A network's state_dict in float32, whole or not at all; what result.json says of it."""
    data = save({name: _plain(value) for name, value in network.state_dict().items()})
    write_bytes(path, data)
    return WeightsFile(path.name, hashlib.sha256(data).hexdigest())


def _plain(value: Tensor) -> Tensor:
    value = value.detach().cpu().contiguous()
    return value.float() if value.is_floating_point() else value


def described(path: Path) -> WeightsFile:
    """Return what result.json says of weights that are there already."""
    return WeightsFile(path.name, hashlib.sha256(path.read_bytes()).hexdigest())


def result(
    config: Config,
    training: Training,
    epochs: Sequence[TrainingRow],
    tested: Evaluation,
    weights: WeightsFile,
    weights_best: WeightsFile,
    weights_ema: WeightsFile | None,
) -> TrainedResult:
    """Return result.json of a row. tested: after the last of its epochs."""
    data, row, images, measured = training.data, training.row, training.images, training.measured
    last, best = epochs[-1], evaluation.best(epochs)
    parameters, multiply_adds = training.cost
    policy, values = None, values_of(config)
    if row.policy == "found":
        policy = searched.load(rows.policy_path(config)).document.policy
    return TrainedResult(
        schema=1,
        kind="trained",
        architecture=row.architecture,
        policy=row.policy,
        seed=row.seed,
        last=last.test_accuracy,
        best=best.test_accuracy,
        best_epoch=best.epoch,
        last_top5=last.test_top5,
        best_top5=best.test_top5,
        calibration_error=tested.calibration_error,
        class_accuracy=tested.class_accuracy,
        parameters=parameters,
        multiply_adds=multiply_adds,
        seconds=measured.seconds,
        epochs=config.train.epochs,
        network=_network(config, data, row),
        data=TrainedData(
            classes=list(data.train.classes),
            shape=list(data.train.shape),
            mean=data.mean,
            std=data.std,
            test_resize=images.test_resize,
            bits=data.train.bits,
        ),
        policy_result=policy,
        recipe=Recipe(
            train=values["train"],
            data={key: getattr(images, key) for key in RECIPE},
            engine=values["engine"],
        ),
        weights=weights,
        weights_best=weights_best,
        weights_ema=weights_ema,
        test=Tested(
            last=last.test_accuracy,
            best=best.test_accuracy,
            ema=last.ema_accuracy,
            images=sum(tested.class_images),
        ),
        throughput=Throughput(
            images_per_second=measured.images / max(measured.training_seconds, 1e-9),
            peak_memory_mb=measured.peak_memory_mb,
            ranks=training.mesh.world,
            engine=config.engine.name,
        ),
    )


def _network(config: Config, data: DataSet, row: Row) -> NetworkSize:
    """Return what models.build or Network is to be called with. A fixed network has its own
    sizes."""
    genotype = rows.genotype(config, row)
    return NetworkSize(
        name="genotype" if genotype is not None else row.architecture,
        genotype=None if genotype is None else genotype.to_document(),
        channels=config.train.channels,
        cells=config.train.cells,
        stem=config.model.stem,
        classes=len(data.train.classes),
        in_channels=data.train.shape[0],
        auxiliary=genotype is not None and config.train.auxiliary_weight > 0,
    )
