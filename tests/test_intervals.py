"""Intervals against resampling query by query, and against what theory says."""

import itertools
import math

import numpy as np
import pytest
from builders import script
from numpy.typing import NDArray

from vtr.errors import ConfigError
from vtr.evaluate.intervals import (
    bootstrap,
    paired_permutation,
    retrieval_intervals,
    wilson_interval,
)
from vtr.evaluate.metrics import hits, retrieval_metrics, summary
from vtr.evaluate.ranks import Ranks, stream_ranks


def make_ranks(num_queries: int, seed: int, num_candidates: int = 60) -> Ranks:
    rng = np.random.default_rng(seed)
    better = np.minimum(rng.geometric(0.2, num_queries) - 1, num_candidates - 5)
    return Ranks(better, rng.choice([1, 1, 1, 2, 4], num_queries), num_candidates)


def take(ranks: Ranks, rows: NDArray[np.int64]) -> Ranks:
    return Ranks(ranks.better[rows], ranks.tied[rows], ranks.num_candidates)


def plain(
    ranks: Ranks, clusters: NDArray[np.int64], resamples: int
) -> dict[str, tuple[float, float]]:
    """Draws clusters, gathers their queries, computes everything anew."""
    rng = np.random.default_rng(99)
    names = np.unique(clusters)
    found: list[dict[str, float]] = []
    for _ in range(resamples):
        drawn = rng.choice(names, len(names))
        rows = np.concatenate([np.flatnonzero(clusters == name) for name in drawn])
        found.append(summary(take(ranks, rows), (1, 3)))
    return {
        key: tuple(np.quantile([numbers[key] for numbers in found], [0.025, 0.975]).tolist())
        for key in found[0]
    }


@pytest.mark.parametrize("several", [False, True])
def test_equals_plain_resampling(several: bool) -> None:
    ranks = make_ranks(120, 0)
    every = np.arange(120)
    clusters = every // 3 if several else every
    ours = bootstrap(ranks, (1, 3), seed=1, clusters=clusters, num_resamples=4000)
    theirs = plain(ranks, clusters, 1500)
    point = summary(ranks, (1, 3))
    assert list(ours) == list(point)
    for name, ends in ours.items():
        width = theirs[name][1] - theirs[name][0]
        assert ends == pytest.approx(theirs[name], abs=0.12 * width + 0.26), name
        assert ends[0] <= point[name] <= ends[1]


def test_clusters_of_one_are_single_queries() -> None:
    ranks = make_ranks(300, 1)
    ones = bootstrap(ranks, seed=0, clusters=np.arange(300)[::-1], num_resamples=100)
    assert bootstrap(ranks, seed=0, num_resamples=100) == ones


