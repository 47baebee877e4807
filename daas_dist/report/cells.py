"""A cell as a graph: drawn by graphviz' `dot`, or as a table where `dot` is not installed."""

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence

from daas_dist.documents.results import Derived
from daas_dist.report import markup
from daas_dist.report.compare import MOBILE, MOBILE_SIDE
from daas_dist.report.pictures import COLOUR, inline
from daas_dist.spaces.cells import IN_DEGREE, INPUTS, KINDS, Genotype

TITLES = {"normal": "Normal cell", "reduce": "Reduction cell"}
WORDS = {
    "sep_conv_3x3": "3×3 separable convolution",
    "sep_conv_5x5": "5×5 separable convolution",
    "dil_conv_3x3": "3×3 dilated convolution",
    "dil_conv_5x5": "5×5 dilated convolution",
    "max_pool_3x3": "3×3 max pooling",
    "avg_pool_3x3": "3×3 average pooling",
    "skip_connect": "skip connection",
}
MISSING = (
    "The picture needs graphviz: install the program <code>dot</code> "
    "(apt-get install graphviz, brew install graphviz) and write the report again."
)


def short(operation: str) -> str:
    """sep_conv_3x3 -> sep 3×3; the poolings are all 3×3."""
    words = operation.split("_")
    return f"{words[0]} {words[2].replace('x', '×')}" if words[1] == "conv" else words[0]


def legend() -> str:
    """The colours of the cell operations, the same in every picture."""
    items = "".join(
        f"<li><span class='chip' style='background:{COLOUR[name]}'></span>{words}</li>"
        for name, words in WORDS.items()
    )
    return f"<ul class='legend'>{items}</ul>"


def figures(genotype: Genotype, name: str) -> str:
    """Both cells; `name` makes the ids inside the pictures unique on the page."""
    return "".join(
        markup.figure(TITLES[kind], "", drawing(genotype, kind, f"{name}-{kind}"), "cell")
        for kind in KINDS
    )


def mobile(image: Sequence[int], multiply_adds: int) -> str:
    """Return how a network stands to the mobile setting; "" where its images (C, H, W) are
    smaller."""
    if min(image[1:]) < MOBILE_SIDE:
        return ""
    where = "outside" if multiply_adds > MOBILE else "within"
    return f"{where} the {markup.amount(MOBILE)} mobile setting"


def costs(derived: Derived) -> str:
    """Return what the found network costs, in sentences; derived: as result.json has it."""
    _, height, width = derived.image
    setting = mobile(derived.image, derived.multiply_adds)
    words = (
        f"As {derived.cells} cells of {derived.channels} channels on images of {height} × "
        f"{width} it has {markup.amount(derived.parameters)} parameters and "
        f"{markup.amount(derived.multiply_adds)} multiply-adds{setting and f', {setting}'}."
    )
    given = {"multiply_adds": derived.max_flops, "parameters": derived.max_parameters}
    limited = {name: most for name, most in given.items() if most is not None}
    if not limited:
        return words
    words += f" It was searched under a limit of {_amounts(limited)}"
    if derived.without_limit is None:
        return f"{words}, within which the search ended by itself."
    freely = {name: getattr(derived.without_limit, name) for name in limited}
    return f"{words} and is what α and β prefer within it; what they prefer of all has " + (
        f"{_amounts(freely)}."
    )


def _amounts(numbers: Mapping[str, float]) -> str:
    each = (f"{markup.amount(most)} {name.replace('_', '-')}" for name, most in numbers.items())
    return " and ".join(each)


def drawing(genotype: Genotype, kind: str, name: str) -> str:
    dot = shutil.which("dot")
    if dot is None:
        return f"{_table(genotype, kind)}<p class='lead'>{MISSING}</p>"
    drawn = subprocess.run(
        [dot, "-Tsvg"],
        input=source(genotype, kind),
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    # Width by the drawing's own, so that the writing has one size in every cell; in a narrow column
    # it shrinks a little and then scrolls.
    points = float(re.search(r'width="([\d.]+)pt"', drawn.stdout)[1])  # type: ignore[index]
    size = f"<svg style='width:{1.1 * points:.0f}px;min-width:{0.8 * points:.0f}px'"
    picture = inline(drawn.stdout, name).replace("<svg", size, 1)
    return f"<div class='scroll' tabindex='0'>{picture}</div>"


def source(genotype: Genotype, kind: str) -> str:
    """The cell in graphviz' language: inputs, four nodes, the concatenation."""
    lines = [
        "digraph cell {",
        'graph [rankdir=TB, bgcolor="transparent", pad=0.03, nodesep=0.2, ranksep=0.26]',
        'node [shape=circle, fixedsize=true, width=0.36, fontname="Helvetica", fontsize=13,',
        ' style=filled, fillcolor="#eef1f6", color="#8b95a7", fontcolor="#1b2333"]',
        'edge [fontname="Helvetica", fontsize=12, fontcolor="#1b2333", penwidth=2.2,',
        " arrowsize=0.65]",
        'node0 [label="cell k−2", shape=box, style="rounded,filled", width=0.9, height=0.34]',
        'node1 [label="cell k−1", shape=box, style="rounded,filled", width=0.9, height=0.34]',
        'out [label="cell k", shape=box, style="rounded,filled", width=0.75, height=0.34]',
        "{rank=same; node0 -> node1 [style=invis]}",
    ]
    for position, (operation, read) in enumerate(genotype.cell(kind)):
        target = INPUTS + position // IN_DEGREE
        look = f'label=" {short(operation)}", color="{COLOUR[operation]}"'
        lines.append(f"node{read} -> node{target} [{look}]")
    for node in range(INPUTS, max(genotype.concat) + 1):
        lines.append(f'node{node} [label="{node}"]')
    lines += [
        f'node{node} -> out [color="#c3cad6", penwidth=1.2, arrowsize=0.5]'
        for node in genotype.concat
    ]
    return "\n".join([*lines, "}"])


def _table(genotype: Genotype, kind: str) -> str:
    rows = []
    for position, (operation, read) in enumerate(genotype.cell(kind)):
        chip = f"<span class='chip' style='background:{COLOUR[operation]}'></span>"
        origin = ("cell k−2", "cell k−1")[read] if read < INPUTS else f"node {read}"
        first = position % IN_DEGREE == 0
        node = f"node {INPUTS + position // IN_DEGREE}" if first else ""
        rows.append((node, chip + WORDS[operation], origin))
    return markup.table(("Node", "Operation", "reads"), rows)
