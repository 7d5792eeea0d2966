"""Ranks by counting: how many candidates beat the correct one, and how many share its score.

Nothing is sorted and no score matrix is kept. Ties are not broken: a rank is the pair (better,
tied), and `vtr.evaluate.metrics` turns it into expected, optimistic and pessimistic numbers.

A score of -inf is a recorded miss (a video that could not be read): no candidate is worse, and a
correct item at -inf is not found at any depth: every candidate counts as better, so that its rank
is one more than there are candidates. NaN and +inf are nobody's intention and stop the evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vtr.errors import ModelError

Counts = NDArray[np.int64]
Scores = NDArray[np.floating[Any]]
Blocks = Callable[[], Iterable[tuple[int, Scores]]]

CACHE_BYTES = 2 << 20  # a chunk that several passes read should stay in the cache
MAX_CHUNK_ROWS = 255  # counts down a column are kept in one byte


@dataclass(frozen=True)
class Ranks:
    """Where the correct item stands, one row per query.

    Raises:
        ValueError: The counts contradict each other.
    """

    # (Q,) candidates with a strictly higher score than the (best) correct one; `num_candidates`
    # where that is a recorded miss.
    better: Counts
    # (Q,) candidates with exactly its score, itself included; 1 for a miss, which stands alone
    # behind all candidates.
    tied: Counts
    num_candidates: int  # How many items each query ranks
    # (Q,) how many of the tied are correct items; None where that is 1 throughout. The rank is that
    # of the first correct item.
    correct: Counts | None = None

    def __post_init__(self) -> None:
        correct = self.num_correct
        sound = (
            self.better.shape == self.tied.shape == correct.shape
            and bool(np.all(self.better >= 0))
            and bool(np.all((correct >= 1) & (correct <= self.tied)))
            and bool(np.all(self.better + self.tied <= self.num_candidates + self.missed))
        )
        if not sound:
            raise ValueError(
                f"ranks among {self.num_candidates} candidates need better >= 0, "
                "1 <= correct <= tied and better + tied <= num_candidates for every query, or, for "
                "a miss, better = num_candidates and tied = 1"
            )

    def __len__(self) -> int:
        return len(self.better)

    @property
    def missed(self) -> NDArray[np.bool_]:
        """(Q,) which queries' correct item is a recorded miss: found at no depth."""
        return np.asarray(self.better == self.num_candidates)

    @property
    def num_correct(self) -> Counts:
        """(Q,) how many of the tied items are correct."""
        return np.ones_like(self.tied) if self.correct is None else self.correct

    @property
    def optimistic(self) -> Counts:
        """(Q,) rank from 1 where every tie falls in the correct item's favour."""
        return self.better + 1

    @property
    def pessimistic(self) -> Counts:
        """(Q,) rank from 1 where every tie falls against it."""
        return self.better + self.tied - self.num_correct + 1

    @property
    def expected(self) -> NDArray[np.float64]:
        """(Q,) mean rank over all orders of the tied items.

        The first of c marked items among t in random order stands at (t + 1) / (c + 1) on average.
        """
        return self.better + (self.tied + 1) / (self.num_correct + 1)


@dataclass(frozen=True)
class RetrievalRanks:
    """The ranks of one evaluation."""

    t2v: Ranks  # One row per query: its video among all videos
    # One row per entry of `videos`: the first of its captions among all captions. None where only
    # t2v was asked for, as for `v2t_groups` and `videos`.
    v2t: Ranks | None
    # One row per entry of `videos`: its caption group among all caption groups, a group scoring as
    # its best caption (what the reference reports).
    v2t_groups: Ranks | None
    query_video: Counts  # (Q,) the video of each query
    videos: Counts | None  # Indices of the videos that have a caption

    @property
    def directions(self) -> Mapping[str, Ranks]:
        """The ranks by the name their numbers carry; only those that exist."""
        named = {"t2v": self.t2v, "v2t": self.v2t, "v2t_groups": self.v2t_groups}
        return {name: ranks for name, ranks in named.items() if ranks is not None}


def rank_rows(scores: Scores, targets: NDArray[np.integer[Any]]) -> Ranks:
    """Ranks one correct item per row of a whole matrix.

    Args:
        scores: (Q, C) float32 or float64.
        targets: (Q,) column of each row's correct item.

    Raises:
        ModelError: A score is NaN or +inf.
        ValueError: Shapes or types that do not fit.
    """
    targets = _indices(targets, scores.shape[-1], "targets")
    if scores.ndim != 2 or len(scores) != len(targets):
        raise ValueError(f"{len(targets)} targets for scores of shape {scores.shape}")
    counts = _RowCounts(targets, scores.shape[1])
    every = np.arange(len(targets))
    for start, chunk in _chunks(iter([(0, scores)]), scores.shape[1]):
        counts.add(every[start : start + len(chunk)], chunk)
    return counts.ranks()


