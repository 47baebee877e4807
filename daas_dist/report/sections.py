"""The parts of a report: of a search, of the trainings of what it found, or of both."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from daas_dist.documents.escaping import visible
from daas_dist.documents.results import FILE, SearchResult
from daas_dist.report import cells, markup, pictures, plots, policy, sample_grid, trainings
from daas_dist.report.header import derived_of, event_words, genotype_of
from daas_dist.report.markup import section, text
from daas_dist.report.record import Run
from daas_dist.report.samples import Samples
from daas_dist.report.tables import table
from daas_dist.spaces.cells import EDGES, KINDS, OPERATIONS, Genotype, edge_indices
from daas_dist.spaces.policy import Policy

LISTED = 20
"""Class names that are shown; ImageNet has a thousand."""

Part = tuple[str, str, str]
"""Name, title and HTML."""


def sections(runs: Sequence[Run], name: str) -> list[Part]:
    """Every part of one run, or of a search and its training, the answers first; `name` makes ids
    unique on the page."""
    made: list[tuple[str, str, str, str]] = []
    searches = [run for run in runs if run.is_search]
    for run in searches:
        genotype = genotype_of(run)
        if genotype is not None:
            title = "What was found" if run.result is not None else "Where the search stands"
            made.append(("found", title, "", _found(run, genotype, name)))
    for run in runs:
        if run.is_training:
            body = trainings.view({"": run}, {"": ""}, name)
            made.append(("training", "Against the baselines", _training_lead(run, runs), body))
    for run in searches:
        if run.result is not None and run.result.policy is not None:
            evidence = run.result.document.evidence
            shown = policy.view(run.result.policy, evidence, name, run.path)
            made.append(("policy", "The policy in full", _policy_lead(run.result.policy), shown))
            made.append(("samples", "Images under the policy", "", _samples(run)))
        if run.metrics:
            made.append(("curves", "The search over time", _curves_lead(run), _curves(run, name)))
    for position, run in enumerate(runs):
        title = f"How {run.name} was run" if len(runs) > 1 else "How it was run"
        made.append((f"run{position}", title, "", _provenance(run)))
    return [
        (key, title, section(f"{name}-{key}", title, lead, body)) for key, title, lead, body in made
    ]


def _found(run: Run, genotype: Genotype, name: str) -> str:
    """Both cells, and the top of the policy beside them if one was searched too."""
    figures = cells.figures(genotype, name)
    if run.result is not None and run.result.policy is not None:
        figures += markup.figure(
            "Policy",
            "how often an operation is drawn and applied; the tick is where all start",
            policy.heaviest(run.result.policy),
        )
    below = (
        "<p class='lead'>A cell reads the two cells before it; each of its nodes 2 to 5 adds two "
        "operations on what comes before; cell k is the nodes concatenated. The network stacks "
        "normal cells, with a reduction cell at one and two thirds of its depth.</p>"
    )
    derived = derived_of(run)
    if derived is not None:
        below += f"<p class='lead'>{text(cells.costs(derived))}</p>"
    below += cells.legend()
    if run.result is not None and run.result.document.alpha is not None:
        below += _edges(run, run.result.document, genotype, name)
    return f"<div class='found'>{figures}</div>{below}"


def _edges(run: Run, result: SearchResult, genotype: Genotype, name: str) -> str:
    kinds, edges = len(KINDS), len(EDGES)
    alpha = table(result.alpha, (kinds, edges, len(OPERATIONS)), "alpha", run.path / FILE)
    beta = None
    if result.beta is not None:  # not every method has weights of edges
        beta = table(result.beta, (kinds, edges), "beta", run.path / FILE)
    grids = "".join(
        markup.figure(
            cells.TITLES[kind],
            f"each edge's operation probabilities, %{', and β' if result.beta else ''}; ● is kept; "
            "0 and 1 are cells k−2, k−1",
            "<div class='scroll' tabindex='0'>"
            + plots.edge_choices(
                f"{name}-edges-{kind}",
                alpha[k],
                None if beta is None else beta[k],
                edge_indices(genotype.cell(kind)),
            )
            + "</div>",
            "wide",
        )
        for k, kind in enumerate(KINDS)
    )
    return markup.details(
        "How decided it was: all fourteen edges", f"<div class='pair'>{grids}</div>"
    )


def _training_lead(run: Run, shown: Sequence[Run]) -> str:
    lead = (
        "Networks trained from scratch, named architecture / policy. What was found is trained "
        "beside networks in which one part is replaced."
    )
    if run.origin is not None and not any(run.came_from(other) for other in shown):
        lead += f" What was found comes from <code>{text(run.origin)}</code>."
    return lead


def _policy_lead(found: Policy) -> str:
    tied = {
        "per_slot": "each slot has an application probability and a magnitude for each operation",
        "per_policy": "each ordered sequence of operations has its own application "
        "probabilities and magnitudes; what is shown is weighed over the sequences",
    }[found.parameters]
    ranges = {"autoaugment": "AutoAugment's", "dada": "DADA's"}[found.ranges]
    return (
        f"Each image gets {found.slots} operations in a row, one from each slot; {tied}. A "
        f"strength is one of ten magnitudes, m 0 to 9, over {ranges} ranges."
    )


def _samples(run: Run) -> str:
    samples = Samples.load(run.path)
    if samples is None:
        return "<p class='lead'>This run saved no sample images (samples.pt): none to show.</p>"
    return sample_grid.view(samples)


def _curves_lead(run: Run) -> str:
    boundary = pictures.joint_from(run.metrics)
    sampled = ""
    if not run.sampled.whole:
        sampled = (
            f"Drawn through {len(run.metrics):,} of about {run.sampled.lines:,} lines of "
            "metrics.jsonl, spread evenly over them. "
        )
    if boundary is None:
        return sampled
    after = "" if run.metrics[-1].policy_weight is None else ": from there on the policy moves too"
    return sampled + f"The dashed line at epoch {boundary:.0f} ends the warm-up{after}."


def _curves(run: Run, name: str) -> str:
    rows = run.metrics
    drawn = [markup.figure(*each) for each in pictures.search_curves(rows, name)]
    if rows[-1].policy_weight is not None:
        weights = pictures.policy_weights(f"{name}-weights", rows)
        note = "probability × application, summed over slots; the six heaviest are named"
        drawn.append(markup.figure("Operations of the policy", note, weights))
    drawn += [
        markup.figure(
            f"Operations of the {cells.TITLES[kind].lower()}",
            "expected share of the kept edges; skip connections that take over are a known failure",
            pictures.shares(f"{name}-share-{kind}", rows, kind),
        )
        for kind in KINDS
        if pictures.known(rows, "skip_share", kind)
    ]
    return f"<div class='trio'>{''.join(drawn)}</div>"


def _provenance(run: Run) -> str:
    rows = [("Directory", f"<code>{text(run.path.resolve())}</code>")]
    made_by = {} if run.provenance is None else asdict(run.provenance)
    for key, value in made_by.items():
        if value is not None:
            rows.append((text(key.replace("_", " ")), _value(value)))
    if run.result is not None:
        data = run.result.document.data
        classes = ", ".join(data.classes[:LISTED])
        more = len(data.classes) - LISTED
        rows.append(("data", f"{text(data.name)}, images {text(' × '.join(map(str, data.shape)))}"))
        rows.append(("classes", text(classes + (f" and {more} more" if more > 0 else ""))))
    body = markup.table(("", ""), rows, "plain").replace("<thead>", "<thead hidden>")
    if run.config:
        body += markup.details("config.yaml", f"<pre tabindex='0'>{text(run.config)}</pre>")
    if run.events:
        # Line by line: what an event says is no line of its own.
        told = "\n".join(text(visible(event_words(event))) for event in run.events)
        count = f"{'' if run.all_events else 'the last '}{len(run.events)}"
        body += markup.details(f"events ({count})", f"<pre tabindex='0'>{told}</pre>")
    return body


def _value(value: object) -> str:
    if isinstance(value, dict):
        known = (f"{key} {each}" for key, each in value.items() if each is not None)
        return text(", ".join(known))
    if isinstance(value, list):
        return f"<code>{text(' '.join(map(str, value)))}</code>"
    if isinstance(value, str | int) and not isinstance(value, bool):
        return text(value)
    return text(json.dumps(value))
