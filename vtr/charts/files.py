"""Charts as PNG and SVG files: the marks of the page within a frame of their own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vtr.charts import marks
from vtr.charts.drawing import Drawing, cut, width_of, wrapped
from vtr.charts.kinds import (
    BarChart,
    Chart,
    DotChart,
    Head,
    Histogram,
    figure,
    interval,
    series_names,
)
from vtr.errors import ConfigError
from vtr.files import publish
from vtr.foreign import shown

WIDTH, MARGIN, ROW = 860.0, 24.0, 22.0
PLANE_HEIGHT = 300.0
COUNT, INTERVAL, VALUE = 60.0, 110.0, 60.0  # widths of columns


def save(chart: Chart, path: Path) -> None:
    """Draws a chart into a .png or .svg file."""
    kind = path.suffix.lstrip(".")
    if kind not in ("png", "svg"):
        raise ConfigError(f"{path.name} must end in .png or .svg")
    publish(path, draw(chart, kind=kind))


def draw(chart: Chart, *, kind: str = "png") -> bytes:
    """Returns a chart as the bytes of a PNG or SVG file."""
    drawing = Drawing(WIDTH)
    names = series_names(chart)
    y = draw_head(drawing, chart.head)
    y = draw_legend(drawing, names, y, areas=isinstance(chart, Histogram))
    if isinstance(chart, DotChart):
        y = _dots(drawing, chart, y)
    elif isinstance(chart, BarChart):
        y = _bars(drawing, chart, y)
    else:
        y = draw_plane(drawing, chart, (MARGIN, WIDTH - MARGIN), y)
    drawing.height = y + MARGIN
    return drawing.png() if kind == "png" else drawing.svg()


def draw_head(drawing: Drawing, head: Head) -> float:
    """Writes title and note; returns where they end."""
    room = drawing.width - 2 * MARGIN
    drawing.text(MARGIN, 38, cut(shown(head.title), room, 17, bold=True), size=17, kind="ink bold")
    y = 42.0
    for line in wrapped(shown(head.note, 400), room, 12):
        y += 17
        drawing.text(MARGIN, y, line)
    return y + 14


def draw_legend(
    drawing: Drawing, names: Sequence[str], y: float, *, areas: bool = False, left: float = MARGIN
) -> float:
    """Draws the names of series side by side; returns where they end."""
    if not names:
        return y
    x = left
    for number, name in enumerate(names):
        words = cut(shown(name, 80), WIDTH / 2, 12.5)
        wide = 20 + width_of(words, 12.5)
        if x > left and x + wide > drawing.width - MARGIN:
            x, y = left, y + 20
        key = marks.style(number, areas=areas)
        drawing.inset((x, y, 12, 12), marks.swatch(number, areas=areas), kind=key)
        drawing.text(x + 19, y + 10.5, words, size=12.5, kind="ink")
        x += wide + 20
    return y + 26


def _label_width(labels: Sequence[str]) -> float:
    return min(max((width_of(shown(name, 60), 12.5) for name in labels), default=0.0), 200.0) + 14


def _rule(drawing: Drawing, y: float) -> None:
    line = '<line class="grid" x1="0" x2="100%" y1="0" y2="0"/>'
    drawing.inset((MARGIN, y, drawing.width - 2 * MARGIN, 0.1), line)


def _label(drawing: Drawing, words: str, y: float, width: float) -> None:
    drawing.text(MARGIN, y, cut(shown(words, 60), width - 10, 12.5), size=12.5, kind="ink")


def _dots(drawing: Drawing, chart: DotChart, y: float) -> float:
    left = _label_width(chart.labels)
    right = drawing.width - MARGIN
    box = (MARGIN + left, right - COUNT - INTERVAL - VALUE - MARGIN - left)
    ends = (right - COUNT - INTERVAL, right - COUNT, right)
    drawing.text(box[0], y + 8, chart.head.x, size=11)
    for x, words in zip(ends, ("value", "95 % interval", "N"), strict=True):
        drawing.text(x, y + 8, words, size=11, anchor="end")
    y += 18
    for label, points in chart.rows():
        _rule(drawing, y)
        _label(drawing, label, y + 16, left)
        for number, point in points:
            kind = marks.style(number) + (" faded" if point.is_small else "")
            drawing.inset((box[0], y, box[1], ROW), marks.track(chart, number, point), kind=kind)
            count = "" if point.n is None else f"{point.n:,}{'†' if point.is_small else ''}"
            cells = (figure(point.value), interval(point), count)
            for x, words, ink in zip(ends, cells, ("ink", "", ""), strict=True):
                drawing.text(x, y + 15.5, words, size=12.5, kind=ink, anchor="end")
            y += ROW
    drawing.inset((box[0], y + 3, box[1], 16), marks.axis(chart))
    return y + 16


def _bars(drawing: Drawing, chart: BarChart, y: float) -> float:
    left, right = _label_width(chart.labels), drawing.width - MARGIN
    room, top = right - COUNT - MARGIN - left, max([*chart.counts, 1])
    drawing.text(right, y + 8, chart.head.x, size=11, anchor="end")
    y += 18
    for label, count in zip(chart.labels, chart.counts, strict=True):
        _rule(drawing, y)
        _label(drawing, label, y + 16, left)
        drawing.box((MARGIN + left, y + 5, room * count / top, ROW - 10), kind="s0 bar")
        drawing.text(right, y + 15.5, f"{count:,}", size=12.5, kind="ink", anchor="end")
        y += ROW
    return y


def draw_plane(drawing: Drawing, chart: marks.Plane, ends: tuple[float, float], y: float) -> float:
    """Draws a chart with two axes between two places of the width; returns where it ends."""
    left, right = ends[0] + 46, ends[1] - 12
    drawing.text(ends[0], y + 6, shown(chart.head.y, 90), size=11.5)
    drawing.inset((left, y + 28, right - left, PLANE_HEIGHT), marks.plane(chart))
    y += PLANE_HEIGHT + 68
    drawing.text((left + right) / 2, y, shown(chart.head.x, 90), size=11.5, anchor="middle")
    return y
