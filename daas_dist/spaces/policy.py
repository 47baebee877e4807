"""The augmentation policy: its distribution p(Γ; γ), its draws, and what is derived from it.

Axes: N draws, K slots, O operations, M magnitudes, R policies (all O**K ordered sequences).
A draw Γ says for every slot which operation, whether it is applied, and with which magnitude.
"""

from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from daas_dist.documents.found import PolicyDocument, Ranked
from daas_dist.rng import WHOLE, Part
from daas_dist.spaces import operations as augment

PARAMETERS = ("per_policy", "per_slot")
MOST_POLICIES = 100_000


class Draws(NamedTuple):
    """N draws of Γ. The magnitude of a slot that is not applied is drawn but has no effect."""

    operation_NK: Tensor
    applied_NK: Tensor
    magnitude_NK: Tensor

    def in_words(self, index: int) -> str:
        """Return one draw's operations, and their magnitudes where they are applied."""
        rows = zip(*(part[index].tolist() for part in self), strict=True)
        return ", ".join(
            f"{augment.NAMES[operation]} {magnitude}" if applied else "nothing"
            for operation, applied, magnitude in rows
        )


def policy_count(slots: int) -> int:
    return len(augment.NAMES) ** slots


def policy_index(operation_NK: Tensor) -> Tensor:
    """Return which of the O**K ordered policies a sequence of operations is (base-O digits)."""
    index_N = torch.zeros(len(operation_NK), dtype=torch.long)
    for operation_N in operation_NK.unbind(1):
        index_N = index_N * len(augment.NAMES) + operation_N
    return index_N


def all_policies(slots: int) -> Tensor:
    """The operations of every policy: (R, K), in the order of policy_index."""
    operations = torch.arange(len(augment.NAMES))
    return torch.cartesian_prod(*[operations] * slots).reshape(-1, slots)


def _at(table: Tensor, parameters: str, operation_NK: Tensor) -> Tensor:
    """The entry of (R, K, ...) or (K, O, ...) of each slot of each draw: (N, K, ...)."""
    if parameters == "per_policy":
        return table[policy_index(operation_NK)]
    return table[torch.arange(operation_NK.shape[1]), operation_NK]


def _choose(probability_NC: Tensor, uniform_N: Tensor) -> Tensor:
    """Inverse transform sampling along the last axis."""
    cumulative = probability_NC.cumsum(-1)
    below = cumulative < uniform_N.unsqueeze(-1) * cumulative[..., -1:]
    return below.sum(-1)


