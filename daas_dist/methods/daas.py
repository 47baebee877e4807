"""DAAS, in the order of the paper. Pure tensor functions: no files, no ranks, no config.

Axes: C kinds of cell (normal, reduce), E edges of a cell, O operations, S kept edges of a cell,
      I sampled architectures, J sampled policies of one architecture, B images, P weights of the
      sampled path, flattened.
Symbols: θ weights, α β architecture parameters, γ policy parameters, z an architecture, Γ a policy,
      τ the temperature of the relaxation, ξ the learning rate of the look-ahead.
Signs: losses are minimised; a reward is a decrease of the validation loss.

Eq. (4), p(Γ), is PolicyLogits.log_prob in policy.py; Eq. (3) is apply there. Equations (1), (2),
(5) and (6) state problems and earlier work; they compute nothing here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy
from torch.nn.utils import get_total_norm

from daas_dist.spaces.cells import (
    EDGES,
    IN_DEGREE,
    INPUTS,
    KINDS,
    NODES,
    OPERATIONS,
    PAIRS,
    Genotype,
    cell_from_choice,
    edge_indices,
    edges_into,
    operation_indices,
)

# --- Architectures -------------------------------------------------------------------------------


def gumbel(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """g ~ Gumbel(0, 1) = -log(Exponential(1))."""
    exponential = torch.empty(*shape, dtype=torch.float64).exponential_(generator=generator)
    return -exponential.clamp_min(torch.finfo(torch.float64).tiny).log().float()


def relax_operations(alpha_EO: Tensor, gumbel_EO: Tensor, tau: float) -> tuple[Tensor, Tensor]:
    """Eq. (7). (Ã, A): the relaxed choice of an operation on every edge, and the index it picks."""
    soft_EO = ((alpha_EO.log_softmax(-1) + gumbel_EO) / tau).softmax(-1)
    return soft_EO, soft_EO.argmax(-1)


def relax_edges(beta_E: Tensor, gumbel_E: Tensor, tau: float) -> tuple[Tensor, Tensor]:
    """Eq. (8). (B̃, B): the relaxed choice among the edges into each node, and the two it keeps.

    Adding Gumbel noise and keeping the two largest draws two edges without replacement.
    """
    soft_E, kept_E = [], torch.zeros(len(EDGES), dtype=torch.bool)
    for target in range(INPUTS, INPUTS + NODES):
        edges = edges_into(target)
        logit = (beta_E[edges].log_softmax(-1) + gumbel_E[edges]) / tau
        soft_E.append(logit.softmax(-1))
        kept_E[edges.start + logit.topk(IN_DEGREE).indices] = True
    return torch.cat(soft_E), kept_E


class SampledArchitecture(NamedTuple):
    """z ~ p(z; α, β): what runs forward, and the relaxed Ã and B̃ of its kept edges (C, S)."""

    genotype: Genotype
    soft_operation_CS: Tensor
    soft_edge_CS: Tensor


def sample_architecture(
    alpha_CEO: Tensor, beta_CE: Tensor, tau: float, generator: torch.Generator
) -> SampledArchitecture:
    """Hard choices by Eq. (7) and (8); cells of one kind share α and β."""
    cells, operations, edges = [], [], []
    for alpha_EO, beta_E in zip(alpha_CEO, beta_CE, strict=True):
        soft_EO, operation_E = relax_operations(
            alpha_EO, gumbel((len(EDGES), len(OPERATIONS)), generator), tau
        )
        soft_E, kept_E = relax_edges(beta_E, gumbel((len(EDGES),), generator), tau)
        pairs = cell_from_choice(kept_E, operation_E)
        kept = edge_indices(pairs)
        cells.append(pairs)
        operations.append(soft_EO[kept, operation_indices(pairs)])
        edges.append(soft_E[kept])
    return SampledArchitecture(Genotype(*cells), torch.stack(operations), torch.stack(edges))


def architecture_surrogate(sampled_I: Sequence[SampledArchitecture], z_grad_ICS: Tensor) -> Tensor:
    """Eq. (9). A scalar whose gradient by α, β is (1/n_arch) Σ_i ∇_z L_val · ∇_{α,β} z^(i).

    An edge's output is multiplied by A·B = 1 in the forward pass, so that its z-gradient is the
    gradient by A and by B alike; straight through, A and B are differentiated as Ã and B̃.
    """
    terms = [
        (z_grad_CS * (z.soft_operation_CS + z.soft_edge_CS)).sum()
        for z, z_grad_CS in zip(sampled_I, z_grad_ICS, strict=True)
    ]
    return torch.stack(terms).mean()


# --- Policies ------------------------------------------------------------------------------------


def look_ahead(theta_P: Tensor, train_grads_JP: Tensor, xi: float) -> Tensor:
    """Eq. (10). The weights after one plain SGD step on the mean loss of the sampled policies."""
    return theta_P - xi * train_grads_JP.mean(0)


def policy_gradient_exact(
    expected_train_grad_P: Tensor, val_grad_P: Tensor, xi: float, gamma: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """Eq. (11). ∇_γ L = ∇_θ' L_val · (-ξ) ∇²_{θ,γ} E_Γ[L_train], for one architecture.

    expected_train_grad_P is ∇_θ E_Γ[L_train] with its graph to γ: known only where all policies
    can be enumerated, which is what the estimators below are tested against.
    """
    return torch.autograd.grad(expected_train_grad_P, gamma, grad_outputs=-xi * val_grad_P)


def mixed_derivative(train_grads_JP: Tensor, scores_JG: Tensor) -> Tensor:
    """Eq. (12). ∇²_{θ,γ} E_Γ[L] = E_Γ[∇_θ L · ∇_γ log p(Γ)], (P, G), its mean over J samples."""
    return train_grads_JP.T @ scores_JG / len(scores_JG)


def rewards(train_grads_JP: Tensor, val_grad_P: Tensor, xi: float) -> Tensor:
    """The bracket of Eq. (13): how much a step on each policy's loss lowers L_val, first order."""
    return xi * (train_grads_JP @ val_grad_P)


