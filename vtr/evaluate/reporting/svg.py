"""Charts as HTML with inline SVG.

Positions are percentages and text has a fixed size: a chart fills a phone or a wide screen, and its
labels stay readable. Colours come from the page's variables, so that dark pages work. Every chart
is a figure with a caption, and every drawn figure is also text (a label, a tooltip or a table).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from vtr.evaluate.reporting.charts import (
    MARKERS,
    BarChart,
    Chart,
    DotChart,
    Head,
    Histogram,
    LineChart,
    Point,
    Scatter,
    axis_ticks,
    figure,
    fill,
    interval,
    look,
    round_up,
    tick_text,
)
from vtr.foreign import escaped, isolated, shown

_SHAPES = {
    "circle": "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0 -9 0z",
    "square": "M-4 -4h8v8h-8z",
    "diamond": "M0 -5.6L5.6 0L0 5.6L-5.6 0z",
    "up": "M0 -5.2L5 4H-5z",
    "down": "M0 5.2L5 -4H-5z",
    "cross": "M-4.5 -4.5L4.5 4.5M4.5 -4.5L-4.5 4.5",
    "plus": "M-5 0H5M0 -5V5",
    "star": "M0 -6.2L1.5 -2H5.9L2.4 .7L3.7 5L0 2.4L-3.7 5L-2.4 .7L-5.9 -2H-1.5z",
}


def draw(chart: Chart) -> str:
    """Returns a chart as an HTML figure."""
    if isinstance(chart, DotChart):
        return _figure(chart.head, _legend([s.name for s in chart.series]) + _dots(chart))
    if isinstance(chart, BarChart):
        return _figure(chart.head, _bars(chart))
    if isinstance(chart, Histogram):
        names = [name for name, _ in chart.series]
        legend = _legend(names, areas=True)
        return _figure(chart.head, legend + _plot(chart.head, *_histogram(chart)))
    if isinstance(chart, LineChart):
        names = [name for name, _ in chart.series]
        return _figure(chart.head, _legend(names) + _plot(chart.head, *_lines(chart)))
    names = [name for name, _ in chart.groups]
    return _figure(chart.head, _legend(names) + _plot(chart.head, *_scatter(chart)))


def _figure(head: Head, body: str) -> str:
    return (
        f'<figure class="chart" id="{escaped(head.name)}"><figcaption><h3>{escaped(head.title)}'
        f"</h3><p>{escaped(head.note)}</p></figcaption>{body}</figure>"
    )


def _legend(names: Sequence[str], *, areas: bool = False) -> str:
    if len(names) < 2:
        return ""
    area = '<rect width="100%" height="100%" rx="2" class="swatch"/>'
    items = "".join(
        f'<li><svg class="key {_style(i, areas=areas)}" aria-hidden="true">'
        f"{area if areas else marker(i, 50, 50)}</svg>"
        f"{isolated(name, 80)}</li>"
        for i, name in enumerate(names)
    )
    return f'<ul class="legend">{items}</ul>'


def marker(number: int, x: float, y: float) -> str:
    """Returns a series' own mark at (x, y) in percent of the surrounding drawing."""
    kind = MARKERS[look(number)[1]]
    line = ' class="stroke"' if kind in ("cross", "plus") else ""
    shape = f'<path d="{_SHAPES[kind]}"{line}/>'
    return f'<svg x="{x:.3f}%" y="{y:.3f}%" overflow="visible">{shape}</svg>'


def _style(number: int, *, areas: bool = False) -> str:
    """The classes of a series: its colour and, for areas, how they are filled."""
    colour = f"s{look(number)[0]}"
    return f"{colour} f{fill(number)}" if areas and fill(number) else colour


# ---- rows of figures


def _dots(chart: DotChart) -> str:
    head, top = chart.head, chart.top
    rows = [
        f'<tr class="{"small " if point.is_small else ""}{"first" if nth == 0 else ""}">'
        + (_row_label(label, len(points)) if nth == 0 else "")
        + _dot_cells(chart, number, point)
        + "</tr>"
        for label, points in chart.rows()
        for nth, (number, point) in enumerate(points)
    ]
    ticks = axis_ticks(0, top, 4)
    axis = "".join(
        f'<text x="{100 * tick / top:.3f}%" y="12" text-anchor="middle">{tick_text(tick)}</text>'
        for tick in ticks
    )
    return (
        '<table class="dots"><thead><tr><th scope="col"></th>'
        f'<th scope="col" class="track">{escaped(head.x)}</th><th scope="col" class="n">value</th>'
        '<th scope="col" class="n">95 % interval</th><th scope="col" class="n">N</th></tr></thead>'
        f'<tbody>{"".join(rows)}</tbody><tfoot><tr><td></td><td class="track">'
        f'<svg class="axis" aria-hidden="true">{axis}</svg></td><td colspan="3"></td></tr></tfoot>'
        "</table>"
    )


