"""What searches and trainings leave: result.json, comparison.json, evaluation.json.

result.json is what every later command takes, so one that was written by an earlier version of the
same schema is read too: what it did not have yet has a default. Fields stand in the order of the
file's keys.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from daas_dist.documents.checked import Count, Natural, NotNegative, Rule, Share
from daas_dist.documents.found import GenotypeDocument, PolicyDocument
from daas_dist.documents.run import Provenance
from daas_dist.documents.whole import Document, parsed, read_object
from daas_dist.documents.writing import write_json

FILE = "result.json"
REMEDY = "give the result.json of a finished run, or copy it from there again"

Size = Annotated[int, Rule(lambda n: 1 <= n <= 1 << 16, "a whole number from 1 to 65536")]
Cells = Annotated[int, Rule(lambda n: 1 <= n <= 1000, "a whole number from 1 to 1000")]
Channels = Annotated[int, Rule(lambda n: n in (1, 3), "1 or 3")]
Shape = Annotated[list[Size], Rule(lambda s: len(s) == 3 and s[0] in (1, 3), "[1 or 3, H, W]")]
"""Of an image."""
Classes = Annotated[list[str], Rule(lambda names: len(names) > 0, "one or more names")]
Bits = Annotated[int | None, Rule(lambda b: b is None or 8 < b <= 16, "9 to 16, or null")]
"""Of pictures of more than 8; before it was noted, 16 bits were read as such."""
OwnFile = Annotated[
    str,
    Rule(
        lambda name: Path(name).name == name and name.isprintable(),
        "a name in the result's own folder",
    ),
]


# --- Searches ------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class SearchedData:
    """The images of a search: their classes, how they are normalised, their size."""

    name: str = ""
    classes: Classes
    mean: list[float] = field(default_factory=list)
    std: list[float] = field(default_factory=list)
    shape: Shape
    bits: Bits = 16


@dataclass(frozen=True)
class Unlimited:
    """What a search would have found without its limits."""

    genotype: GenotypeDocument
    parameters: Natural
    multiply_adds: Natural


@dataclass(frozen=True, kw_only=True)
class Derived:
    """The network that was found: its size, its costs, the limits it was searched under."""

    channels: Natural
    cells: Natural
    classes: Natural | None = None
    image: Shape
    stem: str = ""
    parameters: Natural
    multiply_adds: Natural
    expected_multiply_adds: NotNegative | None = None
    """Over the architectures that α and β draw; None where a method has no such distribution."""
    price: float | None = None
    """Nats that hold the search to its limits; None where there is none."""
    max_flops: NotNegative | None
    max_parameters: NotNegative | None = None
    without_limit: Unlimited | None
    """None where the limits changed nothing."""


@dataclass(frozen=True)
class Telemetry:
    """What a search took, and how well its shared weights did in the end."""

    steps: Natural
    passes: NotNegative
    seconds: NotNegative
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
class Learned:
    """A method's part of a search's result: None of what it does not learn."""

    evidence: EvidenceTables | None = None
    alpha: list[list[list[float]]] | None = None
    """The probability of each operation on each edge of each kind of cell."""
    beta: list[list[float]] | None = None
    """The probability of each edge into its node."""


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """result.json of a search. genotype or policy is None where it was not searched."""

    schema: Literal[1]
    kind: Literal["search"]
    genotype: GenotypeDocument | None
    policy: PolicyDocument | None
    evidence: EvidenceTables | None = None
    alpha: list[list[list[float]]] | None = None
    beta: list[list[float]] | None = None
    derived: Derived | None = None
    telemetry: Telemetry | None = None
    data: SearchedData
    config: Mapping[str, Any] = field(default_factory=dict)
    provenance: Provenance | None = None


SEARCH_COPY = Document(
    SearchResult, "search.json", "remove it: the training writes it anew when it goes on"
)
"""The copy that a training keeps of the result whose architecture and policy it trains."""


# --- Trainings -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class TrainedData:
    """The images of a training; test_resize: what their shorter side became before the crop."""

    classes: Classes
    shape: Shape
    mean: list[float] = field(default_factory=list)
    std: list[float] = field(default_factory=list)
    test_resize: Size | None = None
    bits: Bits = 16


@dataclass(frozen=True)
class NetworkSize:
    """What models.build or Network is called with."""

    name: str
    genotype: GenotypeDocument | None
    channels: Size
    cells: Cells
    stem: str
    classes: Count
    in_channels: Channels
    auxiliary: bool


@dataclass(frozen=True)
class Recipe:
    """The values of the configuration by which a network was trained."""

    train: Mapping[str, Any]
    data: Mapping[str, Any]
    engine: Mapping[str, Any]


@dataclass(frozen=True)
class WeightsFile:
    """A file beside the result.json."""

    file: OwnFile
    sha256: str


@dataclass(frozen=True)
class Tested:
    """Test accuracies after the last epoch, the best one, and of the averaged weights if any."""

    last: Share
    best: Share
    ema: Share | None
    images: Natural


@dataclass(frozen=True)
class Throughput:
    images_per_second: NotNegative
    peak_memory_mb: NotNegative
    ranks: Natural
    engine: str


@dataclass(frozen=True, kw_only=True)
class ComparedRow:
    """What a comparison has of a trained network; last and best are test accuracies."""

    architecture: str
    policy: str
    seed: Natural
    last: Share
    best: Share
    best_epoch: Natural | None = None
    last_top5: Share | None = None
    best_top5: Share | None = None
    calibration_error: Share | None = None
    class_accuracy: list[Share | None] = field(default_factory=list)
    parameters: Natural
    multiply_adds: Natural
    seconds: NotNegative
    epochs: Natural
    data: TrainedData | None = None
    test: Tested | None = None
    throughput: Throughput | None = None


@dataclass(frozen=True, kw_only=True)
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
    last_top5: Share | None = None
    best_top5: Share | None = None
    calibration_error: Share | None = None
    class_accuracy: list[Share | None] = field(default_factory=list)
    parameters: Natural
    multiply_adds: Natural
    seconds: NotNegative
    epochs: Natural
    network: NetworkSize
    data: TrainedData
    policy_result: PolicyDocument | None
    recipe: Recipe
    weights: WeightsFile
    weights_best: WeightsFile | None = None
    weights_ema: WeightsFile | None = None
    test: Tested
    throughput: Throughput

    def compared(self) -> ComparedRow:
        """Return its row of comparison.json."""
        return ComparedRow(**{each.name: getattr(self, each.name) for each in fields(ComparedRow)})


def read(path: Path) -> SearchResult | TrainedResult:
    """Read a result.json of either kind. ValueError if there is none, Damaged if it is wrong."""
    value = read_object(path, REMEDY)
    if value is None:
        raise ValueError(f"no file {path}; give the result.json of a finished search")
    if value.get("kind") == "trained":
        return parsed(TrainedResult, value, path, REMEDY)
    return parsed(SearchResult, value, path, REMEDY)


def write(folder: Path, result: SearchResult | TrainedResult) -> None:
    write_json(folder / FILE, asdict(result))


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """comparison.json: the trainings that are finished. search: the result.json they are of."""

    schema: Literal[1]
    kind: Literal["training"] = "training"
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


EVALUATION = Document(
    Evaluation, "evaluation.json", "remove it: the next epoch of the training writes it anew"
)
