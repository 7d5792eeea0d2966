"""Ranks by counting: how many candidates beat the correct one, and how many share its score.

Nothing is sorted and no score matrix is kept. Ties are not broken: a rank is the pair (better,
tied), and `vtr.evaluate.metrics` turns it into expected, optimistic and pessimistic numbers.

A score of -inf is a recorded miss (a video that could not be read): no candidate is worse, and a
correct item at -inf is not found at any depth: every candidate counts as better, so that its rank
is one more than there are candidates. NaN and +inf are nobody's intention and stop the evaluation.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise, zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vtr.counts import counted
from vtr.errors import ModelError
from vtr.evaluate.counting import (
    MAX_BLOCK_ROWS,
    Counts,
    Pass,
    Rows,
    Scores,
    Tally,
    Thresholds,
    check_block,
    chunks,
    computed,
    in_step,
    lane_sums,
    num_threads,
    sound,
)

Blocks = Callable[[], Iterable[tuple[int, Rows]]]
Look = Callable[[int, Scores], Pass]
_Count = Callable[[Counts, Scores, Tally], Iterable[Pass]]

ROUNDING = 1e-5  # relative: further apart are no two ways of computing one score in float32


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
    """The ranks of one evaluation.

    >>> import vtr
    >>> import numpy as np
    >>> scores = np.array([[0.9, 0.1], [0.3, 0.2]])  # (Q, V)
    >>> vtr.stream_ranks(lambda: [(0, scores)], np.array([0, 1]), 2).t2v.better.tolist()
    [0, 1]
    """

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

    >>> import vtr
    >>> import numpy as np
    >>> vtr.rank_rows(np.array([[0.9, 0.1], [0.3, 0.2]]), np.array([0, 1])).better.tolist()
    [0, 1]

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
    return stream_ranks(lambda: [(0, scores)], targets, scores.shape[1], both=False).t2v


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

    >>> import numpy as np, vtr
    >>> scores = np.array([[0.9, 0.1], [0.3, 0.2]])  # (Q, V)
    >>> vtr.stream_ranks(lambda: [(0, scores)], np.array([0, 1]), 2).v2t.better.tolist()
    [0, 0]

    To count the captions that beat a video's own, its own must be known beforehand. `own_scores`
    says what they will be, to within rounding: scores nearer to the guess than rounding could bring
    them are remembered and compared once the blocks have told the truth. A column whose guess was
    further off is counted again from a second round of blocks; without a guess all are.

    Two queries of the same words tie only if each video scores both alike to the last bit, which
    one matrix product need not do for two of its rows. So score every distinct text once, and say
    with `query_text` which row is whose.

    Memory: one block of the caller's, O(num_texts + Q + num_videos), and a row of scores for each
    video whose captions have begun and not ended: one video where queries are grouped.

    Args:
        blocks: Called once or twice; each time yields (first row, scores (b, num_videos) float32
            or float64) for all rows in order, any b, the same scores both times.
        query_video: (Q,) the video of each query; a video may have none.
        num_videos: How many videos are ranked.
        query_text: (Q,) the row of each query; None where row i is query i.
        own_scores: (Q,) the score of each query with its own video, computed in any way
            (`vtr.Scorer.score_pairs`).
        both: False for t2v alone, in one round.

    Raises:
        ModelError: A score is NaN or +inf, or the second round differs from the first.
        ValueError: Shapes, types or indices that do not fit; rows missing or out of order.
    """
    layout = Layout(query_video, num_videos, query_text)
    return layout.ranks(blocks, own_scores=own_scores, both=both)


