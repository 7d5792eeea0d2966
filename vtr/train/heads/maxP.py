"""Largest value of each dimension over the normalised frames.

    p_d = max over valid k of (f_k / |f_k|)_d,    score = <t / |t|, p / |p|>

No parameters. It is not the best frame's similarity; for that see attentionP with a small tau.
"""

from __future__ import annotations

import torch

from vtr.train.heads.base import Code, Head, HeadInfo, VideoBatch, masked_frames, normalise


class MaxPooling(Head):
    """See the module."""

    info = HeadInfo(source="CLIP_video, sijiasiga/CLIP_video@91bcaf6, sim_header maxP")

    def encode_videos(self, videos: VideoBatch) -> Code:
        """Returns one unit vector (V, D) per video."""
        frames = normalise(masked_frames(videos))
        return (normalise(frames.masked_fill(~videos.mask[..., None], -torch.inf).amax(dim=1)),)
