"""A video is a few vectors, means of frames that are alike; a text finds the best of them.

    score = max over the video's vectors m of <t^, m / |m|>

The frames are clustered from below: each begins as a cluster, and the two whose means have the
largest cosine become one until `vectors` are left (the mean weighs frames alike; of equal pairs the
first in presentation order). Order plays no part otherwise. With `vectors=1` this is the mean of
unit frames, with as many as there are frames the best frame.

No parameters; works without training. `vectors` of K are all that an index has to hold.
Source: pooled multi-vectors (hierarchical pooling of rows), shared/specs/search_scale.md 7;
implemented from the description.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vtr.train.heads.base import (
    Code,
    Head,
    HeadInfo,
    VideoBatch,
    check_option,
    masked_frames,
    normalise,
)

_PAIRS = 1 << 22  # cosines of a block of texts


@dataclass(frozen=True)
class Options:
    """What users may set."""

    vectors: int = 5  # How many a video keeps at most

    def __post_init__(self) -> None:
        check_option(1 <= self.vectors <= 4096, "vectors", self.vectors, "1 to 4096")


class MultiVector(Head):
    """See the module. Video codes: unit vectors (V, M, D) and which of them are there (V, M)."""

    info = HeadInfo(
        indexable=False,
        rows=True,
        cost="M inner products (M vectors)",
        source="hierarchical pooling of multi-vector representations (description)",
    )

    def encode_videos(self, videos: VideoBatch) -> Code:
        """Returns unit vectors (V, M, D), zero where a video has fewer, and their mask (V, M)."""
        frames = normalise(masked_frames(videos))
        share = clusters(frames.detach(), videos.mask, self.options.vectors).to(frames.dtype)
        means = torch.einsum("vmk,vkd->vmd", share, frames)
        return normalise(means), share.sum(dim=2) > 0

    def score(self, texts: Code, videos: Code) -> Tensor:
        """Returns (N, V) cosines."""
        vectors, mask = videos
        step = max(1, _PAIRS // max(1, mask.numel()))
        rows = [
            torch.einsum("nd,vmd->nvm", part, vectors).masked_fill(~mask, -torch.inf).amax(dim=2)
            for part in torch.split(texts[0], step)
        ]
        return torch.cat(rows)


def clusters(frames: Tensor, mask: Tensor, most: int) -> Tensor:
    """Returns (V, M, K) bool: which of K frames each of a video's M clusters has, `most` or K.

    `frames` (V, K, D) are unit vectors, zero in padded places.
    """
    num_videos, num_frames = mask.shape
    member = torch.diag_embed(mask)  # (V, K, K) cluster c has frame k
    sums = frames.clone()
    places = torch.arange(num_frames, device=frames.device)
    later = places[:, None] < places[None, :]
    every = torch.arange(num_videos, device=frames.device)
    for _ in range(num_frames - most):
        alive = member.any(dim=2)
        means = normalise(sums)
        open_pairs = alive[:, :, None] & alive[:, None, :] & later
        cosines = (means @ means.mT).masked_fill(~open_pairs, -torch.inf)
        best = cosines.flatten(1).argmax(dim=1)
        one, other = best // num_frames, best % num_frames
        joins = alive.sum(dim=1) > most
        merged = member[every, one] | member[every, other]
        member[every[joins], one[joins]] = merged[joins]
        member[every[joins], other[joins]] = False
        sums[every[joins], one[joins]] += sums[every[joins], other[joins]]
        sums[every[joins], other[joins]] = 0
    order = member.any(dim=2).int().argsort(dim=1, descending=True, stable=True)
    kept = order[:, : min(most, num_frames)]
    return member.gather(1, kept[..., None].expand(-1, -1, num_frames))
