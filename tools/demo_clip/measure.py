"""Measures, on the encoded clips, what the tiny CLIP can and cannot do without training.

Dense mean pooling: every frame of every clip, decoded from its file, embedded, normalised,
averaged. The evaluator proper works on a store; this is the check of the model that ships.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from vtr.clip.backbone import Backbone
from vtr.clip.preprocess import resize_crop
from vtr.datasets.demo import load
from vtr.demo.events import BriefEvent, read_events

Vectors = NDArray[np.float32]

_DECIMALS = 5
"""Scores nearer than this are ties: twins are pooled from the same frames in another order, which
float rounding can see."""


@dataclass(frozen=True)
class ZeroShot:
    """Shares, 0 to 1, over the captions of one split."""

    num_videos: int  # Gallery: all clips of the split, of all groups
    # Group to the share of its captions that rank their own clip first in the gallery; k clips with
    # exactly the same score at the top count 1/k.
    recall_at_1: Mapping[str, float]
    # Share of order captions nearer to their clip than to its twin; a tie is half.
    twin_accuracy: float
    # Share of brief clips whose captions, on average, are nearer to the middle frame of the event
    # than to any frame without it.
    event_frame_wins: float
    event_frame_beats_mean: float  # The same against the mean similarity of the frames without it
    # R@1 of brief captions if every brief clip were pooled from its event's frames alone: what a
    # perfect sampler could reach.
    recall_with_event_frames: float


def measure_zero_shot(
    annotations: Path, videos: Path, backbone: Backbone, *, split: str = "test"
) -> ZeroShot:
    """Embeds all frames and captions of a split of a rendered world and scores them."""
    dataset = load(annotations, videos)
    ids = dataset.splits[split]
    column = {video_id: index for index, video_id in enumerate(ids)}
    captions = [caption for caption in dataset.captions if caption.video_id in column]
    texts = normalised(backbone.encode_texts([c.text for c in captions]).embeddings)
    frames = [embed_video(videos / f"{video_id}.mp4", backbone) for video_id in ids]
    owner = np.array([column[caption.video_id] for caption in captions])
    groups = np.array([dataset.groups[caption.video_id] for caption in captions])
    pooled = np.stack([normalised(video.mean(axis=0)) for video in frames])
    hits = top_hits(texts @ pooled.T, owner)
    events = {i: e for i, e in read_events(annotations).items() if i in column}
    texts_of = [texts[owner == index] for index in range(len(ids))]
    margins = [_event_margins(events[i], frames[column[i]], texts_of[column[i]]) for i in events]
    seen = pooled.copy()
    for video_id, event in events.items():
        shown = _event_rows(event)
        seen[column[video_id]] = normalised(frames[column[video_id]][shown].mean(axis=0))
    return ZeroShot(
        num_videos=len(ids),
        recall_at_1={str(g): float(hits[groups == g].mean()) for g in np.unique(groups)},
        twin_accuracy=_twin_accuracy(ids, pooled, texts_of),
        event_frame_wins=float(np.mean([best > 0 for best, _ in margins])),
        event_frame_beats_mean=float(np.mean([mean > 0 for _, mean in margins])),
        recall_with_event_frames=float(top_hits(texts @ seen.T, owner)[groups == "brief"].mean()),
    )


def embed_video(path: Path, backbone: Backbone) -> Vectors:
    """Returns the normalised embeddings of all frames, (N, D), in presentation order."""
    with av.open(str(path), "r") as container:
        crops = np.stack(
            [
                resize_crop(frame.to_ndarray(format="rgb24"), backbone.preprocessing)
                for frame in container.decode(video=0)
            ]
        )
    return normalised(backbone.encode_frames(crops))


def normalised(vectors: Vectors) -> Vectors:
    """Returns the vectors, (..., D), at length 1."""
    unit: Vectors = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return unit


def top_hits(scores: Vectors, owner: NDArray[np.int64]) -> NDArray[np.float64]:
    """Returns for each row the chance, 0 to 1, that its owner comes first, ties broken at random.

    Args:
        scores: (T, V), higher is better.
        owner: (T,), the right column of each row.
    """
    scores = scores.round(_DECIMALS)
    own = scores[np.arange(len(owner)), owner][:, None]
    tied: NDArray[np.int64] = (scores == own).sum(axis=1)
    return np.where((scores > own).any(axis=1), 0.0, 1.0 / tied)


def _event_rows(event: BriefEvent) -> list[int]:
    rate = event.frames_per_second
    return [index for index in range(event.num_frames) if event.is_caught([index / rate])]


def _event_margins(event: BriefEvent, frames: Vectors, texts: Vectors) -> tuple[float, float]:
    """Returns how far the event's middle frame is above the best and the mean of the others."""
    similarity = (frames @ texts.T).mean(axis=1)
    rows = _event_rows(event)
    rest = np.delete(similarity, rows)
    shown = similarity[rows[len(rows) // 2]]
    return float(shown - rest.max()), float(shown - rest.mean())


def _twin_accuracy(ids: Sequence[str], pooled: Vectors, texts_of: Sequence[Vectors]) -> float:
    """Twins are called NAMEa and NAMEb."""
    column = {video_id: index for index, video_id in enumerate(ids)}
    wins = []
    for video_id, index in column.items():
        other = column.get(video_id[:-1] + {"a": "b", "b": "a"}.get(video_id[-1], ""))
        if other is not None:
            margin = (texts_of[index] @ (pooled[index] - pooled[other])).round(_DECIMALS)
            wins.append(float((np.sign(margin) / 2 + 0.5).mean()))
    return float(np.mean(wins)) if wins else float("nan")