def _row_label(label: str, rows: int = 1) -> str:
    # "sports/actions" may break after its slash.
    text = "/<wbr>".join(escaped(part) for part in shown(label, 60).split("/"))
    return f'<th scope="row" rowspan="{rows}"><bdi>{text}</bdi></th>'


def _dot_cells(chart: DotChart, number: int, point: Point) -> str:
    top = chart.top
    grid = "".join(
        f'<line class="grid" x1="{100 * t / top:.3f}%" x2="{100 * t / top:.3f}%" y1="0" y2="100%"/>'
        for t in axis_ticks(0, top, 4)
    )
    whisker = ""
    if point.low is not None and point.high is not None:
        low, high = (100 * min(max(end, 0.0), top) / top for end in (point.low, point.high))
        whisker = f'<line class="whisker" x1="{low:.3f}%" x2="{high:.3f}%" y1="50%" y2="50%"/>'
    dot = marker(number, 100 * min(point.value, top) / top, 50)
    count = "" if point.n is None else f"{point.n:,}"
    if point.is_small:
        count += '<abbr title="fewer than 30 queries: too few to say much">†</abbr>'
    series = chart.series[number].name
    return (
        '<td class="track">'
        f'<svg class="{_style(number)}" role="img" aria-label="{escaped(series, 80)}">{grid}'
        f"{whisker}{dot}</svg></td>"
        f'<td class="n">{figure(point.value)}</td><td class="n faint">{interval(point)}</td>'
        f'<td class="n faint">{count}</td>'
    )


