"""The study of samplers as a picture: a row per sampler, a column per figure."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from vtr.extract.sheet import FAINT, INK, LINE, PALETTE, PAPER, Colour

BETTER, WORSE, NEITHER = PALETTE[0], PALETTE[1], (120, 126, 138)
STRIPE: Colour = (246, 248, 250)

# Pixels of the finished picture, which is drawn at twice the size of its nominal points.
MARGIN, LABEL, AXIS, VALUE, GAP = 48, 330, 210, 130, 36
ROW, HEAD, FOOT = 52, 250, 110
FONTS = {"large": 40, "normal": 27, "small": 23}


@dataclass(frozen=True)
class Column:
    """One figure of every sampler.

    Args:
        word: What it is, short enough for a table's head.
        title: What it is.
        note: Its unit, or which end is which.
        values: One per sampler; None or NaN where there is none.
        show: Spells a value.
        better: "high", "low", or "" where neither end is better.
        intervals: Lower and upper end per sampler, or None.
        from_zero: Whether the axis begins at 0.
    """

    word: str
    title: str
    note: str
    values: Sequence[float | None]
    show: Callable[[float], str]
    better: str = ""
    intervals: Sequence[tuple[float, float]] | None = None
    from_zero: bool = True

    @property
    def span(self) -> tuple[float, float]:
        """Ends of the axis; never empty."""
        known = [value for value in self.values if is_known(value)]
        ends = [end for pair in self.intervals or () for end in pair]
        every = [value for value in known if value is not None] + ends
        low, high = min(every, default=0.0), max(every, default=1.0)
        low = min(0.0, low) if self.from_zero else low
        return low, max(high, low + 1e-9)


def is_known(value: float | None) -> bool:
    """Returns whether there is a figure to show."""
    return value is not None and not math.isnan(value)


@dataclass(frozen=True)
class StudyPicture:
    """Everything that is drawn.

    Args:
        title: What was studied.
        subtitle: How, one line.
        samplers: Their labels, from the top.
        columns: At least one.
        reference: The sampler the others are compared with.
    """

    title: str
    subtitle: str
    samplers: Sequence[str]
    columns: Sequence[Column]
    reference: str = "uniform"


class _Canvas:
    def __init__(self, picture: StudyPicture) -> None:
        self.picture = picture
        self.width = 2 * MARGIN + LABEL + len(picture.columns) * (AXIS + VALUE + GAP) - GAP
        self.height = HEAD + ROW * len(picture.samplers) + FOOT
        self.image = Image.new("RGB", (self.width, self.height), PAPER)
        self.draw = ImageDraw.Draw(self.image)
        self.fonts = {name: ImageFont.load_default(size) for name, size in FONTS.items()}

    def text(
        self, place: tuple[float, float], words: str, font: str, fill: Colour, anchor: str = "la"
    ) -> None:
        room = self.width - place[0] - 10
        while anchor == "la" and self.fonts[font].getlength(words) > room and len(words) > 2:
            words = words[:-2] + "…"
        self.draw.text(place, words, font=self.fonts[font], fill=fill, anchor=anchor)

    def row_middle(self, number: int) -> float:
        return HEAD + ROW * number + ROW / 2


def draw_study(picture: StudyPicture) -> bytes:
    """Returns the study as a PNG: dots, tied to the line of the reference sampler."""
    canvas = _Canvas(picture)
    canvas.text((MARGIN, 34), picture.title, "large", INK)
    canvas.text((MARGIN, 88), picture.subtitle, "normal", FAINT)
    for number, label in enumerate(picture.samplers):
        middle = canvas.row_middle(number)
        if number % 2 == 0:
            box = [MARGIN / 2, middle - ROW / 2, canvas.width - MARGIN / 2, middle + ROW / 2]
            canvas.draw.rectangle(box, fill=STRIPE)
        canvas.text((MARGIN, middle), _short(label), "normal", INK, "lm")
    for number, column in enumerate(picture.columns):
        _draw_column(canvas, column, MARGIN + LABEL + number * (AXIS + VALUE + GAP))
    _draw_legend(canvas)
    buffer = io.BytesIO()
    canvas.image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


@dataclass(frozen=True)
class _Axis:
    """Where a column's values are, and the reference's value among them."""

    column: Column
    left: float
    base: float | None

    def x_of(self, value: float) -> float:
        low, high = self.column.span
        return self.left + (value - low) / (high - low) * AXIS


def _draw_column(canvas: _Canvas, column: Column, left: float) -> None:
    picture = canvas.picture
    base = None
    if picture.reference in picture.samplers:
        base = column.values[picture.samplers.index(picture.reference)]
    axis = _Axis(column, left, base if is_known(base) else None)
    _draw_axis(canvas, axis)
    for number, value in enumerate(column.values):
        middle = canvas.row_middle(number)
        if value is None or not is_known(value):
            canvas.text((left + AXIS + VALUE, middle), "-", "small", FAINT, "rm")
        else:
            _draw_value(canvas, axis, number, value)


def _draw_axis(canvas: _Canvas, axis: _Axis) -> None:
    column, left = axis.column, axis.left
    canvas.text((left, 156), column.title, "normal", INK)
    canvas.text((left, 192), column.note, "small", FAINT)
    top, bottom = HEAD, HEAD + ROW * len(canvas.picture.samplers)
    canvas.draw.line([(left, bottom), (left + AXIS, bottom)], fill=LINE, width=2)
    for value, anchor in zip(column.span, ("la", "ra"), strict=True):
        x = axis.x_of(value)
        canvas.draw.line([(x, top), (x, bottom)], fill=LINE, width=2)
        canvas.text((x, bottom + 8), column.show(value), "small", FAINT, anchor)
    if axis.base is not None:
        x = axis.x_of(axis.base)
        canvas.draw.line([(x, top), (x, bottom)], fill=FAINT, width=3)


def _draw_value(canvas: _Canvas, axis: _Axis, number: int, value: float) -> None:
    """A dot, tied to the reference's line, or with its interval where it has one."""
    middle, x = canvas.row_middle(number), axis.x_of(value)
    intervals = axis.column.intervals
    interval = None if intervals is None else intervals[number]
    colour = verdict(value, axis.base, axis.column.better, interval=interval)
    if interval is not None:
        ends = [axis.x_of(end) for end in interval]
        canvas.draw.line([(ends[0], middle), (ends[1], middle)], fill=colour, width=2)
        for end in ends:
            canvas.draw.line([(end, middle - 7), (end, middle + 7)], fill=colour, width=2)
    elif axis.base is not None:
        canvas.draw.line([(axis.x_of(axis.base), middle), (x, middle)], fill=colour, width=5)
    canvas.draw.ellipse([x - 9, middle - 9, x + 9, middle + 9], fill=colour)
    right = axis.left + AXIS + VALUE
    canvas.text((right, middle), axis.column.show(value), "small", INK, "rm")


