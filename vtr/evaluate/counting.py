"""Counting in chunks of scores that stay in the cache: along rows, and down columns."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
Scores = NDArray[np.floating[Any]]

MOST_NEAR = 1 << 22  # scores remembered because they lie near a guess


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
        num_rows: Most rows that are added at once.
    """

    def __init__(self, guess: NDArray[np.float64], slack: float, num_rows: int) -> None:
        guess = np.where(np.isfinite(guess), guess, np.nan)
        doubt = slack * np.maximum(1, np.abs(guess))
        self._low: Scores = guess - doubt
        self._high: Scores = guess + doubt
        self._above, self._reached = Tally(num_rows, len(guess)), Tally(num_rows, len(guess))
        self.num_above, self.num_reached = np.zeros((2, len(guess)), np.int64)
        self._remembers, self._num_near = slack > 0, 0
        self._near: list[tuple[Counts, Scores]] = []  # (columns, scores) within the doubt

    def add(self, scores: Scores) -> None:
        """Counts some more rows (b, C)."""
        count = len(scores)
        low, high = (bound.astype(scores.dtype, copy=False) for bound in (self._low, self._high))
        self._low, self._high = low, high
        np.greater(scores, high, out=self._above.mask[:count])
        np.greater_equal(scores, low, out=self._reached.mask[:count])
        above, reached = self._above.per_column(count), self._reached.per_column(count)
        self.num_above += above
        self.num_reached += reached
        columns = np.flatnonzero(above != reached)
        if self._remembers and len(columns) and self._num_near <= MOST_NEAR:
            part = scores[:, columns]
            rows, places = np.nonzero((part >= low[columns]) & (part <= high[columns]))
            self._near.append((columns[places], part[rows, places]))
            self._num_near += len(rows)

    def covers(self, truth: NDArray[np.float64]) -> NDArray[np.bool_]:
        """(C,) whether the counts can be told from what was remembered."""
        if self._num_near > MOST_NEAR:
            return np.zeros(len(truth), np.bool_)
        return ((self._low <= truth) & (truth <= self._high)) | np.isneginf(truth)

    def counts(self, truth: NDArray[np.float64]) -> tuple[Counts, Counts]:
        """Returns (C,) how many rows are above `truth`, and how many equal it."""
        above, reached = self.num_above, self.num_reached
        for columns, scores in self._near:
            width = len(truth)
            above = above + np.bincount(columns[scores > truth[columns]], minlength=width)
            reached = reached - np.bincount(columns[scores < truth[columns]], minlength=width)
        return above, reached - above
