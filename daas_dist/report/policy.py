"""The policy as a heat map (operations × slots) and as a ranked table, with its evidence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from daas_dist.documents.results import FILE, EvidenceTables, Gains
from daas_dist.report import markup, plots
from daas_dist.report.tables import table
from daas_dist.spaces.operations import MAGNITUDES, NAMES
from daas_dist.spaces.policy import Policy, all_policies

FULL = 4
"""Times the undecided weight at which a bar is full and a cell dark, if no operation has more: so
a policy that has hardly been decided looks pale."""


@dataclass(frozen=True)
class Evidence:
    """Mean advantage and standard error of each choice; nan where one was never drawn."""

    operation: tuple[np.ndarray, np.ndarray]
    """Of [slots, operations], as `applied`."""
    applied: tuple[np.ndarray, np.ndarray]
    magnitude: tuple[np.ndarray, np.ndarray]
    """Of [slots, operations, magnitudes]."""

    @staticmethod
    def of(tables: EvidenceTables, policy: Policy, run_dir: Path) -> "Evidence":
        """Damaged if a table has another shape."""

        def both(gains: Gains, key: str, *shape: int) -> tuple[np.ndarray, np.ndarray]:
            mean, error = (
                table(values, shape, f"evidence.{key}", run_dir / FILE)
                for values in (gains.mean, gains.standard_error)
            )
            return mean, error

        slots, count = policy.slots, policy.operations
        return Evidence(
            both(tables.operation, "operation", slots, count),
            both(tables.applied, "applied", slots, count),
            both(tables.magnitude, "magnitude", slots, count, MAGNITUDES),
        )


def view(policy: Policy, tables: EvidenceTables | None, name: str, run_dir: Path) -> str:
    evidence = None if tables is None else Evidence.of(tables, policy, run_dir)
    order = _order(policy)
    heat = markup.figure(
        "Operations × slots",
        "probability that a slot draws the operation and applies it, %",
        _heat(policy, order),
    )
    note = "by probability × application, summed over slots; the tick is where all start, undecided"
    if policy.parameters == "per_policy" or policy.draws_magnitudes:
        note += "; m is the most frequent magnitude, with how often it is that one"
    ranked = markup.figure("Ranking", note, _ranking(policy, order, evidence))
    body = f"<div class='policy'>{heat}{ranked}</div>"
    return body + (_evidence(policy, evidence, order, name) if evidence is not None else "")


def heaviest(policy: Policy, shown: int = 8) -> str:
    """The top of the ranking, in little room."""
    rows = [
        [
            _words(policy, o),
            _weight(policy, o),
            " · ".join(words for words, _ in _readings(policy, o) if words),
        ]
        for o in _order(policy)[:shown]
    ]
    return markup.table(["Operation", "Weight, %", "Strength by slot"], rows, "numbers tight")


def side_by_side(weights: Mapping[str, Mapping[str, float]]) -> str:
    """Operation weights of several runs (by their HTML heads), sorted by their sum."""
    some = [op for op in NAMES if any(op in weight for weight in weights.values())]
    order = sorted(some, key=lambda op: -sum(weight.get(op, 0) for weight in weights.values()))
    largest = max(max(weight.values()) for weight in weights.values())
    rows = [
        [
            op.replace("_", " "),
            *(
                markup.heat_cell(w[op], largest, markup.percent(w[op], 1)) if op in w else ""
                for w in weights.values()
            ),
        ]
        for op in order
    ]
    return markup.table(["Operation", *weights], rows, "grid narrow")


def strength(policy: Policy) -> tuple[np.ndarray, np.ndarray]:
    """The magnitude that each operation has most often in each slot, and how often: (K, O) twice.

    Per policy they are weighed by what the policies are drawn with.
    """
    if policy.parameters == "per_slot":
        return policy.magnitude.numpy(), policy.magnitudes.amax(-1).double().numpy()
    operation_RK = all_policies(policy.slots, policy.operations)
    weight_R = policy.probability_KO[torch.arange(policy.slots), operation_RK].prod(-1)
    weight_RK1 = (weight_R.unsqueeze(-1) * policy.application).double().unsqueeze(-1)
    weight_RKM = (weight_RK1 * policy.magnitudes).numpy()
    total_KOM = np.zeros((policy.slots, policy.operations, MAGNITUDES))
    for slot in range(policy.slots):
        np.add.at(total_KOM[slot], operation_RK[:, slot].numpy(), weight_RKM[:, slot])
    whole = total_KOM.sum(-1)
    share = np.divide(total_KOM.max(-1), whole, out=np.zeros_like(whole), where=whole > 0)
    return total_KOM.argmax(-1), share


def certainty(evidence: Evidence) -> np.ndarray:
    """(O,) the gain of applying each operation, summed over slots, in its standard errors; nan
    where it was never applied.

    Slots draw independently, so the errors add in squares.
    """
    mean_KO, error_KO = evidence.applied
    drawn_KO = np.isfinite(error_KO)
    total_O = np.where(drawn_KO, mean_KO, 0).sum(0)
    error_O = np.sqrt(np.where(drawn_KO, error_KO**2, 0).sum(0))
    return np.divide(total_O, error_O, out=np.full_like(total_O, np.nan), where=error_O > 0)


def _order(policy: Policy) -> list[int]:
    return np.argsort(-policy.weights().sum(0).double().numpy(), kind="stable").tolist()


def undecided(policy: Policy) -> float:
    """The weight of every operation before anything is learned: drawn evenly, applied half the
    time."""
    return policy.slots / policy.operations / 2


def _heat(policy: Policy, order: list[int]) -> str:
    weights_KO = policy.weights().double().numpy()
    darkest = max(float(weights_KO.max()), FULL * undecided(policy) / policy.slots)
    rows = [
        [
            _words(policy, o),
            *(
                markup.heat_cell(w, darkest, markup.percent(w, 1))
                for w in weights_KO[:, o].tolist()
            ),
        ]
        for o in order
    ]
    return markup.table(["", *(f"slot {k + 1}" for k in range(len(weights_KO)))], rows, "grid")


def _ranking(policy: Policy, order: Sequence[int], evidence: Evidence | None) -> str:
    rows = []
    for o in order:
        readings = (
            f"{words} <span class='weak'>{note}</span>" for words, note in _readings(policy, o)
        )
        rows.append([_words(policy, o), _weight(policy, o), *readings])
    head = ["Operation", "Weight, %", *(f"Strength, slot {k + 1}" for k in range(policy.slots))]
    if evidence is not None:
        head.append("Evidence")
        certainty_O = certainty(evidence)
        for row, o in zip(rows, order, strict=True):
            row.append(_sure(float(certainty_O[o])))
    return markup.table(head, rows, "numbers tight")


def _words(policy: Policy, operation: int) -> str:
    return policy.space.operations[operation].replace("_", " ")


def _weight(policy: Policy, operation: int) -> str:
    """A bar and the number."""
    weight_O, start = policy.weights().sum(0), undecided(policy)
    full = max(float(weight_O.max()), FULL * start)
    weight = float(weight_O[operation])
    return f"{markup.bar(weight / full, start / full)} {markup.percent(weight, 1)}"


def _readings(policy: Policy, operation: int) -> list[tuple[str, str]]:
    """Say for each slot what its magnitude means, and which it is; nothing where it means
    nothing."""
    magnitude_KO, share_KO = strength(policy)
    readings = []
    for magnitude, share in zip(magnitude_KO[:, operation], share_KO[:, operation], strict=True):
        words = policy.space.describe(operation, int(magnitude)).partition(" of the ")[0]
        words = words.removeprefix(_words(policy, operation)).strip()
        often = "" if share > 0.995 else f" ({100 * share:.0f} %)"
        readings.append((markup.text(words), f"m {magnitude}{often}") if words else ("", ""))
    return readings


def _sure(certainty: float) -> str:
    if not np.isfinite(certainty):
        return "<span class='weak'>never applied</span>"
    look = "strong" if abs(certainty) > plots.CLEAR else "weak"
    return f"<span class='{look}'>{certainty:+.1f} SE</span>".replace("-", "−")


def _evidence(policy: Policy, evidence: Evidence, order: list[int], name: str) -> str:
    operations = policy.space.operations
    chosen = markup.figure(
        "Drawing an operation",
        "right of zero: the reward is higher than the slot's average",
        plots.intervals(f"{name}-chosen", operations, *evidence.operation, order),
    )
    applied = markup.figure(
        "Applying it, once drawn",
        "right of zero: the reward is higher applied than not",
        plots.intervals(f"{name}-applied", operations, *evidence.applied, order),
    )
    means, errors = evidence.magnitude
    levels = "".join(
        markup.figure(
            f"Magnitudes, slot {k + 1}",
            "in standard errors; purple is for it, orange against, beyond ±2 is clear",
            plots.magnitudes(f"{name}-magnitude{k}", operations, means[k], errors[k]),
        )
        for k in range(len(means))
    )
    return (
        f"<h3>More than chance?</h3><p class='lead'>{_reading(evidence)}</p>"
        f"<div class='pair'>{chosen}{applied}</div>"
        + markup.details("Evidence for each magnitude", f"<div class='pair'>{levels}</div>")
    )


def _reading(evidence: Evidence) -> str:
    """Return how to read the evidence, and how much of it chance would give."""
    mean_KO, error_KO = evidence.applied
    clear, drawn = (
        int((abs(mean_KO) > plots.CLEAR * error_KO).sum()),
        int(np.isfinite(error_KO).sum()),
    )
    return (
        "The search pays a policy by how much training on it lowers the validation loss: the "
        "reward. Shown is how far each choice moves the reward, in the reward's standard "
        "deviations, ± 1 standard error (SE, thick) and ± 2 (thin); pale is what two standard "
        "errors do not tell from chance. Of the operations "
        f"in their slots, <b>{clear} of {drawn}</b> clearly help or harm when they are applied; "
        f"chance alone would make about {0.0455 * drawn:.1f} so. Evidence in the ranking adds the "
        "slots."
    )
