"""`--to model_card`: what was found or trained, on what, how well, and what it is not, as Markdown.

Every name and value of a run stands in a code span, in which Markdown and HTML mean nothing.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from daas_dist.documents.escaping import markdown_code
from daas_dist.documents.redact import redacted
from daas_dist.documents.results import TrainedResult
from daas_dist.documents.run import Provenance
from daas_dist.export.subject import Subject
from daas_dist.report.compare import MOBILE
from daas_dist.report.markup import amount, duration
from daas_dist.results.trained import Trained
from daas_dist.spaces.cells import KINDS

FILE = "MODEL_CARD.md"

MOBILE_NOTE = "the mobile setting is 224 x 224 pixels and fewer than 600 M multiply-adds"

LIMITS = """- It was trained and tested on one data set; nothing is known of other pictures.
- Its scores are no calibrated probabilities, and every picture is put into one of its classes.
- The accuracy of the best epoch was chosen on the test images, so it is too high; use the last
  epoch's."""

LICENCE = (
    "Yours to add: what the images and the pictures' rights allow. The code in exported files is "
    "daas_dist's, under the MIT licence."
)


def text(subject: Subject) -> str:
    sections = {**_sections(subject), "Licence": [LICENCE]}
    parts = [f"# {_title(subject)}"]
    parts += [f"## {name}\n\n" + "\n".join(lines) for name, lines in sections.items() if lines]
    return "\n\n".join(parts) + "\n"


def _sections(subject: Subject) -> dict[str, list[str]]:
    found = {"Architecture": _architecture(subject), "Augmentation policy": _policy(subject)}
    data, search = {"Data": _data(subject)}, {"Search": _search(subject)}
    if subject.trained is None:
        return {**found, **data, **search, "Use": [_use_found(subject)]}
    trained = subject.trained
    return {
        "Results": _results(trained.document),
        "Cost": _cost(trained),
        **found,
        **data,
        "Training": _training(subject, trained.document),
        **search,
        "Use": [_use_trained(trained)],
        "Limits": [LIMITS],
    }


def code(value: object) -> str:
    """A code span of a text, or of another value as JSON."""
    return markdown_code(redacted(value if isinstance(value, str) else json.dumps(value)))


def _title(subject: Subject) -> str:
    if subject.trained is None:
        return "What a DAAS search found"
    row = subject.trained.document
    return f"{code(row.architecture)} architecture, {code(row.policy)} policy"


def _results(row: TrainedResult) -> list[str]:
    return [
        f"- Test accuracy after the last of {row.epochs} epochs: {row.last:.2%}",
        f"- After epoch {row.best_epoch}, the best on the test images: {row.best:.2%}",
        f"- Seed {code(row.seed)}, one training; other seeds give other accuracies",
        *_listed("Test", asdict(row.test)),
    ]


def _cost(trained: Trained) -> list[str]:
    row, pixels = trained.document, trained.expected.shape
    within = "within" if row.multiply_adds < MOBILE else "above"
    return [
        f"- Parameters: {amount(row.parameters)} ({row.parameters:,})",
        f"- Multiply-adds of one image: {amount(row.multiply_adds)}, {within} 600 M at "
        f"{pixels[1]} x {pixels[2]} pixels ({MOBILE_NOTE}), without biases, norms and pools",
        f"- Trained in {duration(row.seconds)}",
        *_listed("Throughput", asdict(row.throughput)),
    ]


def _architecture(subject: Subject) -> list[str]:
    lines = []
    if subject.trained is not None:
        given = subject.trained.document.network
        sizes = _without(asdict(given), "genotype", "name")
        lines += [f"- Network: {code(given.name)}", *_listed("Network", sizes)]
    if subject.genotype is not None:
        lines += [f"- The {kind} cell: {subject.genotype.in_words(kind)}" for kind in KINDS]
    return lines


def _policy(subject: Subject) -> list[str]:
    if subject.policy is None:
        return []
    leading = [f"{name} {weight:.2f}" for name, weight in subject.policy.ranking()[:5]]
    return [
        f"{subject.policy.slots} operations in turn, each drawn and applied by the probabilities "
        "that were found, with magnitudes that were found. The leading ones, by probability x "
        f"application summed over the slots: {', '.join(leading)}."
    ]


def _data(subject: Subject) -> list[str]:
    others = _without(asdict(subject.document.data), "classes")
    names = ", ".join(code(name) for name in subject.classes)
    return [*_listed("Data", others), f"- {len(subject.classes)} classes: {names}"]


def _training(subject: Subject, row: TrainedResult) -> list[str]:
    return [*_listed("Recipe", asdict(row.recipe)), *_made_by(subject.provenance)]


def _search(subject: Subject) -> list[str]:
    found = subject.search
    if found is None and subject.genotype is None and subject.policy is None:
        return []
    if found is None:
        return ["The search's own result did not lie beside this training's when this was written."]
    took = {} if found.telemetry is None else asdict(found.telemetry)
    return [*_listed("Search", took), *_made_by(found.provenance)]


def _made_by(provenance: Provenance | None) -> list[str]:
    if provenance is None:
        return []
    told = _without(asdict(provenance), "diff_sha256", "host", "command")
    return list(_listed("Made by", told))


def _without(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


def _listed(what: str, values: Mapping[str, Any], inside: str = "") -> Iterator[str]:
    """A line for each value, nested ones by their dotted keys."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _listed(what, value, f"{inside}{name}.")
        else:
            yield f"- {what}, {code(inside + name)}: {code(value)}"


def _use_trained(trained: Trained) -> str:
    channels, height, width = trained.expected.shape
    batch = f"[N, {channels}, {height}, {width}]"
    bits = trained.expected.bits
    deep = f" Of numbers of more than 8 bits the upper 8 of {bits} are taken." if bits else ""
    return f"""With daas_dist, from the run directory:

```python
trained = daas_dist.load("result.json")
network, preprocess = trained.network(), trained.preprocess()
name = trained.classes[network(preprocess(picture)[None]).argmax()]
```

With torch alone, from what `daas export` wrote:

```python
import network

logits = network.load()(network.prepare(images))    # uint8 {batch}
```

`model.onnx` and `model.pt2` take the same as float32, normalised; `weights.safetensors` says how in
its header. None of them has a softmax. A picture of another size is first resized, its shorter side
to {trained.expected.shorter} pixels (bilinear, antialiased), and its centre cut; up to rounding
these are the pixels that were tested, which `preprocess` gives to the bit.{deep}"""


def _use_found(subject: Subject) -> str:
    parts = {"network()": subject.genotype, "transform()": subject.policy}
    calls = ", ".join(f"found.{name}" for name, part in parts.items() if part is not None)
    return f"""```python
found = daas_dist.load("result.json")
{calls}
```

The network is untrained: `stage=train_…` with `train.result=` trains it."""