def with_misses(
    ranks: Ranks, missing: NDArray[np.bool_], num_candidates: int | None = None
) -> Ranks:
    """Makes the missing queries misses: better = num_candidates, tied = 1.

    Args:
        ranks: Either one row per query, or one per query that is not missing.
        missing: (Q,) whose correct item does not exist.
        num_candidates: The protocol's own number of candidates; those that the ranks do not know
            count as worse than all others. None keeps the ranks' own.

    Raises:
        ValueError: As many rows as neither all queries nor those that are not missing.
    """
    present = np.flatnonzero(~missing)
    if len(ranks) not in (len(missing), len(present)):
        raise ValueError(
            f"{len(ranks)} ranks for {len(missing)} queries, {len(present)} of them not missing"
        )
    total = ranks.num_candidates if num_candidates is None else num_candidates
    source = present if len(ranks) == len(missing) else np.arange(len(present))
    better = np.full(len(missing), total, np.int64)
    tied, correct = np.ones_like(better), np.ones_like(better)
    better[present], tied[present] = ranks.better[source], ranks.tied[source]
    correct[present] = ranks.num_correct[source]
    return Ranks(better, tied, total, None if ranks.correct is None else correct)


def stream_ranks(
    blocks: Blocks,
    query_video: NDArray[np.integer[Any]],
    num_videos: int,
    *,
    query_text: NDArray[np.integer[Any]] | None = None,
    own_scores: Scores | None = None,
    both: bool = True,
) -> RetrievalRanks:
    """Ranks both directions from blocks of scores that are thrown away at once.

    To count the captions that beat a video's own, its own must be known beforehand. `own_scores`
    says what they will be. That is a guess, and no rank depends on its truth: the columns for
    which the blocks then say otherwise, if only in the last bit, are counted again from a second
    round of blocks. Without the guess there are always two rounds.

    Two queries of the same words tie only if each video scores both alike to the last bit, which
    one matrix product need not do for two of its rows. So score every distinct text once, and say
    with `query_text` which row is whose.

    Memory: one block of the caller's, O(num_texts + Q + num_videos), and two rows of bytes for
    each video whose captions have begun and not ended: one video where queries are grouped.

    Args:
        blocks: Called once or twice; each time yields (first row, scores (b, num_videos) float32
            or float64) for all rows in order, any b, the same scores both times.
        query_video: (Q,) the video of each query; a video may have none.
        num_videos: How many videos are ranked.
        query_text: (Q,) the row of each query; None where row i is query i.
        own_scores: (Q,) the score of each query with its own video, as near as can be had
            cheaply (`vtr.evaluate.tiles`).
        both: False for t2v alone, in one round.

    Raises:
        ModelError: A score is NaN or +inf, or the second round differs from the first.
        ValueError: Shapes, types or indices that do not fit; rows missing or out of order.
    """
    query_video = _indices(query_video, num_videos, "query_video")
    layout = _Layout(query_video, num_videos, query_text)
    rows = _RowCounts(query_video, num_videos)
    columns = None
    if both and own_scores is not None:
        columns = _ColumnCounts(layout, layout.best(np.asarray(own_scores)), layout.videos)
    for queries, scores in layout.walk(blocks()):
        rows.add(queries, scores)
        if columns is not None:
            columns.add(queries, scores)
    if not both:
        return RetrievalRanks(rows.ranks(), None, None, query_video, None)
    best = layout.best(rows.own)
    columns = _repaired(columns, best, layout, rows.own, blocks)
    return RetrievalRanks(rows.ranks(), *columns.ranks(rows.own), query_video, layout.videos)


class _Tally:
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
        words = self.bytes[:num_rows].view(np.uint64).reshape(num_rows, self._segments, -1)
        lanes = np.add.reduce(words, axis=2).view(np.uint8)
        return np.asarray(lanes.sum(axis=1, dtype=np.int64))

    def per_column(self, num_rows: int) -> NDArray[np.uint8]:
        sums = np.add.reduce(self.bytes[:num_rows], axis=0, dtype=np.uint8)
        return np.asarray(sums[: self.mask.shape[1]])


class _RowCounts:
    """Counts along rows: each query's video among all videos."""

    def __init__(self, targets: Counts, num_columns: int) -> None:
        self.own = np.full(len(targets), -np.inf)
        self._targets = targets
        self._better = np.zeros(len(targets), np.int64)
        self._tied = np.zeros(len(targets), np.int64)
        self._num_columns = num_columns
        self._tally = _Tally(_chunk_rows(num_columns), num_columns)

    def add(self, queries: Counts, scores: Scores) -> None:
        count, tally = len(queries), self._tally
        own = scores[np.arange(count), self._targets[queries]]
        self.own[queries] = own
        np.greater(scores, own[:, None], out=tally.mask[:count])
        better = tally.per_row(count)
        self._better[queries] = better
        np.greater_equal(scores, own[:, None], out=tally.mask[:count])
        self._tied[queries] = tally.per_row(count) - better

    def ranks(self) -> Ranks:
        return with_misses(
            Ranks(self._better, self._tied, self._num_columns), np.isneginf(self.own)
        )