def policy_surrogate(log_prob_IJ: Tensor, reward_IJ: Tensor) -> Tensor:
    """Eq. (13). A scalar whose gradient by γ is the policy-gradient estimate of ∇_γ L."""
    return -(reward_IJ.detach() * log_prob_IJ).mean()


# --- Weights -------------------------------------------------------------------------------------

Weights = dict[str, Tensor]


def weight_gradient(train_grads_I: Sequence[Weights]) -> Weights:
    """Eq. (14). ∇_θ L_train = Σ_i ∇_θ L_train(θ, z^(i), Γ(D_train)), in the order of i.

    A weight that no sampled path used has no entry: it must get no step, no momentum, no decay.
    """
    total: Weights = {}
    for gradient in train_grads_I:
        for name, value in gradient.items():
            total[name] = total[name] + value if name in total else value
    return total


# --- Algorithm 1 ---------------------------------------------------------------------------------

Forward = Callable[[Weights, Genotype | None, Tensor, Tensor | None], Tensor]
"""forward(active weights, z, images, gates) -> logits (B, classes)."""


def functional(network: nn.Module) -> Forward:
    """A network as a function of its active weights."""

    def forward(theta: Weights, z: Genotype | None, images: Tensor, gates: Tensor | None) -> Tensor:
        # No weights are tied; to look for some takes a quarter of a small step.
        return functional_call(network, theta, (images, z, gates), tie_weights=False)

    return forward


class Batch(NamedTuple):
    images: Tensor
    labels: Tensor


Mean = Callable[[Tensor], Tensor]
"""The mean over the ranks that hold a part of the batch each; of a whole batch, itself."""


def whole(value: Tensor) -> Tensor:
    """The Mean of a batch in one piece."""
    return value


