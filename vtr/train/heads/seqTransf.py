"""A transformer over the frames, added to them, then the mean.

    y = f + blocks(f + positions),  p = normalise(mean of valid y_k / |y_k|),  score = <t^, p>

Blocks as in `vtr.train.heads.blocks`. Layers and positions start as copies of CLIP's first text
layers. 12 D^2 + 13 D parameters per layer and 77 D positions: 12,648,960 at D = 512.
"""

from __future__ import annotations

from dataclasses import dataclass

from vtr.train.heads.base import Code, HeadInfo, VideoBatch, masked_mean, normalise
from vtr.train.heads.blocks import NUM_POSITIONS, SequenceHead, check_layers


@dataclass(frozen=True)
class Options:
    """What users may set."""

    layers: int = 4  # Blocks
    heads: int = 0  # Attention heads; 0 means D // 64
    mlp_ratio: int = 4  # Width of the MLPs in multiples of D; CLIP's weights fit 4 alone
    positions: int = NUM_POSITIONS  # Largest number of frames
    dropout: float = 0.0  # Of the frames with their positions, while training

    def __post_init__(self) -> None:
        check_layers(self)


class TransformerPooling(SequenceHead):
    """See the module."""

    info = HeadInfo(source="CLIP4Clip, ArrowLuo/CLIP4Clip@508ffa3, sim_header seqTransf")

    def encode_videos(self, videos: VideoBatch) -> Code:
        """Returns one unit vector (V, D) per video."""
        frames = self.contextual_frames(videos)
        return (normalise(masked_mean(normalise(frames), videos.mask)),)
