"""Counting in chunks of scores that stay in the cache: along rows, and down columns."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
Scores = NDArray[np.floating[Any]]
Rows = Scores | Callable[[], Scores]  # a function is called by the thread that counts its scores

CACHE_BYTES = 1 << 20  # of a chunk: several passes read it, and their marks want room beside it
GROUPS = 128  # of columns, whose maxima bound the best scores of a row
MAX_CHUNK_ROWS = 255  # counts down a column are kept in one byte
MOST_THREADS = 16  # more would wait for each other: between passes only one may run
MOST_NEAR = 1 << 22  # scores remembered because they lie near a guess


def chunk_rows(num_columns: int) -> int:
    """Returns how many rows of scores are counted at once."""
    return max(1, min(MAX_CHUNK_ROWS, CACHE_BYTES // (4 * num_columns)))


def group_maxima(scores: Scores) -> Scores:
    """Returns (b, about GROUPS) maxima of disjoint groups of the C columns."""
    width = scores.shape[1]
    depth = width // GROUPS
    if depth <= 1:
        return scores
    span = width // depth
    maxima = scores[:, : span * depth].reshape(len(scores), depth, span).max(axis=1)
    rest = maxima[:, : width - span * depth]
    np.maximum(rest, scores[:, span * depth :], out=rest)
    return np.asarray(maxima)


def num_threads() -> int:
    """Returns how many threads count: OMP_NUM_THREADS, or one for each processor."""
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(allowed or 1, int(asked) if asked.isdigit() else MOST_THREADS))


def computed(rows: Rows) -> Scores:
    """Returns the scores of a block."""
    return rows() if callable(rows) else rows


class Tally:
    """Counts of True in a boolean matrix, one byte per cell, eight cells per addition.

    Args:
        num_rows: At most 255.
        num_columns: Any.
    """

    def __init__(self, num_rows: int, num_columns: int) -> None:
        words = -(-num_columns // 8)
        self._segments = -(-words // 255)  # a byte holds a sum of up to 255 ones
        width = -(-words // self._segments) * self._segments * 8
        self.bytes = np.zeros((num_rows, width), np.uint8)
        self.mask = self.bytes[:, :num_columns].view(np.bool_)

    def places(self, num_rows: int) -> tuple[Counts, Counts]:
        """Returns (rows, columns) of all True in the first rows, row by row."""
        words = self.bytes[:num_rows].view(np.uint64).reshape(-1)
        hits = (words != 0).nonzero()[0]  # nonzero of all rows at once takes ten times as long
        cells = words[hits].view(np.bool_).nonzero()[0]
        return np.divmod(8 * hits[cells >> 3] + (cells & 7), self.bytes.shape[1])

    def per_row(self, num_rows: int) -> Counts:
        """(num_rows,) how many are True in each of the first rows."""
        words = self.bytes[:num_rows].view(np.uint64).reshape(num_rows, self._segments, -1)
        lanes = np.add.reduce(words, axis=2).view(np.uint8)
        return np.asarray(lanes.sum(axis=1, dtype=np.int64))

    def per_column(self, num_rows: int) -> NDArray[np.uint8]:
        """(num_columns,) how many of the first rows are True."""
        sums = np.add.reduce(self.bytes[:num_rows], axis=0, dtype=np.uint8)
        return np.asarray(sums[: self.mask.shape[1]])


class Thresholds:
    """Counts down columns: how many rows score above a threshold, and how many reach it.

    Args:
        guess: (C,) the threshold of every column, to within `slack`; not finite: never counted.
        slack: Relative to the threshold, or to 1; 0 where the guess is exact.
    """

    def __init__(self, guess: NDArray[np.float64], slack: float) -> None:
        guess = np.where(np.isfinite(guess), guess, np.nan)
        doubt = slack * np.maximum(1, np.abs(guess))
        self._low: Scores = guess - doubt
        self._high: Scores = guess + doubt
        self.num_above, self.num_reached = np.zeros((2, len(guess)), np.int64)
        self._remembers, self._num_near = slack > 0, 0
        self._near: list[tuple[Counts, Scores]] = []  # (columns, scores) within the doubt
        self._lock = threading.Lock()

    def add(self, scores: Scores, tally: Tally) -> None:
        """Counts some more rows (b, C); several threads may, each with a tally of its own."""
        count = len(scores)
        low, high = (bound.astype(scores.dtype, copy=False) for bound in (self._low, self._high))
        self._low, self._high = low, high
        np.greater(scores, high, out=tally.mask[:count])
        above = tally.per_column(count)
        np.greater_equal(scores, low, out=tally.mask[:count])
        reached = tally.per_column(count)
        columns = (above != reached).nonzero()[0]
        near = None
        if self._remembers and len(columns) and self._num_near <= MOST_NEAR:
            part = scores[:, columns]
            rows, places = np.nonzero((part >= low[columns]) & (part <= high[columns]))
            near = columns[places], part[rows, places]
        with self._lock:
            self.num_above += above
            self.num_reached += reached
            if near is not None:
                self._near.append(near)
                self._num_near += len(near[0])

    def covers(self, truth: NDArray[np.float64]) -> NDArray[np.bool_]:
        """(C,) whether the counts can be told from what was remembered."""
        if self._num_near > MOST_NEAR:
            return np.zeros(len(truth), np.bool_)
        return ((self._low <= truth) & (truth <= self._high)) | np.isneginf(truth)

    def counts(self, truth: NDArray[np.float64]) -> tuple[Counts, Counts]:
        """Returns (C,) how many rows are above `truth`, and how many equal it."""
        above, reached = self.num_above, self.num_reached
        width = len(truth)
        for columns, scores in self._near:
            above = above + np.bincount(columns[scores > truth[columns]], minlength=width)
            reached = reached - np.bincount(columns[scores < truth[columns]], minlength=width)
        return above, reached - above
