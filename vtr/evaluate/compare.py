"""Is one result better than another? A paired test over the same queries, and which changed.

The difference of two recalls is far surer than each recall alone, because both runs answer the same
queries. Results of other queries, another gallery or other missing videos cannot be paired and are
refused.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vtr.counts import counted
from vtr.errors import ConfigError
from vtr.evaluate.intervals import paired_permutation
from vtr.evaluate.metrics import DEFAULT_KS, hits, reciprocal_ranks
from vtr.evaluate.ranks import Ranks
from vtr.evaluate.reporting.results import (
    RankTable,
    Result,
    comparability,
    has_ranks,
    other_features,
    read_ranks,
    read_rows,
    told_apart,
)

DIRECTIONS = ("t2v", "v2t", "v2t_groups")
SAME = 1e-9  # shares of seeds and ties that differ by less differ by rounding
# What may differ between runs that are the same but for their seed.
_DIGESTS = ("weights_sha256", "frames_sha256")
_FREE_KEYS = frozenset(
    {"seed", "title", "run", "device", "settings.seed", "features.folder", *_DIGESTS}
)

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Side:
    """One thing that is compared: a result, or several that differ in their seed alone."""

    title: str  # For tables
    results: tuple[Result, ...]  # At least one, all over the same queries

    @property
    def first(self) -> Result:
        """The one that stands for the settings of all."""
        return self.results[0]


@dataclass(frozen=True)
class MetricDifference:
    """One metric of two sides over the same queries."""

    metric: str  # Such as "t2v/R@1"; percent for R@k and MRR, ranks for MeanR
    a: float  # The first side's
    b: float  # The second side's
    difference: float  # b minus a
    low: float  # Lower end of its 95 % interval
    high: float  # Upper end
    p_value: float  # Two-sided, of a paired permutation test over the queries
    p_adjusted: float  # After Holm's correction for all sides that are set against the first
    n: int  # Queries
    sd_a: float | None = None  # Standard deviation of a over its seeds; None for a single run
    sd_b: float | None = None  # Likewise of b


@dataclass(frozen=True)
class Change:
    """A query that one side finds and the other does not, or finds less often."""

    query_id: str
    video_id: str  # Its own video
    text: str
    rank_a: float  # Rank of its video at the first side, the mean over ties and seeds
    rank_b: float  # At the second
    found_a: float  # Chance that the first side finds it at k, 0 to 1, the mean over ties and seeds
    found_b: float  # That of the second


@dataclass(frozen=True)
class Comparison:
    """Side b against side a."""

    a: Side  # The one that others are held against
    b: Side
    metrics: tuple[MetricDifference, ...]  # One per direction and metric that both have tables for
    k: int  # Depth of `gained` and `lost`
    # Queries that b finds at k and a does not, or less often over ties and seeds; the largest
    # improvement first. What they gain less what the others lose is the difference of R@k, times
    # the queries.
    gained: tuple[Change, ...] = field(repr=False)
    lost: tuple[Change, ...] = field(repr=False)  # The other way round, the largest loss first
    # (key, a's value, b's value) of every setting that differs.
    settings: tuple[tuple[str, Any, Any], ...] = field(repr=False)
    notes: tuple[str, ...] = ()  # What could not be compared, and why


def compare(
    sides: Sequence[Side], *, k: int = 1, seed: int = 0, num_resamples: int = 10_000
) -> tuple[Comparison, ...]:
    """Compares every further side with the first one; `k` as in `Comparison`."""
    if len(sides) < 2:
        raise ConfigError(f"{len(sides)} result is nothing to compare; name two or more")
    check_comparable([result for side in sides for result in side.results])
    a, *others = (_Tables(side) for side in sides)
    found = []
    for b in others:
        shared = [direction for direction in a.runs if direction in b.runs]
        metrics = [m for way in shared for m in _differences(way, a, b, seed, num_resamples)]
        changes = _changes(a, b, k)
        remarks = (*a.notes, *b.notes, other_features(a.side.first, b.side.first))
        found.append(
            Comparison(
                a.side, b.side, tuple(metrics), k, *changes,
                settings=tuple(setting_differences(a.side.first, b.side.first)),
                notes=tuple(filter(None, remarks)),
            )
        )  # fmt: skip
    return _adjusted(found)


def sides_of(results: Sequence[Result], *, by_seed: bool = False) -> tuple[Side, ...]:
    """Returns one side per result or, `by_seed`, one per group that differs in its seed alone."""
    groups: dict[str, list[Result]] = {}
    for number, result in enumerate(results):
        settings = sorted((k, repr(v)) for k, v in result.settings.items() if k not in _FREE_KEYS)
        groups.setdefault(repr(settings if by_seed else number), []).append(result)
    titles = []
    for group in groups.values():
        seeds = [result.part("setup").get("seed") for result in group]
        if len(set(map(repr, seeds))) < len(seeds):
            raise ConfigError(
                f"two results of {group[0].title!r} have the same seed ({seeds}); "
                "runs of different seeds can be grouped, copies of one cannot"
            )
        several = f", {counted(len(group), 'seed')}" if len(group) > 1 else ""
        titles.append(f"{group[0].title}{several}")
    titles = told_apart(titles, [group[0].folder for group in groups.values()])
    return tuple(Side(title, tuple(g)) for title, g in zip(titles, groups.values(), strict=True))


def check_comparable(results: Sequence[Result]) -> None:
    """Refuses results whose queries or galleries differ; names the first key that does."""
    first = results[0]
    titles = told_apart([result.title for result in results], [r.folder for r in results])
    for other, title in zip(results[1:], titles[1:], strict=True):
        pairs = zip(comparability(first).items(), comparability(other).values(), strict=True)
        for key, ours, theirs in ((key, ours, theirs) for (key, ours), theirs in pairs):
            if ours == theirs:
                continue
            settings = setting_differences(first, other)
            more = "".join(f"; {k} is {a!r} and {b!r}" for k, a, b in settings[:3])
            same = "protocol and annotation files"
            if key.startswith("coverage"):
                same = "--missing" if key == "coverage.policy" else ""
            remedy = f"with the same {same}" if same else "on the same videos"
            raise ConfigError(
                f"{titles[0]!r} and {title!r} cannot be compared: {key} is "
                f"{_brief(ours)} and {_brief(theirs)}{more}. Evaluate both {remedy}"
            )


def _brief(value: object) -> str:
    if isinstance(value, tuple):
        more = f" and {len(value) - 3} more" if len(value) > 3 else ""
        return f"{list(value[:3])!r}{more}"
    text = repr(value)
    return text if len(text) <= 24 else f"{text[:13]}…'"


def setting_differences(a: Result, b: Result) -> list[tuple[str, Any, Any]]:
    """Returns (key, a's value, b's value) of every setting in which two results differ.

    Keys with a dot ("settings.lr") are of the runs' configurations, where these are found.
    """
    ours, theirs = a.settings, b.settings
    keys = [k for k in dict.fromkeys([*ours, *theirs]) if k not in ("title", "run", *_DIGESTS)]
    return [(k, ours.get(k), theirs.get(k)) for k in keys if ours.get(k) != theirs.get(k)]


class _Tables:
    """The ranks of a side, by direction, every run's rows in the same order."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self.notes = [f"{side.title}: {r.outdated}" for r in side.results if r.outdated]
        self.runs: dict[str, list[RankTable]] = {}
        for direction in DIRECTIONS:
            lacking = [r for r in side.results if not has_ranks(r, direction)]
            if direction == "t2v" or not lacking:
                self.runs[direction] = [read_ranks(result, direction) for result in side.results]
            elif direction == "v2t":  # older results have none; without groups nothing is lost
                self.notes.append(f"{side.title}: no v2t, there is no {lacking[0].per_video}")


