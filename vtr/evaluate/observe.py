"""Scores kept of those that stream past: the best of each text, samples, rivals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vtr.evaluate.counting import Scores
from vtr.evaluate.ranks import Blocks

NUM_TOP = 5
NUM_BINS = 60
_SAMPLED_PAIRS = 4_000_000
_RIVAL_DECIMALS = 5
_GROUPS = 128  # of columns, whose maxima bound the best scores


@dataclass(frozen=True)
class KeptScores:
    """What the report and the run file need of all scores."""

    # (Q,) float64 score of each query with its own video; -inf where it is absent.
    own: NDArray[np.float64]
    top: NDArray[np.int64]  # (T, k) int64 the best columns of each text, best first; ties by column
    top_scores: NDArray[np.float64]  # (T, k) float64
    # (Q,) float64 score with the rival of its video; NaN where it has none.
    rival: NDArray[np.float64]
    edges: NDArray[np.float64]  # (bins+1,) of the two histograms
    matching: NDArray[np.int64]  # (bins,) how many queries score their own video so
    # (bins,) how many pairs that do not belong together score so, in a sample of rows.
    other: NDArray[np.int64]
    other_mean: float  # Mean of that sample; NaN where it is empty
    listed: NDArray[np.int64]  # (T, n) as `top`, for the run file: ties in its order
    listed_scores: Scores  # (T, n) as the blocks had them

    @property
    def present(self) -> NDArray[np.bool_]:
        """(T, k) which of `top` are videos that are there, and not columns of absent ones."""
        return ~np.isneginf(self.top_scores)


class Observer:
    """Keeps what is needed of the first round of blocks.

    Args:
        query_video: (Q,) column of each query's own video.
        query_text: (Q,) row of each query.
        rivals: (V,) column of each video's rival, -1 for none.
        ties: (V,) what stands first among equal scores in the run file: the lower.
        num_listed: How many of each text the run file wants.
    """

    def __init__(
        self,
        query_video: NDArray[np.int64],
        query_text: NDArray[np.int64],
        rivals: NDArray[np.int64],
        *,
        ties: NDArray[np.int64],
        num_listed: int,
    ) -> None:
        self._video, self._rivals, self._ties = query_video, rivals, ties
        num_texts, num_videos = int(query_text.max()) + 1, len(rivals)
        self._top = np.zeros((num_texts, min(NUM_TOP, num_videos)), np.int64)
        self._top_scores = np.zeros(self._top.shape)
        self._listed = np.zeros((num_texts, min(num_listed, num_videos)), np.int64)
        self._listed_scores: Scores = np.zeros(self._listed.shape, np.float32)
        self._own = np.full(len(query_video), -np.inf)
        self._rival = np.full(len(query_video), np.nan)
        self._step = -(-num_texts * num_videos // _SAMPLED_PAIRS)
        self._sample: list[NDArray[np.float64]] = []
        self._order = np.argsort(query_text, kind="stable")
        self._texts = query_text[self._order]
        self._done = False

    def watch(self, blocks: Blocks) -> Blocks:
        """Returns the same blocks; the first time they are read through, they are looked at."""

        def watched() -> Iterable[tuple[int, Scores]]:
            return blocks() if self._done else self._looked(blocks())

        return watched

    def _looked(self, blocks: Iterable[tuple[int, Scores]]) -> Iterator[tuple[int, Scores]]:
        for start, scores in blocks:
            yield start, scores  # first: whoever ranks them refuses what is no number
            self._look(start, scores)
        self._done = True

    def _look(self, start: int, scores: Scores) -> None:
        first, last = np.searchsorted(self._texts, [start, start + len(scores)])
        asked = self._order[first:last]
        rows, columns = self._texts[first:last] - start, self._video[asked]
        self._own[asked] = scores[rows, columns]
        rivals = self._rivals[columns]
        has = rivals >= 0
        self._rival[asked[has]] = scores[rows[has], rivals[has]]
        self._keep_best(start, scores)
        self._keep_sample(start, scores, rows, columns)

    def _keep_best(self, start: int, scores: Scores) -> None:
        place = slice(start, start + len(scores))
        num_top, num_listed = self._top.shape[1], self._listed.shape[1]
        rows, columns = _near_top(scores, max(num_top, num_listed))
        values = scores[rows, columns]
        ordered = _ordered_rows(values, len(scores))
        if ordered is not None:
            top, listed = ordered[:, :num_top], ordered[:, :num_listed]
        else:  # ties: then two orders differ
            top = _first_of_rows(rows, np.lexsort((columns, -values, rows)), num_top)
            order = np.lexsort((self._ties[columns], -values, rows))
            listed = _first_of_rows(rows, order, num_listed)
        if self._listed_scores.dtype != scores.dtype:
            self._listed_scores = self._listed_scores.astype(scores.dtype)
        self._top[place], self._top_scores[place] = columns[top], values[top]
        self._listed[place], self._listed_scores[place] = columns[listed], values[listed]

    def _keep_sample(
        self, start: int, scores: Scores, rows: NDArray[np.int64], columns: NDArray[np.int64]
    ) -> None:
        first = -start % self._step
        picked = scores[first :: self._step]
        others = np.ones(picked.shape, np.bool_)
        mine = rows % self._step == first
        others[rows[mine] // self._step, columns[mine]] = False
        values = picked[others].astype(np.float64)
        self._sample.append(values[np.isfinite(values)])

    def kept(self) -> KeptScores:
        """Returns what was kept, once all blocks have passed."""
        other = np.concatenate([*self._sample, np.empty(0)])
        own = self._own[np.isfinite(self._own)]
        everything = np.concatenate([own, other])
        low, high = (everything.min(), everything.max()) if len(everything) else (0.0, 1.0)
        edges = np.linspace(low, high if high > low else low + 1, NUM_BINS + 1)
        return KeptScores(
            own=self._own,
            top=self._top,
            top_scores=self._top_scores,
            rival=self._rival,
            edges=edges,
            matching=np.histogram(own, edges)[0],
            other=np.histogram(other, edges)[0],
            other_mean=float(other.mean()) if len(other) else float("nan"),
            listed=self._listed,
            listed_scores=self._listed_scores,
        )


def _near_top(scores: Scores, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns (rows, columns) of all scores as good as the `count`-th best of their row.

    The `count`-th best maximum of some groups of columns is no better than that score: what lies
    below it is never sorted.
    """
    height, width = scores.shape
    depth = width // max(_GROUPS, 4 * count)
    maxima = scores
    if depth > 1:
        maxima = scores[:, : width // depth * depth].reshape(height, depth, -1).max(axis=1)
    bound = _best(maxima, count)
    flat = np.flatnonzero(scores >= bound[:, None])
    if depth <= 1:
        return flat // width, flat % width
    rows, columns = np.divmod(flat, width)
    values, sizes = scores[rows, columns], np.bincount(rows, minlength=height)
    table = np.full((height, sizes.max()), -np.inf, scores.dtype)
    table[rows, np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes)] = values
    good = values >= _best(table, count)[rows]
    return rows[good], columns[good]


