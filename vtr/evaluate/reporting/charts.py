"""What the charts show, told once: drawn as SVG in the page and by matplotlib into files.

Nothing here computes a figure; it arranges those of a result for drawing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

SMALL = 30  # queries; below it a share moves by more than 3 points with one query

# Okabe and Ito's palette in an order that also differs in lightness, without its yellow.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#6b7280")
# One marker more than colours: series repeat a look after 7 x 8, and not after 7.
MARKERS = ("circle", "square", "diamond", "up", "down", "cross", "plus", "star")
# Areas have no marker: each round through the colours fills and outlines them in another way.
NUM_FILLS = 6


def look(number: int) -> tuple[int, int]:
    """Returns which colour and which marker a series has.

    >>> look(0), look(7)
    ((0, 0), (0, 7))
    """
    return number % len(COLOURS), number % len(MARKERS)


def fill(number: int) -> int:
    """Returns how the areas of a series are filled: 0, the plain way, for the first ones."""
    return number // len(COLOURS) % NUM_FILLS


@dataclass(frozen=True)
class Point:
    """One figure with its interval.

    Args:
        label: The row it stands in.
        value: The figure.
        low: Lower end of its interval; None where there is none.
        high: Upper end.
        n: Over how many queries; None where it is not told.
    """

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None

    @property
    def is_small(self) -> bool:
        """Whether there are too few queries to say much."""
        return self.n is not None and self.n < SMALL


@dataclass(frozen=True)
class Series:
    """The points of one result."""

    name: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Head:
    """What stands around any chart.

    Args:
        name: Of the file it is drawn into, without extension.
        title: One line that says what is shown.
        note: What to know when reading it: N, protocol, what is marked.
        x: Label of the horizontal axis, with its unit.
        y: Label of the vertical axis, with its unit; empty where rows carry names.
    """

    name: str
    title: str
    note: str
    x: str
    y: str = ""


@dataclass(frozen=True)
class DotChart:
    """Rows of figures with intervals, several results side by side."""

    head: Head
    series: tuple[Series, ...]
    percent: bool = True

    @property
    def labels(self) -> tuple[str, ...]:
        """The rows, in the order of their first appearance."""
        return tuple(dict.fromkeys(p.label for one in self.series for p in one.points))

    def rows(self) -> list[tuple[str, list[tuple[int, Point]]]]:
        """Returns each label with its points: (number of the series, point)."""
        found: dict[str, list[tuple[int, Point]]] = {label: [] for label in self.labels}
        for number, one in enumerate(self.series):
            for point in one.points:
                found[point.label].append((number, point))
        return list(found.items())

    @property
    def top(self) -> float:
        """Where the axis ends: 100 for shares of half or more, else a round number above all."""
        highest = max(
            (p.high if p.high is not None else p.value for s in self.series for p in s.points),
            default=1.0,
        )
        return 100.0 if self.percent and highest >= 50 else round_up(highest)


@dataclass(frozen=True)
class BarChart:
    """Counts by name."""

    head: Head
    labels: tuple[str, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Histogram:
    """Distributions over the same bins.

    Args:
        head: Around it.
        edges: bins + 1 ascending numbers.
        series: (name, counts per bin).
        means: A mean to mark for each series; None marks none.
        as_share: Show each series in percent of its own sum, so that unequal sizes compare.
        bin_names: What the bins are called where they are not to scale.
        span: Ends of the axis, as wide as the edges at least; None ends it with them.
    """

    head: Head
    edges: tuple[float, ...]
    series: tuple[tuple[str, tuple[int, ...]], ...]
    means: tuple[float | None, ...] = ()
    as_share: bool = True
    bin_names: tuple[str, ...] = ()
    span: tuple[float, float] | None = None

    @property
    def ends(self) -> tuple[float, float]:
        """Where the axis begins and ends."""
        return self.span or (self.edges[0], self.edges[-1])

    def heights(self) -> list[list[float]]:
        """Returns, per series, what is drawn: percent of the series, or the counts."""
        drawn = []
        for _, counts in self.series:
            total = sum(counts) or 1
            drawn.append([100 * n / total if self.as_share else float(n) for n in counts])
        return drawn


@dataclass(frozen=True)
class LineChart:
    """Figures over a number, on a scale where doubling is one step.

    Args:
        head: Around it.
        series: (name, ((x, value, low or None, high or None), ...)) with x ascending, above 0.
    """

    head: Head
    series: tuple[tuple[str, tuple[tuple[float, float, float | None, float | None], ...]], ...]


@dataclass(frozen=True)
class Scatter:
    """Points in a plane, in named groups.

    Args:
        head: Around it.
        groups: (name, ((x, y), ...)).
    """

    head: Head
    groups: tuple[tuple[str, tuple[tuple[float, float], ...]], ...] = field(default=())


Chart = DotChart | BarChart | Histogram | LineChart | Scatter


def round_up(value: float) -> float:
    """Returns the next round number.

    >>> [round_up(v) for v in (0.7, 43.2, 61, 100)]
    [0.8, 50.0, 80.0, 100.0]
    """
    if value <= 0:
        return 1.0
    power = 10.0 ** _exponent(value)
    return next(
        round(power * m, 10) for m in (1, 2, 3, 4, 5, 6, 8, 10) if power * m >= value - 1e-9
    )


def axis_ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Returns round places within an axis, about as many as wanted.

    >>> axis_ticks(0, 50)
    [0.0, 10.0, 20.0, 30.0, 40.0, 50.0]
    """
    span = high - low
    if not span > 0:
        return [low]
    rough = span / wanted
    power = 10.0 ** _exponent(rough)
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough - 1e-12)
    first = -int(-low // step)
    found = []
    while first * step <= high + 1e-9 * span:
        found.append(round(first * step, 12) + 0.0)
        first += 1
    return found


def _exponent(value: float) -> int:
    return int(f"{value:e}".partition("e")[2])


def tick_text(value: float) -> str:
    """Returns what stands at a place of an axis.

    >>> [tick_text(v) for v in (0.30000000000000004, 20.0, 25000.0)]
    ['0.3', '20', '25,000']
    """
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:g}"


def figure(value: float) -> str:
    """Returns a figure for people; the exact one is in the document.

    >>> [figure(v) for v in (44.5, 3.0, 1234.5)]
    ['44.5', '3.0', '1,234.5']
    """
    return f"{value:,.1f}"


def interval(point: Point) -> str:
    """Returns "[low, high]", or nothing where there is no interval."""
    if point.low is None or point.high is None:
        return ""
    return f"[{figure(point.low)}, {figure(point.high)}]"


def shortened(names: Sequence[str], limit: int) -> list[str]:
    """Returns names cut to a length, the middle left out."""
    half = (limit - 1) // 2
    return [name if len(name) <= limit else f"{name[:half]}…{name[-half:]}" for name in names]
