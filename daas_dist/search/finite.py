"""Whether a step's numbers are finite, and if not, which path, number and policy."""

from collections.abc import Callable, Iterable, Sequence

from torch import Tensor

from daas_dist.methods.interface import Contribution
from daas_dist.spaces.cells import Path, in_words

WORDS = {
    "train": "the training loss",
    "val": "the validation loss",
    "reward": "the reward",
    "z_grad": "the gradient by α and β",
    "train_norm": "the training loss's gradient by the weights",
    "val_norm": "the validation loss's gradient by the weights",
}
"""Of the names of a contribution; any other is told as it is."""


def check_terms(
    step: int,
    terms: Sequence[Contribution],
    paths: Sequence[Path],
    names: Iterable[str],
    told: Callable[[str, int, int], str] | None = None,
) -> None:
    """Raise FloatingPointError with one sentence. It looks at nothing that not every rank has.

    names: in the order in which they are looked at. told: as StepContext.map's.
    """
    names = list(names)
    for i, (term, path) in enumerate(zip(terms, paths, strict=True)):
        for name in names:
            bad = (~term.small[name].isfinite()).nonzero().flatten().tolist()
            if bad:
                about = told(name, i, bad[0]) if told else ""
                where = in_words(path)
                raise FloatingPointError(
                    f"step {step}: {WORDS.get(name, name)}{about} of architecture {i}"
                    f"{f' ({where})' if where else ''} is not finite; lower "
                    "search.weights.learning_rate or search.weights.clip, or search.xi if it was "
                    "set"
                )


def check_update(step: int, what: str, values: Iterable[Tensor]) -> None:
    """Raise FloatingPointError where a gradient that is about to be applied is not finite."""
    if not all(bool(value.isfinite().all()) for value in values):
        raise FloatingPointError(
            f"step {step}: the gradient by {what} is not finite; lower "
            "search.weights.learning_rate or search.weights.clip"
        )
