"""What a search has found so far: a line of metrics.jsonl, and its part of result.json."""

import time
from dataclasses import asdict
from typing import Any

import torch

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
        "genotype": genotype.to_json() if genotype else None,
        **_costs(search, genotype),
        "communication": search.mesh.traffic.take(),
        "idle_share": search.mesh.traffic.idle(),
    }


def result(search: Search) -> dict[str, Any]:
    """The search's part of result.json."""
    state = search.state
    genotype, found = search.genotype(), search.policy()
    told = search.method.document(state.detached(), state.memory)
    return {
        "schema": 1,
        "kind": "search",
        "genotype": genotype.to_json() if genotype else None,
        "policy": found.to_json() if found else None,
        "evidence": told.get("evidence"),
        "alpha": told.get("alpha"),
        "beta": told.get("beta"),
        "derived": _derived(search, genotype) if genotype else None,
        "telemetry": {"steps": state.step, "passes": state.passes, "seconds": state.seconds},
    }


@torch.no_grad()
def _costs(search: Search, genotype: Genotype | None) -> dict[str, int | float | None]:
    """Count the costs of the network that the genotype stands for, and in expectation over those
    that α and β do; the price (nats) that holds them to limits."""
    if genotype is None:
        return dict.fromkeys(("parameters", "multiply_adds", "expected_multiply_adds", "price"))
    costs, state = search.costs, search.state
    expected, logits = None, state.detached()
    if "beta" in logits:  # else a method has no such distribution
        alpha, beta = logits["alpha"].double(), logits["beta"].double()
        expected = float(expected_cost(costs.multiply_adds, alpha, beta))
    return {
        "parameters": costs.parameters.of(genotype),
        "multiply_adds": costs.multiply_adds.of(genotype),
        "expected_multiply_adds": expected,
        "price": None if search.budget is None else state.price,
    }


def _derived(search: Search, genotype: Genotype) -> dict[str, Any]:
    """The network that was found: its size, its costs, and what the limits changed at the end."""
    costs, settings = search.costs, search.config.search
    freely = search.found().genotype
    assert freely is not None
    changed = None
    if freely != genotype:
        changed = {
            "genotype": freely.to_json(),
            "parameters": costs.parameters.of(freely),
            "multiply_adds": costs.multiply_adds.of(freely),
        }
    return {
        **asdict(costs.size),
        **_costs(search, genotype),
        "max_flops": settings.max_flops,
        "max_parameters": settings.max_parameters,
        "without_limit": changed,
    }