def verdict(
    value: float, base: float | None, better: str, *, interval: tuple[float, float] | None = None
) -> Colour:
    """Returns the colour of better, worse or neither than the reference.

    Args:
        value: The sampler's.
        base: The reference's, or None.
        better: "high", "low" or "".
        interval: Of the value; a reference within it cannot be told from it.
    """
    if base is None or not better or value == base:
        return NEITHER
    if interval is not None and interval[0] <= base <= interval[1]:
        return NEITHER
    return BETTER if (value > base) == (better == "high") else WORSE


def _draw_legend(canvas: _Canvas) -> None:
    x, y = float(MARGIN), canvas.height - 34.0
    name = canvas.picture.reference
    parts = (
        (BETTER, f"better than {name}"),
        (WORSE, "worse"),
        (NEITHER, "neither, or not told apart"),
    )
    for colour, words in parts:
        canvas.draw.ellipse([x, y - 9, x + 18, y + 9], fill=colour)
        canvas.text((x + 28, y), words, "small", FAINT, "lm")
        x += 28 + canvas.fonts["small"].getlength(words) + 40
    canvas.draw.line([(x, y - 14), (x, y + 14)], fill=FAINT, width=3)
    canvas.text((x + 14, y), f"{name}'s own value", "small", FAINT, "lm")


def _short(label: str, limit: int = 24) -> str:
    return label if len(label) <= limit else label[: limit - 1] + "…"
