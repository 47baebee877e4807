"""Whether a step's numbers are finite, and if not, which architecture, policy and number."""

from collections.abc import Callable, Sequence

from torch import Tensor

from daas_dist.methods.daas import Contribution
from daas_dist.spaces import operations as augment
from daas_dist.spaces.cells import KINDS, Genotype
from daas_dist.spaces.policy import Draws


def check_terms(
    step: int,
    terms: Sequence[Contribution],
    sampled_I: Sequence[Genotype | None],
    draws: Callable[[int], Draws],
) -> None:
    """FloatingPointError with one sentence. It looks at nothing that not every rank has.

    draws(i): the policies behind the rewards of architecture i.
    """
    for i, (term, z) in enumerate(zip(terms, sampled_I, strict=True)):
        wrong = _wrong(term, draws, i)
        if wrong:
            cells = [] if z is None else [f"{kind}: {z.in_words(kind)}" for kind in KINDS]
            path = f" ({'; '.join(cells)})" if cells else ""
            raise FloatingPointError(
                f"step {step}: {wrong} of architecture {i}{path} is not finite; lower "
                "search.weights.learning_rate or search.weights.clip, or search.xi if it was set"
            )


def check_weights(step: int, norm: Tensor) -> None:
    """FloatingPointError where the norm of Eq. (14)'s gradient says that a part of it is not."""
    if not bool(norm.isfinite()):
        raise FloatingPointError(
            f"step {step}: the gradient by the weights is not finite; lower "
            "search.weights.learning_rate or search.weights.clip"
        )


def _wrong(term: Contribution, draws: Callable[[int], Draws], i: int) -> str:
    losses = {"training": term.train_loss_accuracy, "validation": term.val_loss_accuracy}
    for name, (loss, accuracy) in losses.items():
        absent = bool(loss.isnan() and accuracy.isnan())
        if not absent and not bool(loss.isfinite()):
            return f"the {name} loss"
    bad_J = (~term.reward_J.isfinite()).nonzero().flatten().tolist()
    if bad_J:
        return f"the reward of policy {bad_J[0]} ({_told(draws(i), bad_J[0])})"
    if not bool(term.z_grad_CS.isfinite().all()):
        return "the gradient by α and β"
    for name, norm in zip(losses, term.norms, strict=True):
        if not bool(norm.isfinite()):
            return f"the {name} loss's gradient by the weights"
    return ""


def _told(draws: Draws, index: int) -> str:
    """A policy in words: its operations, and their magnitudes where they are applied."""
    rows = zip(*(part[index].tolist() for part in draws), strict=True)
    return ", ".join(
        f"{augment.NAMES[operation]} {magnitude}" if applied else "nothing"
        for operation, applied, magnitude in rows
    )
