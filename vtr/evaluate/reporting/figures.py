"""The charts of a report, by the names they are written under; every figure is the result's own.

The first eight are the plots that two-tower projects on MSR-VTT show (two of them, the examples,
are pictures and live in `vtr.evaluate.reporting.examples`); N and intervals come with each.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from vtr.charts.kinds import (
    NUM_COLOURS,
    NUM_FILLS,
    BarChart,
    DotChart,
    Head,
    Histogram,
    LineChart,
    Place,
    Point,
    Series,
)
from vtr.counts import count_text, counted
from vtr.errors import ConfigError
from vtr.evaluate.parts import Bin, numbers_by_words
from vtr.evaluate.reporting.results import Result, check_count, read_ranks, read_rows, whole

RECALLS = ("R@1", "R@5", "R@10")
DIRECTIONS = {"t2v": "text to video", "v2t": "video to text"}
MAX_ROWS = 40  # of a breakdown; the rest stays in result.json
MAX_FRAME_COUNTS = 40
MAX_WIDENING = 3.0  # of an axis, to share it with the chart beside
MARKED = "† marks fewer than 30 queries."


def recall_comparison_chart(results: Sequence[Result], direction: str = "t2v") -> DotChart:
    """R@1, R@5 and R@10 of each result with their intervals."""
    suffix = "" if direction == "t2v" else f"_{direction}"
    title = f"Recall, {DIRECTIONS.get(direction, direction)}"
    note = f"{_about(results[0])}. Bars are 95 % intervals."
    found = [{name: r.metrics.get(f"{direction}/{name}") for name in RECALLS} for r in results]
    head = Head(f"recall_comparison_chart{suffix}", title, note, "recall (%)")
    return _dots(head, results, found)


def category_recall_comparison(results: Sequence[Result], k: int = 1) -> DotChart | None:
    """R@k by category, largest first; None where the dataset has no categories."""
    rows = [_named(result.breakdown("category")) for result in results]
    sizes: dict[str, int] = {}
    for name, row in (pair for found in rows for pair in found.items()):
        sizes.setdefault(name, int(row["n"]))
    kept, more = _largest(sizes)
    note = f"{_about(results[0])}; each query ranks the whole gallery. {MARKED}{more}"
    title = f"R@{k} by category, text to video"
    head = Head("category_recall_comparison", title, note, f"R@{k} (%)")
    return _by_name(head, results, rows, k, kept)


def query_length_recall(
    results: Sequence[Result], k: int = 1, *, bins: Sequence[Bin] | None = None
) -> DotChart | None:
    """R@k by the number of words; own `bins` are counted from `per_query.csv`."""
    rows = [
        _named(r.breakdown("query_words") if bins is None else count_bins(r, bins, k))
        for r in results
    ]
    note = f"{_about(results[0])}; length in words. {MARKED}"
    title = f"R@{k} by query length, text to video"
    return _by_name(Head("query_length_recall", title, note, f"R@{k} (%)"), results, rows, k)


def group_recall(results: Sequence[Result], k: int = 1) -> DotChart | None:
    """R@k by labelled group of queries; None where the dataset has none."""
    note = f"{_about(results[0])}; each query ranks the whole gallery. {MARKED}"
    head = Head("group_recall", f"R@{k} by group of queries, text to video", note, f"R@{k} (%)")
    return _by_name(head, results, [dict(r.part("groups")) for r in results], k)


def order_accuracy(results: Sequence[Result]) -> DotChart | None:
    """How often a query scores its video above the one that differs in frame order alone."""
    kept = [(result, pair) for result in results if (pair := result.part("pairs").get("order"))]
    if not kept:
        return None
    note = f"{_about(results[0])}. Two videos of the same frames in another order; chance is 50 %."
    head = Head("order_accuracy", "Order of frames told apart", note, "accuracy (%)")
    entries = [{"order": {**pair, "value": pair["accuracy"]}} for _, pair in kept]
    return _dots(head, [result for result, _ in kept], entries)


def count_bins(result: Result, bins: Sequence[Bin], k: int) -> list[dict[str, Any]]:
    """Returns breakdown rows like those of `result.json` for other bins of query length."""
    table = read_ranks(result, "t2v")
    try:
        words = np.array([whole(row["words"]) for row in read_rows(result.per_query, ("words",))])
    except ValueError as error:
        raise ConfigError(
            f"{result.per_query} has no whole number of words ({error}); evaluate again"
        ) from None
    owners = np.unique(np.array(table.clusters, object), return_inverse=True)[1]
    return numbers_by_words(table.ranks, words, owners, (k,), bins=bins, seed=0)


def video_category_distribution_test(result: Result) -> BarChart | None:
    """Test videos per category, largest first; None where the dataset has no categories.

    Videos are counted in `per_query.csv`; without it, queries are shown and called so.
    """
    rows, what = result.breakdown("category"), "queries"
    counts = {str(row["name"]): int(row["n"]) for row in rows}
    if rows and result.per_query.is_file():
        table = read_rows(result.per_query, ("video_id", "category"))
        queries = [(row["category"], row["video_id"]) for row in table]
        check_count(result, "t2v", result.per_query, len(queries))
        videos = dict.fromkeys(queries)
        if in_videos := Counter(category for category, _ in videos if category):
            what, counts = "videos", dict(in_videos)
    if not counts:
        return None
    kept, more = _largest(counts)
    note = f"{result.protocol}, N = {sum(counts.values()):,} {what} with a category.{more}"
    head = Head("video_category_distribution_test", f"Test {what} by category", note, what)
    return BarChart(head, tuple(kept), tuple(counts[name] for name in kept))


def similarity_distribution(result: Result, *, beside: Result | None = None) -> Histogram | None:
    """Scores of matching and other pairs, on the axis of the chart `beside` where both fit."""
    found = result.part("similarity")
    if not found.get("matching") or not sum(found["matching"]):
        return None
    matching, other = tuple(found["matching"]), tuple(found["other"])
    name, when = ("baseline", "before") if result.is_zero_shot else ("finetuned", "after")
    note = (
        f"{result.title} on {result.protocol}: {sum(matching):,} matching pairs, "
        f"{sum(other):,} others. Each distribution sums to 100 %; a dashed line is its mean."
    )
    title = f"Similarity of matching and other pairs, {when} training"
    axes = ("similarity score (no unit)", "share of pairs (%)")
    both = [one.part("similarity").get("edges") or [0, 0] for one in (result, beside) if one]
    low, high = min(edges[0] for edges in both), max(edges[-1] for edges in both)
    narrow = min(edges[-1] - edges[0] for edges in both)
    fits = beside is not None and high - low <= MAX_WIDENING * narrow
    return Histogram(
        Head(f"{name}_similarity_distribution", title, note, *axes),
        tuple(found["edges"]),
        (("matching pairs", matching), ("other pairs", other)),
        (found.get("matching_mean"), found.get("other_mean")),
        span=(low, high) if fits else None,
    )


def rank_histogram(results: Sequence[Result]) -> Histogram | None:
    """At which rank the correct video stands; of very many results at the first and the last."""
    number = len(results)
    if number > NUM_COLOURS * NUM_FILLS:  # looks repeat, and bars are too thin to see
        results = [results[0], results[-1]]
    found = [(r, r.part("rank_histogram")) for r in results if r.part("rank_histogram")]
    if not found:
        return None
    edges = tuple(found[0][1]["edges"])
    counts = [(r.title, tuple(x["counts"])) for r, x in found if tuple(x["edges"]) == edges]
    names = tuple(
        f"{low:,}" if high - low == 1 else f"{low:,}–{high - 1:,}"  # noqa: RUF001 - a range
        for low, high in pairwise(edges)
    )
    shown = f" Of {number:,} results the first and the last." * (number > len(results))
    note = f"{_about(results[0])}. Mean rank over ties; the best is 1.{shown}"
    axes = ("rank", "share of queries (%)")
    head = Head("rank_histogram", "Rank of the correct video", note, *axes)
    return Histogram(head, edges, tuple(counts), bin_names=names)


def recall_by_frames(simulation: Mapping[str, Any], k: int = 1) -> LineChart:
    """R@k against the number of frames per video, one line per pooling rule of a simulation."""
    if simulation.get("kind") != "vtr-simulation":
        raise ConfigError(f"--frames names a {simulation.get('kind')!r}, not a 'vtr-simulation'")
    lines: dict[str, list[Place]] = defaultdict(list)
    try:
        for row in simulation.get("rows") or []:
            found = row.get("metrics", {}).get(f"t2v/R@{k}")
            entry = found if isinstance(found, Mapping) else {"value": found}
            if entry.get("value") is not None:
                value, *ends = (entry.get(name) for name in ("value", "low", "high"))
                low, high = (None if end is None else _finite(end) for end in ends)
                place = (_finite(row["frames"]), _finite(value), low, high)
                lines[str(row["rule"])].append(place)
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ConfigError(
            "the simulation is damaged: a row of it has no rule, frames or numbers; run "
            "`vtr simulate` again"
        ) from None
    if not lines:
        raise ConfigError(f"the simulation has no t2v/R@{k}; run `vtr simulate` again")
    about = simulation.get("protocol")
    name = about.get("name") if isinstance(about, Mapping) else about
    note = f"{name or 'Cached features'}, zero-shot, one line per pooling rule."
    axes = ("frames per video", f"R@{k} (%)")
    head = Head("recall_by_frames", f"R@{k} against the number of frames", note, *axes)
    series = [(rule, tuple(sorted(found)[:MAX_FRAME_COUNTS])) for rule, found in lines.items()]
    return LineChart(head, tuple(series))


def _finite(number: Any) -> float:
    if not math.isfinite(number):
        raise ValueError
    return float(number)


_Entries = Mapping[str, Mapping[str, Any] | None]  # by the name of a row: value, low, high, n


def _dots(head: Head, results: Sequence[Result], found: Sequence[_Entries]) -> DotChart:
    """The entries of each result; a row that one lacks is left out of its series."""
    series = tuple(
        Series(
            result.title,
            tuple(
                Point(name, float(e["value"]), e.get("low"), e.get("high"), e.get("n"))
                for name, e in entries.items()
                if e is not None
            ),
        )
        for result, entries in zip(results, found, strict=True)
    )
    return DotChart(head, series)


def _by_name(
    head: Head,
    results: Sequence[Result],
    rows: Sequence[Mapping[str, Mapping[str, Any]]],
    k: int,
    names: Sequence[str] | None = None,
) -> DotChart | None:
    """R@k of parts of the queries, told by their rows of each result; None where there are none."""
    if names is None:
        names = list(dict.fromkeys(name for found in rows for name in found))[:MAX_ROWS]
    if not names:
        return None
    there = {key for found in rows for row in found.values() for key in row["metrics"]}
    key = f"t2v/R@{k}"
    if key not in there:
        depths = sorted(int(x.removeprefix("t2v/R@")) for x in there if x.startswith("t2v/R@"))
        raise ConfigError(
            f"no result has R@{k} of its parts; --k may be {', '.join(map(str, depths)) or 'none'}"
        )
    kept = [{name: row for name in names if (row := found.get(name))} for found in rows]
    entries = [
        {name: {"n": row.get("n"), **row["metrics"][key]} for name, row in found.items()
         if key in row["metrics"]}
        for found in kept
    ]  # fmt: skip
    return _dots(head, results, entries)


def _named(rows: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    return {str(row["name"]): row for row in rows}


def _largest(sizes: Mapping[str, int]) -> tuple[list[str], str]:
    """The names of the largest, in order, and what to say of those that are left out."""
    kept = sorted(sizes, key=lambda name: (-sizes[name], name))[:MAX_ROWS]
    left = len(sizes) - len(kept)
    words = f" The {left} smallest of {len(sizes)} categories are not shown."
    return kept, words if left else ""


def _about(result: Result) -> str:
    protocol = result.part("protocol")
    queries, videos = protocol.get("num_queries"), protocol.get("num_videos")
    present = result.part("coverage").get("present")
    absent = "" if present == videos else f", {count_text(present)} of them present"
    return f"{result.protocol}: {counted(queries, 'query')}, {counted(videos, 'video')}{absent}"
