"""Counting in chunks of scores that stay in the cache: along rows, and down columns."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vtr.arithmetic import usable_cores
from vtr.errors import ModelError

Counts = NDArray[np.int64]
Scores = NDArray[np.floating[Any]]
Rows = Scores | Callable[[], Scores]  # a function is called by the thread that counts its scores
# Through the chunks of a block: each step is one chunk, the last ends the block.
Pass = Iterator[Any]

CACHE_BYTES = 1 << 20  # of a chunk: several passes read it, and their marks want room beside it
MOST_DEPTH = 6  # columns of a group, whose maximum bounds the best scores of a row
MAX_CHUNK_ROWS = 255  # counts down a column are kept in one byte
MAX_BLOCK_ROWS = 1024  # at most so much is remembered of the chunks of a block until its end
MOST_THREADS = 16  # more would wait for each other: between passes only one may run
MOST_NEAR = 1 << 22  # scores remembered because they lie near a guess


def chunk_rows(num_columns: int) -> int:
    """Returns how many rows of scores are counted at once."""
    return max(1, min(MAX_CHUNK_ROWS, CACHE_BYTES // (4 * num_columns)))


def chunks(scores: Scores) -> Iterator[slice]:
    """Yields the chunks of a block (b, C)."""
    step = chunk_rows(scores.shape[1])
    return (slice(start, start + step) for start in range(0, len(scores), step))


def in_step(passes: Iterable[Pass]) -> None:
    """Takes all passes through a block together, so that each finds a chunk in the cache."""
    for _ in zip_longest(*passes):
        pass


def sound(start: int, block: Scores) -> Pass:
    """Refuses scores that cannot be ranked."""
    for part in chunks(block):
        if not block[part].max() < np.inf:  # the maximum of anything with NaN is NaN
            raise _unrankable(block, start)
        yield


def check_block(block: Scores, num_columns: int) -> None:
    """Refuses a block of another shape or type."""
    if block.ndim != 2 or block.shape[1] != num_columns:
        raise ValueError(f"scores are {block.shape}, expected (rows, {num_columns})")
    if block.dtype not in (np.float32, np.float64):
        raise ValueError(
            f"scores are {block.dtype}; rank float32 or float64, fewer bits make false ties"
        )


def _unrankable(chunk: Scores, start: int) -> ModelError:
    bad = np.isnan(chunk) | np.isposinf(chunk)
    row = int(np.flatnonzero(bad.any(axis=1))[0])
    column = int(np.flatnonzero(bad[row])[0])
    return ModelError(
        f"row {start + row} of the scores holds {int(bad[row].sum())} values of "
        f"{chunk.shape[1]} that are NaN or +inf, the first in column {column} "
        f"({chunk[row, column]}). Such scores cannot be ranked; look for NaN in the weights or "
        "the features (`vtr inspect`). Only a video recorded as missing may score -inf."
    )


def best_cells(count: int, scores: Scores) -> tuple[Counts, Counts, Scores]:
    """Returns (rows, columns, scores) of the best cells of each row, `count` or more, row by row.

    The `count`-th best maximum of any groups is no better than the `count`-th best score, and what
    is as good lies in the groups whose maxima are.
    """
    maxima, num_columns = _group_maxima(count, scores), scores.shape[1]
    bounds = np.sort(_group_maxima(count, maxima), axis=1)[:, -count, None]
    # nonzero of one dimension takes a tenth of the time that nonzero of two takes, // a third of %
    groups, width = (maxima >= bounds).reshape(-1).nonzero()[0], maxima.shape[1]
    rows = groups // width
    firsts = num_columns * rows
    cells = (groups + (firsts - width * rows))[:, None] + np.arange(0, num_columns, width)
    values = scores.reshape(-1).take(cells, mode="clip")
    values[cells[:, -1] >= firsts + num_columns, -1] = np.nan  # in no group: of the next row
    chosen = (values >= bounds[rows]).reshape(-1).nonzero()[0]
    group = chosen // cells.shape[1]
    return rows[group], cells.reshape(-1)[chosen] - firsts[group], values.reshape(-1)[chosen]


def _group_maxima(count: int, scores: Scores) -> Scores:
    """(b, G) the maxima of G groups of the C columns, far more than `count`; g is columns g::G."""
    depth = max(1, min(MOST_DEPTH, scores.shape[1] // (2 * count)))
    width = scores.shape[1] // depth
    maxima: Scores = scores[:, : depth * width].reshape(-1, depth, width).max(axis=1)
    rest = scores[:, depth * width :]
    np.maximum(maxima[:, : rest.shape[1]], rest, out=maxima[:, : rest.shape[1]])
    return maxima


def num_threads() -> int:
    """Returns how many threads count: OMP_NUM_THREADS, or one for each processor."""
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return max(1, min(usable_cores(), int(asked) if asked.isdigit() else MOST_THREADS))


def computed(rows: Rows) -> Scores:
    """Returns the scores of a block."""
    return rows() if callable(rows) else rows


class Tally:
    """Counts the cells of a chunk that compare so: a byte per cell, eight cells per addition."""

    def __init__(self, num_columns: int) -> None:
        words = -(-num_columns // 8)
        self._segments = -(-words // 255)  # a byte holds a sum of up to 255 ones
        width = -(-words // self._segments) * self._segments * 8
        self._bytes = np.zeros((chunk_rows(num_columns), width), np.uint8)
        self._marks = self._bytes[:, :num_columns].view(np.bool_)

    def along_rows(self, compare: np.ufunc, scores: Scores, bounds: Scores) -> NDArray[np.uint64]:
        """(b, S) for each row (b, C); `lane_sums` says how many cells they are."""
        count = len(scores)
        compare(scores, bounds[:, None], out=self._marks[:count])
        words = self._bytes[:count].view(np.uint64).reshape(count, self._segments, -1)
        return np.asarray(np.add.reduce(words, axis=2))

    def down_columns(self, compare: np.ufunc, scores: Scores, bounds: Scores) -> NDArray[np.uint8]:
        """(C,) how many of the rows (b, C) compare so with a bound per column (C,)."""
        compare(scores, bounds, out=self._marks[: len(scores)])
        sums = np.add.reduce(self._bytes[: len(scores)], axis=0, dtype=np.uint8)
        return np.asarray(sums[: self._marks.shape[1]])


def lane_sums(lanes: list[NDArray[np.uint64]]) -> Counts:
    """(rows,) the counts of `Tally.along_rows` of several chunks."""
    return np.asarray(np.concatenate(lanes).view(np.uint8).sum(axis=1, dtype=np.int64))


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

    def add(self, scores: Scores, tally: Tally) -> Pass:
        """Counts some more rows (b, C); several threads may, each with a tally of its own."""
        low, high = (bound.astype(scores.dtype, copy=False) for bound in (self._low, self._high))
        self._low, self._high = low, high
        num_above, num_reached = np.zeros((2, len(low)), np.int64)
        near: list[tuple[Counts, Scores]] = []
        for part in chunks(scores):
            above = tally.down_columns(np.greater, scores[part], high)
            reached = tally.down_columns(np.greater_equal, scores[part], low)
            num_above += above
            num_reached += reached
            columns = (above != reached).nonzero()[0]
            if self._remembers and len(columns) and self._num_near <= MOST_NEAR:
                doubtful = scores[part, columns]
                is_near = (doubtful >= low[columns]) & (doubtful <= high[columns])
                places = is_near.reshape(-1).nonzero()[0]
                near.append((columns[places % len(columns)], doubtful.reshape(-1)[places]))
            yield
        with self._lock:
            self.num_above += num_above
            self.num_reached += num_reached
            self._near += near
            self._num_near += sum(len(scores) for _, scores in near)

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
