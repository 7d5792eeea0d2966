"""Retrieval numbers from ranks: recall, median and mean rank, MRR.

Everything that is a share is in percent; ranks count from 1. Under ties a number is its mean over
all orders of the tied items (expected), and beside it the best and the worst of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vtr.errors import ConfigError
from vtr.evaluate.counting import Counts
from vtr.evaluate.ranks import Ranks, RetrievalRanks

DEFAULT_KS = (1, 5, 10)
MOST_ITEMS = 10**9 - 1  # more than any gallery has
SUMMARY_KS = (1, 5, 10)  # what GeoMean and SumR combine, whichever k are asked for
Values = NDArray[np.float64]


@dataclass(frozen=True)
class RetrievalMetrics:
    """The numbers of one evaluation, by keys such as "t2v/R@1".

    >>> import vtr
    >>> import numpy as np
    >>> scores = np.array([[0.9, 0.1], [0.3, 0.2]])  # (Q, V)
    >>> ranks = vtr.stream_ranks(lambda: [(0, scores)], np.array([0, 1]), 2)
    >>> vtr.retrieval_metrics(ranks).expected["t2v/R@1"]
    50.0

    R@k, MRR, GeoMean and SumR in percent (SumR up to 300); MedR and MeanR are ranks from 1.
    """

    expected: Mapping[str, float]  # Ties by expectation: the headline
    optimistic: Mapping[str, float]  # Every tie in favour of the correct item
    pessimistic: Mapping[str, float]  # Every tie against it
    num_queries: Mapping[str, int]  # By direction: over how many queries


def retrieval_metrics(
    ranks: RetrievalRanks | Mapping[str, Ranks], ks: Sequence[int] = DEFAULT_KS
) -> RetrievalMetrics:
    """Returns all numbers of all directions.

    MedR is the median of the expected ranks (better + (tied + 1) / 2), the mean of the two middle
    ones where their count is even. One correct item per query makes mean average precision equal
    to MRR, so only MRR is given; where several are correct (v2t) the ranks know the first alone.
    """
    named = ranks.directions if isinstance(ranks, RetrievalRanks) else ranks
    expected: dict[str, float] = {}
    optimistic: dict[str, float] = {}
    pessimistic: dict[str, float] = {}
    for direction, rows in named.items():
        sure = (_untied(rows, rows.optimistic), _untied(rows, rows.pessimistic))
        sides = ((expected, rows), (optimistic, sure[0]), (pessimistic, sure[1]))
        for side, side_ranks in sides:
            numbers = summary(side_ranks, ks)
            side.update({f"{direction}/{name}": value for name, value in numbers.items()})
    counts = {direction: len(rows) for direction, rows in named.items()}
    return RetrievalMetrics(expected, optimistic, pessimistic, counts)


def summary(ranks: Ranks, ks: Sequence[int] = DEFAULT_KS) -> dict[str, float]:
    """Returns the expected numbers of one direction: R@k, MedR, MeanR, MRR, GeoMean, SumR."""
    ks = check_ks(ks)
    numbers = {f"R@{k}": 100 * float(hits(ranks, k).mean()) for k in ks}
    numbers["MedR"] = float(np.median(ranks.expected))
    numbers["MeanR"] = float(ranks.expected.mean())
    numbers["MRR"] = 100 * float(reciprocal_ranks(ranks).mean())
    recalls = [100 * float(hits(ranks, k).mean()) for k in SUMMARY_KS]
    return numbers | {name: float(value) for name, value in combined(np.array(recalls)).items()}


def combined(recalls: Values) -> dict[str, Values]:
    """Returns GeoMean and SumR of R@1, R@5, R@10 along the last axis."""
    product, total = np.prod(recalls, axis=-1), np.sum(recalls, axis=-1)
    return {"GeoMean": np.asarray(np.cbrt(product)), "SumR": np.asarray(total)}


def check_ks(ks: Any) -> tuple[int, ...]:
    """Returns recall depths, one or several, as Python's whole numbers."""
    several = ks if isinstance(ks, Sequence) and not isinstance(ks, str) else np.ravel(ks).tolist()
    for k in several:
        whole = isinstance(k, Integral) and not isinstance(k, bool)
        if not (whole and 1 <= k <= MOST_ITEMS):
            raise ConfigError(
                f"R@{k} means nothing; k must be whole numbers, 1 to {MOST_ITEMS}, such as 1, 5, 10"
            )
    if not several:
        raise ConfigError("k is empty; give whole numbers, such as 1, 5, 10")
    return tuple(map(int, several))


