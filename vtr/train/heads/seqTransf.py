"""A transformer over the frames, added to them, then the mean.

    y = f + blocks(f + positions),  p = normalise(mean of valid y_k / |y_k|),  score = <t^, p>

Blocks as in `vtr.train.heads.blocks`. Layers and positions start as copies of CLIP's first text
layers. 12 D^2 + 13 D parameters per layer and 77 D positions: 12,648,960 at D = 512.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from vtr.train.clip_text import ClipText
from vtr.train.heads.base import (
    Code,
    Head,
    HeadInfo,
    VideoBatch,
    check_option,
    masked_frames,
    masked_mean,
    normalise,
)
from vtr.train.heads.blocks import (
    NUM_POSITIONS,
    Transformer,
    check_positions,
    choose_num_heads,
    copy_blocks,
    copy_rows,
    describe_copy,
    initialise_weights,
)

INFO = HeadInfo(
    needs_order=True, source="CLIP4Clip, ArrowLuo/CLIP4Clip@508ffa3, sim_header seqTransf"
)


@dataclass(frozen=True)
class Options:
    """What users may set."""

    layers: int = 4  # Blocks
    heads: int = 0  # Attention heads; 0 means D // 64
    mlp_ratio: int = 4  # Width of the MLPs in multiples of D; CLIP's weights fit 4 alone
    positions: int = NUM_POSITIONS  # Largest number of frames
    dropout: float = 0.0  # Of the frames with their positions, while training

    def __post_init__(self) -> None:
        check_option(1 <= self.layers <= 48, "layers", self.layers, "1 to 48")
        check_option(self.heads >= 0, "heads", self.heads, "a divisor of D, or 0 for D // 64")
        check_option(1 <= self.mlp_ratio <= 16, "mlp_ratio", self.mlp_ratio, "1 to 16")
        check_option(1 <= self.positions <= 4096, "positions", self.positions, "1 to 4096")
        check_option(0 <= self.dropout < 1, "dropout", self.dropout, "0 to below 1")


class TransformerPooling(Head):
    """See the module.

    Args:
        dim: D.
        options: As set by the user.
    """

    info = INFO

    def __init__(self, dim: int, options: Options) -> None:
        super().__init__()
        self.frame_position_embeddings = nn.Embedding(options.positions, dim)
        # CLIP4Clip's name for it, which its checkpoints carry.
        self.transformerClip = Transformer(
            dim,
            num_layers=options.layers,
            num_heads=choose_num_heads(dim, options.heads),
            mlp_ratio=options.mlp_ratio,
        )
        self.dropout = nn.Dropout(options.dropout)

    def encode_videos(self, videos: VideoBatch) -> Code:
        """Returns one unit vector (V, D) per video.

        Raises:
            ConfigError: More frames than positions.
        """
        frames, table = masked_frames(videos), self.frame_position_embeddings.weight
        num_frames = frames.shape[1]
        check_positions(num_frames, len(table))
        placed = self.dropout(frames + table[:num_frames])
        told = frames + self.transformerClip(placed, videos.mask)
        return (normalise(masked_mean(normalise(told), videos.mask)),)


def build(dim: int, options: Options) -> Head:
    """Returns the untrained head for frames of size `dim`."""
    return TransformerPooling(dim, options).apply(initialise_weights)


def initialise(head: TransformerPooling, clip: ClipText) -> str:
    """Copies CLIP's first text layers and its positions; returns what was copied."""
    copy_rows(head.frame_position_embeddings, clip.positional_embedding)
    return describe_copy(head.transformerClip, copy_blocks(head.transformerClip, clip.blocks))
