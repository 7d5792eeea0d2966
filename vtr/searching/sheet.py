"""Hits as one picture: the best frame of each, with its name, time and score."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vtr.charts.drawing import Drawing, Picture, cut
from vtr.counts import percent
from vtr.foreign import shown
from vtr.searching.library import Hit

COLUMNS, WIDTH, HEIGHT = 4, 240, 135
MARGIN, GAP, CAPTION = 24, 14, 44


def contact_sheet(
    title: str, hits: Sequence[Hit], pictures: Sequence[Picture | None], *, levels: bool = True
) -> bytes:
    """Returns a PNG with the picture of each hit, (h, w, 3) uint8 or None where there is none.

    `levels`: whether hits are held against unrelated sentences, as pictures cannot be.
    """
    columns = min(COLUMNS, max(1, len(hits)))
    drawing = Drawing(max(2 * MARGIN + columns * (WIDTH + GAP) - GAP, 560))
    room = drawing.width - 2 * MARGIN
    drawing.text(MARGIN, 40, cut(shown(title), room, 19, bold=True), size=19, kind="ink bold")
    for number, (hit, picture) in enumerate(zip(hits, pictures, strict=True)):
        row, column = divmod(number, columns)
        left, top = MARGIN + column * (WIDTH + GAP), 62 + row * (HEIGHT + CAPTION)
        drawing.box((left, top, WIDTH, HEIGHT), kind="stripe")
        if picture is None:
            drawing.text(left + WIDTH / 2, top + HEIGHT / 2, "no picture", anchor="middle")
        else:
            height, width = picture.shape[:2]
            scale = min(WIDTH / width, HEIGHT / height)
            wide, high = width * scale, height * scale
            place = (left + (WIDTH - wide) / 2, top + (HEIGHT - high) / 2, wide, high)
            drawing.picture(place, np.ascontiguousarray(picture))
        name = cut(shown(hit.video_id), WIDTH, 13)
        drawing.text(left, top + HEIGHT + 16, name, size=13, kind="ink")
        times = f"{clock(hit.start_seconds)} - {clock(hit.end_seconds)}"
        how = f", {percent(hit.level)}" * levels
        drawing.text(left, top + HEIGHT + 32, times + how, size=12)
    if not hits:
        drawing.text(MARGIN, 70, "Nothing matches.", size=13)
    rows = -(-len(hits) // columns)
    drawing.height = 62 + rows * (HEIGHT + CAPTION) + MARGIN
    return drawing.png(zoom=1)


def clock(seconds: float) -> str:
    """Returns minutes and seconds, with hours where there are some.

    >>> clock(75.26), clock(3600)
    ('1:15.3', '1:00:00.0')
    """
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    head = f"{hours}:{minutes:02d}" if hours else f"{minutes}"
    return f"{head}:{rest // 10:02d}.{rest % 10}"