class Pass(NamedTuple):
    """A forward-backward pass: of the whole batch the loss, the accuracy and the gradient by z, if
    gates are given; of this rank's part of it the gradient by θ (and its norm, or a mean of them).
    """

    loss: Tensor
    accuracy: Tensor
    norm: Tensor
    theta_grad: Weights
    z_grad_CS: Tensor | None


@dataclass(frozen=True, kw_only=True)
class Contribution:
    """What one sampled architecture adds to a step; what a term does not have stays as here.

    Small numbers on the CPU, gathered from all ranks in the order of i; and gradients by θ of the
    training and of the validation loss, summed in that order. norms: of these two.
    """

    z_grad_CS: Tensor = field(default_factory=lambda: torch.zeros(len(KINDS), PAIRS))
    reward_J: Tensor = field(default_factory=lambda: torch.zeros(0))
    train_loss_accuracy: Tensor = field(default_factory=lambda: torch.full((2,), torch.nan))
    val_loss_accuracy: Tensor = field(default_factory=lambda: torch.full((2,), torch.nan))
    norms: Tensor = field(default_factory=lambda: torch.zeros(2))
    theta_grad: Weights = field(default_factory=dict)
    val_grad: Weights = field(default_factory=dict)

    def to_row(self) -> Tensor:
        """The small numbers in one row, for travelling between ranks."""
        losses = self.train_loss_accuracy, self.val_loss_accuracy
        parts = self.z_grad_CS, *losses, self.norms, self.reward_J
        return torch.cat([part.reshape(-1) for part in parts])

    @staticmethod
    def row_length(rewards: int) -> int:
        return len(KINDS) * PAIRS + 6 + rewards

    @staticmethod
    def from_row(row: Tensor) -> "Contribution":
        ends = [len(KINDS) * PAIRS + n for n in (0, 2, 4, 6)]
        z_grad, train, val, norms, reward = row.tensor_split(ends)
        return Contribution(
            z_grad_CS=z_grad.view(len(KINDS), PAIRS),
            reward_J=reward,
            train_loss_accuracy=train,
            val_loss_accuracy=val,
            norms=norms,
        )


def flat(values: Weights) -> Tensor:
    """(P,), in the order of the dictionary."""
    return torch.cat([value.reshape(-1) for value in values.values()])


def unflat(flat_P: Tensor, like: Weights) -> Weights:
    parts = flat_P.split([value.numel() for value in like.values()])
    return {
        name: part.view(value.shape)
        for (name, value), part in zip(like.items(), parts, strict=True)
    }


def forward_backward(
    forward: Forward,
    theta: Weights,
    z: Genotype | None,
    batch: Batch,
    gates_CS: Tensor | None = None,
    mean: Mean = whole,
) -> Pass:
    """Mean cross-entropy of a batch on the path z, and its gradients."""
    leaves = {name: value.detach().requires_grad_() for name, value in theta.items()}
    logits = forward(leaves, z, batch.images, gates_CS)
    loss = cross_entropy(logits, batch.labels)
    wanted = [*leaves.values(), *([] if gates_CS is None else [gates_CS])]
    gradients = torch.autograd.grad(loss, wanted)
    accuracy = (logits.argmax(-1) == batch.labels).float().mean()
    theta_grad = dict(zip(leaves, gradients, strict=False))
    small = [loss.detach(), accuracy, get_total_norm(list(theta_grad.values()))]
    by_z = [gradient.flatten() for gradient in gradients[len(leaves) :]]
    numbers = mean(torch.cat([torch.stack(small), *by_z]))
    z_grad_CS = None if gates_CS is None else numbers[3:].view_as(gates_CS)
    return Pass(numbers[0], numbers[1], numbers[2], theta_grad, z_grad_CS)


Reward = Callable[[Weights], Tensor]
"""reward(∇_θ' L_val) -> (J,): another bracket for Eq. (13), as those of per_image.py."""


