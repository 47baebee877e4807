"""What searches and trainings leave: result.json, comparison.json, evaluation.json.

result.json is what every later command takes, so one that was written by an earlier version of the
same schema is read too: what it did not have yet has a default.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from daas_dist.documents.checked import Count, Natural, Positive, Rule, Share
from daas_dist.documents.files import Damaged
from daas_dist.documents.whole import Document, parsed, read_object

SCHEMA = 1
FILE = "result.json"
REMEDY = "give the result.json of a finished run, or copy it from there again"

Size = Annotated[int, Rule(lambda n: 1 <= n <= 1 << 16, "a whole number from 1 to 65536")]
Cells = Annotated[int, Rule(lambda n: 1 <= n <= 1000, "a whole number from 1 to 1000")]
Channels = Annotated[int, Rule(lambda n: n in (1, 3), "1 or 3")]
Shape = Annotated[list[Size], Rule(lambda s: len(s) == 3 and s[0] in (1, 3), "[1 or 3, H, W]")]
"""Of an image."""
Classes = Annotated[list[str], Rule(lambda names: len(names) > 0, "one or more names")]
OwnFile = Annotated[
    str,
    Rule(
        lambda name: Path(name).name == name and name.isprintable(),
        "a name in the result's own folder",
    ),
]


@dataclass(frozen=True)
class DataSummary:
    """The images: their classes, their size, how they are normalised."""

    classes: Classes
    shape: Shape
    name: str = ""
    mean: list[float] = field(default_factory=list)
    std: list[float] = field(default_factory=list)
    test_resize: Size | None = None
    bits: Annotated[int | None, Rule(lambda b: b is None or 8 < b <= 16, "9 to 16, or null")] = 16
    """Of pictures of more than 8; before it was noted, 16 bits were read as such."""


@dataclass(frozen=True)
class Changed:
    """What a search would have found without its limits."""

    genotype: Mapping[str, Any]
    parameters: Natural
    multiply_adds: Natural


@dataclass(frozen=True)
class Derived:
    """The network that was found: its size, its costs, the limits it was searched under."""

    channels: Natural
    cells: Natural
    image: Shape
    parameters: Natural
    multiply_adds: Natural
    max_flops: Positive | None
    without_limit: Changed | None
    max_parameters: Positive | None = None


@dataclass(frozen=True)
class Telemetry:
    """What a search took, and how well its shared weights did in the end."""

    steps: Natural
    passes: Positive
    seconds: Positive
    val_accuracy: Share | None = None


@dataclass(frozen=True)
class Gains:
    """Mean advantage of each choice and its standard error, nested as the choices are: null where
    one was never drawn."""

    mean: list[Any]
    standard_error: list[Any]


@dataclass(frozen=True)
class EvidenceTables:
    """Of [slots, operations], and magnitude of [slots, operations, magnitudes]."""

    operation: Gains
    applied: Gains
    magnitude: Gains


@dataclass(frozen=True)
class Ranked:
    operation: str
    weight: float


@dataclass(frozen=True)
class PolicyDocument:
    """A policy, as policy.Policy.to_json writes it."""

    slots: Count
    parameters: Literal["per_policy", "per_slot"]
    ranges: str
    operations: list[str]
    probabilities: list[list[float]]
    application: list[list[float]]
    magnitudes: list[list[int]]
    ranking: list[Ranked]
    magnitude_probabilities: list[list[list[float]]] | None = None
    """Ten of each entry of `magnitudes`; null where an entry has that magnitude alone."""

    def __post_init__(self) -> None:
        for name in ("probabilities", "application", "magnitudes"):
            rows = getattr(self, name)
            if len({len(row) for row in rows} - {0}) != 1 or not all(rows):
                raise ValueError(f"{name} has rows of different lengths, or none")
        if len(self.probabilities) != self.slots:
            raise ValueError(f"slots is {self.slots}, probabilities has {len(self.probabilities)}")
        drawn = self.magnitude_probabilities
        if drawn is not None and len({(len(row), *map(len, row)) for row in drawn}) != 1:
            raise ValueError("magnitude_probabilities has rows of different lengths, or none")


@dataclass(frozen=True)
class SearchResult:
    """result.json of a search. genotype or policy is null where it was not searched."""

    schema: Literal[1]
    kind: Literal["search"]
    genotype: Mapping[str, Any] | None
    policy: Mapping[str, Any] | None
    data: DataSummary
    evidence: EvidenceTables | None = None
    alpha: list[list[list[float]]] | None = None
    beta: list[list[float]] | None = None
    derived: Derived | None = None
    telemetry: Telemetry | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class NetworkSize:
    """What models.build or Network is called with."""

    name: str
    genotype: Mapping[str, Any] | None
    channels: Size
    cells: Cells
    stem: str
    classes: Count
    in_channels: Channels
    auxiliary: bool


@dataclass(frozen=True)
class WeightsFile:
    """A file beside the result.json."""

    file: OwnFile
    sha256: str


@dataclass(frozen=True)
class TrainedResult:
    """result.json of a trained network, a row of a training's comparison."""

    schema: Literal[1]
    kind: Literal["trained"]
    architecture: str
    policy: str
    seed: Natural
    last: Share
    best: Share
    best_epoch: Natural
    parameters: Natural
    multiply_adds: Natural
    seconds: Positive
    epochs: Natural
    network: NetworkSize
    data: DataSummary
    policy_result: Mapping[str, Any] | None
    recipe: Mapping[str, Any]
    weights: WeightsFile
    test: Mapping[str, Any]
    throughput: Mapping[str, Any]


