"""`--to module`: the network as one source file, which needs torch alone."""

from collections.abc import Mapping, Sequence

from daas_dist import models
from daas_dist.export.literals import assignment
from daas_dist.export.standalone import Copy, Key
from daas_dist.export.subject import Subject
from daas_dist.results.trained import Trained

FILE = "network.py"
WEIGHTS = "weights.safetensors"

TRAINED = f'''"""A network that was trained by DAAS, its weights in {WEIGHTS} beside this file.

Needs torch >= 2.11, and nothing else:

    network = load()
    logits = network(prepare(images))    # uint8 [N, C, H, W] of the size of SHAPE
    name = CLASSES[logits[0].argmax()]

A picture of another size is first resized, its shorter side to SHORTER (bilinear, antialiased), and
its central square cut. First what was found, then the code, which is daas_dist's.
"""
'''

UNTRAINED = '''"""An architecture that was searched by DAAS, as a network without weights.

Needs torch >= 2.11, and nothing else: network = untrained(channels=36, cells=20). First what was
found, then the code, which is daas_dist's.
"""
'''

LOAD = f'''

def load(weights: Path | str = Path(__file__).with_name("{WEIGHTS}")) -> nn.Module:
    """The network with its weights, evaluating: float32 [N, *SHAPE] to logits [N, classes]."""
    network = untrained()
    network.load_state_dict(read_safetensors(weights))
    return network.eval()


def prepare(images_u8: Tensor) -> Tensor:
    """uint8 [N, *SHAPE] to what the network takes."""
    return normalise(images_u8, MEAN, STD)
'''

NETWORK = ("daas_dist.models.network", "Network")
BUILD = ("daas_dist.models", "build")
TORCH_ONLY = (
    ("daas_dist.export.torch_only", "read_safetensors"),
    ("daas_dist.export.torch_only", "normalise"),
)
WITHOUT = ("Genotype.in_words", "Genotype.to_document", "Genotype.from_document")
RESERVED = ("ORIGIN", "CLASSES", "SHAPE", "SHORTER", "MEAN", "STD", "NORMAL", "REDUCE", "CONCAT",
            "untrained", "load", "prepare", "network")  # fmt: skip


def source(subject: Subject) -> str:
    """The file: of a trained network with load() and prepare(), of a search with untrained()."""
    if subject.trained is None:
        return _untrained(subject)
    values = {
        "CLASSES": subject.classes,
        "SHAPE": subject.trained.expected.shape,
        "SHORTER": subject.trained.expected.shorter,
        "MEAN": subject.trained.expected.mean,
        "STD": subject.trained.expected.std,
    }
    body = _genotype_body if subject.genotype is not None else _fixed_body
    return _file(TRAINED, subject, values, TORCH_ONLY, body(subject.trained) + LOAD)


def _untrained(subject: Subject) -> str:
    channels = subject.document.data.shape[0]
    values = {"CLASSES": subject.classes}
    build = f'''
def untrained(
    channels: int = 36,
    cells: int = 20,
    *,
    stem: str = "cifar",
    auxiliary: bool = False,
    classes: int = len(CLASSES),
    in_channels: int = {channels},
) -> Network:
    """Sizes of DARTS for CIFAR. For ImageNet: untrained(48, 14, stem="imagenet", classes=1000)."""
    genotype = Genotype(NORMAL, REDUCE, CONCAT)
    return Network(genotype, channels, cells, classes, in_channels, stem, auxiliary)
'''
    return _file(UNTRAINED, subject, values, (), build)


def _file(
    head: str, subject: Subject, values: Mapping[str, object], extra: Sequence[Key], build: str
) -> str:
    copy = Copy((*_entries(subject), *extra), _without(subject), RESERVED)
    imports, _, code = copy.source().partition("\n\n\n")
    if subject.genotype is not None:
        cells = subject.genotype
        values = {**values, "NORMAL": cells.normal, "REDUCE": cells.reduce, "CONCAT": cells.concat}
    values = {"ORIGIN": subject.origin, **values}
    data = "\n".join(assignment(name, value) for name, value in values.items())
    return f"{head}\n{imports}\n\n{data}\n\n\n{code}\n{build}"


def _entries(subject: Subject) -> tuple[Key, ...]:
    return (
        (BUILD,) if subject.genotype is None else (NETWORK, ("daas_dist.spaces.cells", "Genotype"))
    )


def _without(subject: Subject) -> tuple[str, ...]:
    """Return what is for searches alone, and of the table of fixed networks all the others."""
    if subject.genotype is not None or subject.trained is None:
        return WITHOUT
    own = subject.trained.document.network.name
    return tuple(f"FIXED.{name}" for name in models.FIXED if name != own)


def _genotype_body(trained: Trained) -> str:
    given = trained.document.network
    return f'''
def untrained() -> Network:
    """The network before training."""
    return Network(
        Genotype(NORMAL, REDUCE, CONCAT),
        channels={given.channels!r},
        cells={given.cells!r},
        classes=len(CLASSES),
        in_channels=SHAPE[0],
        stem={given.stem!r},
        auxiliary={given.auxiliary!r},
    )
'''


def _fixed_body(trained: Trained) -> str:
    name = trained.document.network.name
    return f'''
def untrained() -> nn.Module:
    """The network before training."""
    return {Copy((BUILD,)).names()[BUILD]}({name!r}, classes=len(CLASSES), in_channels=SHAPE[0])
'''