class _RowCounts:
    """Counts along rows: each query's video among all videos."""

    def __init__(self, targets: Counts, num_columns: int) -> None:
        self.own = np.full(len(targets), -np.inf)
        self._targets, self._num_columns = targets, num_columns
        self._better, self._tied = np.zeros((2, len(targets)), np.int64)

    def add(self, queries: Counts, scores: Scores, tally: Tally) -> Pass:
        own = scores[np.arange(len(queries)), self._targets[queries]]
        above, reached = [], []
        for part in chunks(scores):
            above.append(tally.along_rows(np.greater, scores[part], own[part]))
            reached.append(tally.along_rows(np.greater_equal, scores[part], own[part]))
            yield
        self.own[queries] = own
        better = self._better[queries] = lane_sums(above)
        self._tied[queries] = lane_sums(reached) - better

    def ranks(self) -> Ranks:
        return _ranks(self._better, self._tied, self._num_columns, np.isneginf(self.own))


class Layout:
    """Which rows are whose queries, and which queries are whose video's; see `stream_ranks`."""

    def __init__(
        self,
        query_video: NDArray[np.integer[Any]],
        num_videos: int,
        query_text: NDArray[np.integer[Any]] | None,
    ) -> None:
        self.num_videos = num_videos
        self.query_video = query_video = _indices(query_video, num_videos, "query_video")
        self.num_captions = np.bincount(query_video, minlength=num_videos)
        self.videos = np.flatnonzero(self.num_captions)
        self.grouped = bool(np.any(self.num_captions > 1))
        if query_text is None:
            self._texts = self._order = np.arange(len(query_video))
            self._offsets = np.arange(len(query_video) + 1)
        else:
            self._texts = _indices(query_text, None, "query_text")
            if len(self._texts) != len(query_video):
                queries = counted(len(query_video), "query")
                raise ValueError(f"{counted(len(self._texts), 'text')} for {queries}")
            self._order = np.argsort(self._texts, kind="stable")
            self._offsets = np.concatenate([[0], np.cumsum(np.bincount(self._texts))])

    def ranks(
        self,
        blocks: Blocks,
        *,
        own_scores: Scores | None = None,
        both: bool = True,
        look: Look | None = None,
    ) -> RetrievalRanks:
        """Ranks as `stream_ranks` does.

        `look` is shown (first row, scores) of all rows of the first round while they are in the
        cache, in any order and from several threads.
        """
        guess = None if own_scores is None or not both else self.best(np.asarray(own_scores))
        columns = None if guess is None else _ColumnCounts(self, guess, self.videos, ROUNDING)
        rows = _RowCounts(self.query_video, self.num_videos)

        def count(queries: Counts, scores: Scores, tally: Tally) -> Iterator[Pass]:
            yield rows.add(queries, scores, tally)
            if columns is not None:
                yield columns.add(queries, scores, tally)

        self.walk(blocks(), count, look)
        if not both:
            return RetrievalRanks(rows.ranks(), None, None, self.query_video, None)
        best, wrong = self.best(rows.own), self.videos
        counts = np.empty((2, 2, len(wrong)), np.int64)
        if columns is not None:
            counts, wrong = columns.counts(best), self.videos[~columns.covers(best)]
        if len(wrong):
            again = _recounted(self, best, wrong, own=rows.own, blocks=blocks)
            counts[..., np.searchsorted(self.videos, wrong)] = again
        v2t, v2t_groups = self.column_ranks(counts, rows.own, best)
        return RetrievalRanks(rows.ranks(), v2t, v2t_groups, self.query_video, self.videos)

    def best(self, own: Scores) -> NDArray[np.float64]:
        """(num_videos,) the best score among each video's own captions; -inf where none."""
        if own.shape != self.query_video.shape:
            raise ValueError(
                f"own_scores is {own.shape} for {counted(len(self.query_video), 'query')}"
            )
        best = np.full(self.num_videos, -np.inf)
        np.maximum.at(best, self.query_video, own)
        return best

    def walk(self, blocks: Iterable[tuple[int, Rows]], count: _Count, look: Look | None) -> None:
        """Counts all queries' rows of scores, as many at once as stay in the cache.

        Blocks that are still to be computed are computed and counted in threads, several at once;
        others may be overwritten by the next, and are counted first.

        Raises:
            ModelError: Scores that cannot be ranked.
            ValueError: The blocks do not cover all rows in order.
        """
        num_rows, running = 0, deque[tuple[int, Future[int]]]()

        def finish() -> None:
            nonlocal num_rows
            start, height = running.popleft()
            if start != num_rows:
                raise ValueError(f"a block of scores begins at row {start}, expected {num_rows}")
            num_rows += height.result()

        threads = num_threads()
        with ThreadPoolExecutor(threads) as pool:
            for start, rows in blocks:
                running.append((start, pool.submit(self._count, start, rows, count, look)))
                while len(running) > (threads if callable(rows) else 0):
                    finish()
            while running:
                finish()
        if num_rows < len(self._offsets) - 1:
            texts = counted(len(self._offsets) - 1, "text")
            raise ValueError(f"{counted(num_rows, 'row')} of scores for {texts}")

    def _count(self, start: int, rows: Rows, count: _Count, look: Look | None) -> int:
        """Counts what a caller gave at once; returns how many rows it has."""
        given, tally = computed(rows), Tally(self.num_videos)
        check_block(given, self.num_videos)
        if start + len(given) >= len(self._offsets):
            row, last = start + len(given) - 1, len(self._offsets) - 2
            raise ValueError(f"scores for row {row}; the last query's row is {last}")
        for begin in range(0, len(given), MAX_BLOCK_ROWS):
            block = given[begin : begin + MAX_BLOCK_ROWS]
            passes = [sound(start + begin, block)]
            if look is not None:
                passes.append(look(start + begin, block))
            for queries, scores in self._expand(start + begin, block):
                in_step([*passes, *count(queries, scores, tally)])
                passes = []
            in_step(passes)
        return len(given)

    def _expand(self, start: int, block: Scores) -> Iterator[tuple[Counts, Scores]]:
        """Yields (queries, their rows of scores), never more than a block has.

        Texts of several queries are rare: the first query of each has the block as it is.
        """
        first, last = self._offsets[start], self._offsets[start + len(block)]
        queries = self._order[first:last]
        rows = self._texts[queries] - start
        firsts = np.diff(rows, prepend=-1) > 0
        if np.count_nonzero(firsts) == len(block):
            yield queries[firsts], block
            queries, rows = queries[~firsts], rows[~firsts]
        for begin in range(0, len(queries), len(block)):
            part = slice(begin, begin + len(block))
            yield queries[part], block[rows[part]]

    def column_ranks(
        self, counts: Counts, own: NDArray[np.float64], best: NDArray[np.float64]
    ) -> tuple[Ranks, Ranks]:
        """Returns (v2t, v2t_groups) from `_ColumnCounts.counts` of all videos with captions."""
        missing = np.isneginf(best[self.videos])
        tops = self.query_video[own == best[self.query_video]]
        correct = np.bincount(tops, minlength=self.num_videos)[self.videos]
        captions, groups = counts
        by_caption = _ranks(captions[0], captions[1], len(self.query_video), missing, correct)
        if not self.grouped:
            return by_caption, by_caption
        return by_caption, _ranks(groups[0], groups[1], len(self.videos), missing)


