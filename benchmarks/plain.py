"""Algorithm 1 as one writes it from the paper and from DARTS, with no thought for speed.

The reference of benchmarks/step.py, and another way to read the product: it shares no network, no
gradient and no update with it (tests/methods/test_plain_step.py compares them). Random draws and
augmented images are given to it, so that both compute the same step.

Axes: I architectures, J policies of one, N = I × J, B images, C kinds of cell, S kept edges of one.
Images are [B, C, H, W] in torch's own order (NCHW), of even sides.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from daas_dist.spaces.cells import Genotype, Pair

# --- The supernet (DARTS: cnn/operations.py, cnn/model_search.py) ---------------------------------


def norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, affine=False)


def relu_conv_norm(channels_in: int, channels_out: int) -> nn.Module:
    convolution = nn.Conv2d(channels_in, channels_out, 1, bias=False)
    return nn.Sequential(nn.ReLU(), convolution, norm(channels_out))


class FactorizedReduce(nn.Module):
    """Half the side: the even pixels to one half of the channels, the odd ones to the other."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv_1 = nn.Conv2d(channels_in, channels_out // 2, 1, stride=2, bias=False)
        self.conv_2 = nn.Conv2d(channels_in, channels_out // 2, 1, stride=2, bias=False)
        self.norm = norm(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x)
        return self.norm(torch.cat([self.conv_1(x), self.conv_2(x[:, :, 1:, 1:])], dim=1))


def depthwise_pointwise(channels: int, kernel: int, stride: int, dilation: int) -> nn.Module:
    padding = dilation * (kernel - 1) // 2
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(channels, channels, kernel, stride, padding, dilation, channels, bias=False),
        nn.Conv2d(channels, channels, 1, bias=False),
        norm(channels),
    )


def separable(channels: int, kernel: int, stride: int) -> nn.Module:
    first = depthwise_pointwise(channels, kernel, stride, dilation=1)
    return nn.Sequential(first, depthwise_pointwise(channels, kernel, stride=1, dilation=1))


OPERATIONS: dict[str, Callable[[int, int], nn.Module]] = {
    "max_pool_3x3": lambda c, s: nn.Sequential(nn.MaxPool2d(3, s, 1), norm(c)),
    "avg_pool_3x3": lambda c, s: nn.Sequential(
        nn.AvgPool2d(3, s, 1, count_include_pad=False), norm(c)
    ),
    "skip_connect": lambda c, s: nn.Identity() if s == 1 else FactorizedReduce(c, c),
    "sep_conv_3x3": lambda c, s: separable(c, 3, s),
    "sep_conv_5x5": lambda c, s: separable(c, 5, s),
    "dil_conv_3x3": lambda c, s: depthwise_pointwise(c, 3, s, dilation=2),
    "dil_conv_5x5": lambda c, s: depthwise_pointwise(c, 5, s, dilation=2),
}
"""(channels, stride) -> the operation."""


class Cell(nn.Module):
    """Two inputs, four nodes; every operation on every edge has weights, the sampled ones run."""

    def __init__(
        self, before: int, last: int, channels: int, reduces: bool, reduced_before: bool
    ) -> None:
        super().__init__()
        older = FactorizedReduce if reduced_before else relu_conv_norm
        self.before, self.last = older(before, channels), relu_conv_norm(last, channels)
        self.operations = nn.ModuleDict()
        for node in range(2, 6):
            for source in range(node):
                stride = 2 if reduces and source < 2 else 1
                for name, make in OPERATIONS.items():
                    self.operations[f"{source}-{node}-{name}"] = make(channels, stride)

    def forward(
        self, before: Tensor, last: Tensor, pairs: Sequence[Pair], gate_S: Tensor
    ) -> Tensor:
        states = [self.before(before), self.last(last)]
        for node in range(2, 6):
            left, right = (
                gate_S[k] * self.operations[f"{source}-{node}-{name}"](states[source])
                for k, (name, source) in list(enumerate(pairs))[2 * node - 4 : 2 * node - 2]
            )
            states.append(left + right)
        return torch.cat(states[2:], dim=1)