class _Layout:
    """Which rows are whose queries, and which queries are whose video's."""

    def __init__(
        self, query_video: Counts, num_videos: int, query_text: NDArray[np.integer[Any]] | None
    ) -> None:
        self.query_video, self.num_videos = query_video, num_videos
        self.num_captions = np.bincount(query_video, minlength=num_videos)
        self.videos = np.flatnonzero(self.num_captions)
        self.num_queries = len(query_video)
        if query_text is None:
            self.texts = self.order = np.arange(self.num_queries)
            self.offsets = np.arange(self.num_queries + 1)
        else:
            self.texts = _indices(query_text, None, "query_text")
            if len(self.texts) != self.num_queries:
                raise ValueError(f"{len(self.texts)} texts for {self.num_queries} queries")
            self.order = np.argsort(self.texts, kind="stable")
            self.offsets = np.concatenate([[0], np.cumsum(np.bincount(self.texts))])

    def best(self, own: Scores) -> NDArray[np.float64]:
        """(num_videos,) the best score among each video's own captions; -inf where none."""
        if own.shape != (self.num_queries,):
            raise ValueError(f"own_scores is {own.shape} for {self.num_queries} queries")
        best = np.full(self.num_videos, -np.inf)
        np.maximum.at(best, self.query_video, own)
        return best

    def walk(self, blocks: Iterable[tuple[int, Scores]]) -> Iterator[tuple[Counts, Scores]]:
        """Yields (queries, their rows of scores), small enough to stay in the cache.

        Raises:
            ValueError: The blocks do not cover all rows in order.
        """
        num_rows = 0
        for start, chunk in _chunks(blocks, self.num_videos):
            if start != num_rows:
                raise ValueError(f"a block of scores begins at row {start}, expected {num_rows}")
            num_rows += len(chunk)
            yield from self._expand(start, chunk)
        if num_rows < len(self.offsets) - 1:
            raise ValueError(f"{num_rows} rows of scores for {len(self.offsets) - 1} texts")

    def _expand(self, start: int, chunk: Scores) -> Iterator[tuple[Counts, Scores]]:
        if start + len(chunk) >= len(self.offsets):
            raise ValueError(
                f"scores for row {start + len(chunk) - 1}; the last query's row is "
                f"{len(self.offsets) - 2}"
            )
        first, last = self.offsets[start], self.offsets[start + len(chunk)]
        queries = self.order[first:last]
        rows = self.texts[queries] - start
        if len(rows) == len(chunk) and bool(np.all(np.diff(rows) == 1)):
            yield queries, chunk
            return
        step = _chunk_rows(self.num_videos)
        for begin in range(0, len(queries), step):
            yield queries[begin : begin + step], chunk[rows[begin : begin + step]]


