"""How sure a number is: bootstrap intervals, the score interval of a share, a paired test.

Ranks repeat: among thousands of queries few hundred differ. A resample is therefore drawn as the
number of times each distinct rank occurs, which is the same bootstrap and far less work.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vtr.errors import ConfigError
from vtr.evaluate.metrics import DEFAULT_KS, SUMMARY_KS, check_ks, combined, hits, reciprocal_ranks
from vtr.evaluate.ranks import Ranks, RetrievalRanks

Interval = tuple[float, float]
Values = NDArray[np.float64]
Clusters = NDArray[np.integer[Any]]

RESAMPLES = 2000
_Z = NormalDist().inv_cdf(0.975)  # every interval is one of 95 %
CELLS = 1 << 22  # of the largest temporary array
EXACT_IN_FLOAT32 = 1 << 22  # queries; counts stay whole numbers even where a resample has 4 x that


@dataclass(frozen=True)
class PairedDifference:
    """How two runs differ over the same queries."""

    difference: float  # Mean of a minus mean of b
    low: float  # Lower end of its bootstrap interval
    high: float  # Upper end
    p_value: float  # Two-sided, of the hypothesis that it does not matter which run is which


def cell(value: float, ends: Interval) -> dict[str, float]:
    """Returns a number with the ends of its interval, as JSON has them."""
    return {"value": value, "low": ends[0], "high": ends[1]}


def wilson_interval(hits: int, trials: int) -> Interval:
    """Returns the 95 % score interval of a share, 0 to 1 (Wilson 1927, JASA 22, p. 209).

    >>> [round(end, 3) for end in wilson_interval(5, 10)]
    [0.237, 0.763]
    """
    return _score_interval(hits / trials, trials, _Z)


def _score_interval(share: float, trials: float, z: float) -> Interval:
    spread = z**2 / trials
    middle = share + spread / 2
    half = z * math.sqrt(share * (1 - share) / trials + spread / trials / 4)
    return max(0.0, (middle - half) / (1 + spread)), min(1.0, (middle + half) / (1 + spread))


def bootstrap(
    ranks: Ranks,
    ks: Sequence[int] = DEFAULT_KS,
    *,
    seed: int,
    clusters: Clusters | None = None,
    num_resamples: int = RESAMPLES,
) -> dict[str, Interval]:
    """Returns the 95 % bootstrap interval of every number of `vtr.evaluate.metrics.summary`.

    Queries are drawn with replacement; the gallery stays as it is. Captions of one video fail
    together, so with `clusters` (Q,) whole videos are drawn, each with all its captions.

    Percentiles of few units (queries, or clusters) are too narrow. They are taken as far out as
    Student's t asks, and by sqrt(n / (n - 1)) further (the expanded percentiles of Hesterberg
    2015, American Statistician 69, p. 371). A recall's interval also holds Wilson's for the number
    of independent queries that the spread of the resamples amounts to, by Student's t, because
    few hits are skewed; and no upper end is below, no lower end above, that of Wilson's interval
    for no hit, or nothing but hits, in as many units.
    """
    ks = check_ks(ks)
    num_units = len(ranks) if clusters is None else len(np.unique(clusters))
    if num_units == len(ranks):
        clusters = None
    samples = _samples(ranks, ks, clusters, np.random.default_rng(seed), num_resamples)
    ends = {name: percentile_ends(sample, num_units) for name, sample in samples.items()}
    none, every = (wilson_interval(n, num_units) for n in (0, num_units))
    for k in ks:
        low, high = ends[f"R@{k}"]
        share = float(hits(ranks, k).mean())
        spread = float((samples[f"R@{k}"] / 100).var()) * num_units / max(1, num_units - 1)
        own = share, share
        if spread and 0 < share < 1:  # as many independent queries as have this spread
            trials = share * (1 - share) / spread
            own = _score_interval(share, trials, _student(num_units))
        low, high = min(low, 100 * own[0]), max(high, 100 * own[1])
        ends[f"R@{k}"] = min(low, 100 * every[0]), max(high, 100 * none[1])
    return ends


def _samples(
    ranks: Ranks,
    ks: Sequence[int],
    clusters: Clusters | None,
    rng: np.random.Generator,
    num_resamples: int,
) -> dict[str, Values]:
    """Returns every number of every resample, by its name."""
    depths = sorted({*ks, *SUMMARY_KS})
    kinds, which = _kinds(ranks)
    values = np.stack([hits(kinds, k) for k in depths], axis=1)
    rest = np.stack([kinds.expected, reciprocal_ranks(kinds)], axis=1)
    parts = []
    for counts in _draws(which, clusters, rng, num_resamples):
        total = counts.sum(axis=1)[:, None]
        means = (counts @ rest) / total
        below = np.cumsum(counts, axis=1)
        middle = [(below > half).argmax(axis=1) for half in ((total - 1) // 2, total // 2)]
        median = (kinds.expected[middle[0]] + kinds.expected[middle[1]]) / 2
        columns = (median[:, None], means[:, :1], 100 * means[:, 1:])
        parts.append(np.concatenate([100 * (counts @ values) / total, *columns], axis=1))
    found = dict(zip([*depths, "MedR", "MeanR", "MRR"], np.concatenate(parts).T, strict=True))
    named = {f"R@{k}": found[k] for k in ks}
    named |= {name: found[name] for name in ("MedR", "MeanR", "MRR")}
    return named | combined(np.stack([found[k] for k in SUMMARY_KS], axis=1))


def _student(num_units: int) -> float:
    """The two-sided quantile of Student's t, num_units - 1 degrees of freedom; 1 unit has none.

    Four terms of the series in 1 / degrees (Abramowitz and Stegun 26.7.5): from 5 degrees on right
    to 0.01; below, the resamples end before the quantile does.
    """
    z = _Z
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    degrees = float(max(1, num_units - 1))
    return z + sum(term * degrees**-power for power, term in enumerate(terms, start=1))


def retrieval_intervals(
    ranks: RetrievalRanks,
    ks: Sequence[int] = DEFAULT_KS,
    *,
    seed: int,
) -> dict[str, Interval]:
    """Returns the intervals of all directions, by keys such as "t2v/R@1"; see `bootstrap`.

    Where videos have several captions, t2v draws videos and not captions.
    """
    intervals = {}
    for direction, rows in ranks.directions.items():
        clusters = ranks.query_video if direction == "t2v" else None
        found = bootstrap(rows, ks, seed=seed, clusters=clusters)
        intervals.update({f"{direction}/{name}": ends for name, ends in found.items()})
    return intervals


def paired_permutation(
    a: NDArray[Any],
    b: NDArray[Any],
    *,
    seed: int,
    clusters: Clusters | None = None,
    num_resamples: int = 10_000,
) -> PairedDifference:
    """Compares two runs over the same queries by swapping them query by query.

    `a` and `b` (Q,) hold a number per query, such as `hits(ranks, 1)` or a rank; queries of one of
    `clusters` (Q,) are swapped together. The smallest p is 1 / (num_resamples + 1).
    """
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise ConfigError(
            f"runs of {a.shape} and {b.shape} queries cannot be paired; both must be evaluated on "
            "the same queries"
        )
    units = np.arange(len(a)) if clusters is None else np.unique(clusters, return_inverse=True)[1]
    difference = a.astype(np.float64) - b.astype(np.float64)
    sums = np.bincount(units, weights=difference).astype(np.float64)
    sizes = np.bincount(units)
    rng = np.random.default_rng(seed)
    observed = sums.sum() / len(a)
    kinds, repeats = np.unique(np.stack([sums, sizes], axis=1), axis=0, return_counts=True)
    differences = np.concatenate(
        [
            (draw @ kinds[:, 0]) / (draw @ kinds[:, 1])
            for draw in _multinomial(rng, len(sums), repeats, num_resamples)
        ]
    )
    low, high = percentile_ends(differences, len(sums))
    extreme = _swapped_at_least(abs(observed) * len(a), sums, rng, num_resamples)
    return PairedDifference(float(observed), low, high, (1 + extreme) / (1 + num_resamples))


def _swapped_at_least(
    bound: float, sums: Values, rng: np.random.Generator, num_resamples: int
) -> int:
    """How many random choices of signs give a total at least as far from zero."""
    sizes, repeats = np.unique(np.abs(sums[sums != 0]), return_counts=True)
    bound -= 1e-9 * float(np.abs(sums).sum())  # totals that are equal but for rounding count
    extreme = 0
    for count in _portions(num_resamples, len(sizes)):
        kept = rng.binomial(repeats, 0.5, size=(count, len(sizes)))
        totals = (2 * kept - repeats) @ sizes
        extreme += int(np.count_nonzero(np.abs(totals) >= bound))
    return extreme


def _kinds(ranks: Ranks) -> tuple[Ranks, NDArray[np.int64]]:
    """The distinct ranks, best expected rank first, and which of them each query has."""
    rows = np.stack([ranks.better, ranks.tied, ranks.num_correct], axis=1)
    kinds, which = np.unique(rows, axis=0, return_inverse=True)
    better, tied, correct = kinds.T
    expected = Ranks(better, tied, ranks.num_candidates, correct).expected
    order = np.argsort(expected, kind="stable")
    place = np.argsort(order)
    better, tied, correct = kinds[order].T
    return Ranks(better, tied, ranks.num_candidates, correct), place[which.reshape(-1)]


def _draws(
    which: NDArray[np.int64],
    clusters: Clusters | None,
    rng: np.random.Generator,
    num_resamples: int,
) -> Iterator[Values]:
    """Yields (b, K): how often each kind of rank occurs in each resample."""
    num_kinds = int(which.max()) + 1
    if clusters is None:
        yield from _multinomial(rng, len(which), np.bincount(which), num_resamples)
        return
    units = np.unique(clusters, return_inverse=True)[1]
    num_units = int(units.max()) + 1
    order = np.argsort(units, kind="stable")
    begins = np.searchsorted(units[order], np.arange(num_units + 1))
    step = max(1, CELLS // num_kinds)
    precise = np.float32 if len(which) <= EXACT_IN_FLOAT32 else np.float64
    for count in _portions(num_resamples, max(num_kinds, num_units)):
        picks = rng.integers(0, num_units, (count, num_units))
        picks += num_units * np.arange(count)[:, None]
        weights = np.bincount(picks.reshape(-1), minlength=count * num_units)
        weights = weights.reshape(count, num_units).astype(precise)
        counts = np.zeros((count, num_kinds))
        for first in range(0, num_units, step):
            last = min(first + step, num_units)
            members = order[begins[first] : begins[last]]
            cells = (units[members] - first) * num_kinds + which[members]
            table = np.bincount(cells, minlength=(last - first) * num_kinds)
            counts += weights[:, first:last] @ table.reshape(-1, num_kinds).astype(precise)
        yield counts


def _multinomial(
    rng: np.random.Generator, total: int, repeats: NDArray[np.int64], num_resamples: int
) -> Iterator[Values]:
    for count in _portions(num_resamples, len(repeats)):
        yield rng.multinomial(total, repeats / repeats.sum(), size=count).astype(np.float64)


def _portions(num_resamples: int, width: int) -> Iterator[int]:
    step = max(1, CELLS // max(1, width))
    return (min(step, num_resamples - first) for first in range(0, num_resamples, step))


def percentile_ends(sample: Values, num_units: int) -> Interval:
    """Returns the expanded percentiles of a bootstrap of so many units (see `bootstrap`)."""
    wider = math.sqrt(num_units / max(1, num_units - 1)) * _student(num_units)
    low, high = np.quantile(sample, (NormalDist().cdf(-wider), NormalDist().cdf(wider)))
    return float(low), float(high)