def _bars(chart: BarChart) -> str:
    top = max(chart.counts, default=1) or 1
    rows = "".join(
        f'<tr class="first">{_row_label(label)}<td class="track">'
        f'<svg class="s0" aria-hidden="true"><rect x="0" y="22%" height="56%" '
        f'width="{100 * count / top:.3f}%"/></svg></td><td class="n">{count:,}</td></tr>'
        for label, count in zip(chart.labels, chart.counts, strict=True)
    )
    return (
        f'<table class="dots"><thead><tr><th scope="col"></th><th scope="col" class="track">'
        f'</th><th scope="col" class="n">{escaped(chart.head.x)}</th></tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )


# ---- charts with two axes


_Ticks = list[tuple[float, str]]  # (place in percent, what stands there)


def _plot(head: Head, marks: str, xs: _Ticks, ys: _Ticks) -> str:
    """Returns a plane with its axes; percentages count from the left and from the bottom."""
    grid = "".join(
        f'<line class="grid" x1="0" x2="100%" y1="{100 - place:.3f}%" y2="{100 - place:.3f}%"/>'
        for place, _ in ys
    )
    left = "".join(
        f'<text x="-8" y="{100 - place:.3f}%" dy="4" text-anchor="end">{escaped(text)}</text>'
        for place, text in ys
    )
    odd = ' class="odd"'
    dense = len(xs) > 7  # on a phone every other label is left out
    below = "".join(
        f'<text x="{place:.3f}%" y="100%" dy="18" text-anchor="middle"'
        f"{odd if dense and nth % 2 else ''}>{escaped(text)}</text>"
        for nth, (place, text) in enumerate(xs)
    )
    return (
        f'<div class="y-label">{escaped(head.y)}</div><div class="plane"><svg role="img" '
        f'aria-label="{escaped(head.title)}">{grid}{left}{below}{marks}</svg></div>'
        f'<div class="x-label">{escaped(head.x)}</div>'
    )


def _histogram(chart: Histogram) -> tuple[str, _Ticks, _Ticks]:
    heights = chart.heights()
    top = round_up(max((h for one in heights for h in one), default=1.0))
    count = len(chart.edges) - 1
    even = bool(chart.bin_names)
    first, last = chart.ends

    def place(number: int) -> float:
        if even:
            return 100 * number / count
        return 100 * (chart.edges[number] - first) / (last - first)

    marks = "".join(
        _histogram_marks(chart, number, heights[number], place, top)
        for number in range(len(chart.series))
    )
    if even:
        xs = [(100 * (i + 0.5) / count, name) for i, name in enumerate(chart.bin_names)]
    else:
        ticks = axis_ticks(first, last, 5)
        xs = [(100 * (tick - first) / (last - first), tick_text(tick)) for tick in ticks]
    return marks, xs, _y_ticks(top)


def _histogram_marks(
    chart: Histogram, number: int, heights: list[float], place: Callable[[int], float], top: float
) -> str:
    name, counts = chart.series[number]
    inset = 0.12 if chart.bin_names else 0.0
    side = len(chart.series) if chart.bin_names else 1  # named bins stand beside each other
    nth = number if side > 1 else 0
    bars = []
    for i, height in enumerate(heights):
        if not counts[i]:
            continue
        x, width = place(i), place(i + 1) - place(i)
        each = (1 - 2 * inset) * width / side
        where = (
            f"{chart.bin_names[i]}"
            if chart.bin_names
            else f"{chart.edges[i]:.3g} to {chart.edges[i + 1]:.3g}"
        )
        unit = f"{counts[i]:,} ({height:.1f} %)" if chart.as_share else f"{counts[i]:,}"
        bars.append(
            f'<rect x="{x + inset * width + nth * each:.3f}%" width="{each:.3f}%" '
            f'y="{100 - 100 * height / top:.3f}%" height="{100 * height / top:.3f}%">'
            f"<title>{escaped(name, 80)}, {escaped(where)}: {unit}</title></rect>"
        )
    mean = chart.means[number] if number < len(chart.means) else None
    line = ""
    first, last = chart.ends
    if mean is not None and last > first:
        x = 100 * (mean - first) / (last - first)
        line = (
            f'<line class="mean" x1="{x:.3f}%" x2="{x:.3f}%" y1="0" y2="100%">'
            f"<title>{escaped(name, 80)}: mean {mean:.4g}</title></line>"
        )
    kind = "area" if side == 1 and len(chart.series) > 1 else "area full"
    return f'<g class="{_style(number, areas=True)} {kind}">{"".join(bars)}{line}</g>'


def _y_ticks(top: float) -> _Ticks:
    return [(100 * tick / top, tick_text(tick)) for tick in axis_ticks(0, top, 4)]


def _lines(chart: LineChart) -> tuple[str, _Ticks, _Ticks]:
    every = [p for _, points in chart.series for p in points]
    xs = sorted({x for x, _, _, _ in every})
    top = min(100.0, round_up(max(p[3] if p[3] is not None else p[1] for p in every)))
    # Frame counts double from one to the next; even steps keep the small ones apart.
    places = {x: 100 * (i + 0.5) / len(xs) for i, x in enumerate(xs)}
    marks = "".join(
        _line_marks(number, name, points, _beside(places, number, len(chart.series)), top)
        for number, (name, points) in enumerate(chart.series)
    )
    return marks, [(places[x], f"{x:g}") for x in xs], _y_ticks(top)


def _beside(places: dict[float, float], number: int, count: int) -> dict[float, float]:
    """Moves a series a little aside, so that intervals do not cover each other."""
    return {x: place + 1.3 * (number - (count - 1) / 2) for x, place in places.items()}


def _line_marks(
    number: int,
    name: str,
    points: Iterable[tuple[float, float, float | None, float | None]],
    places: dict[float, float],
    top: float,
) -> str:
    parts, before = [], None
    for x, value, low, high in points:
        here = (places[x], 100 - 100 * value / top)
        if before is not None:
            parts.append(
                f'<line class="curve" x1="{before[0]:.3f}%" y1="{before[1]:.3f}%" '
                f'x2="{here[0]:.3f}%" y2="{here[1]:.3f}%"/>'
            )
        if low is not None and high is not None:
            parts.append(
                f'<line class="whisker" x1="{here[0]:.3f}%" x2="{here[0]:.3f}%" '
                f'y1="{100 - 100 * min(high, top) / top:.3f}%" '
                f'y2="{100 - 100 * max(low, 0) / top:.3f}%"/>'
            )
        title = f"<title>{escaped(name, 80)}, {x:g}: {figure(value)}</title>"
        parts.append(f"<g>{title}{marker(number, *here)}</g>")
        before = here
    return f'<g class="{_style(number)}">{"".join(parts)}</g>'


def _scatter(chart: Scatter) -> tuple[str, _Ticks, _Ticks]:
    points = [p for _, group in chart.groups for p in group]
    (left, right), (low, high) = (_range(p[axis] for p in points) for axis in (0, 1))
    groups = "".join(
        f'<g class="{_style(number)} cloud">'
        + "".join(
            _spot(number, 100 * (x - left) / (right - left), 100 - 100 * (y - low) / (high - low))
            for x, y in group
        )
        + "</g>"
        for number, (_, group) in enumerate(chart.groups)
    )
    xs = [(100 * (t - left) / (right - left), tick_text(t)) for t in axis_ticks(left, right, 5)]
    ys = [(100 * (t - low) / (high - low), tick_text(t)) for t in axis_ticks(low, high, 4)]
    return groups, xs, ys


def _spot(number: int, x: float, y: float) -> str:
    """A small mark: round in one group, square in the next."""
    if number % 2:
        return f'<rect x="{x:.2f}%" y="{y:.2f}%" width="5" height="5" class="spot"/>'
    return f'<circle r="2.7" cx="{x:.2f}%" cy="{y:.2f}%"/>'


def _range(values: Iterable[float]) -> tuple[float, float]:
    found = list(values) or [0.0, 1.0]
    low, high = min(found), max(found)
    margin = 0.04 * (high - low) or 1.0
    return low - margin, high + margin