def test_captions_that_fail_together_widen_the_interval() -> None:
    better = np.repeat(np.array([0, 20] * 50), 10)
    ranks = Ranks(better, np.ones(1000, int), 30)
    low, high = bootstrap(ranks, seed=0)["R@1"]
    wide_low, wide_high = bootstrap(ranks, seed=0, clusters=np.arange(1000) // 10)["R@1"]
    assert (wide_high - wide_low) / (high - low) == pytest.approx(math.sqrt(10), rel=0.1)


def test_covers_the_truth_as_often_as_it_says() -> None:
    """R@1 of 30 % over 200 queries, 300 times: 95 % intervals hold it about that often."""
    rng = np.random.default_rng(0)
    inside = 0
    for trial in range(300):
        ranks = Ranks(np.where(rng.random(200) < 0.3, 0, 9), np.ones(200, int), 10)
        low, high = bootstrap(ranks, (1,), seed=trial, num_resamples=400)["R@1"]
        inside += low <= 30 <= high
    assert 0.91 <= inside / 300 <= 0.985


def test_few_units_widen_the_interval_as_student_asks() -> None:
    """The percentile interval of 20 normal units is too narrow by t sqrt(n / (n - 1)) / z."""
    a, b = np.random.default_rng(0).standard_normal(20), np.zeros(20)
    found = paired_permutation(a, b, seed=0, num_resamples=20_000)
    assert (found.high - found.low) / (2 * 1.96 * a.std() / math.sqrt(20)) == pytest.approx(
        2.093 * math.sqrt(20 / 19) / 1.96, rel=0.03
    )


@pytest.mark.slow
@pytest.mark.parametrize("num_videos", [20, 50, 200])
def test_covers_the_truth_with_few_videos(num_videos: int) -> None:
    """Of 50 videos, percentiles alone cover an R@1 of 10 % .91 of the time."""
    benchmark = script("benchmarks/intervals.py")
    assert benchmark.coverage(num_videos, 0.1, trials=600, resamples=400) >= 0.935


def test_same_seed_same_interval() -> None:
    ranks, clusters = make_ranks(200, 2), np.arange(200) // 4
    for grouping in (None, clusters):
        first = bootstrap(ranks, seed=5, clusters=grouping)
        assert first == bootstrap(ranks, seed=5, clusters=grouping)
        assert first != bootstrap(ranks, seed=6, clusters=grouping)


def test_a_perfect_score_is_not_certain() -> None:
    ranks = Ranks(np.zeros(50, int), np.ones(50, int), 50)
    found = bootstrap(ranks, (1, 5), seed=0)
    low, high = wilson_interval(50, 50)
    assert found["R@1"] == (100 * low, 100 * high)
    assert found["R@1"][0] == pytest.approx(92.9, abs=0.1)
    never = bootstrap(Ranks(np.full(50, 20), np.ones(50, int), 50), (1,), seed=0)
    assert never["R@1"] == pytest.approx((0, 7.13), abs=0.1)


@pytest.mark.parametrize("clustered", [False, True])
def test_a_few_hits_are_no_surer_than_none(clustered: bool) -> None:
    """Both ends of an interval rise with the hits, from none to all."""
    clusters = np.arange(80 * 20) // 20 if clustered else None
    count = 80 * 20 if clustered else 80
    ends = []
    for num_hits in (0, 1, 3, count // 2, count - 1, count):
        better = np.where(np.arange(count) < num_hits, 0, 20)
        ranks = Ranks(better, np.ones(count, int), 50)
        low, high = bootstrap(ranks, (1,), seed=0, clusters=clusters)["R@1"]
        assert low <= 100 * num_hits / count <= high
        ends.append((low, high))
    assert ends == sorted(ends)
    assert [high for _, high in ends] == sorted(high for _, high in ends)
    assert ends[0] == pytest.approx((0, 4.58), abs=0.01)
    assert ends[-1] == pytest.approx((95.42, 100), abs=0.01)
    low, high = bootstrap(ranks, (1,), seed=0, clusters=np.zeros(count, int))["R@1"]
    assert high - low > 50, "one video says little, however many captions it has"


def test_one_query() -> None:
    found = bootstrap(Ranks(np.array([2]), np.array([2]), 5), seed=0)
    assert found["MedR"] == (3.5, 3.5)


def test_directions_and_their_clusters() -> None:
    scores = np.random.default_rng(0).random((60, 12)).astype(np.float32)
    video = np.arange(60) // 5
    ranks = stream_ranks(lambda: [(0, scores)], video, 12)
    found = retrieval_intervals(ranks, seed=3)
    assert set(found) == set(retrieval_metrics(ranks).expected)
    assert found["t2v/R@5"] == bootstrap(ranks.t2v, seed=3, clusters=video)["R@5"]
    assert found["t2v/R@5"] != bootstrap(ranks.t2v, seed=3)["R@5"]


def test_what_cannot_be_asked() -> None:
    ranks = make_ranks(5, 0)
    with pytest.raises(ConfigError, match="R@0"):
        bootstrap(ranks, (0,), seed=0)
    with pytest.raises(ConfigError, match=r"\(3,\) and \(4,\) queries cannot be paired"):
        paired_permutation(np.zeros(3), np.zeros(4), seed=0)


@pytest.mark.parametrize("clustered", [False, True])
def test_permutation_against_every_sign(clustered: bool) -> None:
    rng = np.random.default_rng(4)
    a, b = rng.integers(0, 6, 12) / 1.0, rng.integers(0, 4, 12) / 1.0
    clusters = np.arange(12) // 2 if clustered else np.arange(12)
    sums = np.bincount(clusters, weights=a - b)
    totals = [abs(np.dot(signs, sums)) for signs in itertools.product([1, -1], repeat=len(sums))]
    exact = np.mean(np.array(totals) >= abs(sums.sum()) - 1e-9)
    found = paired_permutation(
        a, b, seed=0, clusters=clusters if clustered else None, num_resamples=40_000
    )
    assert found.p_value == pytest.approx(exact, abs=0.01)
    assert found.difference == pytest.approx((a - b).mean())
    assert found.low < found.difference < found.high


def test_permutation_of_equal_and_of_opposite_runs() -> None:
    ranks = make_ranks(400, 7)
    first = hits(ranks, 1)
    same = paired_permutation(first, first, seed=0)
    assert (same.difference, same.low, same.high, same.p_value) == (0, 0, 0, 1)
    apart = paired_permutation(np.ones(50), np.zeros(50), seed=0)
    assert (apart.difference, apart.p_value) == (1, 1 / 10_001)
    assert paired_permutation(first, 1 - first, seed=1) == paired_permutation(
        first, 1 - first, seed=1
    )
