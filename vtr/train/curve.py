"""Loss and recall over the epochs as a picture in the run folder."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from vtr.files import publish
from vtr.train.loop import read_metrics
from vtr.train.run import CURVE

_SIZE = (900, 420)
_MARGIN = 56
_COLOURS = ("#1f5fa8", "#c4572b", "#2e8a57")
_SERIES = (("loss",), ("t2v/R@1", "v2t/R@1"))
_TITLES = ("training loss", "validation R@1 in percent")


def draw_curve(folder: Path) -> None:
    """Writes curve.png from metrics.jsonl: the loss on the left, recall on the right."""
    rows = read_metrics(folder)
    image = Image.new("RGB", _SIZE, "white")
    draw = ImageDraw.Draw(image)
    width = _SIZE[0] // 2
    for place, (names, title) in enumerate(zip(_SERIES, _TITLES, strict=True)):
        _panel(draw, (place * width, width), rows, names, title)
    target = io.BytesIO()
    image.save(target, "PNG")
    publish(folder / CURVE, target.getvalue())


def _panel(
    draw: ImageDraw.ImageDraw,
    span: tuple[int, int],
    rows: Sequence[dict[str, Any]],
    names: Sequence[str],
    title: str,
) -> None:
    left, right = span[0] + _MARGIN, span[0] + span[1] - 20
    top, bottom = 40, _SIZE[1] - _MARGIN
    draw.rectangle((left, top, right, bottom), outline="#999999")
    draw.text((left, 14), title, fill="black")
    points = {name: [(r["epoch"], r[name]) for r in rows if name in r] for name in names}
    values = [value for series in points.values() for _, value in series]
    if not values:
        draw.text((left + 12, top + 12), "no data", fill="#666666")
        return
    low, high = min(values), max(values)
    if high - low < 1e-9:
        low, high = low - 1, high + 1
    last = max(1, max(r["epoch"] for r in rows))
    for value, y in ((high, top), (low, bottom)):
        draw.text((left - 46, y - 6), f"{value:.4g}", fill="black")
    for epoch in sorted({0, last // 2, last}):
        x = left + (right - left) * epoch / last
        draw.text((x - 4, bottom + 8), str(epoch), fill="black")
    draw.text(((left + right) / 2 - 18, bottom + 26), "epoch", fill="black")
    for number, (name, series) in enumerate(points.items()):
        colour = _COLOURS[number]
        line = [
            (
                left + (right - left) * epoch / last,
                bottom - (bottom - top) * (value - low) / (high - low),
            )
            for epoch, value in series
        ]
        if len(line) > 1:
            draw.line(line, fill=colour, width=2)
        for x, y in line:
            draw.ellipse((x - 2, y - 2, x + 2, y + 2), fill=colour)
        draw.text((right - 70, top + 8 + 14 * number), name, fill=colour)
