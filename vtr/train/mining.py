"""Hard negatives from the whole training set: videos that texts confuse share a batch.

Each epoch, captions are scored against every training video, in blocks: as many of each video as
the epoch trains on (all, or a few drawn anew). The nearest wrong videos of a video's captions are
its neighbours. Batches are then built of videos drawn at random, each followed by its nearest
neighbours that no batch has yet. Memory stays at k neighbours per caption plus one block of scores.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vtr.train.batches import BatchPlan
from vtr.train.data import Index, Resident
from vtr.train.heads.base import masked_frames, masked_mean, normalise
from vtr.train.model import RetrievalModel
from vtr.train.scoring import evaluating

NEIGHBOURS = 3
"""Neighbours that follow each video drawn at random: a quarter of a batch stays random."""

_TEXTS_AT_ONCE = 512


def confusable_groups(
    model: RetrievalModel, data: Resident, plan: BatchPlan, epoch: int
) -> list[Index]:
    """Returns the videos of each step of an epoch, confusable ones together."""
    rng = np.random.default_rng([plan.seed, epoch, 1])
    asked = _some_captions(data.data.text_video, plan.options.captions, rng)
    near = nearest_wrong_videos(model, data, NEIGHBOURS, captions=asked)
    described = np.unique(data.data.text_video)
    order = _chain(rng.permutation(described), near)
    if plan.options.drop_last:
        order = order[: plan.num_steps * plan.size]
    return np.array_split(order, plan.num_steps)


def _some_captions(owner: Index, count: int, rng: np.random.Generator) -> Index:
    """Returns (A,) places of `count` captions of each video, drawn at random; 0 is all of them."""
    shuffled = rng.permutation(len(owner))
    order = shuffled[np.argsort(owner[shuffled], kind="stable")]
    starts = np.searchsorted(owner[order], owner[order])
    rank = np.arange(len(order)) - starts
    return np.sort(order[rank < count]) if count else np.arange(len(owner))


def _chain(videos: Index, near: Index) -> Index:
    """Returns all videos once; behind each drawn one, its neighbours that are still free."""
    free = np.zeros(max(int(videos.max()), int(near.max(initial=0))) + 1, dtype=bool)
    free[videos] = True
    order: list[int] = []
    for video in videos.tolist():
        if free[video]:
            free[video] = False
            order.append(video)
            for other in near[video].tolist():
                if other >= 0 and free[other]:
                    free[other] = False
                    order.append(other)
    return np.array(order, dtype=np.int64)


def nearest_wrong_videos(
    model: RetrievalModel, data: Resident, count: int, *, captions: Index | None = None
) -> Index:
    """Returns (V, count) videos that each video's captions fit best but do not describe.

    `captions` (A,) are the places of those to ask; None asks all. A head whose score is no inner
    product would cost a pass over all pairs: for those the mean of the normalised frames stands in.
    -1 fills rows of videos that have fewer.
    """
    with evaluating(model):
        videos = _video_vectors(model, data)
        asked = np.arange(len(data.data.text_video)) if captions is None else captions
        owners = data.data.text_video[asked]
        owner = torch.from_numpy(owners).to(data.device)
        wanted = min(count, len(videos) - 1)
        places, scores = [], []
        for start in range(0, len(owner), _TEXTS_AT_ONCE):
            index = np.arange(start, min(start + _TEXTS_AT_ONCE, len(owner)))
            block = _text_vectors(model, data, asked[index]) @ videos.T
            block[torch.arange(len(index)), owner[index]] = -torch.inf
            best = block.topk(wanted, dim=1)
            places.append(best.indices.cpu().numpy())
            scores.append(best.values.float().cpu().numpy())
    near = np.concatenate(places), np.concatenate(scores)
    return _best_per_video(owners, *near, len(videos), count)


def _video_vectors(model: RetrievalModel, data: Resident) -> Tensor:
    parts = []
    step = min(_TEXTS_AT_ONCE, data.videos.at_once)
    for start in range(0, len(data.videos), step):
        index = np.arange(start, min(start + step, len(data.videos)))
        batch = model.embed_videos(data.videos.batch(index))
        if model.head.info.indexable:
            parts.append(model.encode_videos(batch)[0])
        else:
            frames = normalise(masked_frames(batch))
            parts.append(normalise(masked_mean(frames, batch.mask)))
    return torch.cat(parts)


def _text_vectors(model: RetrievalModel, data: Resident, index: Index) -> Tensor:
    batch = data.texts.batch(index)
    if model.head.info.indexable:
        return model.encode_texts(batch)[0]
    return normalise(model.text_tower(batch).pooled)


def _best_per_video(
    owner: Index, places: Index, scores: np.ndarray, num_videos: int, count: int
) -> Index:
    """Merges the lists of each video's captions: distinct videos, the best first."""
    owners = np.repeat(owner, places.shape[1])
    flat, values = places.ravel(), scores.ravel()
    order = np.lexsort((-values, flat, owners))
    owners, flat, values = owners[order], flat[order], values[order]
    first = np.ones(len(flat), dtype=bool)
    first[1:] = (owners[1:] != owners[:-1]) | (flat[1:] != flat[:-1])
    owners, flat, values = owners[first], flat[first], values[first]
    order = np.lexsort((flat, -values, owners))
    owners, flat = owners[order], flat[order]
    starts = np.searchsorted(owners, np.arange(num_videos))
    rank = np.arange(len(owners)) - starts[owners]
    near = np.full((num_videos, count), -1, dtype=np.int64)
    kept = rank < count
    near[owners[kept], rank[kept]] = flat[kept]
    return near
