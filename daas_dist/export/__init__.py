"""Handing over what was found: `daas export RESULT --to TARGET …`.

subject.py is what is handed over. Each target has a module: policy_source, network_source, weights,
programs (onnx and torch_export), timm_policy, albumentations_policy, card. standalone.py copies
this package's own definitions into a file that needs nothing of it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from daas_dist.export import (
    albumentations_policy,
    card,
    network_source,
    policy_source,
    programs,
    timm_policy,
    weights,
)
from daas_dist.export.subject import Lacking, Subject, read
from daas_dist.results.trained import Trained
from daas_dist.runs.log import write_bytes
from daas_dist.spaces.policy import Policy

ALL = "all"


@dataclass(frozen=True)
class Made:
    """What a target consists of, by file name, and what is to be said of it."""

    files: dict[str, bytes]
    words: str = ""


Make = Callable[[Subject], Made]


def _policy(subject: Subject) -> Policy:
    if subject.policy is None:
        raise Lacking("this result has no policy that was searched")
    return subject.policy


def _trained(subject: Subject) -> Trained:
    if subject.trained is None:
        raise Lacking("this result has no weights; give a training's trainings/…/result.json")
    return subject.trained


def _shape(subject: Subject) -> tuple[int, int, int]:
    channels, height, width = subject.document.data.shape
    return channels, height, width


def _torchvision(subject: Subject) -> Made:
    text = policy_source.source(_policy(subject), subject.origin)
    return Made({policy_source.FILE: text.encode()})


def _module(subject: Subject) -> Made:
    if subject.trained is None and subject.genotype is None:
        raise Lacking("this result has no architecture that was searched")
    files = {network_source.FILE: network_source.source(subject).encode()}
    if subject.trained is None:
        return Made(files, "without weights, as it is a search's")
    return Made({**files, **_safetensors(subject).files})


def _safetensors(subject: Subject) -> Made:
    return Made({network_source.WEIGHTS: weights.file(subject, _trained(subject))})


def _onnx(subject: Subject) -> Made:
    data, check = programs.onnx(subject, _trained(subject))
    return Made({"model.onnx": data}, f"opset {programs.OPSET}, {check.words}")


def _torch_export(subject: Subject) -> Made:
    data, check = programs.torch_export(subject, _trained(subject))
    return Made({"model.pt2": data}, check.words)


def _timm(subject: Subject) -> Made:
    policy = _policy(subject)
    text = timm_policy.source(policy, subject.origin)
    report = timm_policy.report(policy, _shape(subject))
    return Made({timm_policy.FILE: text.encode(), timm_policy.PARITY: report.encode()})


def _albumentations(subject: Subject) -> Made:
    policy, shape = _policy(subject), _shape(subject)
    text = albumentations_policy.source(policy, subject.origin, shape[0])
    report = albumentations_policy.report(policy, shape)
    names = albumentations_policy.FILE, albumentations_policy.PARITY
    return Made(dict(zip(names, (text.encode(), report.encode()), strict=True)))


def _model_card(subject: Subject) -> Made:
    return Made({card.FILE: card.text(subject).encode()})


TARGETS: dict[str, Make] = {
    "torchvision": _torchvision,
    "module": _module,
    "safetensors": _safetensors,
    "onnx": _onnx,
    "torch_export": _torch_export,
    "timm": _timm,
    "albumentations": _albumentations,
    "model_card": _model_card,
}
"""Name -> what makes its files. Lacking where the result or this machine has not what it takes."""


def export(result: Path, targets: Sequence[str], out: Path) -> list[str]:
    """Write the targets into the folder `out`; a line on each.

    All files are made before any is written. A file that is there already is left if it is the
    same, and is otherwise an error. `all` leaves out what does not apply, and says so.
    """
    known = (*TARGETS, ALL)
    for target in targets:
        if target not in known:
            raise ValueError(f"unknown target {target!r}; known: {', '.join(known)}")
    subject = read(result)
    made: dict[str, Made] = {}
    lines = []
    for target in TARGETS if ALL in targets else dict.fromkeys(targets):
        try:
            made[target] = TARGETS[target](subject)
        except Lacking as error:
            if target in targets:
                raise ValueError(f"{target}: {error}") from error
            lines.append(f"{target}: left out, {error}")
    files = {name: data for each in made.values() for name, data in each.files.items()}
    _write(out, files)
    for target, each in made.items():
        names = ", ".join(str(out / name) for name in each.files)
        lines.append(f"{target}: {names}" + (f" ({each.words})" if each.words else ""))
    return lines


def _write(out: Path, files: dict[str, bytes]) -> None:
    there = [name for name in files if (out / name).exists()]
    for name in there:
        if (out / name).read_bytes() != files[name]:
            raise ValueError(
                f"{out / name} is there and holds something else; remove it, or set --out to a new "
                "folder"
            )
    out.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        if name not in there:
            write_bytes(out / name, data)
