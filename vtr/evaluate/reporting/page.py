"""The HTML page: one file, no script, no network, light and dark, for phones and paper."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from vtr.evaluate.reporting.charts import COLOURS, Chart
from vtr.evaluate.reporting.svg import draw
from vtr.foreign import escaped

# Nothing may be fetched or run, whatever ends up in the page.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'"


_HEADING = re.compile(r'<section id="([^"]*)"><h2>(.*?)</h2>')


def page(title: str, lead: str, sections: Iterable[str]) -> bytes:
    """Returns a whole page.

    Args:
        title: Of the page.
        lead: HTML below the heading.
        sections: HTML from `section`.
    """
    parts = [part for part in sections if part]
    body = "".join(parts)
    document = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        '<meta name="referrer" content="no-referrer">'
        f"<title>{escaped(title, 120)}</title><style>{_style()}</style></head>"
        f"<body><header><h1>{escaped(title, 120)}</h1>{lead}{_contents(parts)}</header>"
        f"<main>{body}</main></body></html>\n"
    )
    return document.encode("utf-8", "replace")


def _contents(parts: Sequence[str]) -> str:
    """Links to the sections, which `section` has begun with their name and title."""
    found = [_HEADING.match(part) for part in parts]
    links = "".join(f'<li><a href="#{m[1]}">{m[2]}</a></li>' for m in found if m)
    return f'<nav aria-label="Contents"><ul>{links}</ul></nav>' if len(parts) > 2 else ""


def section(title: str, parts: Sequence[str], *, name: str) -> str:
    """Returns a section with a heading; nothing where it has no parts."""
    if not parts:
        return ""
    return f'<section id="{escaped(name)}"><h2>{escaped(title)}</h2>{"".join(parts)}</section>'


def charts(found: Iterable[Chart | None]) -> list[str]:
    """Returns the charts that exist, drawn."""
    return [draw(chart) for chart in found if chart is not None]


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    caption: str = "",
    kind: str = "",
) -> str:
    """Returns a table that scrolls by itself where the screen is narrow.

    Args:
        head: Column names, plain text.
        rows: Cells as HTML, already escaped; the first is the row's name.
        caption: Plain text.
        kind: "words" for cells of words that may wrap, "even" for columns that stand in line with
            those of other tables; else columns are as wide as they need.
    """
    heading = "".join(f'<th scope="col">{escaped(name)}</th>' for name in head)
    body = "".join(
        "<tr>"
        + "".join(
            f'<th scope="row">{cell}</th>' if i == 0 else f"<td>{cell}</td>"
            for i, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    title = f"<caption>{escaped(caption)}</caption>" if caption else ""
    kind = kind or ("pairs" if len(head) == 2 else "")
    return (
        f'<div class="scroll" tabindex="0"><table class="plain {kind}">{title}'
        f"<thead><tr>{heading}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def notes(texts: Sequence[str], *, kind: str = "note") -> str:
    """Returns remarks in a box; nothing where there are none.

    Args:
        texts: HTML, already escaped.
        kind: "note" or "warning".
    """
    if not texts:
        return ""
    items = "".join(f"<li>{text}</li>" for text in texts)
    return f'<ul class="box {kind}" role="note">{items}</ul>'


def _style() -> str:
    light = "".join(f"--s{i}:{colour};" for i, colour in enumerate(COLOURS))
    dark = "".join(f"--s{i}:{colour};" for i, colour in enumerate(_DARK_COLOURS))
    series = "".join(
        f".s{i}{{fill:var(--s{i});stroke:var(--s{i});color:var(--s{i})}}"
        for i in range(len(COLOURS))
    )
    return (
        f":root{{{_LIGHT}{light}}}@media (prefers-color-scheme:dark){{:root{{{_DARK}{dark}}}}}"
        f"@media print{{:root{{{_LIGHT}{light}}}}}{series}{_RULES}"
    )


# The same hues, lighter where they would sink into a dark page.
_DARK_COLOURS = ("#56a7e0", "#f08a3c", "#2fc49b", "#e29cc4", "#9ad4f5", "#f2bd4a", "#9ca3af")
_LIGHT = (
    "--paper:#fff;--panel:#f7f8fa;--ink:#1b1f27;--faint:#596273;--line:#dfe3e9;--warn:#8a4b00;"
    "--warn-paper:#fff6e5;--good:#00694d;color-scheme:light;"
)
_DARK = (
    "--paper:#14171c;--panel:#1c2027;--ink:#e8eaee;--faint:#a3acba;--line:#343b46;--warn:#ffc46b;"
    "--warn-paper:#2f2614;--good:#4fd6ad;color-scheme:dark;"
)
_RULES = """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0 auto;max-width:62rem;padding:1.5rem 1rem 4rem;
 background:var(--paper);color:var(--ink);
 font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;
 font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
