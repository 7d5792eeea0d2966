"""Moment retrieval: which part of a video a sentence describes, by the field's measures.

The counting is that of Moment-DETR's evaluation (jayleicn/moment_detr standalone_eval/eval.py):
the first prediction against the described window that it fits best (R1@IoU, mIoU), and average
precision of up to ten ranked predictions as in ActivityNet detection. Ends are seconds of the
video; shares are in percent. A query without a prediction is a miss everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vtr.counts import counted
from vtr.errors import ConfigError
from vtr.evaluate.intervals import RESAMPLES, Interval, cell, percentile_ends, wilson_interval

Values = NDArray[np.float64]

RECALL_IOUS = (0.3, 0.5, 0.7)
AP_IOUS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
MOST_PREDICTIONS = 10
CLIP_SECONDS = 2.0
"""QVHighlights rates a video in clips of two seconds."""
VERY_GOOD = 4
"""The rating, 0 to 4, that HIT@1 of QVHighlights counts as a highlight."""
_PORTION = 200  # resamples drawn at once: memory stays small for thousands of videos


@dataclass(frozen=True)
class MomentQuery:
    """What a sentence describes."""

    id: str
    video_id: str
    windows: Values  # (W, 2) float64 start and end in seconds, W >= 1
    # Two-second clip to the annotators' ratings, 0 to 4; empty where nobody rated.
    ratings: Mapping[int, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class MomentPrediction:
    """What was said of one query, the surest first."""

    windows: Values  # (P, 2) float64 start and end in seconds; P = 0 is a miss
    best_seconds: float | None = None  # Of the frame that fits best: the highlight


def moment_metrics(
    queries: Sequence[MomentQuery],
    predictions: Sequence[MomentPrediction],
    *,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """Returns R1@0.3/0.5/0.7, R5@0.5, mIoU, mAP@0.5, @0.75 and @0.5:0.95; HIT@1 where rated.

    Each is "value", "low" and "high" in percent, and "n", over how many queries. An interval is a
    bootstrap over whole videos, each with all its queries, widened as
    `vtr.evaluate.intervals.bootstrap` does, and no narrower than Wilson's where every query or none
    is a hit. There is one prediction per query, in the same order.
    """
    if not queries or len(queries) != len(predictions):
        raise ConfigError(
            f"{counted(len(predictions), 'prediction')} for {counted(len(queries), 'query')}; one "
            "for each is needed"
        )
    rows = query_values(queries, predictions)
    videos = np.unique([query.video_id for query in queries], return_inverse=True)[1]
    rng = np.random.default_rng(seed)
    cells = {}
    for name, row in rows.items():
        known = ~np.isnan(row)
        ends = _interval(row[known], videos[known], rng)
        cells[name] = {**cell(100 * float(row[known].mean()), ends), "n": int(known.sum())}
    return cells


def query_values(
    queries: Sequence[MomentQuery], predictions: Sequence[MomentPrediction]
) -> dict[str, Values]:
    """Returns each measure per query, (Q,) float64 from 0 to 1; NaN where it does not apply."""
    ious = [
        temporal_iou(said.windows[:MOST_PREDICTIONS], query.windows)
        for query, said in zip(queries, predictions, strict=True)
    ]
    first = np.array([iou[:1].max(initial=0.0) for iou in ious])
    fifth = np.array([iou[:5].max(initial=0.0) for iou in ious])
    rows = {f"R1@{threshold}": (first >= threshold).astype(float) for threshold in RECALL_IOUS}
    rows["R5@0.5"] = (fifth >= 0.5).astype(float)
    rows["mIoU"] = first
    precision = np.array([[average_precision(iou, at) for at in AP_IOUS] for iou in ious])
    rows["mAP@0.5"], rows["mAP@0.75"] = precision[:, 0], precision[:, AP_IOUS.index(0.75)]
    rows["mAP"] = precision.mean(axis=1)
    if any(query.ratings for query in queries):
        rows["HIT@1"] = np.full(len(queries), np.nan)
        for number, (query, said) in enumerate(zip(queries, predictions, strict=True)):
            if query.ratings:  # is the best frame in a clip that an annotator rated very good?
                clip = -1 if said.best_seconds is None else int(said.best_seconds // CLIP_SECONDS)
                best = max(query.ratings.get(clip, ()), default=0)
                rows["HIT@1"][number] = float(best >= VERY_GOOD)
    return rows


def temporal_iou(predicted: Values, described: Values) -> Values:
    """Returns (P, W) intersection over union of P and W windows in seconds.

    >>> temporal_iou(np.array([[0.0, 4.0]]), np.array([[2.0, 6.0], [8.0, 9.0]]))
    array([[0.33333333, 0.        ]])
    """
    start = np.maximum(predicted[:, None, 0], described[None, :, 0])
    end = np.minimum(predicted[:, None, 1], described[None, :, 1])
    shared = np.maximum(0.0, end - start)
    lengths = np.diff(predicted, axis=1) + np.diff(described, axis=1).T
    union = lengths - shared
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=union > 0))


def average_precision(ious: Values, threshold: float) -> float:
    """Returns the average precision of ranked predictions, 0 to 1, by `temporal_iou` (P, W).

    Each prediction takes the free described window that it covers best, if by `threshold` or more;
    otherwise it is wrong. Of windows covered alike it takes the last, as moment_detr does.
    Precision is interpolated: at each recall the best at that or more.
    """
    free = np.ones(ious.shape[1], bool)
    hit = np.zeros(len(ious), bool)
    for row, iou in enumerate(ious):
        fitting = np.where(free & (iou >= threshold), iou, -1.0)
        if fitting.max(initial=-1.0) >= 0:
            free[len(free) - 1 - fitting[::-1].argmax()] = False
            hit[row] = True
    precision = np.cumsum(hit) / np.arange(1, len(hit) + 1)
    best_later = np.maximum.accumulate(precision[::-1])[::-1]
    return float(best_later[hit].sum() / len(free))


def _interval(row: Values, videos: NDArray[np.integer], rng: np.random.Generator) -> Interval:
    present, unit = np.unique(videos, return_inverse=True)
    sums, sizes = np.bincount(unit, row), np.bincount(unit)
    even = np.full(len(present), 1 / len(present))
    sample = np.empty(RESAMPLES)
    for first in range(0, RESAMPLES, _PORTION):
        drawn = rng.multinomial(len(present), even, size=len(sample[first : first + _PORTION]))
        sample[first : first + len(drawn)] = (drawn @ sums) / (drawn @ sizes)
    low, high = percentile_ends(sample, len(present))
    none, every = (wilson_interval(hits, len(present)) for hits in (0, len(present)))
    return 100 * max(0.0, min(low, every[0])), 100 * min(1.0, max(high, none[1]))
