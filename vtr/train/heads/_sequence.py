"""Optional temporal layers in front of a head, and learned shares of tokens.

The layers are those of `seqTransf`, under the same names:

    y = x + blocks(x + positions)

Parameters: `frame_position_embeddings.weight` (77, D) and `transformerClip.resblocks.{i}.*`; with
four layers 12.65 M at D = 512. Without layers y = x, and there are no parameters.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vtr.train.clip_text import ClipText
from vtr.train.heads.base import Head, VideoBatch, masked_frames
from vtr.train.heads.blocks import (
    Transformer,
    check_positions,
    choose_num_heads,
    copy_blocks,
    copy_rows,
    describe_copy,
)


class SequenceHead(Head):
    """A head whose frames may pass transformer layers first.

    Args:
        dim: D.
        num_layers: How many; 0 for none.
        heads: Attention heads, 0 for D // 64.
        positions: Largest number of frames, where there are layers.
    """

    def __init__(self, dim: int, *, num_layers: int, heads: int, positions: int) -> None:
        super().__init__()
        self.num_layers = num_layers
        if num_layers:
            self.frame_position_embeddings = nn.Embedding(positions, dim)
            self.transformerClip = Transformer(
                dim, num_layers=num_layers, num_heads=choose_num_heads(dim, heads)
            )

    def contextual_frames(self, videos: VideoBatch) -> Tensor:
        """Returns y (V, K, D), zero in padded places.

        Raises:
            ConfigError: There are layers, and fewer positions than frames.
        """
        frames = masked_frames(videos)
        if not self.num_layers:
            return frames
        table = self.frame_position_embeddings.weight
        check_positions(frames.shape[1], len(table))
        told = frames + self.transformerClip(frames + table[: frames.shape[1]], videos.mask)
        return torch.where(videos.mask[..., None], told, 0.0)

    def start_from(self, clip: ClipText) -> str:
        """Copies CLIP's text layers and positions as `seqTransf` does; returns what was copied."""
        if not self.num_layers:
            return "uniform weights"
        copy_rows(self.frame_position_embeddings, clip.positional_embedding)
        copied = copy_blocks(self.transformerClip, clip.blocks)
        return f"{describe_copy(self.transformerClip, copied)}, uniform weights"


def share_mlp(dim: int) -> nn.Sequential:
    """Returns D -> D -> ReLU -> 1: the logits of shares among tokens."""
    return nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, 1))


def start_uniform(mlp: nn.Sequential) -> None:
    """Sets the last layer to zero: all tokens then have the same share."""
    last = mlp[-1]
    assert isinstance(last, nn.Linear)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
