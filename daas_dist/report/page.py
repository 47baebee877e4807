"""The page: one run in full, or several side by side and then each in full."""

import string
import time
from collections.abc import Mapping, Sequence

from daas_dist.report import cells, markup, pictures, policy, trainings
from daas_dist.report.compare import groups, leading
from daas_dist.report.header import genotype_of, headline, kind, notices, status_pill, tiles
from daas_dist.report.markup import section, text
from daas_dist.report.record import Run
from daas_dist.report.sections import sections


def page(runs: Sequence[Run]) -> str:
    runs = list({run.path.resolve(): run for run in runs}.values())
    told_as_one = len(runs) == 1 or _search_and_its_training(runs)
    title = " + ".join(run.name for run in runs) if told_as_one else f"{len(runs)} runs"
    written = time.strftime("%Y-%m-%d %H:%M")
    return markup.document(
        f"{title} · DAAS report",
        f"{_story(runs) if told_as_one else _several(runs)}"
        f"<footer>Written {written} by <code>daas report</code></footer>",
    )


def _search_and_its_training(runs: Sequence[Run]) -> bool:
    """Tell whether they are one search and one training of what it found, in either order."""
    searches = [run for run in runs if run.is_search]
    trainings = [run for run in runs if not run.is_search]
    return len(searches) == len(trainings) == 1 and trainings[0].came_from(searches[0])


def _story(runs: Sequence[Run]) -> str:
    """One run, or a search and its training, as one account."""
    runs = sorted(runs, key=lambda run: not run.is_search)
    parts = sections(runs, "r")
    links = "".join(f"<a href='#r-{name}'>{text(title)}</a>" for name, title, _ in parts)
    names = " + ".join(f"{text(run.name)} {status_pill(run)}" for run in runs)
    header = (
        f"<header><div class='over'>DAAS · {' and '.join(kind(run) for run in runs)}</div>"
        f"<h1>{names}</h1>"
        f"{''.join(map(headline, runs))}{''.join(map(notices, runs))}"
        f"<div class='tiles'>{''.join(map(tiles, reversed(runs)))}</div><nav>{links}</nav></header>"
    )
    return header + "<main>" + "".join(body for _, _, body in parts) + "</main>"


def _several(runs: Sequence[Run]) -> str:
    letters = [_letter(position) for position in range(len(runs))]
    keyed = dict(zip(letters, runs, strict=True))
    parts = [_comparison_table(keyed)]
    logged = {letter: run for letter, run in keyed.items() if run.metrics}
    if logged:
        parts.append(section("overlay", "Searches over time", "", _overlay(logged)))
    if searches := {letter: run for letter, run in keyed.items() if run.is_search}:
        parts += _found(searches)
    training = {letter: run for letter, run in keyed.items() if run.is_training}
    if training:
        joined = {letter: _joined(letter, run, keyed) for letter, run in training.items()}
        lead = "architecture / policy, each after the letter of its run."
        parts.append(
            section("training", "Trainings", lead, trainings.view(training, joined, "all"))
        )
    for letter, run in keyed.items():
        inside = f"{headline(run)}{notices(run)}"
        inside += f"<div class='tiles'>{tiles(run)}</div>"
        inside += "".join(body for _, _, body in sections([run], f"r{letter}"))
        parts.append(
            f"<details class='run' id='run-{letter}'><summary>{_key(letter)}{text(run.name)} "
            f"{status_pill(run)}</summary>{inside}</details>"
        )
    header = f"<header><div class='over'>DAAS</div><h1>{len(runs)} runs, side by side</h1></header>"
    return f"{header}<main>{''.join(parts)}</main>"


def _letter(position: int) -> str:
    """A, B, … Z, A1, B1, …"""
    turn, place = divmod(position, len(string.ascii_uppercase))
    return string.ascii_uppercase[place] + (str(turn) if turn else "")


def _key(letter: str) -> str:
    return f"<span class='key' style='background:{pictures.run_hue(letter)}'>{letter}</span>"


def _comparison_table(keyed: Mapping[str, Run]) -> str:
    rows = []
    for letter, run in keyed.items():
        result = run.result
        best = leading(groups(run))
        accuracy = run.metrics[-1].val_accuracy if run.metrics else None
        cost = best.rows[0] if best is not None else None
        epochs = f"{run.metrics[-1].epoch} / {run.metrics[-1].epochs}" if run.metrics else "–"
        rows.append(
            [
                f"{_key(letter)}<a href='#run-{letter}'>{text(run.name)}</a>",
                f"{status_pill(run)}<br><span class='weak'>{kind(run)}</span>",
                text(result.document.data.name) if result is not None else "–",
                epochs,
                "–" if accuracy is None else f"{markup.percent(accuracy)} %",
                "–" if best is None else markup.percent_spread(best.last()),
                "–" if cost is None or cost.parameters is None else markup.amount(cost.parameters),
                "–"
                if cost is None or cost.multiply_adds is None
                else markup.amount(cost.multiply_adds),
                "–" if result is None else markup.amount(result.telemetry.passes),
                "–" if result is None else markup.duration(result.telemetry.seconds),
            ]
        )
    head = ("Run", "", "Data", "Epochs", "Validation", "Trained, last epoch", "Parameters",
            "Multiply-adds", "Passes", "Time")  # fmt: skip
    told = [i for i in range(len(head)) if any(row[i] != "–" for row in rows)]
    shown = markup.table([head[i] for i in told], [[row[i] for i in told] for row in rows],
                         "numbers tight")  # fmt: skip
    return section("runs", "Overview", "", shown)


def _overlay(logged: Mapping[str, Run]) -> str:
    wanted = (
        ("Validation accuracy", "as a share of one", "accuracy", ("val_accuracy",)),
        ("Skip connections, normal cell", "expected share of the kept edges", "share",
         ("skip_share", "normal")),
        ("Entropy of the policy's operations", "", "nats", ("entropy", "pi")),
    )  # fmt: skip
    drawn = ""
    for title, note, label, path in wanted:
        rows = {
            letter: run.metrics
            for letter, run in logged.items()
            if pictures.known(run.metrics, *path)
        }
        if rows:
            picture = pictures.overlay(f"all-{'-'.join(path)}", rows, label, *path)
            drawn += markup.figure(title, note, picture)
    return f"<div class='trio'>{drawn}</div>"


def _found(searches: Mapping[str, Run]) -> list[str]:
    """Policies as one table, architectures one under the other."""
    parts = []
    weights = {
        _key(letter): dict(run.result.policy.ranking())
        for letter, run in searches.items()
        if run.result is not None and run.result.policy is not None
    }
    if weights:
        lead = "Probability × application, summed over slots, %."
        parts.append(section("policies", "Policies", lead, policy.side_by_side(weights)))
    drawn = ""
    for letter, run in searches.items():
        genotype = genotype_of(run)
        if genotype is not None:
            both = cells.figures(genotype, f"all-{letter}")
            drawn += f"<h3>{_key(letter)}{text(run.name)}</h3><div class='found'>{both}</div>"
    if drawn:
        parts.append(section("cells", "Cells", "", cells.legend() + drawn))
    return parts


def _joined(letter: str, run: Run, keyed: Mapping[str, Run]) -> str:
    """The search that a training took its architecture and policy from, as HTML."""
    for other, search in keyed.items():
        if run.came_from(search):
            return f"{_key(other)}<a href='#run-{other}'>{text(search.name)}</a>"
    if run.result is not None:
        return f"{_key(letter)}{text(run.name)}"
    origin = run.origin
    named = "–" if origin is None else f"<code>{text(origin)}</code> (not in this report)"
    return f"{_key(letter)}{named}"
