"""The contact sheet of one video: what each sampler chose, and why it might have."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from vtr.foreign import escaped, shown

Picture = NDArray[np.uint8]
Colour = tuple[int, int, int]

INK: Colour = (28, 30, 36)
FAINT: Colour = (120, 126, 138)
LINE: Colour = (222, 226, 232)
PAPER: Colour = (255, 255, 255)
CURVE: Colour = (70, 110, 170)
CURVE_FILL: Colour = (219, 230, 245)

# Okabe and Ito's palette, which colour-blind readers can tell apart, without its yellow.
PALETTE: tuple[Colour, ...] = (
    (0, 114, 178),
    (213, 94, 0),
    (0, 158, 115),
    (204, 121, 167),
    (86, 180, 233),
    (230, 159, 0),
    (90, 90, 90),
)

MARGIN, LABEL, GAP = 24, 150, 8
CURVE_HEIGHT, LANE, CAPTION = 90, 15, 20


@dataclass(frozen=True)
class SheetRow:
    """What one sampler chose.

    Args:
        label: The sampler.
        pts_seconds: (K,) presentation times, ascending.
        pictures: K pictures (h, w, 3) uint8 of one size.
    """

    label: str
    pts_seconds: NDArray[np.float64]
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Sheet:
    """Everything that is drawn.

    Args:
        title: The video's name.
        subtitle: Its facts, one line.
        pts_seconds: (N,) presentation times of the candidates.
        change: (N,) change of brightness from the candidate before, 0 for the first, any unit.
        rows: One per sampler.
    """

    title: str
    subtitle: str
    pts_seconds: NDArray[np.float64]
    change: NDArray[np.float64]
    rows: Sequence[SheetRow]

    @property
    def span(self) -> tuple[float, float]:
        """First and last candidate time; never empty."""
        first, last = float(self.pts_seconds[0]), float(self.pts_seconds[-1])
        return first, max(last, first + 1e-6)


class _Canvas:
    """A drawing in progress: the picture, its fonts and where things are."""

    def __init__(self, sheet: Sheet) -> None:
        self.sheet = sheet
        cells = max((len(row.pictures) for row in sheet.rows), default=1)
        height, width = sheet.rows[0].pictures[0].shape[:2] if sheet.rows else (90, 120)
        self.cell: tuple[int, int] = (width, height)
        self.width = max(2 * MARGIN + LABEL + cells * (width + GAP), 760)
        self.lanes = LANE * len(sheet.rows)
        self.curve_top = MARGIN + 62
        self.rows_top = self.curve_top + CURVE_HEIGHT + self.lanes + 44
        row_height = height + CAPTION + 10
        self.height = self.rows_top + row_height * len(sheet.rows) + MARGIN
        self.row_height = row_height
        self.image = Image.new("RGB", (self.width, self.height), PAPER)
        self.draw = ImageDraw.Draw(self.image)
        self.large, self.normal, self.small = (
            ImageFont.load_default(size) for size in (20, 14, 12)
        )

    def x_of(self, seconds: float) -> float:
        first, last = self.sheet.span
        left, right = MARGIN + LABEL, self.width - MARGIN
        return left + (seconds - first) / (last - first) * float(right - left)

    def text(
        self,
        place: tuple[float, float],
        words: str,
        *,
        font: str = "normal",
        fill: Colour = INK,
        anchor: str = "la",
    ) -> None:
        self.draw.text(place, words, font=getattr(self, font), fill=fill, anchor=anchor)


def draw_png(sheet: Sheet) -> bytes:
    """Returns the sheet as a PNG: title, curve of change with the picks, a row per sampler."""
    canvas = _Canvas(sheet)
    canvas.text((MARGIN, MARGIN - 4), shown(sheet.title, 90), font="large")
    canvas.text((MARGIN, MARGIN + 24), shown(sheet.subtitle, 150), fill=FAINT)
    _draw_curve(canvas)
    for number, row in enumerate(sheet.rows):
        _draw_lane(canvas, row, number)
        _draw_row(canvas, row, number)
    buffer = io.BytesIO()
    canvas.image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _draw_curve(canvas: _Canvas) -> None:
    sheet, draw = canvas.sheet, canvas.draw
    bottom = canvas.curve_top + CURVE_HEIGHT
    left, right = MARGIN + LABEL, canvas.width - MARGIN
    canvas.text((MARGIN, canvas.curve_top + 8), "change of")
    canvas.text((MARGIN, canvas.curve_top + 26), "brightness")
    top_value = float(sheet.change.max()) or 1.0
    points = [
        (canvas.x_of(t), bottom - v / top_value * (CURVE_HEIGHT - 6))
        for t, v in zip(sheet.pts_seconds.tolist(), sheet.change.tolist(), strict=True)
    ]
    draw.polygon([(points[0][0], bottom), *points, (points[-1][0], bottom)], fill=CURVE_FILL)
    if len(points) > 1:
        draw.line(points, fill=CURVE, width=2, joint="curve")
    draw.line([(left, bottom), (right, bottom)], fill=LINE, width=1)
    axis = bottom + canvas.lanes + 6
    for seconds in ticks(*sheet.span):
        x = canvas.x_of(seconds)
        draw.line([(x, canvas.curve_top), (x, axis)], fill=LINE, width=1)
        canvas.text((x, axis + 2), f"{seconds:g} s", font="small", fill=FAINT, anchor="ma")


def _draw_lane(canvas: _Canvas, row: SheetRow, number: int) -> None:
    """One thin line per sampler under the curve, with a mark at every pick."""
    y = canvas.curve_top + CURVE_HEIGHT + LANE * number + LANE / 2 + 2
    colour = PALETTE[number % len(PALETTE)]
    canvas.text(
        (MARGIN + LABEL - 10, y), shown(row.label, 22), font="small", fill=colour, anchor="rm"
    )
    for seconds in row.pts_seconds.tolist():
        x = canvas.x_of(seconds)
        canvas.draw.ellipse([x - 4, y - 4, x + 4, y + 4], fill=colour)


def _draw_row(canvas: _Canvas, row: SheetRow, number: int) -> None:
    top = canvas.rows_top + canvas.row_height * number
    width, height = canvas.cell
    colour = PALETTE[number % len(PALETTE)]
    canvas.draw.rectangle([MARGIN, top, MARGIN + 5, top + height - 1], fill=colour)
    name, _, options = row.label.partition(":")
    canvas.text((MARGIN + 14, top + 2), shown(name, 18))
    for line, option in enumerate(options.split(":") if options else []):
        canvas.text(
            (MARGIN + 14, top + 22 + 15 * line), shown(option, 20), font="small", fill=FAINT
        )
    for k, picture in enumerate(row.pictures):
        left = MARGIN + LABEL + k * (width + GAP)
        canvas.image.paste(Image.fromarray(picture), (left, top))
        words = f"{row.pts_seconds[k]:.2f} s"
        place = (left + width / 2, top + height + 3)
        canvas.text(place, words, font="small", fill=FAINT, anchor="ma")


def ticks(first: float, last: float) -> list[float]:
    """Returns round times, about eight of them, within a span.

    >>> ticks(0.0, 10.0)
    [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    """
    rough = (last - first) / 8
    power = 10.0 ** np.floor(np.log10(rough))
    step = next(float(power * m) for m in (1, 2, 5, 10) if power * m >= rough)
    start = int(np.ceil(first / step - 1e-9))
    stop = int(np.floor(last / step + 1e-9))
    return [round(n * step, 9) + 0.0 for n in range(start, stop + 1)]


def draw_html(sheet: Sheet) -> bytes:
    """Returns the sheet as one HTML page that needs nothing else."""
    picture = base64.b64encode(draw_png(sheet)).decode()
    title = escaped(sheet.title)
    rows = "".join(
        f"<tr><th>{escaped(row.label)}</th><td>"
        + ", ".join(f"{seconds:.2f}" for seconds in row.pts_seconds.tolist())
        + "</td></tr>"
        for row in sheet.rows
    )
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style><h1>{title}</h1>"
        f"<p>{escaped(sheet.subtitle)}</p>"
        f'<img alt="Chosen frames of {title}" src="data:image/png;base64,{picture}">'
        f"<table><caption>Chosen times in seconds</caption>{rows}</table></html>"
    )
    return page.encode("utf-8", "backslashreplace")


_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:100rem;padding:0 1rem;"
    "color:#1c1e24;background:#fff}h1{font-size:1.3rem;overflow-wrap:anywhere}p{color:#5a6070}"
    "img{max-width:100%;height:auto}table{border-collapse:collapse;margin-top:1rem}"
    "caption{text-align:left;color:#5a6070}th{text-align:left;padding:.2rem 1rem .2rem 0}"
)
