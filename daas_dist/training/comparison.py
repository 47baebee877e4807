"""Training from scratch: what was found, beside baselines, under the same recipe (paper, Sec. 5).

A row of the comparison is an architecture, a policy and a seed. With engine=alone one rank trains a
whole row and the rows are dealt over the ranks; else all ranks train every row together, one after
the other. loop.py has one network's training, engine/ its step.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import product
from pathlib import Path
from typing import Any

from daas_dist.config import Config, ConfigError, Frozen
from daas_dist.config.schema import Train
from daas_dist.data.dataset import DataSet, load_data_in_turn, tell_read
from daas_dist.data.enough import Use
from daas_dist.distributed.cut import Cut, cut
from daas_dist.distributed.mesh import Mesh
from daas_dist.documents import lines, results
from daas_dist.documents import run as documents
from daas_dist.documents.metrics import TrainingRow, best_accuracy
from daas_dist.documents.results import (
    COMPARISON,
    EVALUATION,
    SEARCH_COPY,
    ComparedRow,
    Comparison,
    SearchResult,
)
from daas_dist.documents.run import CUT
from daas_dist.report.watch import plain_line
from daas_dist.results.searched import load
from daas_dist.rng import Part
from daas_dist.runs.job import PROVENANCE, Job, Report, at_work, load_together
from daas_dist.runs.log import METRICS, RunLog
from daas_dist.runs.loop import Asked, Beat, take_turns
from daas_dist.training import engine, outcome
from daas_dist.training.loop import Training
from daas_dist.training.rows import Row


def run_training(config: Config, report: Report | None = None) -> Path:
    """Train every row of train.compare with every seed, or until stopped; the run directory.

    report: what rank 0 does with a finished run directory while the others wait.

    What is complete is not trained again; what is not goes on after the step at which it stopped,
    or after its last complete epoch if it was killed.
    """
    # A wrong file fails here, before anything is written.
    searched = _found(config)
    together, settings = config.engine.name in engine.SHARING, config.train

    def arrange(mesh: Mesh, _: timedelta) -> Mesh:
        if together:  # what the ranks cannot share is refused here
            cut(settings.batch_size, settings.micro_batch, Part(mesh.rank, mesh.world))
        return mesh

    frozen = Frozen(config)
    with at_work(config, frozen, arrange, exchanges=together, report=report) as job:
        if searched is not None:
            job.mesh.led(lambda: _keep(searched, job.run_dir))
        team = job.mesh if together else Mesh()
        shared = _cut(settings, job, team)
        use = Use(1, "train.batch_size", settings.batch_size)
        data = load_data_in_turn(config.data, config.seed, use, job.mesh)
        sha256 = data.train.digest()
        job.mesh.led(lambda: job.record_provenance(sha256))
        if job.log is not None:
            job.log.start()
            tell_read(data, job.log)
        rows = [Row(*each) for each in product(settings.compare, settings.seeds)]
        done: dict[int, ComparedRow] = {}
        for i in range(len(rows)) if together else job.mesh.mine(len(rows)):
            trained = _train(config, data, rows[i], job, team, shared)
            if trained is False:
                break
            if isinstance(trained, ComparedRow):
                done[i] = trained
            if job.log is not None:
                _write_comparison(config, job, done)
        done = {i: row for part in job.mesh.gather(done) for i, row in part.items()}
        why = job.asked(job.mesh)
        if job.log is not None:
            _write_comparison(config, job, done)
            if len(done) == len(rows):
                job.log.finish("DONE")
            else:
                job.log.event("stopped", reason=why)
        return job.run_dir


def _found(config: Config) -> SearchResult | None:
    """Return what the found rows train: train.result, with the policy of train.policy_result if
    given."""
    if config.train.result is None:
        return None
    searched = load(config.train.result).document
    if config.train.policy_result is not None:
        searched = replace(searched, policy=load(config.train.policy_result).document.policy)
    return searched


def _keep(searched: SearchResult, run_dir: Path) -> None:
    """A copy of the search's result, since a comparison is of one architecture and one policy.

    ConfigError where the run directory has trainings of another.
    """
    kept = SEARCH_COPY.read(run_dir)
    if kept is None:
        SEARCH_COPY.write(run_dir, searched)
    elif (kept.genotype, kept.policy) != (searched.genotype, searched.policy):
        raise ConfigError(
            f"{run_dir} holds trainings of another architecture or policy than train.result has "
            f"now ({run_dir / SEARCH_COPY.file} has theirs); set run_dir to a new folder"
        )


def _cut(settings: Train, job: Job, team: Mesh) -> Cut:
    """Return how the ranks share a batch. Where train.micro_batch is null the first start decides,
    as another number of ranks would otherwise go on with another batch norm."""
    part = Part(team.rank, team.world)

    def first() -> str:
        began = (job.run_dir / PROVENANCE).exists()
        if not began or CUT.read(job.run_dir) is None:
            CUT.write(job.run_dir, documents.Cut(cut(settings.batch_size, None, part).micro_batch))
        kept = CUT.read(job.run_dir)
        assert kept is not None
        return str(kept.micro_batch)

    micro_batch = settings.micro_batch or int(job.mesh.led(first))
    return cut(settings.batch_size, micro_batch, part)


def _write_comparison(config: Config, job: Job, done: Mapping[int, ComparedRow]) -> None:
    job.check_ours()
    rows = [done[i] for i in sorted(done)]
    search = config.train.result
    COMPARISON.write(job.run_dir, Comparison(schema=1, kind="training", search=search, rows=rows))


def _train(
    config: Config, data: DataSet, row: Row, job: Job, team: Mesh, cut: Cut
) -> ComparedRow | bool:
    """The row of the comparison, True where another rank writes it, False if it was stopped."""
    folder = job.run_dir / "trainings" / row.name
    training = Training(config, data, row, team, cut, job.device)
    saved = load_together(team, folder / "checkpoints")
    if saved is not None:
        training.load(*saved)
    record = Record(config, training, folder) if team.leads else None
    log = None if record is None else record.log
    if take_turns(Epochs(training, record), job, team, log):
        return False
    return True if record is None else record.finish()


class Epochs:
    """The epochs of a training, a turn each. One that is stopped goes on in the next life."""

    due = True

    def __init__(self, training: Training, record: "Record | None") -> None:
        self.training, self.record = training, record
        self.metrics: dict[str, Any] | None = None
        """Of the epoch of the last turn, if it was finished."""

    @property
    def step(self) -> int:
        return self.training.step

    @property
    def done(self) -> bool:
        return self.training.epoch >= self.training.settings.epochs

    @property
    def warnings(self) -> Sequence[str]:
        return self.training.feed.warnings

    def turn(self, beat: Beat, asked: Asked) -> None:
        self.metrics = self.training.train_epoch(beat, asked)
        self.training.note_memory()

    def tell(self, log: RunLog | None) -> None:
        if self.record is not None and self.metrics is not None:
            self.record.tell(self.metrics)

    def state(self) -> dict[str, Any]:
        return self.training.state()


class Record:
    """What one rank writes of a row, in trainings/<row>."""

    def __init__(self, config: Config, training: Training, folder: Path) -> None:
        self.config, self.training, self.folder = config, training, folder
        self.log = RunLog(folder, config.tensorboard)
        self.log.truncate_after(training.epoch, "epoch")

    def tell(self, metrics: dict[str, Any]) -> None:
        """Keep what an epoch gave, and its weights if none tested better."""
        assert self.training.evaluation is not None
        EVALUATION.write(self.folder, self.training.evaluation)
        row, first = TrainingRow.parse(metrics), metrics["epoch"] == 1
        if first or row.test_accuracy > best_accuracy(self.folder):
            outcome.write_weights(self.folder / outcome.BEST, self.training.network)
        self.log.metric(metrics)
        print(f"{self.training.row.name}: {plain_line(row)}", flush=True)

    def finish(self) -> ComparedRow:
        """The weights, and result.json; its row of the comparison."""
        network, average = self.training.network, self.training.average
        ema = None
        if average is not None:
            ema = outcome.write_weights(self.folder / outcome.EMA, average.module)
        tested = EVALUATION.read(self.folder)
        assert tested is not None
        result = outcome.result(
            self.config,
            self.training,
            epochs=lines.read(self.folder / METRICS, TrainingRow.parse)[0],
            tested=tested,
            weights=outcome.write_weights(self.folder / outcome.LAST, network),
            weights_best=outcome.described(self.folder / outcome.BEST),
            weights_ema=ema,
        )
        results.write(self.folder, result)
        return result.compared()
