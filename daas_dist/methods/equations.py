"""The equations of DAAS, in the order of the paper. Pure tensor functions; daas.py has the method.

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
from typing import NamedTuple

import torch
from torch import Tensor

from daas_dist.methods.interface import Contribution
from daas_dist.methods.passes import (
    Batch,
    Forward,
    Mean,
    Weights,
    flat,
    forward_backward,
    loss_accuracy,
    total_norm,
    unflat,
    unit_gates,
    whole,
)
from daas_dist.methods.relax import gumbel
from daas_dist.spaces.cells import (
    EDGES,
    IN_DEGREE,
    INPUTS,
    NODES,
    OPERATIONS,
    Genotype,
    Path,
    cell_from_choice,
    edge_indices,
    edges_into,
    operation_indices,
    path_of,
)

# --- Architectures -------------------------------------------------------------------------------


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

    @property
    def path(self) -> Path:
        return path_of(self.genotype)


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


def weight_gradient(train_grads_I: Sequence[Weights]) -> Weights:
    """Eq. (14). ∇_θ L_train = Σ_i ∇_θ L_train(θ, z^(i), Γ(D_train)), in the order of i.

    A weight that no sampled path used has no entry: it must get no step, no momentum, no decay.
    """
    total: Weights = {}
    for gradient in train_grads_I:
        for name, value in gradient.items():
            total[name] = total[name] + value if name in total else value
    return total


# --- Algorithm 1, for one architecture ------------------------------------------------------------

Reward = Callable[[Weights], Tensor]
"""reward(∇_θ' L_val) -> (J,): another bracket for Eq. (13), as those of per_image.py."""


def search_term(
    forward: Forward,
    theta: Weights,
    path: Path,
    train_J: Sequence[Batch],
    val: Batch,
    xi: float,
    *,
    at_theta: bool,
    reward: Reward | None = None,
    mean: Mean = whole,
) -> Contribution:
    """Lines 2 and 3 of Algorithm 1: all that Eq. (9) and (13) need of an architecture.

    train_J: the training batch under each of the J policies.
    at_theta: take Eq. (9)'s ∇_z L_val at θ (one pass more), not at θ'.
    reward: in place of Eq. (13)'s (not in the paper).
    mean: where these batches are parts. Eq. (13)'s bracket then takes the ranks' own ∇_θ' L_val:
    of its product with the gradients of the whole batch, the mean is that of the whole too.
    """
    passes = [forward_backward(forward, theta, path, batch, mean=mean) for batch in train_J]
    grads_JP = mean(torch.stack([flat(p.theta_grad) for p in passes]))
    ahead = unflat(look_ahead(flat(theta), grads_JP, xi), theta)
    val_ahead = forward_backward(forward, ahead, path, val, unit_gates(path, val.images), mean)
    val_grad = val_ahead.theta_grad
    if reward is None:
        reward_J = mean(rewards(grads_JP, flat(val_grad), xi))
    else:
        val_grad = unflat(mean(flat(val_grad)), theta)
        reward_J = reward(val_grad)
    z_pass = val_ahead
    if at_theta:
        z_pass = forward_backward(forward, theta, path, val, unit_gates(path, val.images), mean)
    small = {
        "train": loss_accuracy(passes),
        "val": loss_accuracy([z_pass]),
        "reward": reward_J.detach().cpu(),
        **({} if z_pass.gate_grad_Q is None else {"z_grad": z_pass.gate_grad_Q.cpu()}),
        "train_norm": total_norm(passes),
        "val_norm": total_norm([val_ahead]),
    }
    by_theta = {"train": unflat(grads_JP.mean(0), theta)}
    return Contribution(small, by_theta if reward is None else by_theta | {"val": val_grad})


def architecture_term(
    forward: Forward, theta: Weights, path: Path, val: Batch, mean: Mean = whole
) -> Contribution:
    """The warm-up, and a search of the architecture alone: Eq. (9) at θ, no policy gradient."""
    z_pass = forward_backward(forward, theta, path, val, unit_gates(path, val.images), mean)
    assert z_pass.gate_grad_Q is not None
    return Contribution({"val": loss_accuracy([z_pass]), "z_grad": z_pass.gate_grad_Q.cpu()})


def weight_term(
    forward: Forward, theta: Weights, path: Path, train: Batch, mean: Mean = whole
) -> Contribution:
    """Line 4 of Algorithm 1: a term of Eq. (14), of a part its own."""
    train_pass = forward_backward(forward, theta, path, train, mean=mean)
    small = {"train": loss_accuracy([train_pass]), "train_norm": total_norm([train_pass])}
    return Contribution(small, {"train": train_pass.theta_grad})
