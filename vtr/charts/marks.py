"""The marks of charts as SVG, the same in pages and in files.

Positions are percentages of the drawing around them and text has a fixed size: a chart fills a
phone, a wide screen or a file of given size, and its labels stay readable. Colours are classes;
what they are, chart.css says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from vtr.charts.kinds import (
    MARKERS,
    DotChart,
    Histogram,
    LineChart,
    Place,
    Point,
    Scatter,
    axis_ticks,
    fill,
    look,
    round_up,
    tick_text,
)
from vtr.foreign import escaped

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
MAX_MARKED = 60  # places of a line, beyond which its markers would hide it
Plane = Histogram | LineChart | Scatter
_Ticks = list[tuple[float, str]]  # place in percent, what stands there
_Scale = Callable[[float], float]


def marker(number: int, x: float, y: float) -> str:
    """Returns a series' own mark at (x, y) in percent of the surrounding drawing."""
    kind = MARKERS[look(number)[1]]
    line = ' class="stroke"' if kind in ("cross", "plus") else ""
    shape = f'<path d="{_SHAPES[kind]}"{line}/>'
    return f'<svg x="{x:.3f}%" y="{y:.3f}%" overflow="visible">{shape}</svg>'


def style(number: int, *, areas: bool = False) -> str:
    """Returns the classes of a series: its colour and, for areas, how they are filled."""
    colour = f"s{look(number)[0]}"
    return f"{colour} f{fill(number)}" if areas and fill(number) else colour


def swatch(number: int, *, areas: bool) -> str:
    """Returns what stands for a series in a legend."""
    area = '<rect width="100%" height="100%" rx="2" class="swatch"/>'
    return area if areas else marker(number, 50, 50)


def line(kind: str, x: tuple[float, float], y: tuple[float, float], inner: str = "") -> str:
    """Returns a line between two places in percent; `inner` stands within it, such as a title."""
    ends = zip(("x1", "x2", "y1", "y2"), (*x, *y), strict=True)
    places = " ".join(f'{name}="{place:.3f}%"' for name, place in ends)
    return f'<line class="{kind}" {places}>{inner}</line>'


def _title(name: str, words: str) -> str:
    return f"<title>{escaped(f'{name}, ' if name else '', 80)}{escaped(words)}</title>"


# ---- rows of figures


def track(chart: DotChart, number: int, point: Point) -> str:
    """Returns one point on its axis, with its interval and the grid."""
    top = chart.top
    parts = [line("grid", (100 * t / top,) * 2, (0, 100)) for t in axis_ticks(0, top, 4)]
    if point.low is not None and point.high is not None:
        low, high = (100 * min(max(end, 0.0), top) / top for end in (point.low, point.high))
        parts.append(line("whisker", (low, high), (50, 50)))
    return "".join([*parts, marker(number, 100 * min(point.value, top) / top, 50)])


def axis(chart: DotChart) -> str:
    """Returns the numbers under the points."""
    return "".join(
        f'<text x="{100 * tick / chart.top:.3f}%" y="12" text-anchor="middle">{tick_text(tick)}'
        "</text>"
        for tick in axis_ticks(0, chart.top, 4)
    )


# ---- charts with two axes


def plane(chart: Plane) -> str:
    """Returns a plane with its axes and marks; percentages count from the left and the bottom."""
    drawing = {Histogram: _histogram, LineChart: _lines, Scatter: _scatter}[type(chart)]
    marks, xs, ys = drawing(chart)  # type: ignore[operator]
    grid = "".join(line("grid", (0, 100), (100 - place,) * 2) for place, _ in ys)
    left = "".join(
        f'<text x="-8" y="{100 - place:.3f}%" dy="4" text-anchor="end">{escaped(text)}</text>'
        for place, text in ys
    )
    odd = ' class="odd"' if len(xs) > 7 else ""  # on a phone every other label is left out
    below = "".join(
        f'<text x="{place:.3f}%" y="100%" dy="18" text-anchor="middle"{odd if nth % 2 else ""}>'
        f"{escaped(text)}</text>"
        for nth, (place, text) in enumerate(xs)
    )
    return f"{grid}{left}{below}{marks}"


def _scale(low: float, high: float) -> _Scale:
    return lambda value: 100 * (value - low) / ((high - low) or 1.0)


def _ticks(low: float, high: float, wanted: int) -> _Ticks:
    place = _scale(low, high)
    return [(place(tick), tick_text(tick)) for tick in axis_ticks(low, high, wanted)]


def _histogram(chart: Histogram) -> tuple[str, _Ticks, _Ticks]:
    heights = chart.heights()
    top = round_up(max((h for one in heights for h in one), default=1.0))
    count = len(chart.edges) - 1
    if chart.bin_names:
        edges = [100 * n / count for n in range(count + 1)]
        xs = [(100 * (n + 0.5) / count, name) for n, name in enumerate(chart.bin_names)]
    else:
        edges = [_scale(*chart.ends)(edge) for edge in chart.edges]
        xs = _ticks(*chart.ends, 7)
    kind = "area full" if chart.bin_names or len(chart.series) == 1 else "area"
    marks = ""
    for number, shares in enumerate(heights):
        bars = "".join(_bars(chart, number, edges, [100 * h / top for h in shares]))
        marks += f'<g class="{style(number, areas=True)} {kind}">{bars}</g>'
    return marks + "".join(_means(chart)), xs, _ticks(0, top, 4)


