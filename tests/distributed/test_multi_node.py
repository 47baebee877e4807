"""docs/multi_node.md, command by command: on two network namespaces, each with an address and an
interface of its own, or, where none can be made, on two addresses of the loopback."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torture
from whole_runs import PATIENCE, events, finish, needs_fashion_mnist, steps, wait

from daas_dist import config
from daas_dist.config.site import DATA
from daas_dist.data import FASHION_MNIST_ROOT

pytestmark = needs_fashion_mnist
PAGE = Path(__file__).parents[2] / "docs" / "multi_node.md"
ADDRESSES = ("10.0.0.1", "10.0.0.2")
MORE = ("data.limit=64", "search.checkpoint_every=1", "search.log_every=1")
"""As long as it takes to be stopped half way."""


@dataclass(frozen=True)
class Machine:
    """In front of its commands, and what of the page is called otherwise there."""

    front: tuple[str, ...]
    renamed: dict[str, str]


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def machines() -> Iterator[dict[str, Machine]]:
    names = [f"daas-{os.getpid()}-{i}" for i in (1, 2)]
    try:
        for name in names:
            _ip("netns", "add", name)
        _ip("link", "add", "eth0", "netns", names[0], "type", "veth",
            "peer", "name", "eth0", "netns", names[1])  # fmt: skip
        for name, address in zip(names, ADDRESSES, strict=True):
            _ip("-n", name, "address", "add", f"{address}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                _ip("-n", name, "link", "set", device, "up")
        made = {a: Machine(("ip", "netns", "exec", n), {})
                for a, n in zip(ADDRESSES, names, strict=True)}  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        renamed = {"10.0.0.": "127.0.0.", "eth0": "lo", ":29400": ":29411", "29500": "29511"}
        made = {address: Machine((), renamed) for address in ADDRESSES}
    yield made
    for name in names:
        subprocess.run(["ip", "netns", "delete", name], capture_output=True)


def blocks() -> list[dict[str, str]]:
    """Of each block of commands: by machine, what is typed there."""
    found = re.findall(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    parts = [re.split(r"# on (\S+)\n", block)[1:] for block in found]
    return [dict(zip(part[::2], part[1::2], strict=True)) for part in parts]


def begin(
    typed: dict[str, str], machines: dict[str, Machine], shared: Path
) -> "list[subprocess.Popen[bytes]]":
    """All machines' commands at once."""
    started = []
    for address, text in typed.items():
        machine, log = machines[address], shared / f"{address}.log"
        for name, here in {**machine.renamed, "/shared": str(shared)}.items():
            text = text.replace(name, here)
        text = re.sub("^(torchrun .*)$", rf"\1 {' '.join(MORE)}", text, flags=re.MULTILINE)
        # The images lie elsewhere on each.
        data = shared / f"data of {address}"
        data.mkdir(exist_ok=True)
        if not (data / "fashion_mnist").exists():
            (data / "fashion_mnist").symlink_to(FASHION_MNIST_ROOT)
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": path, DATA: str(data)}
        with log.open("ab") as file:
            command = [*machine.front, "bash", "-ec", text]
            started.append(subprocess.Popen(command, env=environment, stdout=file, stderr=file))
    return started


def end(started: "Sequence[subprocess.Popen[bytes]]", shared: Path) -> None:
    until = time.monotonic() + PATIENCE
    try:
        for each in started:
            status = each.wait(max(1.0, until - time.monotonic()))
            logs = [path.read_text(encoding="utf-8") for path in shared.glob("*.log")]
            assert status == 0, "\n".join(logs)
    finally:
        for each in started:
            each.kill()


@pytest.mark.long
def test_every_command_of_the_page(machines: dict[str, Machine], tmp_path: Path) -> None:
    run_dir = tmp_path / "runs" / "mine"
    known, stop, go_on, found = blocks()
    started = begin(known, machines, tmp_path)
    wait(lambda: steps(run_dir) >= 2 or any(p.poll() is not None for p in started), "two steps")
    end(begin(stop, machines, tmp_path), tmp_path)
    end(started, tmp_path)
    assert events(run_dir)[-1]["event"] == "stopped" and not (run_dir / "DONE").exists()
    end(begin(go_on, machines, tmp_path), tmp_path)
    end(begin(found, machines, tmp_path), tmp_path)
    assert (run_dir / "DONE").exists() and events(run_dir, "resumed")
    root = config.load_frozen(run_dir / "config.yaml").data.root
    assert root == f"{tmp_path}/data of 10.0.0.1/fashion_mnist"
    peaceful = tmp_path / "peaceful"
    words = ["stage=search_fashion", "preset=tiny", *MORE, f'run_dir="{peaceful}"']
    finish("daas_dist", *words)
    torture.same(run_dir, peaceful)
