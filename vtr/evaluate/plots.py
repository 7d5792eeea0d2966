"""The report's charts as PNG and SVG files, drawn by matplotlib in one house style.

matplotlib is imported when something is drawn; it is an extra (`pip install vtr[plots]`).
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vtr.errors import ConfigError
from vtr.evaluate.reporting.charts import (
    COLOURS,
    MARKERS,
    BarChart,
    Chart,
    DotChart,
    Head,
    Histogram,
    LineChart,
    Scatter,
    figure,
    fill,
    interval,
    look,
    shortened,
    tick_text,
)
from vtr.evaluate.reporting.examples import Example, Hit
from vtr.files import publish
from vtr.foreign import shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT, LINE = "#1b1f27", "#596273", "#dfe3e9"
DOTS_PER_INCH = 160
WIDTH = 8.0  # inches
_MARKERS = {
    "circle": "o",
    "square": "s",
    "diamond": "D",
    "up": "^",
    "down": "v",
    "cross": "x",
    "plus": "P",
    "star": "*",
}
_HATCHES = ("", "////", "....", "xxxx", "----", "||||")  # one per way to fill an area
_STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 10,
    "text.parse_math": False,  # a dollar sign in an id is a dollar sign
    "text.color": INK,
    "axes.labelcolor": FAINT,
    "axes.edgecolor": LINE,
    "axes.linewidth": 1.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "svg.hashsalt": "vtr",  # the same chart gives the same bytes
    "svg.fonttype": "none",
}


def save(chart: Chart, path: Path) -> None:
    """Draws a chart into a .png or .svg file.

    Raises:
        ConfigError: matplotlib is missing, or another extension.
        StoreWriteError: The file system refused.
    """
    kind = path.suffix.lstrip(".")
    if kind not in ("png", "svg"):
        raise ConfigError(f"{path.name} must end in .png or .svg")
    publish(path, draw(chart, kind=kind))


def draw(chart: Chart, *, kind: str = "png") -> bytes:
    """Returns a chart as the bytes of a PNG or SVG file.

    Raises:
        ConfigError: matplotlib is missing.
    """
    with _drawing():
        return _payload(_chart_figure(chart), kind)


@contextmanager
def _drawing() -> Iterator[None]:
    try:
        import matplotlib as mpl
    except ImportError:
        raise ConfigError(
            "drawing PNG and SVG files needs matplotlib: pip install 'vtr[plots]'. The HTML report "
            "does without (--no-pictures)"
        ) from None
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        # Captions come in scripts that no single font has; a box instead is all one can draw.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def _payload(drawn: Figure, kind: str) -> bytes:
    buffer = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    drawn.savefig(buffer, format=kind, dpi=DOTS_PER_INCH, metadata=metadata, facecolor="white")
    return buffer.getvalue()


def _chart_figure(chart: Chart) -> Figure:
    if isinstance(chart, DotChart):
        return _dots(chart)
    if isinstance(chart, BarChart):
        return _bars(chart)
    if isinstance(chart, Histogram):
        return _histogram(chart)
    if isinstance(chart, LineChart):
        return _lines(chart)
    return _scatter(chart)


def _new(head: Head, height: float) -> tuple[Figure, Axes]:
    """Returns a figure with title and note; sizes in inches."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    notes = _wrapped(shown(head.note, 400), 118)
    above = 0.5 + 0.16 * (notes.count("\n") + 1)
    height += above - 0.66
    # Title and note stand at the left edge; the layout gets what is below them.
    below = ConstrainedLayoutEngine(rect=(0.012, 0.1 / height, 0.972, 1 - (above + 0.1) / height))
    drawn = Figure(figsize=(WIDTH, height), layout=below)
    drawn.text(
        0.02, 1 - 0.14 / height, shown(head.title, 90), fontsize=13, fontweight="bold", va="top"
    )
    drawn.text(0.02, 1 - 0.42 / height, notes, fontsize=8.5, color=FAINT, va="top")
    axes = drawn.add_subplot()
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: tick_text(value))
    axes.set_xlabel(shown(head.x, 90))
    axes.set_ylabel(shown(head.y, 90))
    return drawn, axes


def _wrapped(text: str, width: int) -> str:
    """Breaks a text into lines of so many Latin letters; Chinese ones and emoji count twice."""
    import textwrap
    import unicodedata

    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    width = width * (len(text) + 1) // (len(text) + wide + 1)
    return "\n".join(textwrap.wrap(text, width)) or " "


def _colour(number: int) -> str:
    return COLOURS[look(number)[0]]


def _marker(number: int) -> str:
    return _MARKERS[MARKERS[look(number)[1]]]


def _hatch(number: int) -> dict[str, Any]:
    """How the areas of a series are filled; lines on them are white."""
    return {"hatch": _HATCHES[fill(number)], "edgecolor": "white", "lw": 0} if fill(number) else {}


def _names(names: Sequence[str], limit: int = 26) -> list[str]:
    return shortened([shown(name) for name in names], limit)


