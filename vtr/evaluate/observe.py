"""Scores kept of those that stream past: the best of each text, samples, rivals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vtr.evaluate.counting import Pass, Scores, best_cells, chunks

NUM_TOP = 5
NUM_BINS = 60
_SAMPLED_PAIRS = 4_000_000
_RIVAL_DECIMALS = 5


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
    """Keeps what is needed of all scores; `vtr.stream_ranks` shows them to `look`.

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
        self._listed = np.zeros((num_texts, min(num_listed, num_videos)), np.int64)
        self._top_scores, self._listed_scores = (
            np.zeros(self._top.shape),
            np.zeros(self._listed.shape),
        )
        self._dtype: np.dtype[Any] = np.dtype(np.float64)  # of the scores
        self._own = np.full(len(query_video), -np.inf)
        self._rival = np.full(len(query_video), np.nan)
        self._step = -(-num_texts * num_videos // _SAMPLED_PAIRS)
        self._sample: dict[int, Scores] = {}  # by first row
        self._order = np.argsort(query_text, kind="stable")
        self._texts = query_text[self._order]

    def look(self, start: int, scores: Scores) -> Pass:
        """Keeps what is needed of some rows (b, V); other threads may look at others meanwhile."""
        self._dtype = scores.dtype
        first, last = np.searchsorted(self._texts, [start, start + len(scores)])
        asked = self._order[first:last]
        rows, columns = self._texts[first:last] - start, self._video[asked]
        self._own[asked] = scores[rows, columns]
        rivals = self._rivals[columns]
        has = rivals >= 0
        self._rival[asked[has]] = scores[rows[has], rivals[has]]
        yield from self._keep_best(slice(start, start + len(scores)), scores)
        skipped = -start % self._step
        picked = scores[skipped :: self._step]
        if len(picked):
            others = np.isfinite(picked)
            mine = rows % self._step == skipped
            others[rows[mine] // self._step, columns[mine]] = False
            self._sample[start] = picked[others]

    def _keep_best(self, place: slice, scores: Scores) -> Pass:
        num_top, num_listed = self._top.shape[1], self._listed.shape[1]
        count, cells = max(num_top, num_listed), []
        for part in chunks(scores):
            rows, columns, values = best_cells(count, scores[part])
            cells.append((rows + part.start, columns, values))
            yield
        rows, columns, values = map(np.concatenate, zip(*cells, strict=True))
        begins = np.searchsorted(rows, np.arange(len(scores) + 1))
        table = np.full((len(scores), (begins[1:] - begins[:-1]).max()), np.inf, scores.dtype)
        table[rows, np.arange(len(rows)) - begins[rows]] = -values
        order = np.argsort(table, axis=1)
        ordered = np.sort(table, axis=1)[:, : count + 1]
        if (ordered[:, 1:] == ordered[:, :-1]).any():  # ties: then two orders differ
            heads = begins[:-1, None] + np.arange(count)
            top = np.lexsort((columns, -values, rows))[heads[:, :num_top]]
            listed = np.lexsort((self._ties[columns], -values, rows))[heads[:, :num_listed]]
        else:
            best = begins[:-1, None] + order[:, :count]
            top, listed = best[:, :num_top], best[:, :num_listed]
        self._top[place], self._top_scores[place] = columns[top], values[top]
        self._listed[place], self._listed_scores[place] = columns[listed], values[listed]

    def kept(self) -> KeptScores:
        """Returns what was kept, once all rows have been shown."""
        other = np.concatenate(
            [np.empty(0, self._dtype), *(self._sample[row] for row in sorted(self._sample))]
        )
        own = self._own[np.isfinite(self._own)]
        ends = [
            end for values in (own, other) if len(values) for end in (values.min(), values.max())
        ]
        low, high = (float(min(ends)), float(max(ends))) if ends else (0.0, 1.0)
        edges = np.linspace(low, high if high > low else low + 1, NUM_BINS + 1)
        return KeptScores(
            own=self._own,
            top=self._top,
            top_scores=self._top_scores,
            rival=self._rival,
            edges=edges,
            matching=np.histogram(own, edges)[0],
            other=np.histogram(other, edges)[0],
            other_mean=float(other.astype(np.float64).mean()) if len(other) else float("nan"),
            listed=self._listed,
            listed_scores=self._listed_scores.astype(self._dtype, copy=False),
        )


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
