"""The run of a search: data and network from a configuration, resume, the steps, the result."""

import os
import sys
import time
from datetime import timedelta
from pathlib import Path

import torch
from torch import nn

from daas_dist import models
from daas_dist.config import Config, Frozen
from daas_dist.data.dataset import (
    DataSet,
    load_data_in_turn,
    tell_read,
    tell_replaced,
)
from daas_dist.data.enough import Use
from daas_dist.distributed.faults import Watchdog
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
from daas_dist.runs import checkpoint, stopping
from daas_dist.runs.job import Job, Report, at_work, load_together
from daas_dist.runs.log import METRICS
from daas_dist.search import findings
from daas_dist.search.steps import Search, SearchData


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
    """Step, log, save, stop. Whether the last step was reached."""
    settings, state, log = search.config.search, search.state, job.log
    # Kept for good: the last state that no policy has touched.
    warmed_up = settings.warmup_epochs * search.train_batches.steps_per_epoch
    with (
        Display(job.run_dir.name) if job.mesh.leads else _Silent() as display,
        Watchdog(job.mesh.rank, 60 * search.config.patience_minutes, job.run_dir) as watchdog,
    ):
        began, before, images, replaced = time.monotonic(), state.seconds, 0, 0
        while state.step < search.steps:
            left_out = _step(search)
            watchdog.beat()
            job.check_ours()
            replaced = tell_replaced(search.feed, replaced, log)
            images += settings.batch_size
            state.seconds = before + time.monotonic() - began
            last = state.step == search.steps
            if log is not None and left_out:
                log.event("non_finite", step=state.step, message=left_out)
            if state.step % settings.log_every == 0 or last:
                row = findings.metrics(search, images / max(time.monotonic() - began, 1e-9))
                if log is not None:
                    log.metric(row)
                    display.row(SearchRow.parse(row))
            reason = stopping.REASONS[job.mesh.highest(job.stop.asked())]
            due = state.step % settings.checkpoint_every == 0 or state.step == warmed_up
            if log is not None and (due or last or reason):
                folder, keep = job.run_dir / "checkpoints", settings.keep_checkpoints
                checkpoint.save(folder, state.step, state.save(), keep, milestones=[warmed_up])
            if reason and not last:
                if log is not None:
                    log.event("stopped", step=state.step, reason=reason)
                return False
    return True


def _step(search: Search) -> str:
    try:
        return search.step()
    except torch.OutOfMemoryError as error:
        phase = "warm-up" if search.warming_up else "joint"
        raise MemoryError(
            f"step {search.state.step} ({phase} phase): the device has too little memory; lower "
            "search.batch_size or model.channels"
        ) from error


class _Silent:
    """The display of a rank that does not print."""

    def __enter__(self) -> "_Silent":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def row(self, row: SearchRow) -> None:
        pass


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