KINDS = {"search": SearchResult, "trained": TrainedResult}
OWNERS = {"search": "search", "trained": "trained network"}


def read(path: Path, kind: str) -> tuple[Any, dict[str, Any]]:
    """(the SearchResult or TrainedResult of a result.json, all that the file says). ValueError if
    it is another, or damaged."""
    value = _object(path)
    if value.get("kind") != kind:
        raise ValueError(f"{path} is not the result.json of a {OWNERS[kind]}")
    check_schema(path, value)
    return parsed(KINDS[kind], value, path, REMEDY), value


def kind_of(path: Path) -> Any:
    """Return what a result.json says it is of: "search", "trained" or something else."""
    return _object(path).get("kind")


def _object(path: Path) -> dict[str, Any]:
    value = read_object(path, REMEDY)
    if value is None:
        raise ValueError(f"no file {path}; give the result.json of a finished search")
    return value


def check_schema(path: Path, value: Mapping[str, Any]) -> None:
    schema = value.get("schema")
    if type(schema) is not int or schema != SCHEMA:
        raise Damaged(path, f"has the schema {schema!a:.20}, expected {SCHEMA}", REMEDY)


# --- Trainings -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Throughput:
    images_per_second: Positive
    peak_memory_mb: Positive
    ranks: Natural
    engine: str


@dataclass(frozen=True)
class ComparedRow:
    """One trained network; last and best are test accuracies."""

    architecture: str
    policy: str
    seed: Natural
    last: Share
    best: Share
    parameters: Natural
    multiply_adds: Natural
    seconds: Positive
    epochs: Natural
    best_epoch: Natural | None = None
    last_top5: Share | None = None
    best_top5: Share | None = None
    calibration_error: Share | None = None
    data: DataSummary | None = None
    throughput: Throughput | None = None


@dataclass(frozen=True)
class Comparison:
    """comparison.json: the trainings that are finished. search: the result.json they are of."""

    schema: Literal[1]
    search: str | None
    rows: list[ComparedRow]


COMPARISON = Document(
    Comparison, "comparison.json", "remove it: the training writes it anew when it goes on"
)


@dataclass(frozen=True)
class Bin:
    """Of the images whose confidence lies in it, the means; None where there are none."""

    images: Natural
    accuracy: Share | None
    confidence: Share | None


@dataclass(frozen=True)
class Evaluation:
    """top5 is None for 5 classes or fewer; class_accuracy has None for a class without an image;
    confusion[i][j] is how many images of class i were taken for j, None where classes are many."""

    images: Natural
    loss: float
    top1: Share
    top5: Share | None
    calibration_error: Share
    bins: list[Bin]
    class_images: list[Natural]
    class_accuracy: list[Share | None]
    confusion: list[list[Natural]] | None

    def __post_init__(self) -> None:
        classes = len(self.class_accuracy)
        rows = self.confusion or []
        if not classes or (rows and {len(rows), *map(len, rows)} != {classes}):
            raise ValueError(f"confusion is not square, of {classes} classes")

    def metrics(self) -> dict[str, float | None]:
        """The part of a line of metrics.jsonl."""
        return {
            "test_loss": self.loss,
            "test_accuracy": self.top1,
            "test_top5": self.top5,
            "test_calibration_error": self.calibration_error,
        }

    def document(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return asdict(self)


EVALUATION = Document(
    Evaluation, "evaluation.json", "remove it: the next epoch of the training writes it anew"
)