h1{font-size:1.7rem;line-height:1.2;margin:0 0 .5rem;letter-spacing:-.01em}
h2{font-size:1.25rem;margin:2.5rem 0 .75rem;padding-top:.75rem;border-top:1px solid var(--line)}
h3{font-size:1rem;margin:0}
p{margin:.25rem 0}
header p,figcaption p,.faint{color:var(--faint)}
figcaption p{font-size:.875rem;margin:.1rem 0 .5rem}
.chart{margin:0 0 1.25rem;padding:1rem;background:var(--panel);border:1px solid var(--line);
 border-radius:.5rem;break-inside:avoid}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:.15rem 1.1rem;
 margin:.25rem 0 .5rem;padding:0;
 font-size:.875rem}
.legend li{display:flex;align-items:center;gap:.4rem}
.key{width:12px;height:12px;flex:none;overflow:visible}
svg text{fill:var(--faint);stroke:none;font-size:12px}
svg .stroke{fill:none;stroke-width:2.2}
svg path{stroke:none}svg path.stroke{stroke:inherit}
.grid{stroke:var(--line);stroke-width:1}
.whisker{stroke-width:2.5;opacity:.55}
.curve{stroke-width:2}
.mean{stroke-width:2;stroke-dasharray:5 4}
.area rect{stroke:none;fill-opacity:.5}
.area.full rect{fill-opacity:.9}.swatch{stroke:none;fill-opacity:.7}
.full:is(.f1,.f2,.f3) rect,.key:is(.f1,.f2,.f3) .swatch{stroke:inherit;fill-opacity:.35}
.full:is(.f4,.f5) rect,.key:is(.f4,.f5) .swatch{stroke:inherit;fill-opacity:0}
:is(.f2,.f5) rect{stroke-dasharray:4 2}.f3 rect{stroke-dasharray:1 2}
.area rect:hover{fill-opacity:.85}
.cloud *{stroke:none;fill-opacity:.6}.spot{transform:translate(-2.5px,-2.5px)}
.dots{width:100%;border-collapse:collapse;font-size:.875rem}
.dots th{font-weight:400;text-align:left;padding:0 .6rem 0 0;line-height:1.25}
.dots thead th{color:var(--faint);font-size:.75rem;vertical-align:bottom;padding-bottom:.2rem}
.dots th{width:1%}.dots tbody th{min-width:8.5rem;max-width:12rem;vertical-align:top}
.dots tbody tr>*{padding-top:.1rem;padding-bottom:.1rem}
.dots .track{width:55%;min-width:6rem;padding:0 .6rem 0 .4rem}
.dots .track svg{display:block;width:100%;height:1.35rem;overflow:visible}
.dots .track svg.axis{height:16px}
.dots .n{text-align:right;white-space:nowrap;padding:0 0 0 .6rem}
.dots tr.first:not(:first-child)>*{border-top:1px solid var(--line)}
.dots tr.small .track svg{opacity:.5}
.dots rect{stroke:none}
abbr{text-decoration:none;cursor:help}
.plane{padding:.5rem .75rem 1.6rem 3rem}
.plane svg{display:block;width:100%;height:15rem;overflow:visible}
.y-label{font-size:.75rem;color:var(--faint)}
.x-label{font-size:.75rem;color:var(--faint);text-align:center}
.scroll{overflow-x:auto;margin:.75rem 0 1.25rem}
.plain{border-collapse:collapse;font-size:.875rem;min-width:100%}
.plain caption{text-align:left;color:var(--faint);padding-bottom:.3rem}
.plain th,.plain td{padding:.35rem .9rem .35rem 0;border-bottom:1px solid var(--line);
 text-align:right;
 vertical-align:top;overflow-wrap:normal}
