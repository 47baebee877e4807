"""The run of a search: data and network from a configuration, resume, the steps, the result."""

import os
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import nn

from daas_dist import models
from daas_dist.config import Config, Frozen
from daas_dist.data.dataset import (
    DataSet,
    load_data_in_turn,
    tell_read,
)
from daas_dist.data.enough import Use
from daas_dist.distributed.mesh import Mesh, choose_data, share_batches
from daas_dist.documents import lines, results
from daas_dist.documents.escaping import told
from daas_dist.documents.metrics import SearchRow
from daas_dist.documents.run import PROVENANCE
from daas_dist.models.network import Network
from daas_dist.models.small import FixedNetwork
from daas_dist.models.supernet import Supernet
from daas_dist.models.sync_norm import synchronise
from daas_dist.report.samples import Samples
from daas_dist.report.watch import Display
from daas_dist.results.searched import load_genotype, load_policy
from daas_dist.rng import stream
from daas_dist.runs.job import Job, Report, at_work, load_together
from daas_dist.runs.log import METRICS, RunLog
from daas_dist.runs.loop import Asked, Beat, take_turns
from daas_dist.runs.memory import within_memory
from daas_dist.search import findings
from daas_dist.search.steps import Search, SearchData

LOWER = "search.batch_size or model.channels"
"""What helps where a device has too little memory."""


def build_network(config: Config, classes: int) -> nn.Module:
    """The supernet, or the fixed network whose policy is searched."""
    model, channels = config.model, config.data.channels
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream(config.seed, "weights").initial_seed())
        if model.name == "supernet":
            return Supernet(model.channels, model.cells, classes, channels, model.stem)
        if model.name != "genotype":
            name = model.network or model.name
            return FixedNetwork(models.build(name, classes=classes, in_channels=channels))
        genotype = load_genotype(Path(str(model.genotype)))
        return FixedNetwork(
            Network(genotype, model.channels, model.cells, classes, channels, model.stem)
        )


def run_search(config: Config, report: Report | None = None) -> Path:
    """Search, to the end or until stopped; the run directory. Resumes what is already there.

    report: what rank 0 does with a finished run directory while the others wait.
    """
    settings = config.search

    def arrange(mesh: Mesh, patience: timedelta) -> Mesh:
        node = int(os.environ.get("LOCAL_WORLD_SIZE", mesh.world))
        data = choose_data(
            config.mesh, mesh.world, node, settings.architectures, settings.batch_size
        )
        return share_batches(mesh, data, patience)

    with at_work(config, Frozen(config), arrange, report=report) as job:
        use = Use(2, "search.batch_size", settings.batch_size)
        data = load_data_in_turn(config.data, config.seed, use, job.mesh)
        train, val = data.train.split(1 - config.data.val_share, config.seed)
        fixed = load_policy(Path(config.policy.fixed)) if config.policy.fixed else None
        network = build_network(config, len(train.classes))
        if job.mesh.data > 1 and config.mesh.norm == "synchronised":
            network = synchronise(network, job.mesh.statistics)
        search = Search(
            config,
            SearchData(train, val, data.mean, data.std, fixed),
            network,
            job.mesh,
            job.device,
        )
        sha256 = data.train.digest()
        job.mesh.led(lambda: job.record_provenance(sha256))
        _resume(search, job)
        if job.log is not None:
            # A start without a checkpoint repeats everything: nothing logged before it is kept.
            began = (job.run_dir / "metrics.jsonl").exists()
            job.log.resume(search.state.step) if began else job.log.start()
            tell_read(data, job.log)
            _warn_of_idle_ranks(config, job)
        if _steps(search, job) and job.log is not None:
            _finish(search, data, job)
        return job.run_dir


def _warn_of_idle_ranks(config: Config, job: Job) -> None:
    idle = job.mesh.arch - config.search.architectures
    if idle > 0 and job.log is not None:
        message = (
            f"{idle * job.mesh.data} of {job.mesh.world} ranks have no architecture in a step of "
            "the search; mesh.data above 1 (or null) lets ranks share a batch"
        )
        print(told(message), file=sys.stderr)
        job.log.event("warning", message=message)


def _resume(search: Search, job: Job) -> None:
    """Go on from the newest whole checkpoint."""

    def warn(text: str) -> None:
        if job.log is not None:
            job.log.event("warning", message=text)

    saved = load_together(job.mesh, job.run_dir / "checkpoints", warn)
    if saved is not None:
        search.state.load(saved[1])


def _steps(search: Search, job: Job) -> bool:
    """Make the steps. Whether the last one was reached."""
    with Display(job.run_dir.name) if job.mesh.leads else nullcontext() as display:
        steps = Steps(search, display)
        reason = take_turns(steps, job, job.mesh, job.log, milestones=[steps.warmed_up])
    if reason and job.log is not None:
        job.log.event("stopped", step=steps.step, reason=reason)
    return not reason


class Steps:
    """The steps of a search, a turn each."""

    def __init__(self, search: Search, display: Display | None) -> None:
        """display: on the rank that prints."""
        self.search, self.settings, self.display = search, search.config.search, display
        self.warmed_up = self.settings.warmup_epochs * search.train_batches.steps_per_epoch
        """Kept for good: the last state that no policy has touched."""
        self.began, self.before = time.monotonic(), search.state.seconds
        self.last = self.step, self.began
        """The step of the last line of metrics, and when it was told."""
        self.left_out = ""

    @property
    def step(self) -> int:
        return self.search.state.step

    @property
    def done(self) -> bool:
        return self.step >= self.search.steps

    @property
    def due(self) -> bool:
        return self.step % self.settings.checkpoint_every == 0 or self.step == self.warmed_up

    @property
    def warnings(self) -> Sequence[str]:
        return self.search.feed.warnings

    def turn(self, beat: Beat, asked: Asked) -> None:
        phase = "warm-up" if self.search.warming_up else "joint"
        with within_memory(LOWER, f"step {self.step} ({phase} phase): "):
            self.left_out = self.search.step()
        self.search.state.seconds = self.before + time.monotonic() - self.began

    def tell(self, log: RunLog | None) -> None:
        if log is not None and self.left_out:
            log.event("non_finite", step=self.step, message=self.left_out)
        if self.step % self.settings.log_every and not self.done:
            return
        (step, told), self.last = self.last, (self.step, time.monotonic())
        images = (self.step - step) * self.settings.batch_size
        row = findings.metrics(self.search, images / max(self.last[1] - told, 1e-9))
        if log is not None:
            log.metric(row)
        if self.display is not None:
            self.display.row(SearchRow.parse(row))

    def state(self) -> dict[str, Any]:
        return self.search.state.save()


def _finish(search: Search, data: DataSet, job: Job) -> None:
    run_dir = job.run_dir
    (row,), _ = lines.last(run_dir / METRICS, SearchRow.parse, 1)
    policy = search.policy()
    if policy is not None:
        shown = data.train.central(torch.arange(8))
        Samples.draw(shown, policy.apply, stream(search.config.seed, "samples")).save(run_dir)
    made_by = PROVENANCE.read(run_dir)
    assert made_by is not None
    results.write(run_dir, findings.result(search, data, row.val_accuracy, made_by))
    assert job.log is not None
    job.log.finish("DONE")
