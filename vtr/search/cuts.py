"""Where a video changes, and which run of its pieces a query means.

Cuts are made once, from the frames alone: the least-squares partition of their unit vectors, with
a price for every cut that the video's own jitter sets. At query time each piece has the mean score
of its frames, and a moment is the run of pieces whose scores above a threshold add up to most
(Kadane). Both follow TAG (BMVC 2025) and were measured against windows and plain thresholds on
joined clips: `shared/specs/search_scale.md` 5.2.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Indices = NDArray[np.int64]

LONGEST_PIECE = 128  # frames; equal neighbours are joined again by the run
_LEAST_JITTER = 1e-3  # half the squared distance of neighbours in pictures that do not move
_PRICE = 3.0


def find_cuts(frames: Floats) -> Indices:
    """Returns where pieces begin, 0 first.

    Args:
        frames: (F, D) unit vectors of one video, in order; F may be 0.
    """
    count = len(frames)
    if count < 2:
        return np.zeros(count, np.int64)
    rows = np.asarray(frames, np.float32)
    jitter = float(np.median(1 - (rows[1:] * rows[:-1]).sum(axis=1)))
    price = _PRICE * max(jitter, _LEAST_JITTER) * np.log(max(count, 3))
    sums = np.concatenate([np.zeros((1, rows.shape[1])), np.cumsum(rows, axis=0, dtype=np.float64)])
    best = np.zeros(count + 1)  # least cost of the first n frames
    last = np.zeros(count + 1, np.int64)
    for stop in range(1, count + 1):
        first = max(0, stop - LONGEST_PIECE)
        lengths = np.arange(stop - first, 0, -1)
        parts = sums[stop] - sums[first:stop]
        costs = best[first:stop] + lengths - np.einsum("nd,nd->n", parts, parts) / lengths + price
        chosen = int(np.argmin(costs))
        best[stop], last[stop] = costs[chosen], first + chosen
    starts, stop = [], count
    while stop > 0:
        stop = int(last[stop])
        starts.append(stop)
    return np.array(starts[::-1], np.int64)


class Run(NamedTuple):
    """A run of pieces, first to before `stop`, and the sum of their scores above the threshold."""

    first: int
    stop: int
    gain: float


def best_run(means: Floats, weights: Floats, threshold: float) -> Run:
    """Returns the run of pieces that lies above a threshold by most (Kadane).

    Args:
        means: (P,) mean score of each piece, P at least 1.
        weights: (P,) how much each counts: its frames.
        threshold: What a piece must reach to add anything.
    """
    return _best((np.asarray(means, np.float64) - threshold) * weights)


def ranked_runs(means: Floats, weights: Floats) -> Iterator[Run]:
    """Yields runs that share no piece, the best first, until every piece is in one.

    The threshold is half-way between mean and maximum of the pieces that are left.

    Args:
        means: (P,) mean score of each piece.
        weights: (P,) how much each counts: its frames.
    """
    free = np.ones(len(means), bool)
    while free.any():
        left = np.asarray(means, np.float64)[free]
        gains = (means - (left.mean() + left.max()) / 2) * weights
        gains[~free] = -np.abs(gains).sum() - 1  # more than any run can gain
        run = _best(gains)
        free[run.first : run.stop] = False
        yield run


def _best(gains: NDArray[np.float64]) -> Run:
    sums = np.concatenate([[0.0], np.cumsum(gains)])
    lowest = np.minimum.accumulate(sums[:-1])
    stop = int(np.argmax(sums[1:] - lowest)) + 1
    first = int(np.flatnonzero(sums[:stop] == lowest[stop - 1])[-1])
    return Run(first, stop, float(sums[stop] - sums[first]))


def edges(pts_seconds: Floats, duration_seconds: float) -> Floats:
    """Returns (F+1,) where each frame's time begins and ends: half-way between neighbours.

    Args:
        pts_seconds: (F,) ascending, from the start of the file; F at least 1.
        duration_seconds: Of the file, from its first frame.
    """
    pts = np.asarray(pts_seconds, np.float64)
    middle = (pts[1:] + pts[:-1]) / 2
    return np.concatenate([[min(0.0, pts[0])], middle, [max(duration_seconds, pts[-1])]])