def _dots(chart: DotChart) -> Figure:
    rows = [(label, number, p) for label, points in chart.rows() for number, p in points]
    labels = chart.labels
    gap = 0.6
    places, place, before = [], 0.0, ""
    for label, _, _ in rows:
        place += 1 + (gap if before and label != before else 0)
        places.append(place)
        before = label
    drawn, axes = _new(chart.head, 1.6 + 0.26 * place + (0.3 if len(chart.series) > 1 else 0))
    for (_, number, point), y in zip(rows, places, strict=True):
        faint = 0.4 if point.is_small else 1.0
        if point.low is not None and point.high is not None:
            axes.plot([point.low, point.high], [y, y], color=_colour(number), lw=2, alpha=faint / 2)
        axes.plot(
            point.value,
            y,
            _marker(number),
            color=_colour(number),
            ms=6,
            alpha=faint,
            clip_on=False,
        )
        count = f"  N = {point.n:,}{'†' if point.is_small else ''}" if point.n is not None else ""
        text = f"{figure(point.value)}  {interval(point)}{count}"
        axes.annotate(
            text, (1.02, y), xycoords=("axes fraction", "data"), va="center", fontsize=8.5
        )
    middles = [
        float(np.mean([y for (name, _, _), y in zip(rows, places, strict=True) if name == label]))
        for label in labels
    ]
    axes.set_yticks(middles, _names(labels))
    axes.set_ylim(place + 0.8, 0.2)
    axes.set_xlim(0, chart.top)
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)
    _series_legend(drawn, [one.name for one in chart.series])
    return drawn


