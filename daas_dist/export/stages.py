"""A policy as other libraries can draw it: stage after stage, one of a stage's sequences by weight.

Where each slot has its own numbers (per_slot) a slot is a stage. Where each ordered sequence of
operations has its own (per_policy) there is one stage, of all sequences.
"""

from dataclasses import dataclass

from daas_dist.export.literals import number, row
from daas_dist.spaces import operations as augment
from daas_dist.spaces.policy import Policy, all_policies


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
    operations = range(len(augment.NAMES))
    if policy.parameters == "per_slot":
        return tuple(
            tuple(
                Sequence(float(policy.probability_KO[k, o]), (_step(policy, k, o, k, o),))
                for o in operations
            )
            for k in range(policy.slots)
        )
    sequences = []
    for r, numbers in enumerate(all_policies(policy.slots).tolist()):
        weight = 1.0
        for k, o in enumerate(numbers):
            weight *= float(policy.probability_KO[k, o])
        steps = tuple(_step(policy, k, o, r, k) for k, o in enumerate(numbers))
        sequences.append(Sequence(weight, steps))
    return (tuple(sequences),)


def _step(policy: Policy, slot: int, operation: int, *entry: int) -> Step:
    row = augment.TABLE[operation]
    magnitude = int(policy.magnitude[entry])
    value = row.value(magnitude, policy.ranges)
    return Step(
        row.name,
        float(policy.application[entry]),
        magnitude,
        abs(value) if row.signed else value,
    )


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
                augment.describe(step.operation, step.magnitude, policy.ranges)
                for step in each.steps
            ]
            lines += [f"        ({number(each.weight)}, {row(steps)}),  # {'; '.join(words)}"]
        lines += ["    ),"]
    return "\n".join([*lines, ")"])
