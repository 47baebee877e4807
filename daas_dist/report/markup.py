"""Small blocks of HTML and the style sheet. Every name from a run passes through `text`."""

from collections.abc import Iterable, Sequence

from daas_dist.documents.escaping import html
from daas_dist.documents.redact import redacted

LEVELS = "f4f7fb", "d6e4f2", "a9c9e6", "6ea6d5", "2f7ebd", "0a5795"
"""One hue from empty to full, for cells of tables."""


def text(value: object) -> str:
    """Any value as HTML, in text and in quoted attributes; without the secrets of URLs."""
    return html(redacted(str(value)))


def percent(fraction: float | None, digits: int = 2) -> str:
    return "–" if fraction is None else f"{100 * fraction:.{digits}f}"


def percent_spread(figures: tuple[float, float | None]) -> str:
    """94.02 ± 0.15 %; without a spread where there is one value."""
    mean, spread = figures
    return f"{percent(mean)}{'' if spread is None else f' ± {percent(spread)}'} %"


def duration(seconds: float) -> str:
    """Two units at most: 1 d 4 h, 2 h 05 min, 3 min 20 s, 12 s."""
    whole = max(0, round(seconds))
    days, hours, minutes = whole // 86_400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {whole % 60:02d} s" if minutes else f"{whole} s"