class Supernet(nn.Module):
    """The parameters come in the order of daas_dist.models.supernet's, so one loads the other's."""

    def __init__(self, channels: int, cells: int, classes: int, in_channels: int) -> None:
        super().__init__()
        width = 3 * channels
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        )
        self.cells = nn.ModuleList()
        self.reduces = [index in (cells // 3, 2 * cells // 3) for index in range(cells)]
        before, last, reduced_before = width, width, False
        for reduces in self.reduces:
            channels *= 2 if reduces else 1
            self.cells.append(Cell(before, last, channels, reduces, reduced_before))
            before, last, reduced_before = last, 4 * channels, reduces
        self.classifier = nn.Linear(last, classes)

    def load(self, weights: Iterable[Tensor]) -> None:
        """Of a supernet of the same size, in the order of its parameters()."""
        with torch.no_grad():
            for own, value in zip(self.parameters(), weights, strict=True):
                assert own.shape == value.shape
                own.copy_(value)

    def forward(self, images: Tensor, genotype: Genotype, gate_CS: Tensor) -> Tensor:
        """[B, in_channels, H, W] to logits [B, classes]."""
        before = last = self.stem(images)
        for reduces, cell in zip(self.reduces, self.cells, strict=True):
            pairs = genotype.reduce if reduces else genotype.normal
            before, last = last, cell(before, last, pairs, gate_CS[int(reduces)])
        return self.classifier(last.mean((2, 3)))


# --- Algorithm 1 ---------------------------------------------------------------------------------


class Path(NamedTuple):
    """A sampled architecture, and the relaxed Ã, B̃ of its kept edges with their graph to α, β."""

    genotype: Genotype
    soft_operation_CS: Tensor
    soft_edge_CS: Tensor

    def gates(self) -> Tensor:
        """A·B: ones, differentiated straight through as Ã and B̃. (C, S)"""
        ones_A, ones_B = (soft - soft.detach() + 1 for soft in self[1:])
        return ones_A * ones_B


class Batch(NamedTuple):
    images: Tensor
    labels: Tensor


def backward(network: Supernet, path: Path, batch: Batch, by_architecture: bool = False) -> None:
    """Mean cross-entropy, and its gradients into .grad; into those of α and β too, if wanted."""
    gates = path.gates() if by_architecture else path.gates().detach()
    gates = gates.to(batch.images.device)
    F.cross_entropy(network(batch.images, path.genotype, gates), batch.labels).backward()


def clear(network: Supernet) -> None:
    for weight in network.parameters():
        weight.grad = None


def rewards_of(
    network: Supernet, path: Path, train_J: Sequence[Batch], val: Batch, xi: float
) -> Tensor:
    """Lines 2 and 3 for one architecture: adds ∇_{α,β} L_val(θ') to their .grad; Eq. (13)'s
    bracket for each of the J policies. Without policies (the warm-up) θ' is θ. (J,)"""
    weights = list(network.parameters())
    train_grads_J = []
    for train in train_J:
        clear(network)
        backward(network, path, train)
        train_grads_J.append([weight.grad for weight in weights])
    saved = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for weight, *grad_J in zip(weights, *train_grads_J, strict=True):
            if grad_J and grad_J[0] is not None:
                weight -= xi * sum(grad_J) / len(grad_J)
    clear(network)
    backward(network, path, val, by_architecture=True)
    reward_J = []
    for train_grads in train_grads_J:
        product = 0.0
        for weight, train_grad in zip(weights, train_grads, strict=True):
            if train_grad is not None and weight.grad is not None:
                product += (train_grad * weight.grad).sum().item()
        reward_J.append(xi * product)
    with torch.no_grad():
        for weight, value in zip(weights, saved, strict=True):
            weight.copy_(value)
    clear(network)
    return torch.tensor(reward_J, dtype=torch.float64)


def update_architecture_and_policy(
    network: Supernet,
    path_I: Sequence[Path],
    train_IJ: Iterable[Sequence[Batch]],
    val: Batch,
    log_prob_N: Tensor | None,
    xi: float,
    architecture_optimiser: torch.optim.Optimizer,
    policy_optimiser: torch.optim.Optimizer,
) -> Tensor:
    """Lines 2 and 3: α, β by Eq. (9), γ by Eq. (13); the rewards, (I, J).

    log_prob_N: log p(Γ) of the policies with its graph to γ; None in the warm-up, which has none.
    """
    architecture_optimiser.zero_grad()
    rows = [
        rewards_of(network, path, train_J, val, xi)
        for path, train_J in zip(path_I, train_IJ, strict=True)
    ]
    for group in architecture_optimiser.param_groups:
        for parameter in group["params"]:
            parameter.grad /= len(path_I)
    architecture_optimiser.step()
    reward_IJ = torch.stack(rows)
    if log_prob_N is not None:
        policy_optimiser.zero_grad()
        (-(reward_IJ.flatten().to(log_prob_N.dtype) * log_prob_N).mean()).backward()
        policy_optimiser.step()
    return reward_IJ


def update_weights(
    network: Supernet,
    path_I: Sequence[Path],
    train: Batch,
    clip: float,
    optimiser: torch.optim.Optimizer,
) -> None:
    """Line 4: θ by Eq. (14). A weight of no sampled path has no .grad, so it gets no step."""
    optimiser.zero_grad(set_to_none=True)
    for path in path_I:
        backward(network, path, train)
    nn.utils.clip_grad_norm_(network.parameters(), clip)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