def search_term(
    forward: Forward,
    theta: Weights,
    z: Genotype | None,
    train_J: Sequence[Batch],
    val: Batch,
    xi: float,
    *,
    at_theta: bool,
    reward: Reward | None = None,
    mean: Mean = whole,
) -> Contribution:
    """Lines 2 and 3 of Algorithm 1 for one architecture: all that Eq. (9) and (13) need of it.

    train_J: the training batch under each of the J policies.
    at_theta: take Eq. (9)'s ∇_z L_val at θ (one pass more), not at θ'.
    reward: in place of Eq. (13)'s (not in the paper).
    mean: where these batches are parts. Eq. (13)'s bracket then takes the ranks' own ∇_θ' L_val:
    of its product with the gradients of the whole batch, the mean is that of the whole too.
    """
    passes = [forward_backward(forward, theta, z, batch, mean=mean) for batch in train_J]
    grads_JP = mean(torch.stack([flat(p.theta_grad) for p in passes]))
    ahead = unflat(look_ahead(flat(theta), grads_JP, xi), theta)
    val_ahead = forward_backward(forward, ahead, z, val, unit_gates(z, val.images), mean)
    val_grad = val_ahead.theta_grad
    if reward is None:
        reward_J = mean(rewards(grads_JP, flat(val_grad), xi))
    else:
        val_grad = unflat(mean(flat(val_grad)), theta)
        reward_J = reward(val_grad)
    z_pass = val_ahead
    if at_theta:
        z_pass = forward_backward(forward, theta, z, val, unit_gates(z, val.images), mean)
    return Contribution(
        z_grad_CS=_z_gradient(z_pass),
        reward_J=reward_J.detach().cpu(),
        train_loss_accuracy=_loss_accuracy(passes),
        val_loss_accuracy=_loss_accuracy([z_pass]),
        norms=_norms(passes, [val_ahead]),
        theta_grad=unflat(grads_JP.mean(0), theta),
        val_grad={} if reward is None else val_grad,
    )


def architecture_term(
    forward: Forward, theta: Weights, z: Genotype | None, val: Batch, mean: Mean = whole
) -> Contribution:
    """The warm-up, and a search of the architecture alone: Eq. (9) at θ, no policy gradient."""
    z_pass = forward_backward(forward, theta, z, val, unit_gates(z, val.images), mean)
    return Contribution(z_grad_CS=_z_gradient(z_pass), val_loss_accuracy=_loss_accuracy([z_pass]))


def weight_term(
    forward: Forward, theta: Weights, z: Genotype | None, train: Batch, mean: Mean = whole
) -> Contribution:
    """Line 4 of Algorithm 1 for one architecture: a term of Eq. (14), of a part its own."""
    train_pass = forward_backward(forward, theta, z, train, mean=mean)
    return Contribution(
        train_loss_accuracy=_loss_accuracy([train_pass]),
        norms=_norms([train_pass], []),
        theta_grad=train_pass.theta_grad,
    )


def unit_gates(z: Genotype | None, like: Tensor) -> Tensor | None:
    """A·B = 1 on every kept edge, to be differentiated by; none for a fixed network."""
    if z is None:
        return None
    return torch.ones(2, PAIRS, device=like.device, dtype=like.dtype, requires_grad=True)


def _z_gradient(done: Pass) -> Tensor:
    return torch.zeros(2, PAIRS) if done.z_grad_CS is None else done.z_grad_CS.cpu()


def _loss_accuracy(passes: Sequence[Pass]) -> Tensor:
    rows = torch.stack([torch.stack([p.loss, p.accuracy]) for p in passes])
    return rows.mean(0).float().cpu()


def _norms(train: Sequence[Pass], val: Sequence[Pass]) -> Tensor:
    """(2,): a sum over each list, 0 of none; what is not finite in one pass is not in its sum."""
    sums = [sum((p.norm for p in passes), torch.zeros(())) for passes in (train, val)]
    return torch.stack([total.float().cpu() for total in sums])
