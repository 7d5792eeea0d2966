"""What samplers do to a store: spread over time, coverage of the content, repetition, cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vtr.extract.choose import DENSE, require_dense, stored_signals
from vtr.extract.sample import FrameRequest, Transform, sample_video
from vtr.extract.samplers.base import Indices, SamplerChoice
from vtr.features.store import FeatureStore

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class SamplerStudy:
    """Figures of one sampler over a store; means over its videos."""

    sampler: str  # Its label
    frames_per_video: float  # Chosen frames
    largest_gap: float  # Longest stretch without a chosen frame, as a share of the video, 0 to 1
    spacing_variation: float  # Standard deviation of the gaps between picks over their mean
    content_coverage: float  # Cosine of a candidate to the nearest chosen frame, averaged
    repetition: float  # Cosine between pairs of chosen frames, averaged; high means duplicates
    select_ms_per_1000: float  # Time to choose, per 1,000 candidates, decoding not counted


def study(
    dense: FeatureStore,
    choices: Sequence[SamplerChoice],
    num_frames: int,
    *,
    seed: int = 0,
    progress: Callable[[int, int, str], None] = lambda _done, _total, _sampler: None,
) -> tuple[list[SamplerStudy], dict[str, dict[str, Indices]]]:
    """Returns the figures of every sampler, and what each chose per video.

    `dense` holds every candidate and is seen through `dense`; `progress` is called with (samplers
    done, samplers, the one that is next).
    """
    figures, chosen = [], {}
    for number, choice in enumerate(choices):
        progress(number, len(choices), choice.label)
        picks, seconds, candidates = {}, 0.0, 0
        for video_id in dense:
            signals = stored_signals(dense, video_id, choice)
            start = time.perf_counter()
            picks[video_id] = choice.select(signals, num_frames, seed=seed, video_id=video_id)
            seconds += time.perf_counter() - start
            candidates += len(signals)
        chosen[choice.label] = picks
        figures.append(_figures(dense, choice.label, picks, 1e6 * seconds / candidates))
    progress(len(choices), len(choices), "")
    return figures, chosen


def _figures(
    dense: FeatureStore, label: str, picks: dict[str, Indices], select_ms_per_1000: float
) -> SamplerStudy:
    rows = []
    for video_id in dense:
        features = dense[video_id]
        unit = features.frames.astype(np.float32)
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        rows.append(_of_video(features.pts_seconds, unit, picks[video_id]))
    # Videos of one frame have no gaps and no pairs: they count where they can.
    table = np.ma.masked_invalid(np.array(rows))
    frames, gap, variation, coverage, pairs = table.mean(axis=0).filled(np.nan).tolist()
    return SamplerStudy(label, frames, gap, variation, coverage, pairs, select_ms_per_1000)


def _of_video(
    pts_seconds: NDArray[np.float64], unit: Floats, chosen: Indices
) -> tuple[float, float, float, float, float]:
    times = pts_seconds[chosen]
    return (
        float(len(chosen)),
        largest_gap(times, float(pts_seconds[0]), float(pts_seconds[-1])),
        spacing_variation(times),
        float((unit @ unit[chosen].T).max(axis=1).mean()),
        repetition(unit[chosen]),
    )


def largest_gap(times: NDArray[np.float64], first: float, last: float) -> float:
    """Returns the longest stretch of [first, last] without a chosen time, as a share, 0 to 1.

    >>> largest_gap(np.array([0.0, 5.0]), 0.0, 10.0)
    0.5
    """
    if last <= first:
        return 0.0
    return float(np.diff(np.concatenate([[first], times, [last]])).max() / (last - first))


def spacing_variation(times: NDArray[np.float64]) -> float:
    """Returns standard deviation over mean of the gaps; NaN with fewer than three times.

    >>> spacing_variation(np.array([0.0, 1.0, 2.0]))
    0.0
    """
    gaps = np.diff(times)
    if len(gaps) < 2 or not gaps.mean():
        return float("nan")
    return float(gaps.std() / gaps.mean())


def repetition(unit: Floats) -> float:
    """Returns the mean cosine over pairs of (K, D) unit rows; NaN for a single row."""
    count = len(unit)
    if count < 2:
        return float("nan")
    total = float(np.square(unit.sum(axis=0)).sum())  # sum over all ordered pairs, i = j included
    return (total - count) / (count * (count - 1))


def open_dense(store: FeatureStore) -> FeatureStore:
    """Returns a store seen through all its candidates; refuses one that has not all, or none."""
    require_dense(store, "a study of samplers")
    store.require_videos()
    return FeatureStore(store.folder, sampler=DENSE)


@dataclass(frozen=True)
class SamplerCost:
    """Means over the measured videos, each decoded for this sampler alone."""

    sampler: str  # Its label
    decode_cpu_ms: float  # Of decoding, thumbnails, choosing and resizing, one thread
    frames: float  # Frames to embed
    embed_ms: float  # Of the encoder, whose time per frame is measured once for all samplers
    videos: int  # How many videos were measured


def measure_costs(
    requests: Sequence[FrameRequest],
    choices: Sequence[SamplerChoice],
    transform: Transform,
    encode: Callable[[NDArray[np.uint8]], Any],
) -> list[SamplerCost]:
    """Decodes every video once per sampler; returns a cost for each, in the order of `choices`.

    A sampler that compares embeddings costs what `dense` costs: all candidates are embedded first.
    There is one request per video, at least one, whose samplers are replaced; `encode` is called
    with the (B, ...) crops that `transform` makes.

    Raises:
        DecodeError: A video cannot be read.
    """
    # What is loaded at the first call of either is no sampler's cost.
    first = sample_video(replace(requests[0], choices=(SamplerChoice("uniform"),)), transform).crops
    encode(first)
    start = time.perf_counter()
    encode(first)
    embed_ms = 1e3 * (time.perf_counter() - start) / len(first)
    costs = []
    for choice in choices:
        decoded = SamplerChoice(DENSE) if "embeddings" in choice.needs else choice
        own = [replace(request, choices=(decoded,)) for request in requests]
        start = time.process_time()
        frames = sum(len(sample_video(request, transform).crops) for request in own) / len(own)
        spent = 1e3 * (time.process_time() - start) / len(own)
        costs.append(SamplerCost(choice.label, spent, frames, frames * embed_ms, len(own)))
    return costs