def _differences(
    direction: str, a: _Tables, b: _Tables, seed: int, num_resamples: int
) -> Iterator[MetricDifference]:
    ours, theirs = a.runs[direction], b.runs[direction]
    first = ours[0]
    for side, table in (*((a.side, t) for t in ours), *((b.side, t) for t in theirs)):
        if table.ids != first.ids:
            pairs = enumerate(zip(first.ids, table.ids, strict=False))
            length = min(len(first.ids), len(table.ids))
            where = next((i for i, (x, y) in pairs if x != y), length)
            raise ConfigError(
                f"the tables of {a.side.title!r} and {side.title!r} do not list the same queries: "
                f"they differ from row {where + 1} on, though their digests agree. Evaluate both "
                "again"
            )
    clusters = np.unique(np.array(first.clusters, object), return_inverse=True)[1]
    for name in (*(f"R@{k}" for k in DEFAULT_KS), "MeanR", "MRR"):
        values, spreads = [], []
        for tables in (ours, theirs):  # (seeds, Q)
            values.append(np.stack([per_query(table.ranks, name) for table in tables]))
            means = values[-1].mean(axis=1).tolist()
            spreads.append(statistics.stdev(means) if len(means) > 1 else None)
        paired = paired_permutation(
            values[1].mean(axis=0), values[0].mean(axis=0),
            seed=seed, clusters=clusters, num_resamples=num_resamples,
        )  # fmt: skip
        numbers = {"a": float(values[0].mean()), "b": float(values[1].mean()), **asdict(paired)}
        numbers |= {"p_adjusted": paired.p_value, "sd_a": spreads[0], "sd_b": spreads[1]}
        yield MetricDifference(f"{direction}/{name}", n=len(first.ids), **numbers)