def hits(ranks: Ranks, k: int) -> Values:
    """(Q,) the chance, 0 to 1, that the first correct item is among the first k; 0 for a miss.

    k - better of the tied items fit. With one correct among them that is (k - better) / tied;
    with c correct, one minus the chance that all c stay outside (hypergeometric).
    """
    room = np.where(ranks.missed, 0, np.clip(k - ranks.better, 0, ranks.tied))
    chance = room / ranks.tied
    several = np.flatnonzero((ranks.num_correct > 1) & (room > 0))
    room, tied, correct = room[several], ranks.tied[several], ranks.num_correct[several]
    outside = np.ones(len(several))
    for taken in range(int(room.max(initial=0))):
        inside = taken < room
        left = np.maximum(tied - correct - taken, 0) / np.maximum(tied - taken, 1)
        outside[inside] *= left[inside]
    chance[several] = 1 - outside
    return chance


def reciprocal_ranks(ranks: Ranks) -> Values:
    """(Q,) the mean of 1 / rank of the first correct item over the orders of ties; 0 for a miss."""
    mean = mean_worth(ranks, 1 / np.arange(1, ranks.num_candidates + 1))
    several = np.flatnonzero(ranks.num_correct > 1)
    if len(several):
        rows = np.stack([ranks.better, ranks.tied, ranks.num_correct], axis=1)[several]
        kinds, which = np.unique(rows, axis=0, return_inverse=True)
        values = np.array([_first_of_several(*kind) for kind in kinds.tolist()])
        mean[several] = values[which.reshape(-1)]
    return np.asarray(mean)


def mean_worth(ranks: Ranks, worth: Values) -> Values:
    """(Q,) what the place of the correct item is worth, its mean over the orders of ties.

    `worth` (C,) is that of the first place, the second and so on; a miss is worth 0.
    """
    total = np.concatenate([[0.0], np.cumsum(worth)])
    total = np.append(total, total[-1])  # the place of a miss is worth nothing
    mean: Values = (total[ranks.better + ranks.tied] - total[ranks.better]) / ranks.tied
    return mean


def ndcg(ranks: Ranks, k: int = 10) -> Values:
    """(Q,) nDCG@k of queries with one correct item, 0 to 1: 1 / log2(1 + rank) up to rank k.

    >>> import vtr
    >>> ranks = vtr.rank_rows(np.array([[0.1, 0.9, 0.3]]), np.array([2]))
    >>> ndcg(ranks).round(4).tolist()
    [0.6309]

    Raises:
        ValueError: Several correct items: the ranks know the first of them alone.
    """
    if bool((ranks.num_correct > 1).any()):
        raise ValueError("nDCG of several correct items needs the scores")
    places = np.arange(1, ranks.num_candidates + 1)
    return mean_worth(ranks, np.where(places <= k, 1 / np.log2(1 + places), 0.0))


def _first_of_several(better: int, tied: int, correct: int) -> float:
    """E[1 / rank]; the chance that places 1..j hold no correct item falls by one factor per j."""
    taken = np.arange(tied - correct + 1)
    none_before = np.concatenate([[1.0], np.cumprod((tied - correct - taken) / (tied - taken))])
    first_here = none_before[:-1] - none_before[1:]
    return float(np.sum(first_here / (better + taken + 1)))


def _untied(ranks: Ranks, rank: Counts) -> Ranks:
    return Ranks(rank - 1, np.ones_like(rank), ranks.num_candidates)