class _ColumnCounts:
    """Captions, and caption groups, that beat each video's own best; for several threads."""

    def __init__(
        self, layout: Layout, guess: NDArray[np.float64], columns: Counts, slack: float
    ) -> None:
        self._columns, self._layout = columns, layout
        self._whole = len(columns) == layout.num_videos
        self._captions = Thresholds(guess[columns], slack)
        self._groups = Thresholds(guess[columns], slack) if layout.grouped else self._captions
        self._open: dict[int, tuple[int, Scores]] = {}  # video to (captions seen, their best)
        self._num_captions = layout.num_captions.tolist()
        self._lock = threading.Lock()

    def add(self, queries: Counts, scores: Scores, tally: Tally) -> Pass:
        if not self._whole:
            scores, tally = scores[:, self._columns], Tally(len(self._columns))
        passes = [self._captions.add(scores, tally)]
        if self._layout.grouped:
            passes.append(self._add_groups(self._layout.query_video[queries], scores, tally))
        return zip_longest(*passes)

    def _add_groups(self, videos: Counts, scores: Scores, tally: Tally) -> Pass:
        """A group scores as its best caption; groups that go on in another block wait."""
        begins = (videos[1:] != videos[:-1]).nonzero()[0] + 1
        chunk_begins = [part.start for part in chunks(scores)]
        edges = sorted({*chunk_begins, *begins.tolist(), len(videos)})
        best = np.empty((len(edges) - 1, scores.shape[1]), scores.dtype)
        whole, seen = [], 0
        for row, (start, end) in enumerate(pairwise(edges)):
            np.maximum.reduce(scores[start:end], axis=0, out=best[row])
            video, seen = int(videos[start]), seen + end - start
            if seen > end - start:  # the group began in the chunk before
                np.maximum(best[row], best[row - 1], out=best[row])
            if end == len(videos) or videos[end] != video:
                if seen == self._num_captions[video] or self._is_whole(video, seen, best[row]):
                    whole.append(row)
                seen = 0
            if end in chunk_begins:
                yield
        yield from self._groups.add(best[whole], tally)

    def _is_whole(self, video: int, seen: int, best: Scores) -> bool:
        """Whether all captions of a video have been seen; if so, `best` becomes that of all."""
        with self._lock:
            before, best_before = self._open.pop(video, (0, best))
            np.maximum(best, best_before, out=best)
            if seen + before < self._num_captions[video]:
                self._open[video] = seen + before, best.copy()
                return False
        return True

    def covers(self, best: NDArray[np.float64]) -> NDArray[np.bool_]:
        """(columns,) which of them can be told; `best` is the truth of what was guessed."""
        truth = best[self._columns]
        return self._captions.covers(truth) & self._groups.covers(truth)

    def counts(self, best: NDArray[np.float64]) -> Counts:
        """(2, 2, columns) of captions and of groups: how many are better, how many tie."""
        truth = best[self._columns]
        return np.array([self._captions.counts(truth), self._groups.counts(truth)])