.plain th:first-child{text-align:left;min-width:9rem;overflow-wrap:break-word;
 position:sticky;left:0;background:var(--paper)}
.even{table-layout:fixed;width:100%;min-width:49rem}
.even th:first-child{width:10.5rem;overflow-wrap:anywhere}
.plain.even small{white-space:normal}
.even th:last-child,.even td:last-child{width:4.5rem;padding-right:0}
.plain thead th{color:var(--faint);font-weight:500;vertical-align:bottom}
.plain tbody th{font-weight:600}
.pairs td{text-align:left;width:100%}.pairs thead th{text-align:left}
.pairs th:first-child{padding-right:2rem;min-width:11rem}
.words{table-layout:fixed;width:100%}
.words th,.words td,.words thead th{text-align:left;overflow-wrap:anywhere}
.words th:first-child{width:10rem}
nav ul{list-style:none;display:flex;flex-wrap:wrap;gap:.1rem 1.1rem;margin:.75rem 0 0;padding:0;
 font-size:.9rem}
nav a{color:var(--s0);text-decoration:none;display:inline-block;padding:.2rem 0}
nav a:hover,nav a:focus-visible{text-decoration:underline}
.plain small{display:block;color:var(--faint);white-space:nowrap}
.box{list-style:none;margin:.75rem 0 1.25rem;padding:.6rem .9rem;border-radius:.5rem;
 border:1px solid var(--line);background:var(--panel);font-size:.9rem}
.box.warning{background:var(--warn-paper);border-color:var(--warn);color:var(--warn)}
details{margin:0 0 1rem}summary{cursor:pointer;color:var(--faint)}
.example{margin:0 0 1.25rem;padding:1rem;background:var(--panel);border:1px solid var(--line);
 border-radius:.5rem}
.example blockquote{margin:.1rem 0 .5rem;font-size:1.05rem}
.hit{display:grid;grid-template-columns:11rem 1fr;gap:.25rem 1rem;padding:.6rem 0 0;
 margin:.6rem 0 0;
 border-top:1px solid var(--line);break-inside:avoid}
.hit .who{font-size:.875rem}.hit .who b{display:block}
.hit.correct .who b{color:var(--good)}
.strip{display:flex;flex-wrap:wrap;gap:.4rem}
.strip figure{margin:0;text-align:center}
.strip img{display:block;height:4.5rem;width:auto;max-width:100%;border-radius:.25rem}
.strip figcaption{font-size:.75rem;color:var(--faint)}
.absent{display:grid;place-items:center;min-height:4.5rem;width:100%;border:1px dashed var(--line);
 border-radius:.25rem;color:var(--faint);font-size:.8rem;padding:.25rem .5rem;text-align:center}
@media (max-width:40rem){
 body{padding:1rem .75rem 3rem}.chart,.example{padding:.75rem}
 .hit{grid-template-columns:1fr}.even th:first-child{width:8rem;min-width:8rem}
 .dots{font-size:.8rem}.dots th{padding-right:.3rem}
 .dots tbody th{min-width:5.2rem;max-width:6.5rem;font-size:.75rem}
 .dots .track{width:35%;min-width:4.5rem}.dots .n{padding-left:.35rem}
 .plane{padding-left:2.4rem}.plane svg{height:12rem}text.odd{display:none}}
@media print{h2,.chart figcaption,blockquote,blockquote+p,caption{break-after:avoid}
 tr,blockquote{break-inside:avoid}.even th,.even td{padding-right:.4rem}
 nav{display:none}.even{min-width:0}.plain th:first-child{position:static}
 .strip img{height:3rem}
 .hit{grid-template-columns:9rem 1fr}.scroll{overflow:visible}
 body{max-width:none;padding:0;font-size:11pt}.chart,.example{background:none}
 details>*{display:block}}
"""