class _ColumnCounts:
    """Counts down columns: captions, and caption groups, that beat a video's own best.

    Args:
        layout: Of the whole evaluation.
        best: (num_videos,) the threshold of every column.
        columns: Which columns to count.
    """

    def __init__(self, layout: _Layout, best: NDArray[np.float64], columns: Counts) -> None:
        self.columns, self.best = columns, best[columns]
        self._layout = layout
        self._thresholds: Scores | None = None
        self._whole = len(columns) == layout.num_videos
        height, width = _chunk_rows(layout.num_videos), len(columns)
        self._above, self._reached = _Tally(height, width), _Tally(height, width)
        self.num_above, self.num_reached = np.zeros((2, width), np.int64)
        self._grouped = bool(np.any(layout.num_captions > 1))
        self._group_above, self._group_reached = np.zeros((2, self._above.bytes.shape[1]), np.int32)
        self._open: dict[int, tuple[int, NDArray[np.uint64], NDArray[np.uint64]]] = {}

    def add(self, queries: Counts, scores: Scores) -> None:
        if not self._whole:
            scores = scores[:, self.columns]
        if self._thresholds is None or self._thresholds.dtype != scores.dtype:
            self._thresholds = self.best.astype(scores.dtype)
            self.best = self._thresholds.astype(np.float64)
        count = len(queries)
        np.greater(scores, self._thresholds, out=self._above.mask[:count])
        np.greater_equal(scores, self._thresholds, out=self._reached.mask[:count])
        self.num_above += self._above.per_column(count)
        self.num_reached += self._reached.per_column(count)
        if self._grouped:
            self._add_groups(self._layout.query_video[queries])

    def _add_groups(self, videos: Counts) -> None:
        """A group beats a score as soon as one of its captions does: bytes joined by OR."""
        cuts = [0, *(np.flatnonzero(np.diff(videos)) + 1).tolist(), len(videos)]
        above = self._above.bytes.view(np.uint64)
        reached = self._reached.bytes.view(np.uint64)
        for start, end in pairwise(cuts):
            video, seen = int(videos[start]), end - start
            some_above = np.bitwise_or.reduce(above[start:end], axis=0)
            some_reached = np.bitwise_or.reduce(reached[start:end], axis=0)
            if video in self._open:
                before, above_before, reached_before = self._open.pop(video)
                seen += before
                some_above |= above_before
                some_reached |= reached_before
            if seen < self._layout.num_captions[video]:
                self._open[video] = (seen, some_above, some_reached)
            else:
                self._group_above += some_above.view(np.uint8)
                self._group_reached += some_reached.view(np.uint8)

    def replace(self, other: _ColumnCounts) -> None:
        """Takes over the columns that `other` has counted."""
        where = np.searchsorted(self.columns, other.columns)
        width = len(other.columns)
        self.best[where] = other.best
        self.num_above[where], self.num_reached[where] = other.num_above, other.num_reached
        self._group_above[where] = other._group_above[:width]
        self._group_reached[where] = other._group_reached[:width]

    def ranks(self, own: NDArray[np.float64]) -> tuple[Ranks, Ranks]:
        """Returns (v2t, v2t_groups) of the columns."""
        layout, missing = self._layout, np.isneginf(self.best)
        best = np.full(layout.num_videos, np.nan)
        best[self.columns] = self.best
        tops = layout.query_video[own == best[layout.query_video]]
        correct = np.bincount(tops, minlength=layout.num_videos)[self.columns]
        captions = Ranks(
            self.num_above, self.num_reached - self.num_above, layout.num_queries, correct
        )
        captions = with_misses(captions, missing)
        if not self._grouped:
            return captions, captions
        width = len(self.columns)
        above = self._group_above[:width].astype(np.int64)
        groups = Ranks(above, self._group_reached[:width] - above, len(layout.videos))
        return captions, with_misses(groups, missing)


def _repaired(
    columns: _ColumnCounts | None,
    best: NDArray[np.float64],
    layout: _Layout,
    own: NDArray[np.float64],
    blocks: Blocks,
) -> _ColumnCounts:
    """Counts once more the columns whose threshold was not known, or guessed wrong."""
    if columns is None:
        wrong = layout.videos
    else:
        wrong = layout.videos[columns.best != best[layout.videos]]
        if not len(wrong):
            return columns
    again = _ColumnCounts(layout, best, wrong)
    for queries, scores in layout.walk(blocks()):
        now = scores[np.arange(len(queries)), layout.query_video[queries]]
        if not np.array_equal(now, own[queries]):
            raise ModelError(
                "the scores changed between two rounds over the same texts and videos; the model "
                "must be in evaluation mode (no dropout, no sampling) to be ranked"
            )
        again.add(queries, scores)
    if columns is None:
        return again
    columns.replace(again)
    return columns


def _chunk_rows(num_columns: int) -> int:
    return max(1, min(MAX_CHUNK_ROWS, CACHE_BYTES // (4 * num_columns)))


def _chunks(blocks: Iterable[tuple[int, Scores]], num_columns: int) -> Iterator[tuple[int, Scores]]:
    """Cuts blocks of scores to what the cache holds, and refuses what cannot be ranked."""
    step = _chunk_rows(num_columns)
    for start, block in blocks:
        if block.ndim != 2 or block.shape[1] != num_columns:
            raise ValueError(f"scores are {block.shape}, expected (rows, {num_columns})")
        if block.dtype not in (np.float32, np.float64):
            raise ValueError(
                f"scores are {block.dtype}; rank float32 or float64, fewer bits make false ties"
            )
        for begin in range(0, len(block), step):
            chunk = block[begin : begin + step]
            if not chunk.max() < np.inf:  # the maximum of anything with NaN is NaN
                raise _unrankable(chunk, start + begin)
            yield start + begin, chunk


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


def _indices(values: NDArray[np.integer[Any]], below: int | None, what: str) -> Counts:
    indices = np.asarray(values)
    if indices.ndim != 1 or not len(indices) or not np.issubdtype(indices.dtype, np.integer):
        raise ValueError(f"{what} must be (N,) integers with N >= 1, is {indices.shape}")
    if indices.min() < 0 or (below is not None and indices.max() >= below):
        raise ValueError(f"{what} runs {indices.min()}..{indices.max()}, allowed 0..{below}")
    return indices.astype(np.int64)
