"""Mean of the normalised frames.

    p = normalise(mean over valid k of f_k / |f_k|),    score = <t / |t|, p>

No parameters. Zero-shot retrieval is this head. A valid frame that is all zeros counts as zero
and not as NaN.
"""

from __future__ import annotations

from vtr.train.heads.base import (
    Code,
    Head,
    HeadInfo,
    VideoBatch,
    masked_frames,
    masked_mean,
    normalise,
)


class MeanPooling(Head):
    """See the module."""

    info = HeadInfo(source="CLIP4Clip, ArrowLuo/CLIP4Clip@508ffa3, sim_header meanP")

    def encode_videos(self, videos: VideoBatch) -> Code:
        """Returns one unit vector (V, D) per video."""
        frames = normalise(masked_frames(videos))
        return (normalise(masked_mean(frames, videos.mask)),)
