"""A transformer that reads the text and the frames together: one forward pass per pair.

    z = blocks([t; f_1 .. f_K] + positions),   score = w . quickgelu(W LN(z_0) + b) + c

Blocks as in `vtr.train.heads.blocks`; neither the inputs nor the score are normalised and no logit
scale applies. Layers and positions start as copies of CLIP's first text layers. 12,913,153
parameters at D = 512, and about 0.27 GFLOP per pair with 12 frames: a full matrix of 1,000 x 1,000
costs 270 TFLOP, so re-rank (`--rerank`) what a cheap head found. The reference computes the last
layer for all tokens, of which only the first is read: 0.33 GFLOP.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vtr.clip.encoders import DualEncoder
from vtr.clip.towers import quick_gelu
from vtr.train.heads.base import (
    Code,
    Head,
    HeadInfo,
    TextBatch,
    VideoBatch,
    check_option,
    masked_frames,
    split_pairs,
)
from vtr.train.heads.blocks import (
    LAYER_NORM_EPSILON,
    NUM_POSITIONS,
    Transformer,
    add_positions,
    check_layers,
    check_positions,
    choose_num_heads,
    copy_text_layers,
    initialise_weights,
)


@dataclass(frozen=True)
class Options:
    """What users may set."""

    layers: int = 4  # Blocks
    heads: int = 0  # Attention heads; 0 means D // 64
    mlp_ratio: int = 4  # Width of the MLPs in multiples of D; CLIP's weights fit 4 alone
    positions: int = NUM_POSITIONS  # Largest number of frames plus one
    dropout: float = 0.1  # Of the tokens with their positions, while training
    # How many pairs are computed at once; bounds the memory, never changes a score.
    pairs: int = 512

    def __post_init__(self) -> None:
        check_layers(self, fewest_positions=2)
        check_option(1 <= self.pairs <= 1 << 20, "pairs", self.pairs, "1 to 1048576")


class CrossEncoder(nn.Module):
    """Positions, blocks and pooler: what the reference calls `cross`."""

    def __init__(self, dim: int, options: Options) -> None:
        super().__init__()
        table = nn.Embedding(options.positions, dim)
        self.embeddings = nn.ModuleDict({"position_embeddings": table})
        self.transformer = Transformer(
            dim,
            num_layers=options.layers,
            num_heads=choose_num_heads(dim, options.heads),
            mlp_ratio=options.mlp_ratio,
        )
        norm = nn.LayerNorm(dim, eps=LAYER_NORM_EPSILON)
        self.pooler = nn.ModuleDict({"ln_pool": norm, "dense": nn.Linear(dim, dim)})
        self.dropout = nn.Dropout(options.dropout)

    @property
    def positions(self) -> nn.Embedding:
        """One row for the text and each frame."""
        return cast(nn.Embedding, self.embeddings["position_embeddings"])

    def forward(self, text: Tensor, frames: Tensor, mask: Tensor) -> Tensor:
        """Returns (P, D) from texts (P, D), frames (P, K, D) and their mask (P, K)."""
        tokens = torch.cat([text[:, None], frames], dim=1)
        valid = torch.cat([mask.new_ones(len(mask), 1), mask], dim=1)
        placed = self.dropout(add_positions(tokens, self.positions))
        first = self.transformer(placed, valid, num_outputs=1)[:, 0]
        return quick_gelu(self.pooler["dense"](self.pooler["ln_pool"](first)))


class TightTransformer(Head):
    """See the module."""

    info = HeadInfo(
        needs_order=True,
        indexable=False,
        scaled=False,
        cost="a transformer over K + 1 tokens",
        source="CLIP4Clip, ArrowLuo/CLIP4Clip@508ffa3, sim_header tightTransf",
    )

    def __init__(self, dim: int, options: Options) -> None:
        super().__init__(dim, options)
        self.cross = CrossEncoder(dim, options)
        self.similarity_dense = nn.Linear(dim, 1)

    def draw_weights(self) -> None:
        """Draws all weights, see `initialise_weights`."""
        self.apply(initialise_weights)

    def start_from(self, clip: DualEncoder) -> str:
        """Copies CLIP's first text layers and its positions."""
        return copy_text_layers(self.cross.positions, self.cross.transformer, clip)

    def encode_texts(self, texts: TextBatch) -> Code:
        """Returns the pooled texts (N, D) as they are."""
        return (texts.pooled,)

    def encode_videos(self, videos: VideoBatch) -> Code:
        """Returns the frames (V, K, D) with zeros for padding, and their mask (V, K) bool."""
        check_positions(videos.frames.shape[1], len(self.cross.positions.weight) - 1)
        return masked_frames(videos), videos.mask

    def score(self, texts: Code, videos: Code) -> Tensor:
        """Returns (N, V) logits, `pairs` of them at a time."""
        num_texts, num_videos = len(texts[0]), len(videos[0])
        pairs = torch.arange(num_texts * num_videos, device=texts[0].device)
        scores = self.score_pairs(texts, videos, pairs // num_videos, pairs % num_videos)
        return scores.view(num_texts, num_videos)

    def score_pairs(
        self, texts: Code, videos: Code, text_index: Tensor, video_index: Tensor
    ) -> Tensor:
        """Returns (P,) logits of chosen pairs, `pairs` of them at a time."""
        chunks = list(split_pairs(text_index, video_index, self.options.pairs))
        score: Callable[..., Tensor] = self._score
        if len(chunks) > 1 and torch.is_grad_enabled():
            # The activations of all chunks would pile up: each is computed again on the way back.
            score = partial(checkpoint, self._score, use_reentrant=False)
        scores = [score(texts, videos, rows, columns) for rows, columns in chunks]
        return torch.cat([texts[0].new_zeros(0), *scores])

    def _score(self, texts: Code, videos: Code, rows: Tensor, columns: Tensor) -> Tensor:
        pooled = self.cross(texts[0][rows], videos[0][columns], videos[1][columns])
        logits: Tensor = self.similarity_dense(pooled)[:, 0]
        return logits
