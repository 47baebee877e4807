"""A policy as other libraries can draw it: stage after stage, one of a stage's sequences by weight.

Where each slot has its own numbers (per_slot) a slot is a stage. Where each ordered sequence of
operations has its own (per_policy) there is one stage, of all sequences. An operation whose
magnitude is drawn is several, one a magnitude, which share its weight.
"""

from dataclasses import dataclass
from itertools import product
from math import prod

from daas_dist.export.literals import number, row
from daas_dist.spaces import operations as augment
from daas_dist.spaces.policy import Policy, all_policies

MOST = 100_000
"""Sequences that a file may hold."""


@dataclass(frozen=True)
class Step:
    """An operation, the probability that it is applied, and its value in the unit of augment.TABLE,
    without the sign that is drawn."""

    operation: str
    applied: float
    magnitude: int
    value: float


@dataclass(frozen=True)
class Sequence:
    weight: float
    steps: tuple[Step, ...]


Stages = tuple[tuple[Sequence, ...], ...]


def of(policy: Policy) -> Stages:
    """Return the policy as stages. ValueError where drawn magnitudes make too many sequences."""
    if policy.parameters == "per_slot":
        return tuple(
            tuple(
                Sequence(float(policy.probability_KO[k, o]) * share, (step,))
                for o in range(policy.operations)
                for share, step in _steps(policy, o, k, o)
            )
            for k in range(policy.slots)
        )
    sequences = []
    for r, numbers in enumerate(all_policies(policy.slots, policy.operations).tolist()):
        weight = 1.0
        for k, o in enumerate(numbers):
            weight *= float(policy.probability_KO[k, o])
        for drawn in product(*(_steps(policy, o, r, k) for k, o in enumerate(numbers))):
            shares, steps = zip(*drawn, strict=True)
            sequences.append(Sequence(weight * prod(shares), steps))
        if len(sequences) > MOST:
            raise ValueError(
                f"the policy draws magnitudes for each of {policy.operations**policy.slots} "
                f"sequences, more than {MOST} in all; export it with --to torchvision"
            )
    return (tuple(sequences),)


def _steps(policy: Policy, operation: int, *entry: int) -> list[tuple[float, Step]]:
    """Return the magnitudes of an entry that are drawn, with their probabilities."""
    row = augment.TABLE[augment.NAMES.index(policy.space.operations[operation])]
    ranges, applied = policy.space.ranges, float(policy.application[entry])
    share_M = policy.magnitudes[entry].tolist()
    if row.ranges[ranges] is None:  # all do the same
        share_M = [1.0]
    values = ((m, row.value(m, ranges)) for m in range(len(share_M)))
    return [
        (share_M[m], Step(row.name, applied, m, abs(value) if row.signed else value))
        for m, value in values
        if share_M[m] > 0
    ]


def literal(policy: Policy) -> str:
    """STAGES as Python source, with what each step does beside it."""
    lines = ["# (weight, ((operation, how often it is applied, value), …)) of each stage"]
    lines += ["STAGES = ("]
    for stage in of(policy):
        lines += ["    ("]
        for each in stage:
            steps = [
                row([repr(step.operation), number(step.applied), repr(step.value)])
                for step in each.steps
            ]
            words = [
                augment.describe(step.operation, step.magnitude, policy.space.ranges)
                for step in each.steps
            ]
            lines += [f"        ({number(each.weight)}, {row(steps)}),  # {'; '.join(words)}"]
        lines += ["    ),"]
    return "\n".join([*lines, ")"])
