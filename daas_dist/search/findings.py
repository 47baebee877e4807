"""What a search has found so far: a line of metrics.jsonl, and result.json."""

import time
from dataclasses import asdict
from typing import Any

import torch

from daas_dist.config import values_of
from daas_dist.data.dataset import DataSet
from daas_dist.documents.results import (
    Derived,
    SearchedData,
    SearchResult,
    Telemetry,
    Unlimited,
)
from daas_dist.documents.run import Provenance
from daas_dist.search.budget import expected_cost
from daas_dist.search.metrics import Interval
from daas_dist.search.steps import Search
from daas_dist.spaces.cells import Genotype


def metrics(search: Search, images_per_second: float) -> dict[str, Any]:
    """One line of metrics.jsonl, the means since the last line; starts the next interval."""
    state = search.state
    numbers: dict[str, Any] = dict(state.interval.means())
    state.interval = Interval.empty()
    told = search.method.progress(state.detached(), search.progress)
    share = told["operation_share"]
    genotype, found = search.genotype(), search.policy()
    epoch = search.train_batches.epoch(state.step - 1) + 1  # of the last step, from 1
    return {
        "step": state.step,
        "epoch": epoch,
        "steps": search.steps,
        "epochs": search.epochs,
        "phase": "warmup" if epoch <= search.config.search.warmup_epochs else "joint",
        "time": time.time(),
        "images_per_second": images_per_second,
        "tau": told["tau"],
        "learning_rate": search.learning_rate,
        **numbers,
        "entropy": told["entropy"],
        "operation_share": share,
        "skip_share": {kind: ops["skip_connect"] for kind, ops in share.items()} if share else None,
        "policy_weight": dict(found.ranking()) if found else None,
        "genotype": asdict(genotype) if genotype else None,
        "parameters": search.costs.parameters.of(genotype) if genotype else None,
        "multiply_adds": search.costs.multiply_adds.of(genotype) if genotype else None,
        "expected_multiply_adds": _expected_multiply_adds(search),
        "price": _price(search),
        "communication": search.mesh.traffic.take(),
        "idle_share": search.mesh.traffic.idle(),
    }


def result(
    search: Search, data: DataSet, val_accuracy: float | None, made_by: Provenance | None
) -> SearchResult:
    """Return result.json. val_accuracy: of the last interval."""
    state, images = search.state, data.train
    genotype, found = search.genotype(), search.policy()
    learned = search.method.document(state.detached(), state.memory)
    return SearchResult(
        schema=1,
        kind="search",
        genotype=genotype.to_document() if genotype else None,
        policy=found.to_document() if found else None,
        evidence=learned.evidence,
        alpha=learned.alpha,
        beta=learned.beta,
        derived=_derived(search, genotype) if genotype else None,
        telemetry=Telemetry(state.step, state.passes, state.seconds, val_accuracy),
        data=SearchedData(
            name=search.config.data.name,
            classes=list(images.classes),
            mean=data.mean,
            std=data.std,
            shape=list(images.shape),
            bits=images.bits,
        ),
        config=values_of(search.config),
        provenance=made_by,
    )


@torch.no_grad()
def _expected_multiply_adds(search: Search) -> float | None:
    """Count those of the networks that α and β stand for, on average; None where a method has no
    such distribution."""
    logits = search.state.detached()
    if "beta" not in logits:
        return None
    alpha, beta = logits["alpha"].double(), logits["beta"].double()
    return float(expected_cost(search.costs.multiply_adds, alpha, beta))


def _price(search: Search) -> float | None:
    """Return the nats that hold a search to its limits."""
    return None if search.budget is None else search.state.price


def _derived(search: Search, genotype: Genotype) -> Derived:
    costs, settings = search.costs, search.config.search
    freely = search.found().genotype
    assert freely is not None
    unlimited = None
    if freely != genotype:
        unlimited = Unlimited(
            freely.to_document(), costs.parameters.of(freely), costs.multiply_adds.of(freely)
        )
    return Derived(
        channels=costs.size.channels,
        cells=costs.size.cells,
        classes=costs.size.classes,
        image=list(costs.size.image),
        stem=costs.size.stem,
        parameters=costs.parameters.of(genotype),
        multiply_adds=costs.multiply_adds.of(genotype),
        expected_multiply_adds=_expected_multiply_adds(search),
        price=_price(search),
        max_flops=settings.max_flops,
        max_parameters=settings.max_parameters,
        without_limit=unlimited,
    )