@dataclass(frozen=True, eq=False)
class PolicyLogits:
    """γ = (π, p, δ), all on the CPU. p is the sigmoid of rho (ours: the paper leaves it open).

    per_policy (the paper, read literally): rho (R, K) and delta (R, K, M), own numbers for every
    slot of every ordered policy. per_slot (the cheaper reading): rho (K, O) and delta (K, O, M).
    """

    pi_KO: Tensor
    rho: Tensor
    delta: Tensor
    parameters: str

    @staticmethod
    def initial(slots: int, parameters: str) -> "PolicyLogits":
        """Uniform operations and magnitudes, p = 1/2 (DADA starts p at 1/2 too)."""
        if slots < 1:
            raise ValueError(f"a policy needs at least 1 slot, got {slots}; set policy.slots")
        if parameters not in PARAMETERS:
            raise ValueError(
                f"unknown policy.parameters {parameters!r}; choose from {', '.join(PARAMETERS)}"
            )
        count, operations = policy_count(slots), len(augment.NAMES)
        if parameters == "per_policy" and count > MOST_POLICIES:
            raise ValueError(
                f"{slots} slots make {count} policies, more than {MOST_POLICIES} for "
                f"policy.parameters=per_policy; choose per_slot or fewer policy.slots"
            )
        shape = (count, slots) if parameters == "per_policy" else (slots, operations)
        return PolicyLogits(
            pi_KO=torch.zeros(slots, operations, requires_grad=True),
            rho=torch.zeros(shape, requires_grad=True),
            delta=torch.zeros(*shape, augment.MAGNITUDES, requires_grad=True),
            parameters=parameters,
        )

    @property
    def slots(self) -> int:
        return len(self.pi_KO)

    def tensors(self) -> list[Tensor]:
        return [self.pi_KO, self.rho, self.delta]

    @torch.no_grad()
    def sample(self, count: int, generator: torch.Generator) -> Draws:
        """Draw Γ ~ p(Γ; γ), `count` times."""
        uniform_3NK = torch.rand(3, count, self.slots, generator=generator, dtype=torch.float64)
        operation_NK = _choose(self.pi_KO.double().softmax(-1), uniform_3NK[0])
        p_NK = _at(self.rho, self.parameters, operation_NK).double().sigmoid()
        delta_NKM = _at(self.delta, self.parameters, operation_NK).double().softmax(-1)
        return Draws(operation_NK, uniform_3NK[1] < p_NK, _choose(delta_NKM, uniform_3NK[2]))

    def log_prob(self, draws: Draws) -> Tensor:
        """Eq. (4), its logarithm: (N,)."""
        operation_NK, applied_NK, magnitude_NK = draws
        log_pi_NK = self.pi_KO.log_softmax(-1)[torch.arange(self.slots), operation_NK]
        rho_NK = _at(self.rho, self.parameters, operation_NK)
        delta_NKM = _at(self.delta, self.parameters, operation_NK).log_softmax(-1)
        log_delta_NK = delta_NKM.gather(-1, magnitude_NK.unsqueeze(-1)).squeeze(-1)
        log_applied_NK = torch.where(
            applied_NK, logsigmoid(rho_NK) + log_delta_NK, logsigmoid(-rho_NK)
        )
        return (log_pi_NK + log_applied_NK).sum(-1)

    def occurrence(self) -> "Occurrence":
        """Return how often p(Γ; γ) has an operation in a slot, applies it, and with which
        magnitude.

        Exact; differentiable in γ.
        """
        pi_KO = self.pi_KO.softmax(-1)
        if self.parameters == "per_slot":
            applied_KO = pi_KO * self.rho.sigmoid()
            return Occurrence(pi_KO, applied_KO, applied_KO.unsqueeze(-1) * self.delta.softmax(-1))
        operation_RK = all_policies(self.slots)
        probability_R = pi_KO[torch.arange(self.slots), operation_RK].prod(-1)
        applied_RK = probability_R.unsqueeze(-1) * self.rho.sigmoid()
        magnitude_RKM = applied_RK.unsqueeze(-1) * self.delta.softmax(-1)
        return Occurrence(
            pi_KO, _by_slot(applied_RK, operation_RK), _by_slot(magnitude_RKM, operation_RK)
        )

    def entropy(self) -> dict[str, Tensor]:
        """Mean nats of a slot's choice of operation, of application, of magnitude when applied.

        The entropy of Γ is slots · (operation + application + p · magnitude), p = P(applied).
        """
        probability, p, delta = self._flattened()
        log_p, log_not_p = logsigmoid(p), logsigmoid(-p)
        bernoulli = -(log_p.exp() * log_p + log_not_p.exp() * log_not_p)
        magnitude = -(delta.softmax(-1) * delta.log_softmax(-1)).sum(-1)
        applied = probability * log_p.exp()
        pi_KO = self.pi_KO
        return {
            "operation": -(pi_KO.softmax(-1) * pi_KO.log_softmax(-1)).sum(-1).mean(),
            "application": (probability * bernoulli).sum() / self.slots,
            "magnitude": (applied * magnitude).sum() / applied.sum(),
        }

    def _flattened(self) -> tuple[Tensor, Tensor, Tensor]:
        """(probability of being met, rho, delta) of every entry of rho."""
        pi_KO = self.pi_KO.softmax(-1)
        if self.parameters == "per_slot":
            return pi_KO, self.rho, self.delta
        probability_R = pi_KO[torch.arange(self.slots), all_policies(self.slots)].prod(-1)
        return probability_R.unsqueeze(-1).expand_as(self.rho), self.rho, self.delta

    @torch.no_grad()
    def derive(self, ranges: str) -> "Policy":
        """Sec. 4.3: all policies are kept, drawn by Π softmax(π_k); magnitudes are argmax δ."""
        return Policy(
            probability_KO=self.pi_KO.softmax(-1).clone(),
            application=self.rho.sigmoid().clone(),
            magnitude=self.delta.argmax(-1),
            parameters=self.parameters,
            ranges=ranges,
        )

    def by_entry(self, value_KO: Tensor) -> Tensor:
        """(K, O, ...), numbers for each operation of each slot, in the shape of rho or delta."""
        if self.parameters == "per_slot":
            return value_KO
        return _at(value_KO, "per_slot", all_policies(self.slots))

    def without_operation_gradient(self) -> "PolicyLogits":
        return replace(self, pi_KO=self.pi_KO.detach())


