"""Optional temporal layers in front of a head, and learned shares of tokens.

The layers are those of `seqTransf`, under the same names:

    y = x + blocks(x + positions)

Parameters: `frame_position_embeddings.weight` (77, D) and `transformerClip.resblocks.{i}.*`; with
four layers 12.65 M at D = 512. Without layers y = x, and there are no parameters.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vtr.train.clip_text import ClipText
from vtr.train.heads.base import Head, VideoBatch, masked_frames
from vtr.train.heads.blocks import (
    Transformer,
    check_positions,
    choose_num_heads,
    copy_text_layers,
)


class SequenceHead(Head):
    """A head whose frames may pass transformer layers first."""

    def __init__(self, dim: int, options: Any) -> None:
        super().__init__()
        self.num_layers = options.layers
        if self.num_layers:
            self.frame_position_embeddings = nn.Embedding(options.positions, dim)
            # CLIP4Clip's name for it, which its checkpoints carry.
            self.transformerClip = Transformer(
                dim,
                num_layers=options.layers,
                num_heads=choose_num_heads(dim, options.heads),
                mlp_ratio=getattr(options, "mlp_ratio", 4),
            )
        self.placed_dropout = nn.Dropout(getattr(options, "dropout", 0.0))

    def contextual_frames(self, videos: VideoBatch) -> Tensor:
        """Returns y (V, K, D), zero in padded places."""
        frames = masked_frames(videos)
        if not self.num_layers:
            return frames
        table = self.frame_position_embeddings.weight
        check_positions(frames.shape[1], len(table))
        placed = self.placed_dropout(frames + table[: frames.shape[1]])
        mixed = frames + self.transformerClip(placed, videos.mask)
        return torch.where(videos.mask[..., None], mixed, 0.0)

    def start_from(self, clip: ClipText) -> str:
        """Copies CLIP's text layers and positions where there are layers; returns what was."""
        if not self.num_layers:
            return ""
        return copy_text_layers(self.frame_position_embeddings, self.transformerClip, clip)


def share_mlp(dim: int) -> nn.Sequential:
    """Returns D -> D -> ReLU -> 1: the logits of shares among tokens."""
    return nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, 1))


def start_uniform(mlp: nn.Sequential) -> None:
    """Sets the last layer to zero: all tokens then have the same share."""
    last = mlp[-1]
    assert isinstance(last, nn.Linear)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