def _best(scores: Scores, count: int) -> Scores:
    """(R,) the `count`-th best score of each row."""
    place = scores.shape[1] - count
    best: Scores = np.partition(scores, place, axis=1)[:, place]
    return best


def _ordered_rows(values: Scores, num_rows: int) -> NDArray[np.int64] | None:
    """Returns (R, n) the entries of each row, best first; None where any two of a row are equal."""
    width, rest = divmod(len(values), num_rows)
    table = -values[: num_rows * width].reshape(num_rows, width)
    order = np.argsort(table, axis=1)
    ordered = np.take_along_axis(table, order, axis=1)
    if rest or bool((ordered[:, 1:] == ordered[:, :-1]).any()):
        return None
    return order + width * np.arange(num_rows)[:, None]


def _first_of_rows(
    rows: NDArray[np.int64], order: NDArray[np.int64], count: int
) -> NDArray[np.int64]:
    """Returns (R, count) the first of each row's entries, in an order that keeps rows together."""
    starts = np.flatnonzero(np.diff(rows[order], prepend=-1))
    chosen: NDArray[np.int64] = order[starts[:, None] + np.arange(count)]
    return chosen


def pair_accuracy(kept: KeptScores) -> NDArray[np.float64]:
    """(Q,) 1 where a query scores its own video above its rival, 0 where below, NaN without rival.

    Scores nearer than 1e-5 are ties and count half: rivals are made of the same frames in another
    order, which the rounding of a sum can see. Where either video is absent, nothing was told
    apart: 0.
    """
    there = np.isfinite(kept.own) & np.isfinite(kept.rival)
    margin = np.subtract(kept.own, kept.rival, where=there, out=np.zeros_like(kept.own))
    accuracy = np.where(there, np.sign(np.round(margin, _RIVAL_DECIMALS)) / 2 + 0.5, 0.0)
    return np.where(np.isnan(kept.rival), np.nan, accuracy)
