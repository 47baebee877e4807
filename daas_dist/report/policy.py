"""The policy as a heat map (operations × slots) and as a ranked table, with its evidence."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from daas_dist.augment import MAGNITUDES, NAMES, describe
from daas_dist.policy import Policy, all_policies
from daas_dist.report import markup, plots


def view(document: Mapping[str, Any], evidence: Mapping[str, Any] | None, name: str) -> str:
    policy = Policy.from_json(document)
    weights_KO = policy.weights().double().numpy()
    order = np.argsort(-weights_KO.sum(0), kind="stable").tolist()
    heat = markup.figure(
        "Operations × slots",
        "probability that a slot draws the operation and applies it, %",
        _heat(weights_KO, order),
    )
    note = "by probability × application, summed over slots"
    if policy.parameters == "per_policy":
        note += "; the most frequent magnitude, and how often it is that one"
    ranked = markup.figure("Ranking", note, _ranking(policy, order, evidence))
    body = f"<div class='policy'>{heat}{ranked}</div>"
    return body + (_evidence(evidence, order, name) if evidence is not None else "")


def side_by_side(weights: Mapping[str, Mapping[str, float]]) -> str:
    """Operation weights of several runs (by their HTML heads), sorted by their sum."""
    order = sorted(NAMES, key=lambda op: -sum(weight[op] for weight in weights.values()))
    largest = max(max(weight.values()) for weight in weights.values())
    rows = [
        [
            op.replace("_", " "),
            *(markup.heat_cell(w[op], largest, markup.percent(w[op], 1)) for w in weights.values()),
        ]
        for op in order
    ]
    return markup.table(["Operation", *weights], rows, "grid")


def strength(policy: Policy) -> tuple[np.ndarray, np.ndarray]:
    """The magnitude that each operation has most often in each slot, and how often: (K, O) twice.

    Per slot it is one magnitude; per policy it is weighed by what the policies are drawn with.
    """
    if policy.parameters == "per_slot":
        magnitude_KO = policy.magnitude.numpy()
        return magnitude_KO, np.ones_like(magnitude_KO, dtype=float)
    operation_RK = all_policies(policy.slots)
    weight_R = policy.probability_KO[torch.arange(policy.slots), operation_RK].prod(-1)
    weight_RK = (weight_R.unsqueeze(-1) * policy.application).double().numpy()
    total_KOM = np.zeros((policy.slots, len(NAMES), MAGNITUDES))
    for slot in range(policy.slots):
        place_R = operation_RK[:, slot].numpy() * MAGNITUDES + policy.magnitude[:, slot].numpy()
        total_M = np.bincount(place_R, weight_RK[:, slot], minlength=len(NAMES) * MAGNITUDES)
        total_KOM[slot] = total_M.reshape(len(NAMES), MAGNITUDES)
    whole = total_KOM.sum(-1)
    share = np.divide(total_KOM.max(-1), whole, out=np.zeros_like(whole), where=whole > 0)
    return total_KOM.argmax(-1), share


def _heat(weights_KO: np.ndarray, order: list[int]) -> str:
    largest = float(weights_KO.max())
    rows = [
        [
            NAMES[o].replace("_", " "),
            *(
                markup.heat_cell(w, largest, markup.percent(w, 1))
                for w in weights_KO[:, o].tolist()
            ),
        ]
        for o in order
    ]
    return markup.table(["", *(f"slot {k + 1}" for k in range(len(weights_KO)))], rows, "grid")


def _ranking(policy: Policy, order: list[int], evidence: Mapping[str, Any] | None) -> str:
    weight_O = policy.weights().sum(0).tolist()
    magnitude_KO, share_KO = strength(policy)
    slots = range(policy.slots)
    rows = []
    for o in order:
        readings = []
        for k in slots:
            magnitude = int(magnitude_KO[k, o])
            words = describe(NAMES[o], magnitude, policy.ranges).partition(" of the ")[0]
            words = words.removeprefix(NAMES[o].replace("_", " ")).strip()
            often = "" if share_KO[k, o] > 0.995 else f" ({100 * share_KO[k, o]:.0f} %)"
            note = f"<span class='weak'>m {magnitude}{often}</span>"
            readings.append(f"{markup.text(words)} {note}" if words else "–")
        length = round(40 * weight_O[o] / max(weight_O[order[0]], 1e-9))
        row = [
            NAMES[o].replace("_", " "),
            f"{markup.percent(weight_O[o], 1)} <span class='bar' style='width:{length}px'></span>",
            *readings,
        ]
        rows.append(
            row + ([support(evidence, k, o) for k in slots] if evidence is not None else [])
        )
    head = ["Operation", "Weight, %", *(f"Strength, slot {k + 1}" for k in slots)]
    head += [f"Evidence, slot {k + 1}" for k in slots] if evidence is not None else []
    return markup.table(head, rows, "numbers")


def support(evidence: Mapping[str, Any], slot: int, operation: int) -> str:
    mean = evidence["operation"]["mean"][slot][operation]
    error = evidence["operation"]["standard_error"][slot][operation]
    if error is None:  # never drawn
        return "–"
    clear = "strong" if abs(mean) > 2 * error else "weak"
    return f"<span class='{clear}'>{mean:+.3f} ± {error:.3f}</span>".replace("-", "−")


def _evidence(evidence: Mapping[str, Any], order: list[int], name: str) -> str:
    def arrays(key: str) -> tuple[np.ndarray, np.ndarray]:
        # float: null, a choice that was never drawn, becomes NaN and draws nothing.
        part = evidence[key]
        return np.array(part["mean"], float), np.array(part["standard_error"], float)

    unit = "standard deviations of the reward"
    chosen = markup.figure(
        "Evidence for an operation",
        "mean advantage of drawing it, ± standard error; right of zero is for it",
        plots.intervals(f"{name}-chosen", *arrays("operation"), order, unit),
    )
    applied = markup.figure(
        "Evidence for applying it",
        "mean advantage of applied minus not applied, ± standard error",
        plots.intervals(f"{name}-applied", *arrays("applied"), order, unit),
    )
    means, errors = arrays("magnitude")
    levels = "".join(
        markup.figure(
            f"Magnitudes, slot {k + 1}",
            "evidence in its standard errors; purple is for it, orange against, beyond ±2 is clear",
            plots.magnitudes(f"{name}-magnitude{k}", means[k], errors[k]),
        )
        for k in range(len(means))
    )
    return (
        "<h3>How sure the search is</h3><p class='lead'>Bold figures in the ranking are more than "
        "two standard errors from zero; chance alone puts one entry in twenty there.</p>"
        f"<div class='pair'>{chosen}{applied}</div>"
        + markup.details("Evidence for each magnitude", f"<div class='pair'>{levels}</div>")
    )