def _series_legend(drawn: Figure, names: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    if len(names) < 2:
        return
    handles = [
        Line2D([], [], color=_colour(i), marker=_marker(i), lw=0, label=name)
        for i, name in enumerate(_names(names, 40))
    ]
    drawn.legend(handles=handles, loc="outside lower left", ncols=3, fontsize=9)


def _bars(chart: BarChart) -> Figure:
    drawn, axes = _new(chart.head, 1.5 + 0.25 * len(chart.labels))
    places = np.arange(len(chart.labels))
    axes.barh(places, chart.counts, color=COLOURS[0], height=0.68)
    for place, count in zip(places.tolist(), chart.counts, strict=True):
        axes.annotate(
            f"{count:,}",
            (count, place),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
    axes.set_yticks(places, _names(chart.labels))
    axes.set_ylim(len(places) - 0.4, -0.6)
    axes.set_xlim(0, 1.08 * max([*chart.counts, 1]))
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)
    return drawn


def _histogram(chart: Histogram) -> Figure:
    drawn, axes = _new(chart.head, 4.2)
    count = len(chart.edges) - 1
    edges = np.arange(count + 1, dtype=float) if chart.bin_names else np.array(chart.edges)
    widths = np.diff(edges)
    side = len(chart.series) if chart.bin_names else 1
    for number, heights in enumerate(chart.heights()):
        inset = 0.1 if chart.bin_names else 0.0
        width = widths * (1 - 2 * inset) / side
        left = edges[:-1] + inset * widths + (width * number if chart.bin_names else 0)
        alpha = 0.9 if chart.bin_names or len(chart.series) == 1 else 0.5
        axes.bar(
            left,
            heights,
            width,
            align="edge",
            facecolor=_colour(number),
            alpha=alpha,
            **_hatch(number),
        )
        mean = chart.means[number] if number < len(chart.means) else None
        if mean is not None:
            axes.axvline(mean, color=_colour(number), ls=(0, (5, 3)), lw=1.5)
            low = chart.ends[0] + 0.85 * (chart.ends[1] - chart.ends[0])
            axes.annotate(
                f" {mean:.3g} ",
                (mean, 1.0),
                xycoords=("data", "axes fraction"),
                ha="right" if mean > low else "left",
                va="bottom",
                fontsize=8.5,
                color=_colour(number),
            )
    if chart.bin_names:
        tilt = 30 if count > 10 else 0
        axes.set_xticks(
            edges[:-1] + 0.5, chart.bin_names, rotation=tilt, ha="right" if tilt else "center"
        )
    low, high = (edges[0], edges[-1]) if chart.bin_names else chart.ends
    axes.set_xlim(float(low), float(high))
    axes.grid(axis="y")
    _patch_legend(drawn, [name for name, _ in chart.series])
    return drawn


def _patch_legend(drawn: Figure, names: Sequence[str]) -> None:
    from matplotlib.patches import Patch

    if len(names) > 1:
        handles = [
            Patch(facecolor=_colour(i), alpha=0.7, label=name, **_hatch(i))
            for i, name in enumerate(_names(names, 40))
        ]
        drawn.legend(handles=handles, loc="outside lower left", ncols=3, fontsize=9)


def _lines(chart: LineChart) -> Figure:
    drawn, axes = _new(chart.head, 4.4)
    xs = sorted({point[0] for _, points in chart.series for point in points})
    for number, (_, points) in enumerate(chart.series):
        aside = 0.05 * (number - (len(chart.series) - 1) / 2)  # intervals side by side
        x = [xs.index(p[0]) + aside for p in points]
        y = [p[1] for p in points]
        axes.plot(x, y, marker=_marker(number), color=_colour(number), ms=6, lw=1.8)
        for place, (_, _, low, high) in zip(x, points, strict=True):
            if low is not None and high is not None:
                axes.plot([place, place], [low, high], color=_colour(number), lw=2, alpha=0.35)
    axes.set_xticks(range(len(xs)), [f"{x:g}" for x in xs])
    axes.set_ylim(bottom=0)
    axes.grid(axis="y")
    _series_legend(drawn, [name for name, _ in chart.series])
    return drawn


def _scatter(chart: Scatter) -> Figure:
    drawn, axes = _new(chart.head, 5.6)
    for number, (_, points) in enumerate(chart.groups):
        plane = np.array(points).reshape(-1, 2)
        axes.scatter(
            plane[:, 0],
            plane[:, 1],
            s=14,
            color=_colour(number),
            marker=_marker(number),
            alpha=0.6,
            linewidths=0.8 if _marker(number) == "x" else 0,
        )
    axes.grid(True)
    _series_legend(drawn, [name for name, _ in chart.groups])
    return drawn


# ---- success and failure cases


def success_case_examples(examples: Sequence[Example]) -> bytes:
    """Returns the success cases as a PNG."""
    return draw_examples(examples, "success")


def failure_case_examples(examples: Sequence[Example]) -> bytes:
    """Returns the failure cases as a PNG."""
    return draw_examples(examples, "failure")


def draw_examples(examples: Sequence[Example], kind: str, *, limit: int = 4) -> bytes:
    """Returns query, own video and retrieved videos as frame strips, as a PNG.

    Args:
        examples: From `vtr.evaluate.reporting.examples.read_examples`.
        kind: "success" or "failure", for the title.
        limit: At most so many queries, three videos each.

    Raises:
        ConfigError: matplotlib is missing.
    """
    chosen = [(example, _key_hits(example)) for example in examples[:limit]]
    rows = sum(len(hits) for _, hits in chosen)
    with _drawing():
        from matplotlib.figure import Figure

        height = 0.7 + 0.62 * len(chosen) + 1.0 * rows
        drawn = Figure(figsize=(WIDTH + 1, height))
        top = height - 0.15
        title = f"{kind.capitalize()} cases"
        drawn.text(0.02, top / height, title, fontsize=13, fontweight="bold", va="top")
        top -= 0.45
        for example, hits in chosen:
            _query_line(drawn, example, top, height)
            top -= 0.55
            for hit in hits:
                _strip(drawn, hit, top, height)
                top -= 1.0
            top -= 0.07
        return _payload(drawn, "png")


def _key_hits(example: Example) -> list[Hit]:
    """The best retrieved ones, and its own video wherever it stands."""
    hits = list(example.hits)[:3]
    own = next((hit for hit in example.hits if hit.correct), None)
    return hits if own is None or own in hits else [*hits[:2], own]


def _query_line(drawn: Figure, example: Example, top: float, height: float) -> None:
    words = _wrapped(shown(example.text, 190), 100)
    drawn.text(0.02, top / height, words, fontsize=10, va="top")
    below = 0.2 * (words.count("\n") + 1)
    facts = f"query {shown(example.query_id, 60)}, own video at rank {example.rank:,g}"
    drawn.text(0.02, (top - below) / height, facts, fontsize=8, color=FAINT, va="top")


def _strip(drawn: Figure, hit: Hit, top: float, height: float) -> None:
    name = hit.place if not hit.correct or hit.place == "own video" else f"{hit.place} (own video)"
    score = "" if hit.score is None else f"\nscore {hit.score:.3f}"
    words = f"{name}\n{shortened([shown(hit.strip.video)], 22)[0]}{score}"
    colour = "#00694d" if hit.correct else INK
    drawn.text(0.02, (top - 0.05) / height, words, fontsize=8.5, va="top", color=colour)
    if not hit.strip.frames:
        words = f"no pictures: {shown(hit.strip.problem, 80)}"
        drawn.text(0.24, (top - 0.35) / height, words, fontsize=8.5, color=FAINT)
        return
    width = WIDTH + 1
    left, room = 0.23 * width, 0.75 * width
    sizes = [0.72 * f.picture.shape[1] / f.picture.shape[0] for f in hit.strip.frames]
    scale = min(1.0, (room - 0.06 * len(sizes)) / sum(sizes))
    for frame, size in zip(hit.strip.frames, sizes, strict=True):
        box = (
            left / width,
            (top - 0.75 * scale) / height,
            size * scale / width,
            0.72 * scale / height,
        )
        axes = drawn.add_axes(box)
        axes.imshow(frame.picture, aspect="auto")
        axes.set_axis_off()
        place = (left + size * scale / 2) / width
        drawn.text(
            place,
            (top - 0.78 * scale) / height,
            f"{frame.pts_seconds:.1f} s",
            fontsize=7,
            color=FAINT,
            ha="center",
            va="top",
        )
        left += size * scale + 0.06
