"""The study of samplers as a picture: a row per sampler, a column per figure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeGuard

from vtr.charts.drawing import Drawing, cut, width_of
from vtr.charts.marks import line
from vtr.foreign import shown

BETTER, WORSE, NEITHER = "s0", "s1", "s6"  # classes of chart.css

MARGIN, LABEL, AXIS, VALUE, GAP = 24.0, 165.0, 105.0, 65.0, 18.0
ROW, HEAD, FOOT = 26.0, 125.0, 55.0


@dataclass(frozen=True)
class Column:
    """One figure of every sampler."""

    word: str  # what it is, short enough for a table's head
    title: str
    note: str  # its unit, or which end is which
    values: Sequence[float | None]  # one per sampler; None or NaN where there is none
    show: Callable[[float], str]  # spells a value
    better: str = ""  # "high", "low", or "" where neither end is better
    intervals: Sequence[tuple[float, float]] | None = None  # lower and upper end per sampler
    from_zero: bool = True  # whether the axis begins at 0

    @property
    def span(self) -> tuple[float, float]:
        """Ends of the axis; never empty."""
        ends = [end for pair in self.intervals or () for end in pair]
        every = [*filter(is_known, self.values), *ends]
        low, high = min(every, default=0.0), max(every, default=1.0)
        low = min(0.0, low) if self.from_zero else low
        return low, max(high, low + 1e-9)

    def place(self, value: float) -> float:
        """Returns where a value is on the axis, in percent."""
        low, high = self.span
        return 100 * (value - low) / (high - low)


def is_known(value: float | None) -> TypeGuard[float]:
    """Returns whether there is a figure to show."""
    return value is not None and not math.isnan(value)


@dataclass(frozen=True)
class StudyPicture:
    """Everything that is drawn."""

    title: str  # what was studied
    subtitle: str  # how, one line
    samplers: Sequence[str]  # their labels, from the top
    columns: Sequence[Column]  # at least one
    reference: str = "uniform"  # the sampler the others are compared with

    def base(self, column: Column) -> float | None:
        """Returns the reference's own value, None where there is none."""
        values = dict(zip(self.samplers, column.values, strict=True))
        value = values.get(self.reference)
        return value if is_known(value) else None


def draw_study(picture: StudyPicture) -> bytes:
    """Returns the study as a PNG: dots, tied to the line of the reference sampler."""
    step, bottom = AXIS + VALUE + GAP, HEAD + ROW * len(picture.samplers)
    drawing = Drawing(2 * MARGIN + LABEL + len(picture.columns) * step - GAP)
    room = drawing.width - 2 * MARGIN
    title = cut(shown(picture.title), room, 19, bold=True)
    drawing.text(MARGIN, 36, title, size=19, kind="ink bold")
    drawing.text(MARGIN, 58, cut(shown(picture.subtitle), room, 13), size=13)
    for number, label in enumerate(picture.samplers):
        top = HEAD + ROW * number
        if number % 2 == 0:
            drawing.box((MARGIN / 2, top, room + MARGIN, ROW), kind="stripe")
        words = cut(shown(label), LABEL - 8, 13)
        drawing.text(MARGIN, top + 17.5, words, size=13, kind="ink")
    for nth, column in enumerate(picture.columns):
        left = MARGIN + LABEL + nth * step
        drawing.text(left, HEAD - 34, column.title, size=13, kind="ink")
        drawing.text(left, HEAD - 16, column.note, size=11)
        drawing.inset((left, HEAD, AXIS, bottom - HEAD), "".join(_marks(picture, column)))
        for tick, x, anchor in zip(column.span, (left, left + AXIS), ("start", "end"), strict=True):
            drawing.text(x, bottom + 15, column.show(tick), size=11, anchor=anchor)
        for number, value in enumerate(column.values):
            words, y = column.show(value) if is_known(value) else "-", HEAD + ROW * number + 17
            drawing.text(left + AXIS + VALUE, y, words, size=11.5, kind="ink", anchor="end")
    _draw_legend(drawing, picture.reference, bottom + FOOT - 16)
    drawing.height = bottom + FOOT
    return drawing.png()


def _marks(picture: StudyPicture, column: Column) -> Iterator[str]:
    """A dot per sampler, tied to the reference's line, or with its interval where it has one."""
    base = picture.base(column)
    for ends in (((0, 0), (0, 100)), ((100, 100), (0, 100)), ((0, 100), (100, 100))):
        yield line("grid", *ends)
    if base is not None:
        yield line("base", (column.place(base),) * 2, (0, 100))
    for number, value in enumerate(column.values):
        if not is_known(value):
            continue
        x, y = column.place(value), 100 * (number + 0.5) / len(picture.samplers)
        interval = None if column.intervals is None else column.intervals[number]
        tie = ""
        if interval is not None:
            tie = line("whisker", (column.place(interval[0]), column.place(interval[1])), (y, y))
        elif base is not None:
            tie = line("curve", (column.place(base), x), (y, y))
        kind = verdict(value, base, column.better, interval=interval)
        yield f'<g class="{kind}">{tie}<circle r="4.5" cx="{x:.3f}%" cy="{y:.3f}%"/></g>'


def verdict(
    value: float, base: float | None, better: str, *, interval: tuple[float, float] | None = None
) -> str:
    """Returns the colour of a value that is better, worse or neither than the reference's.

    A reference within the value's interval cannot be told from it.
    """
    if base is None or not better or value == base:
        return NEITHER
    if interval is not None and interval[0] <= base <= interval[1]:
        return NEITHER
    return BETTER if (value > base) == (better == "high") else WORSE


def _draw_legend(drawing: Drawing, reference: str, y: float) -> None:
    dot = '<circle r="4.5" cx="5" cy="0"/>'
    parts = (
        (BETTER, dot, f"better than {reference}"),
        (WORSE, dot, "worse"),
        (NEITHER, dot, "neither, or not told apart"),
        ("", '<line class="base" x1="5" x2="5" y1="-8" y2="8"/>', f"{reference}'s own value"),
    )
    x = MARGIN
    for kind, mark, words in parts:
        drawing.inset((x, y - 4, 10, 0.1), mark, kind=kind)
        drawing.text(x + 16, y, words)
        x += 16 + width_of(words, 12) + 22