def amount(number: float) -> str:
    """3.35 M, 528 M, 1.20 G, 850."""
    for limit, unit in ((1e9, " G"), (1e6, " M"), (1e4, " k")):
        if number >= limit:
            shown = number / (1e3 if unit == " k" else limit)
            return f"{shown:.{0 if shown >= 100 else 1 if shown >= 10 else 2}f}{unit}"
    return f"{number:.0f}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """Make a table of ready HTML cells; it scrolls inside its own box where it is too wide."""
    top = "".join(f"<th scope='col'>{cell}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        f"<div class='scroll' tabindex='0'><table class='{kind}'>"
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def heat_cell(value: float, largest: float, shown: str) -> str:
    """The inside of a table cell that is darker the larger its value."""
    level = min(len(LEVELS) - 1, int(len(LEVELS) * value / largest)) if largest > 0 else 0
    ink = "ffffff" if level >= 4 else "1b2333"
    return f"<span class='heat' style='background:#{LEVELS[level]};color:#{ink}'>{shown}</span>"


def bar(share: float, tick: float) -> str:
    """A bar that is `share` full, with a tick at `tick`, both of 0 to 1."""
    return (
        f"<span class='bar'><i style='width:{100 * share:.1f}%'></i>"
        f"<b style='left:{100 * tick:.1f}%'></b></span>"
    )


def figure(title: str, note: str, picture: str, kind: str = "") -> str:
    """Title and note are plain text, the picture is HTML."""
    below = f"<small>{text(note)}</small>" if note else ""
    return f"<figure class='{kind}'><figcaption>{text(title)}{below}</figcaption>{picture}</figure>"


def section(name: str, title: str, lead: str, body: str) -> str:
    """Title is plain text, lead and body are HTML."""
    lead = f"<p class='lead'>{lead}</p>" if lead else ""
    return f"<section id='{text(name)}'><h2>{text(title)}</h2>{lead}{body}</section>"


def details(summary: str, body: str, kind: str = "", opened: bool = False) -> str:
    """Summary is plain text."""
    mark = " open" if opened else ""
    return f"<details class='{kind}'{mark}><summary>{text(summary)}</summary>{body}</details>"


def tile(value: str, name: str, note: str = "") -> str:
    """A key number; all plain text. What follows a ± is set smaller."""
    below = f"<small>{text(note)}</small>" if note else ""
    mean, mark, spread = value.partition(" ±")
    shown = text(mean) + (f" <i>±{text(spread)}</i>" if mark else "")
    return f"<div class='tile'><b>{shown}</b><span>{text(name)}</span>{below}</div>"


STYLE = """
:root{color-scheme:light;--ink:#1b2333;--soft:#5a6478;--line:#e1e5ec;--paper:#fff;--ground:#f6f7f9;
--accent:#0a5795}
*{box-sizing:border-box}
html{background:var(--ground);-webkit-text-size-adjust:100%}
body{margin:0 auto;max-width:1160px;padding:36px 32px 72px;color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","Liberation Sans",sans-serif}
svg text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","Liberation Sans",
sans-serif!important}
h1{font-size:30px;line-height:1.2;margin:2px 0 10px;font-weight:650;letter-spacing:-.015em;
overflow-wrap:anywhere}
h2{font-size:20px;line-height:1.3;margin:0 0 4px;font-weight:650;letter-spacing:-.01em}
h3{font-size:15px;margin:26px 0 8px;font-weight:650}
p{margin:0 0 12px;max-width:76ch;overflow-wrap:anywhere}
.lead{color:var(--soft);margin-bottom:18px}
.over{color:var(--soft);font-size:13px;letter-spacing:.02em}
.headline{font-size:18px;line-height:1.5;max-width:88ch;margin:10px 0}
.headline+:not(p){margin-top:20px}
.status{display:inline-block;font-size:13px;font-weight:600;border-radius:99px;padding:1px 11px;
vertical-align:middle;white-space:nowrap;letter-spacing:0}
.finished{background:#e2f2ea;color:#0b5c40}.failed{background:#fbe3d6;color:#8a3400}
.running{background:#e3edf8;color:#0a4a80}
.notice{border-left:4px solid #d55e00;background:#fff6f0;padding:12px 16px;
border-radius:0 8px 8px 0;margin:0 0 20px;overflow-wrap:anywhere}
.notice.calm{border-color:#2f7ebd;background:#f0f6fc}
nav{display:flex;flex-wrap:wrap;gap:4px 18px;font-size:14px;margin:20px 0 0}
a{color:var(--accent);text-underline-offset:3px;text-decoration-thickness:1px}
section,details.run{background:var(--paper);border:1px solid var(--line);border-radius:12px;
padding:24px 26px;margin-top:22px;min-width:0}
details.run>section{border:0;border-top:1px solid var(--line);border-radius:0;padding:24px 0 4px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(158px,1fr));
background:var(--paper);border:1px solid var(--line);border-radius:12px;overflow:hidden}
.tile{padding:14px;box-shadow:1px 1px 0 var(--line)}
.tile b{display:block;font-size:21px;line-height:1.25;font-weight:650;letter-spacing:-.02em;
font-variant-numeric:tabular-nums}
.tile b i{font-style:normal;font-size:13px;font-weight:600;white-space:nowrap;letter-spacing:0}
.tile span{display:block;font-size:14px;color:var(--ink)}
.tile small{display:block;font-size:12.5px;line-height:1.4;color:var(--soft);overflow-wrap:anywhere}
.found{display:flex;flex-wrap:wrap;gap:26px 30px;align-items:start}
.found>*{flex:1 1 300px;max-width:100%}.found>.cell{flex-basis:auto}
.pair,.trio{display:grid;gap:26px 30px;align-items:start;
grid-template-columns:repeat(auto-fit,minmax(min(100%,300px),1fr))}
.pair{grid-template-columns:repeat(auto-fit,minmax(min(100%,400px),1fr))}
.pair>*,.trio>*,figure{min-width:0}
.pair>figure>svg{max-width:450px}
.policy{display:grid;grid-template-columns:minmax(0,260px) minmax(0,1fr);gap:26px 34px;
align-items:start}
figure{margin:0}
figcaption{font-size:15px;font-weight:600;margin-bottom:6px;line-height:1.35}
figcaption small{display:block;font-weight:400;font-size:13px;color:var(--soft)}
figure svg{display:block;width:100%;height:auto}
figure.cell svg{max-width:100%;margin:0 auto}
h2+:not(.lead){margin-top:16px}
.scroll{overflow-x:auto;max-width:100%}
.scroll:focus-visible{outline:2px solid var(--accent)}
table{border-collapse:collapse;font-size:14px;font-variant-numeric:tabular-nums;width:100%}
th{font-weight:600;color:var(--soft);text-align:left;font-size:13px;line-height:1.3;
vertical-align:bottom}
th,td{padding:6px 14px 6px 0;border-bottom:1px solid var(--line)}
th:last-child,td:last-child{padding-right:0}
tbody tr:last-child td{border-bottom:0}
td{vertical-align:baseline}
.plain td:first-child{color:var(--soft);white-space:nowrap;vertical-align:top}
.plain td:last-child{overflow-wrap:anywhere;min-width:0}
.numbers td,.numbers th{white-space:nowrap}.tight{font-size:13px}
.tight td,.tight th{padding-right:11px}
.found td,.found th{padding-right:8px}.found .bar{width:54px}.found+.lead{margin-top:16px}
.found td:last-child{white-space:normal}
.narrow{max-width:720px}.wide svg{min-width:480px;max-width:600px}
.grid th,.grid td{padding:1px 2px;border:0}
.grid td:first-child{white-space:nowrap;padding-right:10px}
.grid th:not(:first-child){text-align:center;padding-bottom:5px}
.classes td:nth-child(2){white-space:nowrap}
.heat{display:block;text-align:center;border-radius:4px;padding:2px 4px;font-size:13px;
min-width:46px}
.bar{display:inline-block;position:relative;width:64px;height:9px;border-radius:2px;
background:#eef1f6;margin-right:5px}
.bar i{display:block;height:100%;border-radius:2px;background:#2f7ebd}
.bar b{position:absolute;top:-3px;bottom:-3px;width:1.5px;background:#5a6478}
.legend{display:flex;flex-wrap:wrap;gap:4px 18px;font-size:13.5px;margin:0 0 18px;padding:0;
list-style:none}
.chip{display:inline-block;width:12px;height:12px;border-radius:3px;margin-right:7px;
vertical-align:-1px}
.key{display:inline-block;min-width:22px;text-align:center;border-radius:5px;color:#fff;
font-size:13px;font-weight:650;line-height:21px;margin-right:8px}
.samples img{display:block;width:100%;image-rendering:pixelated;border-radius:4px;
max-width:760px}
.samples figcaption{margin:14px 0 6px}
.strong{font-weight:650}.weak{color:var(--soft)}
summary{cursor:pointer;font-weight:600;padding:3px 0}
details{margin-top:10px}
details.run>summary{font-size:18px;overflow-wrap:anywhere}
details.run[open]>summary{margin-bottom:18px}
details:not(.run)[open]>summary{margin-bottom:10px}
pre{background:var(--ground);border:1px solid var(--line);border-radius:8px;padding:14px 16px;
overflow:auto;font:13px/1.5 ui-monospace,"DejaVu Sans Mono",Menlo,Consolas,monospace;
max-height:520px;margin:0 0 12px}
code{font:.92em ui-monospace,"DejaVu Sans Mono",Menlo,Consolas,monospace;overflow-wrap:anywhere}
footer{color:var(--soft);font-size:13px;margin-top:26px}
@media(max-width:980px){.policy{grid-template-columns:minmax(0,1fr)}}
@media(max-width:600px){body{padding:22px 14px 48px}section,details.run{padding:18px 15px;
border-radius:10px}h1{font-size:24px}.headline{font-size:17px}
.tiles{grid-template-columns:1fr 1fr}.tile{padding:11px 13px}.tile b{font-size:19px}}
@media print{html{background:#fff}section{break-inside:avoid}}
"""


def document(title: str, body: str) -> str:
    return (
        "<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<meta name='color-scheme' content='light'><title>{text(title)}</title>"
        f"<style>{STYLE}</style></head>\n<body>{body}</body></html>\n"
    )
