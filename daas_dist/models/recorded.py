"""Paths of a supernet as CUDA graphs: recorded at their first use, then replayed. Not in the paper.

A pass makes thousands of small operator calls, and a GPU waits for each of them. A path is another
one at every step, so a graph of it is of no use twice; but its pieces are few: an operation on an
edge, or what lies between two cells. Here each piece always reads the same feature maps and adds to
the same ones, so that its launches are recorded once and later sent off together, 73 times a pass
forward and as often backward.

    begin       images                        -> both inputs of the first cell
    edge        a node                        -> a later node
    between     the nodes of a cell           -> its features, rectified
                features of two cells         -> both inputs of the cell behind them
    end         the nodes of the last cell    -> logits

On a CPU nothing is recorded: the pieces are called one after the other, which computes the same.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional as F

from daas_dist.config.rules import ConfigError
from daas_dist.methods.passes import Batch, Forward, Weights, flat, forward_backward, functional
from daas_dist.models import ops
from daas_dist.models.graphs import Piece, Recorder, Static, taken_apart
from daas_dist.models.supernet import SearchCell, Supernet
from daas_dist.spaces.cells import EDGES, INPUTS, KINDS, NODES, OPERATIONS, Path

TOLERANCE = 0.1
"""Of a gradient's norm. What rounds otherwise, as GPUs may at each pass, is about 0.01 apart."""


# --- What the pieces compute ---------------------------------------------------------------------


class Begin(nn.Module):
    def __init__(self, network: Supernet, images: Tensor) -> None:
        super().__init__()
        self.images, self.stem, self.inputs = images, network.stem, Inputs(network.cells[0])

    def forward(self) -> tuple[Tensor, ...]:
        before, last = self.stem(self.images)
        return last, *self.inputs(before, last)


class Edge(nn.Module):
    def __init__(self, operation: nn.Module) -> None:
        super().__init__()
        self.operation = operation

    def forward(self, node: Tensor, gate: Tensor | None = None) -> tuple[Tensor, ...]:
        if isinstance(self.operation, ops.BEHIND_RELU):
            node = F.relu(node)
        result = self.operation(node)
        return (result if gate is None else result * gate,)


class Between(nn.Module):
    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.inputs = Inputs(cell)

    def forward(self, before: Tensor, *nodes: Tensor) -> tuple[Tensor, ...]:
        last = F.relu(ops.concatenate(nodes))
        return last, *self.inputs(before, last)


