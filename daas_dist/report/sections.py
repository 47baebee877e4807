"""The parts of one run's report, each a section of the page."""

import json
from collections.abc import Mapping

import numpy as np

from daas_dist.report import cells, markup, pictures, plots, policy, sample_grid, trainings
from daas_dist.report.header import event_words, genotype_of
from daas_dist.report.markup import section, text
from daas_dist.report.record import Run
from daas_dist.report.samples import Samples
from daas_dist.space import KINDS, Genotype, edge_indices

LISTED = 20
"""Class names that are shown; ImageNet has a thousand."""


def sections(run: Run, name: str) -> list[tuple[str, str, str]]:
    """Name, title and HTML of every part of a run; `name` makes ids unique on the page."""
    made: list[tuple[str, str, str, str]] = []
    genotype = genotype_of(run)
    if run.is_search:
        if genotype is not None:
            made.append(("cells", "Cells", _cells_lead(run), _cells(run, genotype, name)))
        found = run.result["policy"] if run.result is not None else None
        if run.result is not None and found is not None:
            made.append(("policy", "Policy", _policy_lead(found),
                         policy.view(found, run.result["evidence"], name)))  # fmt: skip
            made.append(("samples", "Samples", "", _samples(run)))
        if run.metrics:
            made.append(("curves", "The search over time", _curves_lead(run), _curves(run, name)))
    if run.is_training:
        origin = run.search_path()
        lead = "Networks trained from scratch, architecture / policy."
        if origin is not None:
            lead += f" What was found comes from <code>{text(origin)}</code>."
        made.append(("training", "Training", lead, trainings.view({"": run}, {"": ""}, name)))
    made.append(("run", "Configuration and provenance", "", _provenance(run)))
    return [
        (key, title, section(f"{name}-{key}", title, lead, body)) for key, title, lead, body in made
    ]


def _cells_lead(run: Run) -> str:
    inputs = (
        "c<sub>k−1</sub> and c<sub>k−2</sub> are the two cells before, 2 to 5 the nodes, "
        "c<sub>k</sub> their concatenation."
    )
    return inputs if run.result is not None else f"As the search stands now. {inputs}"


def _cells(run: Run, genotype: Genotype, name: str) -> str:
    body = cells.legend() + f"<div class='pair'>{cells.figures(genotype, name)}</div>"
    if run.result is None or run.result["alpha"] is None:
        return body
    grids = "".join(
        markup.figure(
            cells.TITLES[kind],
            "operation probabilities of each edge, %, and the β of the edge; ● is kept",
            plots.edge_choices(
                f"{name}-edges-{kind}",
                np.array(run.result["alpha"][k]),
                np.array(run.result["beta"][k]),
                edge_indices(genotype.cell(kind)),
            ),
        )
        for k, kind in enumerate(KINDS)
    )
    return body + markup.details(
        "How decided it was: all fourteen edges", f"<div class='pair'>{grids}</div>"
    )


def _policy_lead(found: Mapping) -> str:
    tied = {
        "per_slot": "each slot has an application probability and a magnitude for each operation",
        "per_policy": "each ordered sequence of operations has its own application "
        "probabilities and magnitudes; what is shown is weighed over the sequences",
    }[found["parameters"]]
    ranges = {"autoaugment": "AutoAugment's", "dada": "DADA's"}[found["ranges"]]
    return (
        f"{found['slots']} operations in a row; {tied}. Magnitudes m 0 to 9 over {ranges} ranges."
    )


def _samples(run: Run) -> str:
    samples = Samples.load(run.path)
    if samples is None:
        return "<p class='lead'>This run saved no sample images (samples.pt): none to show.</p>"
    return sample_grid.view(samples)


def _curves_lead(run: Run) -> str:
    boundary = pictures.joint_from(run.metrics)
    if boundary is None:
        return ""
    return (
        f"The dashed line at epoch {boundary:.0f} ends the warm-up: from there on the policy is "
        "searched together with the architecture."
    )


def _curves(run: Run, name: str) -> str:
    rows = run.metrics
    drawn = [markup.figure(*each) for each in pictures.search_curves(rows, name)]
    stacks = [
        markup.figure(
            f"Operations of the {cells.TITLES[kind].lower()}",
            "expected share of the edges that are kept",
            pictures.shares(f"{name}-share-{kind}", rows, kind),
        )
        for kind in KINDS
        if pictures.known(rows, "skip_share", kind)
    ]
    if rows[-1]["policy_weight"] is not None:
        weights = pictures.policy_weights(f"{name}-weights", rows)
        note = "the six heaviest are named, summed over slots"
        drawn.append(markup.figure("Operations of the policy", note, weights))
    return f"<div class='pair'>{''.join([*drawn, *stacks])}</div>"


def _provenance(run: Run) -> str:
    rows = [("Directory", f"<code>{text(run.path.resolve())}</code>")]
    for key, value in (run.provenance or {}).items():
        rows.append((text(key.replace("_", " ")), _value(value)))
    if run.result is not None:
        data = run.result["data"]
        classes = ", ".join(map(str, data["classes"][:LISTED]))
        more = len(data["classes"]) - LISTED
        rows.append(
            ("data", f"{text(data['name'])}, images {text(' × '.join(map(str, data['shape'])))}")
        )
        rows.append(("classes", text(classes + (f" and {more} more" if more > 0 else ""))))
    body = markup.table(("", ""), rows, "plain").replace("<thead>", "<thead hidden>")
    if run.config:
        body += markup.details("config.yaml", f"<pre tabindex='0'>{text(run.config)}</pre>")
    if run.events:
        lines = "\n".join(event_words(event) for event in run.events)
        body += markup.details(
            f"events ({len(run.events)})", f"<pre tabindex='0'>{text(lines)}</pre>"
        )
    return body


def _value(value: object) -> str:
    if isinstance(value, dict):
        return text(", ".join(f"{key} {each}" for key, each in value.items()))
    if isinstance(value, list):
        return f"<code>{text(' '.join(map(str, value)))}</code>"
    if isinstance(value, str | int) and not isinstance(value, bool):
        return text(value)
    return text(json.dumps(value))
