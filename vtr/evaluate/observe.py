"""What an evaluation keeps of a score matrix that streams past: samples, the best hits, rivals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vtr.evaluate.ranks import Blocks, Scores

NUM_TOP = 5
NUM_BINS = 60
_SAMPLED_PAIRS = 4_000_000
_RIVAL_DECIMALS = 5


@dataclass(frozen=True)
class Sights:
    """What was kept."""

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

    @property
    def found(self) -> NDArray[np.bool_]:
        """(T, k) which of `top` are videos that are there, and not columns of absent ones."""
        return ~np.isneginf(self.top_scores)


class Observer:
    """Watches the first round of blocks.

    Args:
        query_video: (Q,) column of each query's own video.
        query_text: (Q,) row of each query.
        num_videos: V.
        rivals: (V,) column of each video's rival, -1 for none.
    """

    def __init__(
        self,
        query_video: NDArray[np.int64],
        query_text: NDArray[np.int64],
        num_videos: int,
        rivals: NDArray[np.int64],
    ) -> None:
        self._video, self._text, self._rivals = query_video, query_text, rivals
        num_texts = int(query_text.max()) + 1
        count = min(NUM_TOP, num_videos)
        self._top = np.zeros((num_texts, count), np.int64)
        self._top_scores = np.zeros((num_texts, count))
        self._own = np.full(len(query_video), -np.inf)
        self._rival = np.full(len(query_video), np.nan)
        self._step = -(-num_texts * num_videos // _SAMPLED_PAIRS)
        self._sample: list[NDArray[np.float64]] = []
        order = np.argsort(query_text, kind="stable")
        self._order, self._sorted = order, query_text[order]
        self._done = False

    def watch(self, blocks: Blocks) -> Blocks:
        """Returns the same blocks; the first time they are read through, they are looked at."""

        def watched() -> Iterable[tuple[int, Scores]]:
            return blocks() if self._done else self._looked(blocks())

        return watched

    def _looked(self, blocks: Iterable[tuple[int, Scores]]) -> Iterator[tuple[int, Scores]]:
        for start, scores in blocks:
            self._look(start, scores)
            yield start, scores
        self._done = True

    def _look(self, start: int, scores: Scores) -> None:
        stop = start + len(scores)
        first, last = np.searchsorted(self._sorted, [start, stop])
        asked = self._order[first:last]
        rows, columns = self._text[asked] - start, self._video[asked]
        self._own[asked] = scores[rows, columns]
        rivals = self._rivals[columns]
        has = rivals >= 0
        self._rival[asked[has]] = scores[rows[has], rivals[has]]
        self._keep_top(start, scores)
        self._keep_sample(start, scores, rows, columns)

    def _keep_top(self, start: int, scores: Scores) -> None:
        count, width = self._top.shape[1], scores.shape[1]
        best = (
            np.argpartition(scores, width - count, axis=1)[:, width - count :]
            if width > count
            else np.broadcast_to(np.arange(width), scores.shape)
        )
        best = np.sort(best, axis=1)
        values = np.take_along_axis(scores, best, axis=1).astype(np.float64)
        order = np.argsort(-values, axis=1, kind="stable")
        self._top[start : start + len(scores)] = np.take_along_axis(best, order, axis=1)
        self._top_scores[start : start + len(scores)] = np.take_along_axis(values, order, axis=1)

    def _keep_sample(
        self, start: int, scores: Scores, rows: NDArray[np.int64], columns: NDArray[np.int64]
    ) -> None:
        picked = np.arange(-start % self._step, len(scores), self._step)
        if not len(picked):
            return
        pairs = np.ones(scores.shape, np.bool_) if self._step == 1 else None
        if pairs is None:
            pairs = np.zeros(scores.shape, np.bool_)
            pairs[picked] = True
        pairs[rows, columns] = False
        values = scores[pairs].astype(np.float64)
        self._sample.append(values[np.isfinite(values)])

    def sights(self) -> Sights:
        """Returns what was kept, once all blocks have passed."""
        other = np.concatenate([*self._sample, np.empty(0)])
        own = self._own[np.isfinite(self._own)]
        everything = np.concatenate([own, other])
        low, high = (everything.min(), everything.max()) if len(everything) else (0.0, 1.0)
        edges = np.linspace(low, high if high > low else low + 1, NUM_BINS + 1)
        return Sights(
            own=self._own,
            top=self._top,
            top_scores=self._top_scores,
            rival=self._rival,
            edges=edges,
            matching=np.histogram(own, edges)[0],
            other=np.histogram(other, edges)[0],
            other_mean=float(other.mean()) if len(other) else float("nan"),
        )


def pair_accuracy(sights: Sights) -> NDArray[np.float64]:
    """(Q,) 1 where a query scores its own video above its rival, 0 where below, NaN without rival.

    Scores nearer than 1e-5 are ties and count half: rivals are made of the same frames in another
    order, which the rounding of a sum can see. Where either video is absent, nothing was told
    apart: 0.
    """
    there = np.isfinite(sights.own) & np.isfinite(sights.rival)
    margin = np.subtract(sights.own, sights.rival, where=there, out=np.zeros_like(sights.own))
    accuracy = np.where(there, np.sign(np.round(margin, _RIVAL_DECIMALS)) / 2 + 0.5, 0.0)
    return np.where(np.isnan(sights.rival), np.nan, accuracy)