class Inputs(nn.Module):
    """A cell's preprocessings."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        assert isinstance(cell, SearchCell)
        self.before, self.last = cell.before, cell.last

    def forward(self, before: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
        return self.before(before), self.last(last)


class End(nn.Module):
    def __init__(self, network: Supernet) -> None:
        super().__init__()
        self.classifier = network.classifier

    def forward(self, *nodes: Tensor) -> tuple[Tensor, ...]:
        return (self.classifier(ops.concatenate(nodes).mean((-2, -1))),)


# --- The network ---------------------------------------------------------------------------------


class Recorded:
    """A daas.Forward: the same function as the supernet's, computed piece by piece.

    One pass at a time, for the next one takes its feature maps: RuntimeError where another came
    between a pass and its backward pass.
    """

    def __init__(self, network: nn.Module) -> None:
        """network: a Supernet."""
        assert isinstance(network, Supernet)
        self.network = network
        self.of_shape: dict[torch.Size, Tracks] = {}

    def __call__(self, theta: Weights, z: Path, images: Tensor, gates: Tensor | None) -> Tensor:
        """Logits (B, classes), for reverse mode by theta and gates, or forward mode by theta."""
        if images.shape not in self.of_shape:
            self.of_shape[images.shape] = tracks = Tracks(self.network, images)
            _check(functional(self.network), tracks, theta, z, images)
        tracks = self.of_shape[images.shape]
        if forward_ad.unpack_dual(next(iter(theta.values()))).tangent is None:
            return tracks.both_ways(theta, z, images, gates)
        return tracks.along(theta, z, images)


class Tracks:
    """All that the paths of a supernet run on, for batches of one shape: the feature maps between
    the pieces, a copy of the weights that a pass replaces, and the pieces that have run so far."""

    def __init__(self, network: Supernet, images: Tensor) -> None:
        """images: a batch, for its shape, layout, type and device."""
        self.network = copy.deepcopy(network)
        self.weights = {name: Static.of(p.detach()) for name, p in self.network.named_parameters()}
        self._of_parameter = dict(
            zip(self.network.parameters(), self.weights.values(), strict=True)
        )
        self.images = torch.zeros_like(images)
        self.gates = Static.like(images.new_zeros(len(KINDS), len(EDGES), len(OPERATIONS)))
        with torch.no_grad():
            self.nodes, self.features, self.logits = self._feature_maps()
        self.pieces: dict[tuple[int, int, str, bool], Piece] = {}
        self.recorders: dict[tuple[int, int], Recorder] = {}
        self.stream = torch.cuda.Stream(images.device) if images.is_cuda else None
        self.passes = 0

    def _feature_maps(self) -> tuple[list[list[Static]], list[Static], Static]:
        """The nodes of every cell; what the stem and every cell but the last return; logits."""
        before, last = self.network.stem(self.images)
        nodes: list[list[Static]] = []
        features: list[Static] = []
        for cell in self.network.cells:
            assert isinstance(cell, SearchCell)
            features.append(Static.like(last))
            inputs = Inputs(cell)(before, last)
            inner = cell.edges[0].get_submodule(OPERATIONS[0])(inputs[0])
            nodes.append([Static.like(node) for node in (*inputs, *[inner] * NODES)])
            before, last = last, ops.concatenate([inner] * NODES)
        return nodes, features, Static.like(self.network.classifier(last.mean((-2, -1))))

    def both_ways(self, theta: Weights, z: Path, images: Tensor, gates: Tensor | None) -> Tensor:
        """Logits, to be differentiated by theta and gates."""
        return _Pass.apply(self, z, tuple(theta), images, gates, *theta.values())  # type: ignore[no-any-return]

    def along(self, theta: Weights, z: Path, images: Tensor) -> Tensor:
        """Logits along the tangents of theta, both dual."""
        values, tangents = zip(*map(taken_apart, theta.values()), strict=True)
        self.load(tuple(theta), values, images)
        _copy(tangents, [self.weights[name].tangent for name in theta])
        for piece in self.path(z, gated=False):
            piece.run("along")
        return forward_ad.make_dual(self.logits.value.clone(), self.logits.tangent.clone())

    def load(self, names: Sequence[str], values: Sequence[Tensor], images: Tensor) -> None:
        self.passes += 1
        self.images.copy_(images)
        _copy(values, [self.weights[name].value for name in names])

    def path(self, z: Path, *, gated: bool) -> list[Piece]:
        """Return the pieces of a path, in the order in which they run."""
        path: list[Piece] = []
        for index, kind in enumerate(self.network.kinds):
            path.append(self._piece(index, -1, "between" if index else "begin", False))
            for edge, operation in z[KINDS.index(kind)]:
                path.append(self._piece(index, edge, OPERATIONS[operation], gated))
        return [*path, self._piece(len(self.network.kinds), -1, "end", False)]

    def _piece(self, cell: int, edge: int, what: str, gated: bool) -> Piece:
        key = (cell, edge, what, gated)
        if key not in self.pieces:
            module, inputs, outputs, clears = self._between(*key)
            weights = {name: self._of_parameter[p] for name, p in module.named_parameters()}
            recorder = self.recorders.setdefault((cell, edge), Recorder(self.stream))
            self.pieces[key] = Piece(module, inputs, outputs, clears, weights, recorder)
        return self.pieces[key]

    def _between(
        self, index: int, edge: int, what: str, gated: bool
    ) -> tuple[nn.Module, list[Static], list[Static], list[Static]]:
        """Return what a piece computes, of what, what it adds to, and what it clears first."""
        network = self.network
        behind = self.nodes[index - 1][INPUTS:]
        if what == "end":
            return End(network), behind, [self.logits], [self.logits]
        nodes, features = self.nodes[index], self.features[index]
        opened = [features, *nodes[:INPUTS]], [features, *nodes]
        if what == "begin":
            return Begin(network, self.images), [], *opened
        if what == "between":
            before = self.features[index - 1]
            return Between(network.cells[index]), [before, *behind], *opened
        source, target = EDGES[edge]
        kind = KINDS.index(network.kinds[index])
        at = kind, edge, OPERATIONS.index(what)
        gate = [Static(*(part[at] for part in self.gates))] if gated else []
        operation = network.cells[index].get_submodule(f"edges.{edge}.{what}")
        return Edge(operation), [nodes[source], *gate], [nodes[target]], []


class _Pass(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        tracks: Tracks,
        z: Path,
        names: tuple[str, ...],
        images: Tensor,
        gates: Tensor | None,
        *theta: Tensor,
    ) -> Tensor:
        tracks.load(names, theta, images)
        ctx.pairs = None
        if gates is not None:
            rows = [(kind, *pair) for kind, pairs in enumerate(z) for pair in pairs]
            ctx.pairs = tuple(torch.tensor(rows, device=gates.device).T)
            tracks.gates.value[ctx.pairs] = gates
            tracks.gates.grad.zero_()
        ctx.tracks, ctx.names, ctx.number = tracks, names, tracks.passes
        ctx.path = tracks.path(z, gated=gates is not None)
        for piece in ctx.path:
            piece.run("forward")
        return tracks.logits.value.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        tracks: Tracks = ctx.tracks
        if tracks.passes != ctx.number:
            raise RuntimeError("another pass came before this one's backward pass")
        tracks.logits.grad.copy_(grads[0])
        for piece in reversed(ctx.path):
            piece.run("backward")
        by_gates = None if ctx.pairs is None else tracks.gates.grad[ctx.pairs]
        static = [tracks.weights[name].grad for name in ctx.names]
        by_theta = [torch.empty_like(grad) for grad in static]
        _copy(static, by_theta)
        return None, None, None, None, by_gates, *by_theta


def _check(plain: Forward, tracks: Tracks, theta: Weights, z: Path, images: Tensor) -> None:
    """ConfigError if a path's gradient is not the network's own. What is recorded wrongly on some
    machine is noise that a search would believe."""
    weights = {name: forward_ad.unpack_dual(value).primal for name, value in theta.items()}
    batch = Batch(images, torch.zeros(len(images), dtype=torch.long, device=images.device))
    expected, found = (
        flat(forward_backward(forward, weights, z, batch).theta_grad)
        for forward in (plain, tracks.both_ways)
    )
    apart = float((found - expected).norm() / expected.norm())
    if not apart < TOLERANCE:
        raise ConfigError(
            f"search.cuda_graphs=true is not possible here: gradients differ by {apart:.1e} of "
            "their norm; expected false"
        )


def _copy(given: Sequence[Tensor], into: Sequence[Tensor]) -> None:
    """Copy tensors in one launch."""
    torch._foreach_copy_(list(into), list(given))  # pyright: ignore
