"""The mesh, on real gloo processes: what comes out does not depend on how many there are."""

import multiprocessing
import os
import pickle
import socket
import time
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any

import pytest
import torch
from torch import Tensor

from daas_dist.daas import Contribution, Weights
from daas_dist.mesh import Mesh, connect
from daas_dist.rng import stream

THETA: Weights = {"stem": torch.zeros(4, 3), "edge": torch.zeros(2, 2, 5), "head": torch.zeros(7)}
FORK = multiprocessing.get_context("fork")
"""Importing torch once is enough."""

forks = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


def in_ranks(
    world: int, task: Callable[[Mesh], Any], patience: timedelta | None = None
) -> list[Any]:
    """What task(mesh) returns on each of `world` connected processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    receivers, processes = [], []
    for rank in range(world):
        receive, send = FORK.Pipe(duplex=False)
        arguments = rank, world, port, task, patience, send
        process = FORK.Process(target=_rank, args=arguments, daemon=True)
        process.start()
        send.close()
        receivers.append(receive)
        processes.append(process)
    try:
        assert all(receive.poll(60) for receive in receivers)
        return [pickle.loads(receive.recv_bytes()) for receive in receivers]
    finally:
        for process in processes:
            process.join(5)
            process.kill()


def _rank(
    rank: int,
    world: int,
    port: int,
    task: Callable[[Mesh], Any],
    patience: timedelta | None,
    send: Connection,
) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    mesh = connect("cpu", patience)
    send.send_bytes(pickle.dumps(task(mesh)))
    mesh.close()


def active(index: int) -> Weights:
    names = [["stem", "head"], ["edge"], ["stem", "edge", "head"]][index % 3]
    return {name: THETA[name] for name in names}


def term(index: int, rewards: int = 6) -> Contribution:
    generator = stream(index, "term")

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) * 10 ** (index - 2)

    return Contribution(
        z_grad_CS=normal(2, 8),
        reward_J=normal(rewards),
        train_loss_accuracy=normal(2),
        val_loss_accuracy=normal(2),
        theta_grad={name: normal(*value.shape) for name, value in active(index).items()},
        val_grad={name: normal(*value.shape) for name, value in active(index).items()},
    )


def assert_same(given: Contribution, expected: Contribution, gradients: tuple[str, ...]) -> None:
    for name in ("z_grad_CS", "reward_J", "train_loss_accuracy", "val_loss_accuracy"):
        assert torch.equal(getattr(given, name), getattr(expected, name)), name
    for name in gradients:
        given_grad, expected_grad = getattr(given, name), getattr(expected, name)
        assert list(given_grad) == list(expected_grad)
        for weights, value in expected_grad.items():
            assert torch.equal(given_grad[weights], value)


@forks
@pytest.mark.parametrize("gradients", [(), ("theta_grad",), ("val_grad", "theta_grad")])
@pytest.mark.parametrize(("world", "count"), [(1, 5), (2, 5), (3, 5), (3, 2)])
def test_every_rank_gets_every_term_whoever_computed_it(
    world: int, count: int, gradients: tuple[str, ...]
) -> None:
    """5 terms on 2 and 3 ranks are dealt unevenly; of 3 ranks with 2 terms one computes none."""

    def task(mesh: Mesh) -> tuple[list[int], list[Contribution]]:
        computed = []

        def counted(index: int) -> Contribution:
            computed.append(index)
            return term(index)

        return computed, mesh.deal(count, counted, gradients, active)

    results = in_ranks(world, task) if world > 1 else [task(Mesh())]
    assert sorted(index for computed, _ in results for index in computed) == list(range(count))
    for _, terms in results:
        assert len(terms) == count
        for index, given in enumerate(terms):
            assert_same(given, term(index), gradients)


@forks
def test_the_ranks_agree() -> None:
    def task(mesh: Mesh) -> Any:
        return (
            mesh.highest(mesh.rank % 2),
            mesh.highest(0),
            mesh.agree(f"from {mesh.rank}"),
            mesh.gather({mesh.rank: "x" * mesh.rank}),
            (mesh.rank, mesh.world, mesh.leads),
        )

    for rank, (some, none, text, gathered, own) in enumerate(in_ranks(3, task)):
        assert some == 1 and none == 0
        assert text == "from 0"
        assert gathered == [{0: ""}, {1: "x"}, {2: "xx"}]
        assert own == (rank, 3, rank == 0)


def test_one_process_agrees_with_itself() -> None:
    mesh = Mesh()
    assert mesh.highest(3) == 3
    assert mesh.agree("this") == "this"
    assert mesh.gather(4) == [4]


@forks
def test_patience_is_how_long_a_rank_waits() -> None:
    def task(mesh: Mesh) -> Any:
        time.sleep(1.5 * mesh.rank)
        try:
            return mesh.gather(mesh.rank)
        except RuntimeError:
            return "gave up"

    assert in_ranks(2, task, timedelta(seconds=0.5))[0] == "gave up"
    assert in_ranks(2, task, timedelta(seconds=30)) == [[0, 1], [0, 1]]


@pytest.mark.parametrize("world", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [0, 1, 3, 10])
def test_every_index_has_one_owner(world: int, count: int) -> None:
    meshes = [Mesh(rank, world) for rank in range(world)]
    dealt = {index: mesh.rank for mesh in meshes for index in mesh.mine(count)}
    assert dealt == {index: Mesh(0, world).owner(index) for index in range(count)}
    sizes = [len(mesh.mine(count)) for mesh in meshes]
    assert sum(sizes) == count and max(sizes) - min(sizes) <= 1


@forks
def test_traffic_is_what_comes_from_the_others() -> None:
    """5 terms on 2 ranks: rank 0 has terms 0, 2 and 4; every rank sends as much as the fullest."""

    def task(mesh: Mesh) -> Any:
        mesh.deal(5, term, ("theta_grad",), active)
        taken = mesh.traffic.take()
        return {purpose: each["bytes"] for purpose, each in taken.items()}, mesh.traffic.take()

    sizes = [sum(value.numel() for value in active(i).values()) for i in range(5)]
    numbers = 2 * 8 + 4 + 6
    for taken, after in in_ranks(2, task):
        assert taken == {
            "arch: numbers": 4 * 3 * numbers,
            "arch: gradients by the weights": 4 * (sizes[0] + sizes[2] + sizes[4]),
        }
        assert after == {}
