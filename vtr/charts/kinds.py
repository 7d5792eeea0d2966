"""What charts show. Nothing here computes a figure; it arranges those of a result for drawing."""

from __future__ import annotations

from dataclasses import dataclass

SMALL = 30  # queries; below it a share moves by more than 3 points with one query
NUM_COLOURS = 7  # of series; which ones, chart.css says
# One marker more than colours: series repeat a look after 7 x 8, and not after 7.
MARKERS = ("circle", "square", "diamond", "up", "down", "cross", "plus", "star")
# Areas have no marker: each round through the colours fills and outlines them in another way.
NUM_FILLS = 6


def look(number: int) -> tuple[int, int]:
    """Returns which colour and which marker a series has.

    >>> look(0), look(7)
    ((0, 0), (0, 7))
    """
    return number % NUM_COLOURS, number % len(MARKERS)


def fill(number: int) -> int:
    """Returns how the areas of a series are filled: 0, the plain way, for the first ones."""
    return number // NUM_COLOURS % NUM_FILLS


@dataclass(frozen=True)
class Point:
    """One figure with its interval."""

    label: str  # the row it stands in
    value: float
    low: float | None = None  # lower end of its interval; None where there is none
    high: float | None = None
    n: int | None = None  # over how many queries; None where that is unknown

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
    """What stands around any chart."""

    name: str  # of the file it is drawn into, without extension
    title: str  # one line that says what is shown
    note: str  # what to know when reading it: N, protocol, what is marked
    x: str  # label of the horizontal axis, with its unit
    y: str = ""  # label of the vertical axis; empty where rows carry names


@dataclass(frozen=True)
class DotChart:
    """Rows of figures with intervals, several results side by side."""

    head: Head
    series: tuple[Series, ...]

    def rows(self) -> list[tuple[str, list[tuple[int, Point]]]]:
        """Returns each label with its points: (number of the series, point)."""
        found: dict[str, list[tuple[int, Point]]] = {}
        for number, one in enumerate(self.series):
            for point in one.points:
                found.setdefault(point.label, []).append((number, point))
        return list(found.items())

    @property
    def labels(self) -> tuple[str, ...]:
        """The rows, in the order of their first appearance."""
        return tuple(label for label, _ in self.rows())

    @property
    def top(self) -> float:
        """Where the axis ends: 100 for shares of half or more, else a round number above all."""
        ends = [p.value if p.high is None else p.high for s in self.series for p in s.points]
        highest = max(ends, default=1.0)
        return 100.0 if highest >= 50 else round_up(highest)


@dataclass(frozen=True)
class BarChart:
    """Counts by name."""

    head: Head
    labels: tuple[str, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Histogram:
    """Distributions over the same bins."""

    head: Head
    edges: tuple[float, ...]  # bins + 1, ascending
    series: tuple[tuple[str, tuple[int, ...]], ...]  # name, counts per bin
    means: tuple[float | None, ...] = ()  # a mean to mark for each series; None marks none
    as_share: bool = True  # each series in percent of its own sum, so that unequal sizes compare
    bin_names: tuple[str, ...] = ()  # what the bins are called where they are not to scale
    span: tuple[float, float] | None = None  # ends of a wider axis; None ends it with the edges

    @property
    def ends(self) -> tuple[float, float]:
        """Where the axis begins and ends."""
        return self.span or (self.edges[0], self.edges[-1])

    def heights(self) -> list[list[float]]:
        """Returns, per series, what is drawn: percent of the series, or the counts."""
        totals = [sum(counts) or 1 for _, counts in self.series]
        return [
            [100 * n / total if self.as_share else float(n) for n in counts]
            for (_, counts), total in zip(self.series, totals, strict=True)
        ]


Place = tuple[float, float, float | None, float | None]  # x, value, interval or None twice


@dataclass(frozen=True)
class LineChart:
    """Figures over a number."""

    head: Head
    series: tuple[tuple[str, tuple[Place, ...]], ...]  # name, places with x ascending
    # Frame counts double from one to the next; even steps keep the small ones apart.
    is_even: bool = True  # the numbers stand at even steps, and not to scale
    from_zero: bool = True  # whether the vertical axis begins at 0


@dataclass(frozen=True)
class Scatter:
    """Points in a plane, in named groups."""

    head: Head
    groups: tuple[tuple[str, tuple[tuple[float, float], ...]], ...]  # name, (x, y)


Chart = DotChart | BarChart | Histogram | LineChart | Scatter


def series_names(chart: Chart) -> list[str]:
    """Returns what a legend tells apart; nothing where there is only one."""
    if isinstance(chart, BarChart):
        return []
    if isinstance(chart, DotChart):
        names = [one.name for one in chart.series]
    else:
        names = [name for name, _ in (chart.groups if isinstance(chart, Scatter) else chart.series)]
    return names if len(names) > 1 else []


def round_up(value: float) -> float:
    """Returns the next round number.

    >>> [round_up(v) for v in (0.7, 43.2, 61, 100)]
    [0.8, 50.0, 80.0, 100.0]
    """
    if value <= 0:
        return 1.0
    power = 10.0 ** _exponent(value)
    steps = (round(power * m, 10) for m in (1, 2, 3, 4, 5, 6, 8, 10) if power * m >= value - 1e-9)
    return next(steps)


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
    first, last = -int(-low // step), int((high + 1e-9 * span) // step)
    return [round(n * step, 12) + 0.0 for n in range(first, last + 1)]


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