def per_query(ranks: Ranks, name: str) -> Values:
    """(Q,) what a metric is the mean of: 0 to 100 for R@k and MRR, a rank for MeanR."""
    if name == "MeanR":
        return ranks.expected
    return 100 * (reciprocal_ranks(ranks) if name == "MRR" else hits(ranks, int(name[2:])))


def _changes(a: _Tables, b: _Tables, k: int) -> tuple[tuple[Change, ...], tuple[Change, ...]]:
    """Returns the queries that b finds more often than a, and those that it finds less often."""
    sides = [tables.runs["t2v"] for tables in (a, b)]
    hit = [np.mean([hits(table.ranks, k) for table in tables], axis=0) for tables in sides]
    ranks = [np.mean([table.ranks.expected for table in tables], axis=0) for tables in sides]
    more, better = hit[1] - hit[0], ranks[0] - ranks[1]
    order = np.lexsort((-np.abs(better), -np.abs(more)))  # stable
    rows = read_rows(a.side.first.per_query, ("query_id", "text"))
    texts, table = {row["query_id"]: row["text"] for row in rows}, sides[0][0]

    def change(q: int) -> Change:
        name = table.ids[q]
        rank_a, rank_b, found_a, found_b = (float(values[q]) for values in (*ranks, *hit))
        text = texts.get(name, "")
        return Change(name, table.clusters[q], text, rank_a, rank_b, found_a, found_b)

    gained, lost = (order[chosen[order]].tolist() for chosen in (more > SAME, more < -SAME))
    return tuple(map(change, gained)), tuple(map(change, lost))


def _adjusted(comparisons: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """Corrects, metric by metric, for holding several sides against one (Holm 1979)."""
    tested: dict[str, list[tuple[float, int]]] = {}  # metric to the p-values and whose they are
    for i, comparison in enumerate(comparisons):
        for metric in comparison.metrics:
            tested.setdefault(metric.metric, []).append((metric.p_value, i))
    corrected: dict[tuple[int, str], float] = {}
    for name, p_values in tested.items():
        largest = 0.0
        for place, (p_value, i) in enumerate(sorted(p_values)):
            largest = max(largest, min(1.0, p_value * (len(p_values) - place)))
            corrected[i, name] = largest
    return tuple(
        replace(c, metrics=tuple(replace(m, p_adjusted=corrected[i, m.metric]) for m in c.metrics))
        for i, c in enumerate(comparisons)
    )
