"""What shows how a training went: curve.png, and TensorBoard where asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vtr.charts.drawing import Drawing
from vtr.charts.files import MARGIN, draw_legend, draw_plane
from vtr.charts.kinds import Head, LineChart
from vtr.extras import require_extra
from vtr.files import publish
from vtr.train.loop import read_metrics
from vtr.train.run import CURVE

_WIDTH, _TOP, _LEGEND = 1000.0, 52.0, 30.0
_PANELS = (
    ("Training", "loss", (("loss", "loss"),)),
    ("Validation", "R@1 (%)", (("t2v/R@1", "text to video"), ("v2t/R@1", "video to text"))),
)


def require_tensorboard() -> type:
    """Returns TensorBoard's writer; called before a run begins, so that none is left half begun."""
    require_extra(
        "tensorboard", ["tensorboard"], "--tensorboard", needs="the package tensorboard",
        instead=". metrics.jsonl in the run folder holds the same numbers without it",
    )  # fmt: skip
    from torch.utils.tensorboard import SummaryWriter

    writer: type = SummaryWriter
    return writer


@contextmanager
def tensorboard(folder: Path) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Yields what writes a line of metrics.jsonl into the run folder, as TensorBoard's events."""
    writer = require_tensorboard()(str(folder))

    def record(row: Mapping[str, Any]) -> None:
        for name, value in row.items():
            if name != "epoch":
                writer.add_scalar(name, float(value), int(row["epoch"]))

    try:
        yield record
    finally:
        writer.close()


def draw_curve(folder: Path) -> None:
    """Writes curve.png from metrics.jsonl: the loss on the left, recall on the right."""
    rows = read_metrics(folder)
    drawing = Drawing(_WIDTH)
    panel = (_WIDTH - MARGIN) / 2
    for number, (title, unit, names) in enumerate(_PANELS):
        left = MARGIN + number * panel
        drawing.text(left, 36, title, size=15, kind="ink bold")
        chart = _chart(rows, Head("curve", title, "", "epoch", unit), names)
        if not chart.series:
            drawing.text(left, _TOP + _LEGEND, "no figures yet")
            continue
        if len(names) > 1:
            draw_legend(drawing, [name for name, _ in chart.series], _TOP, left=left)
        bottom = draw_plane(drawing, chart, (left, left + panel - MARGIN), _TOP + _LEGEND)
        drawing.height = bottom + MARGIN
    publish(folder / CURVE, drawing.png())


def _chart(
    rows: Sequence[Mapping[str, Any]], head: Head, names: Sequence[tuple[str, str]]
) -> LineChart:
    """The series that have figures; an epoch without one is left out."""
    series = {
        name: tuple(
            (row["epoch"], row[key], None, None)
            for row in rows
            if isinstance(row.get(key), int | float) and math.isfinite(row[key])
        )
        for key, name in names
    }
    kept = tuple((name, places) for name, places in series.items() if places)
    return LineChart(head, kept, is_even=False, from_zero=False)