def _ranks(
    better: Counts,
    tied: Counts,
    num_candidates: int,
    missing: NDArray[np.bool_],
    correct: Counts | None = None,
) -> Ranks:
    """Returns ranks in which those missing are misses: behind all candidates, and alone there."""
    if correct is not None:
        correct = np.where(missing, 1, correct)
    better = np.where(missing, num_candidates, better)
    return Ranks(better, np.where(missing, 1, tied), num_candidates, correct)


def _recounted(
    layout: Layout, best: NDArray[np.float64], wrong: Counts, *, own: Scores, blocks: Blocks
) -> Counts:
    """Counts once more the columns whose threshold was not known, or guessed wrong."""
    again = _ColumnCounts(layout, best, wrong, slack=0)

    def count(queries: Counts, scores: Scores, tally: Tally) -> Iterator[Pass]:
        now = scores[np.arange(len(queries)), layout.query_video[queries]]
        if not np.array_equal(now, own[queries]):
            raise ModelError(
                "the scores changed between two rounds over the same texts and videos; the model "
                "must be in evaluation mode (no dropout, no sampling) to be ranked"
            )
        yield again.add(queries, scores, tally)

    layout.walk(blocks(), count, None)
    return again.counts(best)


def _indices(values: NDArray[np.integer[Any]], below: int | None, what: str) -> Counts:
    indices = np.asarray(values)
    if indices.ndim != 1 or not len(indices) or not np.issubdtype(indices.dtype, np.integer):
        raise ValueError(f"{what} must be (N,) integers with N >= 1, is {indices.shape}")
    if indices.min() < 0 or (below is not None and indices.max() >= below):
        raise ValueError(f"{what} runs {indices.min()}..{indices.max()}, allowed 0..{below}")
    return indices.astype(np.int64)
