"""A piece of a network between tensors that stay where they are, as CUDA graphs: recorded at its
first use, then replayed. Not in the paper.

On a CPU nothing is recorded: what would be is called, which computes the same.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call


class Static(NamedTuple):
    """A tensor that stays where it is, its gradient, and its tangent in a forward-mode pass."""

    value: Tensor
    grad: Tensor
    tangent: Tensor

    @staticmethod
    def of(value: Tensor) -> "Static":
        return Static(value, torch.zeros_like(value), torch.zeros_like(value))

    @staticmethod
    def like(value: Tensor) -> "Static":
        return Static.of(torch.zeros_like(value))

    def dual(self) -> Tensor:
        return forward_ad.make_dual(self.value, self.tangent)


class Recorder:
    """Records pieces that are never at work together: they share their memory."""

    def __init__(self, stream: torch.cuda.Stream | None) -> None:
        """stream: to record on; None on a CPU, where what shall be recorded is called."""
        self.stream = stream
        self.pool = None if stream is None else torch.cuda.graph_pool_handle()

    def record(
        self, works: dict[str, Callable[[], None]], warm: Callable[[], object]
    ) -> dict[str, Callable[[], None]]:
        """Return what does each of the works, in this order. warm: computes them and keeps
        nothing."""
        if self.stream is None:
            return works
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            warm()  # kernels are chosen, libraries take their workspaces
            torch.cuda.synchronize()
            graphs = {name: self._captured(work) for name, work in works.items()}
        torch.cuda.current_stream().wait_stream(self.stream)
        return {name: graph.replay for name, graph in graphs.items()}

    def _captured(self, work: Callable[[], None]) -> torch.cuda.CUDAGraph:
        # Not by torch.cuda.graph, which empties the cache each time. Other threads go on meanwhile.
        graph = torch.cuda.CUDAGraph()
        graph.capture_begin(self.pool, capture_error_mode="thread_local")
        try:
            work()
        finally:
            graph.capture_end()
        return graph


class Piece:
    """outputs += module(inputs). Backward, inputs.grad += and weights.grad = what outputs.grad
    gives; along tangents, outputs += and outputs.tangent += module's."""

    def __init__(
        self,
        module: nn.Module,
        inputs: Sequence[Static],
        outputs: Sequence[Static],
        clears: Sequence[Static],
        weights: dict[str, Static],
        recorder: Recorder,
    ) -> None:
        """clears: what is set to 0 first, being this and later pieces' outputs."""
        self.module, self.inputs, self.outputs, self.clears = module, inputs, outputs, clears
        self.weights, self.recorder = weights, recorder
        self.replays: dict[str, Callable[[], None]] = {}
        self.graph: tuple[list[Tensor], tuple[Tensor, ...]] | None = None

    def run(self, which: str) -> None:
        """forward, then backward; or along."""
        if which not in self.replays:
            if which == "along":
                self.replays |= self.recorder.record({which: self._along}, self._tangents)
            else:
                works = {"forward": self._forward, "backward": self._backward}
                self.replays |= self.recorder.record(works, self._gradients)
        self.replays[which]()

    # Recorded: none of it is kept, but for what it does to tensors that stay.

    def _forward(self) -> None:
        self.graph = self._computed()
        for one in self.clears:
            one.value.zero_()
            one.grad.zero_()
        for output, result in zip(self.outputs, self.graph[1], strict=True):
            output.value.add_(result.detach())

    def _backward(self) -> None:
        gradients = self._gradients()
        for own, gradient in zip(self.inputs, gradients, strict=False):
            own.grad.add_(gradient)
        for own, gradient in zip(self.weights.values(), gradients[len(self.inputs) :], strict=True):
            own.grad.copy_(gradient)

    def _along(self) -> None:
        duals = self._tangents()
        for one in self.clears:
            one.value.zero_()
            one.tangent.zero_()
        for output, (result, tangent) in zip(self.outputs, duals, strict=True):
            output.value.add_(result)
            output.tangent.add_(tangent)

    def _computed(self) -> tuple[list[Tensor], tuple[Tensor, ...]]:
        leaves = [one.value.detach().requires_grad_() for one in self.inputs]
        with torch.enable_grad():
            return leaves, self.module(*leaves)

    def _gradients(self) -> Sequence[Tensor]:
        """Return gradients by inputs, then by weights; ends the graph that _forward left."""
        leaves, results = self.graph or self._computed()
        self.graph = None
        wanted = [*leaves, *self.module.parameters()]
        return torch.autograd.grad(results, wanted, [output.grad for output in self.outputs])

    def _tangents(self) -> list[tuple[Tensor, Tensor]]:
        """The results, each with its tangent; within forward_ad.dual_level()."""
        weights = {name: one.dual() for name, one in self.weights.items()}
        inputs = tuple(one.dual() for one in self.inputs)
        with torch.no_grad():
            results = functional_call(self.module, weights, inputs, tie_weights=False)
        return [taken_apart(result) for result in results]


def taken_apart(dual: Tensor) -> tuple[Tensor, Tensor]:
    value, tangent = forward_ad.unpack_dual(dual)
    assert tangent is not None
    return value, tangent