def _by_slot(value_RK: Tensor, operation_RK: Tensor) -> Tensor:
    """Sum (R, K, ...) over the policies that have operation o in slot k: (K, O, ...)."""
    slots = operation_RK.shape[1]
    empty = value_RK.new_zeros(len(augment.NAMES), *value_RK.shape[2:])
    return torch.stack(
        [empty.index_add(0, operation_RK[:, k], value_RK[:, k]) for k in range(slots)]
    )


class Occurrence(NamedTuple):
    """Joint probabilities: operation in the slot; and applied; and with the magnitude."""

    operation_KO: Tensor
    applied_KO: Tensor
    magnitude_KOM: Tensor


@dataclass(frozen=True, eq=False)
class Policy:
    """A found (or given) policy: what training uses. Shapes as in PolicyLogits, numbers as plain
    probabilities; the magnitude of an entry is one index of 0..9."""

    probability_KO: Tensor
    application: Tensor
    magnitude: Tensor
    parameters: str
    ranges: str

    def __post_init__(self) -> None:
        slots, operations = self.probability_KO.shape
        if self.parameters not in PARAMETERS:
            raise ValueError(f"policy: parameters {self.parameters!r} is none of {PARAMETERS}")
        if self.ranges not in augment.RANGES:
            raise ValueError(f"policy: ranges {self.ranges!r} is none of {augment.RANGES}")
        if operations != len(augment.NAMES):
            raise ValueError(f"policy: {operations} operations, expected {len(augment.NAMES)}")
        expected = (
            (policy_count(slots), slots) if self.parameters == "per_policy" else (slots, operations)
        )
        for name in ("application", "magnitude"):
            shape = tuple(getattr(self, name).shape)
            if shape != expected:
                raise ValueError(f"policy: {name} has the shape {shape}, expected {expected}")
        off = (self.probability_KO.sum(-1) - 1).abs().max()
        if not off < 1e-4 or self.probability_KO.min() < 0:
            raise ValueError("policy: the probabilities of a slot must be >= 0 and sum to 1")
        if not (self.application.min() >= 0 and self.application.max() <= 1):
            raise ValueError("policy: application probabilities must lie in [0, 1]")
        if not (self.magnitude.min() >= 0 and self.magnitude.max() < augment.MAGNITUDES):
            raise ValueError(f"policy: magnitudes must lie in 0..{augment.MAGNITUDES - 1}")

    @property
    def slots(self) -> int:
        return len(self.probability_KO)

    def draw(self, count: int, generator: torch.Generator) -> Draws:
        """One Γ an image: operations by Π softmax(π_k), each applied with its p."""
        uniform_2NK = torch.rand(2, count, self.slots, generator=generator, dtype=torch.float64)
        operation_NK = _choose(self.probability_KO.double(), uniform_2NK[0])
        applied_NK = uniform_2NK[1] < _at(self.application, self.parameters, operation_NK)
        return Draws(operation_NK, applied_NK, _at(self.magnitude, self.parameters, operation_NK))

    def apply(self, images_u8: Tensor, generator: torch.Generator, part: Part = WHOLE) -> Tensor:
        """Draw a policy for every image of (N, C, H, W) and apply it."""
        drawn = self.draw(len(images_u8) * part.of, generator)
        draws = Draws(*(part.take(each) for each in drawn))
        return apply(images_u8, draws, generator, self.ranges, part)

    def apply_one(
        self, images_u8: Tensor, generator: torch.Generator, part: Part = WHOLE
    ) -> Tensor:
        """Sec. 4.3. Draw one policy for all images of (N, C, H, W) and apply it.

        Which operations, and whether each is applied, is the batch's (Eq. 3 has D); signs and
        places of cutout are each image's own, as in the search.
        """
        draws = repeat(self.draw(1, generator), len(images_u8))
        return apply(images_u8, draws, generator, self.ranges, part)

    def weights(self) -> Tensor:
        """Probability × application of each operation in each slot: (K, O)."""
        if self.parameters == "per_slot":
            return self.probability_KO * self.application
        operation_RK = all_policies(self.slots)
        probability_R = self.probability_KO[torch.arange(self.slots), operation_RK].prod(-1)
        return _by_slot(probability_R.unsqueeze(-1) * self.application, operation_RK)

    def ranking(self) -> list[tuple[str, float]]:
        """Operations by probability × application summed over slots, the strongest first."""
        weight_O = self.weights().sum(0)
        order = torch.argsort(weight_O, descending=True, stable=True).tolist()
        return [(augment.NAMES[o], float(weight_O[o])) for o in order]

    def to_document(self) -> PolicyDocument:
        return PolicyDocument(
            slots=self.slots,
            parameters=self.parameters,
            ranges=self.ranges,
            operations=list(augment.NAMES),
            probabilities=self.probability_KO.tolist(),
            application=self.application.tolist(),
            magnitudes=self.magnitude.tolist(),
            ranking=[Ranked(*each) for each in self.ranking()],
        )

    @staticmethod
    def from_document(document: PolicyDocument) -> "Policy":
        """ValueError if it is of other operations."""
        if tuple(document.operations) != augment.NAMES:
            raise ValueError(
                f"policy: operations {document.operations!a:.80} differ from this version's "
                f"{list(augment.NAMES)}"
            )
        return Policy(
            probability_KO=torch.tensor(document.probabilities, dtype=torch.float32),
            application=torch.tensor(document.application, dtype=torch.float32),
            magnitude=torch.tensor(document.magnitudes),
            parameters=document.parameters,
            ranges=document.ranges,
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Policy):
            return NotImplemented
        pairs = [(getattr(self, f.name), getattr(other, f.name)) for f in fields(self)]
        return all(torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in pairs)

    __hash__ = None  # type: ignore[assignment]


def apply(
    images_u8: Tensor,
    draws: Draws,
    generator: torch.Generator,
    ranges: str,
    part: Part = WHOLE,
) -> Tensor:
    """Eq. (3), slot after slot. The sign of the mirrored operations and the place of cutout are
    drawn here, per image: they are no part of Γ. draws: of the images given, a part or a whole."""
    count, slots = draws.operation_NK.shape
    if len(images_u8) != count:
        raise ValueError(f"{len(images_u8)} images but {count} draws")
    batch = count * part.of
    sign_NK = part.take(1 - 2 * torch.randint(2, (slots, batch), generator=generator).T)
    centre_NK2 = part.take(torch.rand(slots, batch, 2, generator=generator).transpose(0, 1))
    operation_NK = torch.where(draws.applied_NK, draws.operation_NK, -1)
    for k in range(slots):
        images_u8 = augment.apply(
            images_u8,
            operation_NK[:, k],
            draws.magnitude_NK[:, k],
            sign_NK[:, k],
            centre_NK2[:, k],
            ranges,
        )
    return images_u8


def repeat(draws: Draws, count: int) -> Draws:
    """The same Γ for a whole batch (the paper's search): N = 1 draw to N = count."""
    return Draws(*(part.expand(count, -1) for part in draws))
