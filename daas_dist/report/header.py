"""What stands above a run's report: its state, one sentence of findings, its key numbers."""

from collections.abc import Sequence
from datetime import UTC, datetime

from daas_dist.documents import Damaged, checked
from daas_dist.documents.events import ENDED, Event
from daas_dist.documents.found import GenotypeDocument
from daas_dist.documents.lines import REMEDY
from daas_dist.documents.metrics import FILE
from daas_dist.documents.results import Derived
from daas_dist.report import cells, markup, policy, trainings
from daas_dist.report.compare import Group, groups, leading, rivals
from daas_dist.report.markup import text
from daas_dist.report.record import Run
from daas_dist.spaces.cells import Genotype
from daas_dist.spaces.policy import Policy

DATA = {"fashion_mnist": "Fashion-MNIST", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
DECIDED = 1.5
"""Times its undecided weight that the first operation of a policy has, if it is said to lead."""
LEFT_OUT = 0.2
"""Times its undecided weight below which an operation is said to be left out."""


def kind(run: Run) -> str:
    words = [
        word for word, yes in (("search", run.is_search), ("training", run.is_training)) if yes
    ]
    return " and ".join(words)


def status_pill(run: Run) -> str:
    look = run.status if run.status in ENDED else "running"
    return f"<span class='status {look}'>{run.status}</span>"


def notices(run: Run) -> str:
    notes = ""
    if run.status == "failed":
        reason = text(run.reason or "No reason was written.")
        notes += f"<div class='notice'><b>The run failed.</b> {reason}</div>"
    if run.status not in ENDED:
        stopped = run.status == "stopped"
        what = "The run was stopped and can be resumed" if stopped else "The run is in progress"
        reached = ""
        if run.metrics:
            row = run.metrics[-1]
            when = datetime.fromtimestamp(row.time, UTC).strftime("%Y-%m-%d %H:%M UTC")
            reached = f" The last line of metrics, at {when}, is step {row.step} of {row.steps}."
        notes += (
            f"<div class='notice calm'>{what}: what follows is what it has so far.{reached}</div>"
        )
    warnings = [event for event in run.events if event.event == "warning"]
    if warnings:
        listed = "".join(f"<div>{text(event_words(event))}</div>" for event in warnings[-3:])
        count = f"{len(warnings)}{'' if run.all_events else ' or more'}"
        more = f" (the last 3 of {count})" if len(warnings) > 3 else ""
        notes += f"<div class='notice'><b>Warnings{more}</b>{listed}</div>"
    return notes


def headline(run: Run) -> str:
    """One paragraph each, HTML: what was found, and what it is worth."""
    sentences = []
    if run.is_search:
        sentences.append(_search_sentence(run))
    among = groups(run)
    best = leading(among)
    if best is not None:
        sentences.append(_training_sentence(best, among))
    elif run.is_training:
        sentences.append("No network has finished an epoch yet.")
    return "".join(f"<p class='headline'>{sentence}</p>" for sentence in sentences)


def _search_sentence(run: Run) -> str:
    if run.result is None:
        if not run.metrics:
            return "The search has written no metrics yet."
        row = run.metrics[-1]
        phase = "warm-up" if row.phase == "warmup" else "joint phase"
        stands = {"failed": "ended", "stopped": "stands"}.get(run.status, "is")
        return (
            f"The search {stands} at epoch {row.epoch} of {row.epochs} ({phase}), with a "
            f"validation accuracy of {markup.percent(row.val_accuracy)} %."
        )
    telemetry, data = run.result.telemetry, run.result.document.data
    found = []
    genotype = genotype_of(run)
    if genotype is not None:
        operations = [operation for operation, _ in genotype.normal]
        common = max(sorted(set(operations)), key=operations.count)
        found.append(
            f"a normal cell led by {cells.WORDS[common]} "
            f"({operations.count(common)} of {len(operations)} edges)"
        )
    if run.result.policy is not None:
        found.append(_policy_led_by(run.result.policy))
    took, name = markup.duration(telemetry.seconds), DATA.get(data.name, data.name)
    return (
        f"In {took} on {text(name)}, the search settled on "
        f"{' and '.join(found) or 'nothing that it was asked for'}."
    )


def _policy_led_by(found: Policy) -> str:
    start, rows = policy.undecided(found.slots), found.ranking()
    first, second = (_name(operation) for operation, _ in rows[:2])
    left_out = [_name(operation) for operation, w in reversed(rows) if w < LEFT_OUT * start]
    without = f", leaving out {_listed(left_out)}" if left_out else ""
    highest = rows[0][1]
    if highest >= DECIDED * start:
        return f"a policy led by {first} and {second}{without}"
    shown = f"{markup.percent(highest, 1)} % from {markup.percent(start, 1)} %"
    rose = f"({first} rose furthest, to {shown})"
    if left_out:
        return f"a policy{without}, which favours none of the others yet {rose}"
    return f"a policy that is hardly decided yet {rose}"


def _name(operation: str) -> str:
    return text(operation.replace("_", " "))


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _training_sentence(best: Group, among: Sequence[Group]) -> str:
    seeds = len(best.rows)
    count = "one seed" if seeds == 1 else f"{seeds} seeds"
    article = "the" if best.architecture == "found" else "a"
    what = (
        f"Trained from scratch, {article} {text(trainings.WORDS.get(best.architecture, '?'))} "
        f"architecture under {_policy_words(best.policy)}"
    )
    tense = "reaches" if best.finished else "has so far reached"
    sentence = f"{what} {tense} <b>{markup.percent_spread(best.last())}</b> ({count})"
    leads = [f"{trainings.lead(best, g)} against {_rival(best, g)}" for g in rivals(best, among)]
    if leads:
        leads[0] = leads[0].replace(" against", " points against", 1)
        sentence += f": {', '.join(leads)}"
    return f"{sentence}.".replace(" ± ", "\u00a0±\u00a0")


def _policy_words(name: str) -> str:
    named = {"found": "the found policy", "default": "the default policy", "none": "no policy"}
    return named.get(name, trainings.WORDS.get(name, "another policy"))


def _rival(best: Group, group: Group) -> str:
    """Return what is different about a group."""
    architecture = f"a {trainings.WORDS.get(group.architecture, 'third')} architecture"
    if group.architecture == best.architecture:
        return _policy_words(group.policy)
    if group.policy == best.policy:
        return architecture
    return f"{architecture} under {_policy_words(group.policy)}"


def tiles(run: Run) -> str:
    """The key numbers that the run has, each a value, a name and a note."""
    made: list[tuple[str, str, str]] = []
    best = leading(groups(run))
    if best is not None:
        made += _trained(best)
    if run.is_search and run.metrics:
        made.append(_validation(run))
    derived = derived_of(run)
    if best is None and derived is not None and (note := _mobile(run, derived.multiply_adds)):
        cost = markup.amount(derived.multiply_adds)
        made.append((cost, "multiply-adds of what was found", note))
    if run.result is not None:
        telemetry = run.result.telemetry
        note = f"{telemetry.steps} steps, {markup.amount(telemetry.passes)} passes of a path"
        made.append((markup.duration(telemetry.seconds), "search time", note))
    elif run.metrics:
        row = run.metrics[-1]
        steps = f"step {row.step} of {row.steps}"
        made.append((f"{row.epoch} / {row.epochs}", "epochs", steps))
        made.append((f"{row.images_per_second:.0f}", "images a second", ""))
    return "".join(markup.tile(*each) for each in made)


def _validation(run: Run) -> tuple[str, str, str]:
    row = run.metrics[-1] if run.result is None else run.result.telemetry
    network = "its fixed network" if genotype_of(run) is None else "sampled paths on shared weights"
    note = f"of the search: {network}{', so far' if run.result is None else ''}"
    return f"{markup.percent(row.val_accuracy)} %", "validation accuracy", note


def _trained(best: Group) -> list[tuple[str, str, str]]:
    note = f"{trainings.label(best)}; best epoch {markup.percent_spread(best.best())}"
    made = [(markup.percent_spread(best.last()), "test accuracy, last epoch", note)]
    first = best.rows[0]
    if first.parameters is not None and first.multiply_adds is not None:
        parameters, cost = markup.amount(first.parameters), markup.amount(first.multiply_adds)
        made.append((parameters, "parameters", "without the auxiliary head"))
        above = first.above_mobile
        note = "above the mobile setting's 600 M" if above else "for one image"
        made.append((cost, "multiply-adds", note))
    return made


def _mobile(run: Run, multiply_adds: int) -> str:
    """Return how a network stands to the mobile setting, at the images that it was found for."""
    derived = derived_of(run)
    return "" if derived is None else cells.mobile(derived.image, multiply_adds)


def derived_of(run: Run) -> Derived | None:
    """Return what the found network costs; None if it was not said, or no architecture was
    searched."""
    found = run.result or run.searched
    return None if found is None else found.document.derived


def genotype_of(run: Run) -> Genotype | None:
    """The found architecture, or the one of the moment."""
    if run.result is not None:
        return run.result.genotype
    found = run.metrics[-1].genotype if run.metrics else None
    try:
        if found is None:
            return None
        return Genotype.from_document(checked(GenotypeDocument, found, "genotype"))
    except ValueError as error:
        raise Damaged(run.path / FILE, f"its last line: {error}", REMEDY) from error


def event_words(event: Event) -> str:
    moment = datetime.fromtimestamp(event.time, UTC).strftime("%m-%d %H:%M:%S")
    return " · ".join([moment, event.event, *filter(None, [event.words])])
