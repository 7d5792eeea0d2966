"""The contact sheet of one video: what each sampler chose, and why it might have."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vtr.charts.drawing import Drawing, Picture, cut
from vtr.charts.kinds import axis_ticks
from vtr.charts.marks import line, style
from vtr.foreign import shown
from vtr.pages import render

MARGIN, LABEL, GAP = 24, 150, 8
CURVE_TOP, CURVE_HEIGHT, LANE, CAPTION = 86, 90, 15, 20


@dataclass(frozen=True)
class SheetRow:
    """What one sampler chose."""

    label: str  # the sampler
    pts_seconds: NDArray[np.float64]  # (K,) presentation times, ascending
    pictures: Sequence[Picture]  # K pictures (h, w, 3) uint8 of one size


@dataclass(frozen=True)
class Sheet:
    """Everything that is drawn."""

    title: str  # the video's name
    subtitle: str  # its facts, one line
    pts_seconds: NDArray[np.float64]  # (N,) presentation times of the candidates
    change: NDArray[np.float64]  # (N,) of brightness from the candidate before, any unit
    rows: Sequence[SheetRow]  # one per sampler

    @property
    def span(self) -> tuple[float, float]:
        """First and last candidate time; never empty."""
        first, last = float(self.pts_seconds[0]), float(self.pts_seconds[-1])
        return first, max(last, first + 1e-6)

    def place(self, seconds: float) -> float:
        """Returns where a time is on the axis, in percent."""
        first, last = self.span
        return 100 * (seconds - first) / (last - first)

    @property
    def cell(self) -> tuple[int, int]:
        """Width and height of its pictures."""
        shapes = [row.pictures[0].shape for row in self.rows if row.pictures]
        return (shapes[0][1], shapes[0][0]) if shapes else (120, 90)


def draw_png(sheet: Sheet) -> bytes:
    """Returns the sheet as a PNG: title, curve of change with the picks, a row per sampler."""
    width, height = sheet.cell
    cells = max((len(row.pictures) for row in sheet.rows), default=1)
    drawing = Drawing(max(2 * MARGIN + LABEL + cells * (width + GAP), 760))
    room = drawing.width - 2 * MARGIN
    drawing.text(MARGIN, 40, cut(shown(sheet.title), room, 19, bold=True), size=19, kind="ink bold")
    drawing.text(MARGIN, 62, cut(shown(sheet.subtitle), room, 13.5), size=13.5)
    _draw_curve(drawing, sheet)
    top = CURVE_TOP + CURVE_HEIGHT + LANE * len(sheet.rows) + 44
    for number in range(len(sheet.rows)):
        _draw_row(drawing, sheet, number, top + number * (height + CAPTION + 10))
    drawing.height = top + len(sheet.rows) * (height + CAPTION + 10) + MARGIN
    return drawing.png(zoom=1)


def _draw_curve(drawing: Drawing, sheet: Sheet) -> None:
    """The change of brightness over time, and under it a lane per sampler with its picks."""
    for nth, words in enumerate(("change of", "brightness")):
        drawing.text(MARGIN, CURVE_TOP + 22 + 18 * nth, words, size=13.5, kind="ink")
    left, wide = MARGIN + LABEL, drawing.width - 2 * MARGIN - LABEL
    lanes = LANE * len(sheet.rows)
    drawing.inset((left, CURVE_TOP, wide, CURVE_HEIGHT + lanes + 6), _times(sheet))
    base = CURVE_TOP + CURVE_HEIGHT
    top = float(sheet.change.max()) or 1.0
    points = " ".join(
        f"{sheet.place(t) * wide / 100:.1f},{CURVE_HEIGHT - v / top * (CURVE_HEIGHT - 6):.1f}"
        for t, v in zip(sheet.pts_seconds.tolist(), sheet.change.tolist(), strict=True)
    )
    curve = (
        f'<polygon class="s0 shade" points="0,{CURVE_HEIGHT} {points} {wide:.1f},{CURVE_HEIGHT}"/>'
        f'<polyline class="s0 outline" points="{points}"/>{line("grid", (0, 100), (100, 100))}'
    )
    drawing.inset((left, CURVE_TOP, wide, CURVE_HEIGHT), curve)
    for number, row in enumerate(sheet.rows):
        y = base + LANE * (number + 0.5) + 2
        dots = (f'<circle r="4" cx="{sheet.place(t):.3f}%"/>' for t in row.pts_seconds.tolist())
        drawing.inset((left, y, wide, 0.1), "".join(dots), kind=style(number))
        words = cut(shown(row.label), LABEL - 12, 12)
        drawing.text(left - 10, y + 4, words, kind=style(number), anchor="end")


def _times(sheet: Sheet) -> str:
    """Vertical lines at round times, which stand below them."""
    ticks = [(sheet.place(tick), f"{tick:g} s") for tick in axis_ticks(*sheet.span, 8)]
    return "".join(
        line("grid", (x, x), (0, 100))
        + f'<text x="{x:.3f}%" y="100%" dy="14" text-anchor="middle">{words}</text>'
        for x, words in ticks
    )


def _draw_row(drawing: Drawing, sheet: Sheet, number: int, top: float) -> None:
    row, (width, height) = sheet.rows[number], sheet.cell
    drawing.box((MARGIN, top, 6, height), kind=f"{style(number)} bar")
    name, _, options = shown(row.label).partition(":")
    drawing.text(MARGIN + 14, top + 15, cut(name, LABEL - 20, 13.5), size=13.5, kind="ink")
    for nth, option in enumerate(options.split(":") if options else []):
        drawing.text(MARGIN + 14, top + 33 + 15 * nth, cut(option, LABEL - 20, 12))
    for k, picture in enumerate(row.pictures):
        left = MARGIN + LABEL + k * (width + GAP)
        drawing.picture((left, top, width, height), picture)
        words = f"{row.pts_seconds[k]:.2f} s"
        drawing.text(left + width / 2, top + height + 15, words, anchor="middle")


def draw_html(sheet: Sheet) -> bytes:
    """Returns the sheet as one HTML page that needs nothing else."""
    picture = base64.b64encode(draw_png(sheet)).decode()
    return render("sheet.html", sheet=sheet, picture=picture)