def _bars(
    chart: Histogram, number: int, edges: Sequence[float], heights: Sequence[float]
) -> Iterator[str]:
    """The bars of one series; those of named bins stand beside each other."""
    name, counts = chart.series[number]
    inset, side = (0.12, len(chart.series)) if chart.bin_names else (0.0, 1)
    for i, (count, share) in enumerate(zip(counts, chart.heights()[number], strict=True)):
        if not count:
            continue
        width = edges[i + 1] - edges[i]
        each = (1 - 2 * inset) * width / side
        x = edges[i] + inset * width + (number * each if side > 1 else 0)
        span = f"{chart.edges[i]:.3g} to {chart.edges[i + 1]:.3g}"
        unit = f"{count:,} ({share:.1f} %)" if chart.as_share else f"{count:,}"
        yield (
            f'<rect x="{x:.3f}%" width="{each:.3f}%" y="{100 - heights[i]:.3f}%" '
            f'height="{heights[i]:.3f}%">'
            f"{_title(name, f'{chart.bin_names[i] if chart.bin_names else span}: {unit}')}</rect>"
        )


def _means(chart: Histogram) -> Iterator[str]:
    """A line for each mean with its value above, written away from the other's."""
    known = [(mean, number) for number, mean in enumerate(chart.means) if mean is not None]
    place = _scale(*chart.ends)
    for mean, number in known:
        x = place(mean)
        is_left = len(known) > 1 and mean == min(known)[0]
        end = "end" if (x > 15 and is_left) or x > 85 else "start"
        words = _title(chart.series[number][0], f"mean {mean:.4g}")
        mark = line("mean", (x, x), (0, 100), words)
        yield (
            f'<g class="{style(number)}">{mark}<text class="mean-text" x="{x:.3f}%" y="-4" '
            f'dx="{-4 if end == "end" else 4}" text-anchor="{end}">{mean:.3g}</text></g>'
        )


def _lines(chart: LineChart) -> tuple[str, _Ticks, _Ticks]:
    every = [place for _, places in chart.series for place in places]
    values = [v for _, value, low, high in every for v in (value, low, high) if v is not None]
    ticks = _upright(values, from_zero=chart.from_zero)
    scale = _scale(ticks[0], ticks[-1])
    numbers = sorted({place[0] for place in every})
    if chart.is_even:
        along = {x: 100 * (i + 0.5) / len(numbers) for i, x in enumerate(numbers)}
        xs = [(along[x], f"{x:g}") for x in numbers]
    else:
        ends = (numbers[0], max(numbers[-1], numbers[0] + 1))
        along = {x: _scale(*ends)(x) for x in numbers}
        xs = [(_scale(*ends)(t), tick_text(t)) for t in axis_ticks(*ends, 6) if t.is_integer()]
    marks = ""
    for number, (name, places) in enumerate(chart.series):
        # A little beside each other, so that intervals are not covered.
        by = 1.3 * (number - (len(chart.series) - 1) / 2) if chart.is_even else 0.0
        beside = {x: place + by for x, place in along.items()}
        curve = "".join(_curve(number, name, places, beside, scale))
        marks += f'<g class="{style(number)}">{curve}</g>'
    return marks, xs, [(scale(tick), tick_text(tick)) for tick in ticks]


def _upright(values: Sequence[float], *, from_zero: bool) -> list[float]:
    """The ticks of a vertical axis, which ends with them: from 0, or around the values."""
    low, high = min(values), max(values)
    if from_zero:
        top = round_up(high)
        return [*axis_ticks(0, top, 4)[:-1], top]
    ticks = axis_ticks(low, high)
    step = ticks[1] - ticks[0] if len(ticks) > 1 else abs(low) or 1.0
    count = int(-(-high // step) - low // step) or 1
    return [round(step * (low // step + n), 12) for n in range(count + 1)]


def _curve(
    number: int, name: str, places: Sequence[Place], at: Mapping[float, float], scale: _Scale
) -> Iterator[str]:
    before = None
    for x, value, low, high in places:
        here = (at[x], 100 - scale(value))
        if before is not None:
            yield line("curve", (before[0], here[0]), (before[1], here[1]))
        if low is not None and high is not None:
            ends = (100 - min(scale(high), 100), 100 - max(scale(low), 0))
            yield line("whisker", (here[0],) * 2, ends)
        if len(places) <= MAX_MARKED:
            yield f"<g>{_title(name, f'{x:g}: {value:,.4g}')}{marker(number, *here)}</g>"
        before = here


def _scatter(chart: Scatter) -> tuple[str, _Ticks, _Ticks]:
    ends = []
    for axis in (0, 1):
        every = [point[axis] for _, group in chart.groups for point in group] or [0.0, 1.0]
        margin = 0.04 * (max(every) - min(every)) or 1.0
        ends.append((min(every) - margin, max(every) + margin))
    x_of, y_of = _scale(*ends[0]), _scale(*ends[1])
    square = '<rect x="{:.2f}%" y="{:.2f}%" width="5" height="5" transform="translate(-2.5 -2.5)"/>'
    groups = ""
    for number, (_, group) in enumerate(chart.groups):  # round in one group, square in the next
        spot = square if number % 2 else '<circle r="2.7" cx="{:.2f}%" cy="{:.2f}%"/>'
        spots = "".join(spot.format(x_of(x), 100 - y_of(y)) for x, y in group)
        groups += f'<g class="{style(number)} cloud">{spots}</g>'
    return groups, _ticks(*ends[0], 5), _ticks(*ends[1], 4)
