"""`--to onnx` and `--to torch_export`: the network as a program, checked against the original.

Both take the normalised batch, any number of images of the training's size, and give logits. The
auxiliary tower, which only training has, is left out. A check that fails is an error: no file is
written then.
"""

import importlib
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from daas_dist.export import photographs
from daas_dist.export.subject import Lacking, Subject
from daas_dist.export.weights import as_json, metadata
from daas_dist.models.network import Network
from daas_dist.results.trained import Trained
from daas_dist.spaces import operations as augment

TOLERANCE = 1e-4
"""Of a logit, as a share of the largest one: other libraries add float32 in another order."""
IMAGES = 64
"""Of the check, in one batch and, the first of them, one by one."""
ALONE = 4
OPSET = 18
"""The oldest that torch's exporter writes without a conversion, for the most runtimes."""

Run = Callable[[Tensor], Tensor]
"""float32 [N, C, H, W] -> logits [N, classes]."""


@dataclass(frozen=True)
class Check:
    """How far a program's logits were from the network's, as a share of the largest of them."""

    difference: float

    @property
    def words(self) -> str:
        return (
            f"logits on {IMAGES} photographs differ by at most {self.difference:.1e} of the "
            f"largest (allowed {TOLERANCE:.0e})"
        )


def onnx(subject: Subject, trained: Trained) -> tuple[bytes, Check]:
    """The file, and how it was checked with onnxruntime. Lacking where a library is missing."""
    _, _, onnxruntime = map(_library, ("onnx", "onnxscript", "onnxruntime"))
    network, inputs = _evaluated(trained)
    with _quiet():
        program = torch.onnx.export(
            network,
            (_example(inputs),),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: "batch"},),
        )
    assert program is not None
    model = program.model_proto
    for name, text in as_json({**metadata(subject, trained), "opset": OPSET}).items():
        model.metadata_props.add(key=name, value=text)
    data = model.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"images": images.numpy()})[0])

    return data, _checked("onnx", network, run, inputs)


def torch_export(subject: Subject, trained: Trained) -> tuple[bytes, Check]:
    """The .pt2 file, and how it was checked once read back."""
    network, inputs = _evaluated(trained)
    batch = torch.export.Dim("batch")
    with _quiet():
        program = torch.export.export(network, (_example(inputs),), dynamic_shapes=({0: batch},))
        file = io.BytesIO()
        described = as_json(metadata(subject, trained))
        torch.export.save(program, file, extra_files={"daas.json": _one_text(described)})
        file.seek(0)
        run = torch.export.load(file).module()
    return file.getvalue(), _checked("torch_export", network, run, inputs)


def _one_text(values: dict[str, str]) -> str:
    inside = ", ".join(f'"{name}": {text}' for name, text in values.items())
    return f"{{{inside}}}"


def _evaluated(trained: Trained) -> tuple[nn.Module, Tensor]:
    """(the network without its auxiliary tower, normalised photographs)."""
    network = trained.network()
    if isinstance(network, Network):
        network.auxiliary = None
    expected = trained.expected
    images_u8 = photographs.crops(IMAGES, expected.shape)
    return network, augment.normalise(images_u8, expected.mean, expected.std)


def _example(inputs: Tensor) -> Tensor:
    """Two images to trace with. New ones: a .pt2 keeps its example, and of a slice all the rest."""
    return torch.zeros_like(inputs[:2])


@torch.no_grad()
def _checked(target: str, network: nn.Module, run: Run, inputs: Tensor) -> Check:
    batches = [inputs, *inputs[:ALONE].split(1)]
    expected = torch.cat([network(batch) for batch in batches])
    given = torch.cat([run(batch) for batch in batches])
    difference = float((given - expected).abs().max() / expected.abs().max().clamp(min=1e-12))
    if not difference <= TOLERANCE:
        raise ValueError(
            f"{target}: the program's logits differ from the network's by {difference:.1e} of the "
            f"largest, more than {TOLERANCE:.0e}, so it is not written"
        )
    return Check(difference)


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Lacking(f"{name} is not installed; pip install 'daas-dist[export]'") from error


def _quiet() -> warnings.catch_warnings:
    """The exporters warn of their own parts' deprecations, which nobody here can change."""
    return warnings.catch_warnings(action="ignore")
