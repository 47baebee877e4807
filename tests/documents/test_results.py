"""result.json, search.json and comparison.json: typed, and on the disk what they were before."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_run
import found_results
import pytest
import trained_rows
from found_results import drawn, mixed_policy, plain

from daas_dist.documents import Damaged, results
from daas_dist.documents.results import COMPARISON, SEARCH_COPY, SearchResult, TrainedResult
from daas_dist.spaces.cells import DARTS_V2

SEARCHED = {
    "schema": 1,
    "kind": "search",
    "genotype": plain(DARTS_V2),
    "policy": plain(mixed_policy()),
    "evidence": None,
    "alpha": [[[0.25, 0.75]], [[0.5, 0.5]]],
    "beta": None,
    "derived": {
        "channels": 4, "cells": 3, "classes": 2, "image": [1, 28, 28], "stem": "cifar",
        "parameters": 9914, "multiply_adds": 1672912, "expected_multiply_adds": 1403552.5,
        "price": 0.125, "max_flops": None, "max_parameters": 20000.0,
        "without_limit": {"genotype": plain(DARTS_V2),
                          "parameters": 20001, "multiply_adds": 2672912},
    },
    "telemetry": {"steps": 8, "passes": 44.5, "seconds": 2.5, "val_accuracy": 0.078125},
    "data": {"name": "fashion_mnist", "classes": ["a", "b"], "mean": [0.28], "std": [0.35],
             "shape": [1, 28, 28], "bits": None},
    "config": {"stage": "search_fashion", "search": {"xi": None, "batch_size": 16}},
    "provenance": fake_run.provenance("fashion"),
}  # fmt: skip
"""As it was written when nothing was typed, each key of it, and magnitude_probabilities, null where
a policy draws no magnitudes."""


def trained() -> dict[str, Any]:
    """The same of a training's row."""
    row = trained_rows.document(policy=plain(mixed_policy()))
    accuracies = {
        "last_top5": 0.99, "best_top5": 0.98, "calibration_error": 0.02,
        "class_accuracy": [0.75, None],
    }  # fmt: skip
    names = [*row]
    at = names.index("parameters")
    ordered = {name: row[name] for name in names[:at]} | accuracies
    ordered |= {name: row[name] for name in names[at:]}
    ordered["data"]["bits"] = 12
    file = {"file": "weights.safetensors", "sha256": "ab"}
    tail = {name: ordered.pop(name) for name in ("test", "throughput")}
    return ordered | {"weights": file, "weights_best": file, "weights_ema": None} | tail


@pytest.mark.parametrize(
    "value",
    [SEARCHED, SEARCHED | {"policy": plain(drawn(mixed_policy()))}, trained()],
    ids=["search", "drawn magnitudes", "trained"],
)
def test_a_result_is_written_again_byte_for_byte(tmp_path: Path, value: dict[str, Any]) -> None:
    path, before = tmp_path / "result.json", json.dumps(value, indent=2) + "\n"
    path.write_text(before)
    result = results.read(path)
    assert isinstance(result, SearchResult if value["kind"] == "search" else TrainedResult)
    results.write(tmp_path, result)
    assert path.read_text() == before


def test_a_training_keeps_a_copy_and_compares_what_its_rows_say(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(json.dumps(SEARCHED))
    searched = results.read(tmp_path / "result.json")
    assert isinstance(searched, SearchResult)
    SEARCH_COPY.write(tmp_path, searched)
    assert json.loads((tmp_path / "search.json").read_text()) == SEARCHED
    row, value = tmp_path / "row.json", trained()
    row.write_text(json.dumps(value))
    result = results.read(row)
    assert isinstance(result, TrainedResult)
    rows = [result.compared()]
    comparison = results.Comparison(schema=1, kind="training", search="a/result.json", rows=rows)
    COMPARISON.write(tmp_path, comparison)
    left_out = ("schema", "kind", "network", "policy_result", "recipe")
    kept = {
        key: each
        for key, each in value.items()
        if key not in left_out and not key.startswith("weights")
    }
    said = {"schema": 1, "kind": "training", "search": "a/result.json", "rows": [kept]}
    assert (tmp_path / "comparison.json").read_text() == json.dumps(said, indent=2) + "\n"
    assert COMPARISON.read(tmp_path) == comparison


def test_a_result_of_before_all_of_this_was_noted_is_read(tmp_path: Path) -> None:
    policy = plain(mixed_policy())
    assert policy.pop("magnitude_probabilities") is None
    path = found_results.save(tmp_path, policy=policy)
    result = results.read(path)
    assert isinstance(result, SearchResult) and result.policy == mixed_policy().to_document()
    assert (result.telemetry, result.provenance, result.data.bits) == (None, None, 16)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda value: value.update(schema=2), "schema is 2, expected 1"),
        (lambda value: value.update(schema=True), "schema is True, expected 1"),
        (lambda value: value.pop("schema"), "has no schema"),
        (lambda value: value.update(kind="training"), "kind is 'training', expected 'search'"),
        (lambda value: value["genotype"].pop("concat"), "has no genotype.concat"),
        (
            lambda value: value["provenance"].update(commit="HEAD; ls"),
            "provenance.commit is 'HEAD; ls', expected the number of a commit",
        ),
    ],
)
def test_another_schema_or_shape_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], words: str
) -> None:
    value = json.loads(json.dumps(SEARCHED))
    change(value)
    path = tmp_path / "result.json"
    path.write_text(json.dumps(value))
    with pytest.raises(Damaged, match=words):
        results.read(path)
