"""What the temporal heads share: pre-norm blocks behind a table of positions, shares of tokens.

    x <- x + MHA(LN(x))
    x <- x + c_proj(quickgelu(c_fc(LN(x))))        quickgelu(z) = z * sigmoid(1.702 z)

Parameter names are those of CLIP's own blocks, so that CLIP's text layers copy straight in. Two
things differ from CLIP: the epsilon of the layer norms (1e-12 inside the root, CLIP has 1e-5), and
masked keys leave the softmax. Source: CLIP4Clip@508ffa3 and CLIP2Video@e941318, module_cross.py;
both add -1e6 to masked scores in float32, which is the same as long as one key is valid.

A block of width D has 12 D^2 + 13 D parameters and costs 24 D^2 + 4 K D FLOP per token.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from vtr.clip.encoders import DualEncoder
from vtr.clip.towers import Block
from vtr.counts import counted
from vtr.errors import ConfigError
from vtr.train.dropout import RowDropout
from vtr.train.heads.base import Head, HeadInfo, VideoBatch, check_option, masked_frames

LAYER_NORM_EPSILON = 1e-12
NUM_POSITIONS = 77
"""Rows of CLIP's table of text positions, which the references copy for frames."""

_HEAD_WIDTH = 64
_ALL_MASKED_BIAS = -1e6
_INIT_STD = 0.02
_SMALLEST_NORM = 1e-8
_SMALLEST_VARIANCE = 1e-8


class Transformer(nn.Module):
    """A stack of blocks, without a norm at the end; parameters are `resblocks.{i}.*`."""

    def __init__(self, dim: int, *, num_layers: int, num_heads: int, mlp_ratio: int = 4) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(
            Block(dim, num_heads, mlp_ratio * dim, epsilon=LAYER_NORM_EPSILON)
            for _ in range(num_layers)
        )

    def forward(
        self, tokens: Tensor, mask: Tensor | None = None, *, num_outputs: int | None = None
    ) -> Tensor:
        """Returns (B, num_outputs or K, D).

        The tokens (B, K, D) must be finite everywhere: a masked NaN would still spread. `mask`
        (B, K) bool is True where a token may be attended to. The last layer computes the leading
        `num_outputs` tokens alone.
        """
        bias = None if mask is None else key_bias(mask, dtype=tokens.dtype)
        *others, last = self.resblocks
        for block in others:
            tokens = block(tokens, bias=bias)
        output: Tensor = last(tokens, bias=bias, num_outputs=num_outputs)
        return output


def key_bias(mask: Tensor, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """Returns (B, 1, 1, K): what to add to the attention scores so that only valid keys count.

    That is -inf for masked keys. Where a row has no valid key at all it is -1e6 for each, as in the
    references: the softmax then runs over all keys, its scores rounded to multiples of 1/16.
    """
    some = mask.any(dim=1, keepdim=True)
    masked = torch.where(some, -torch.inf, max(_ALL_MASKED_BIAS, torch.finfo(dtype).min))
    return torch.where(mask, 0.0, masked).to(dtype)[:, None, None, :]


def choose_num_heads(dim: int, heads: int) -> int:
    """Returns the number of attention heads, one per 64 dimensions for 0; it must divide D."""
    if heads == 0:
        return next(n for n in range(max(dim // _HEAD_WIDTH, 1), 0, -1) if dim % n == 0)
    if dim % heads:
        raise ConfigError(
            f"heads={heads} does not divide the dimension {dim} of the features; "
            f"allowed: {', '.join(str(n) for n in range(1, dim // 8 + 1) if dim % n == 0)}"
        )
    return heads


def initialise_weights(module: nn.Module) -> None:
    """Draws what CLIP does not provide as the references do: use with `head.apply`.

    Linear layers and tables N(0, 0.02), biases 0. Packed attention projections keep their Xavier
    draw, layer norms 1 and 0, recurrent layers torch's default; shares of tokens begin equal.
    """
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=_INIT_STD)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
    if isinstance(module, ShareMlp):
        zeroed(module[-1])


def copy_blocks(target: Transformer, blocks: nn.ModuleList) -> int:
    """Copies CLIP's first text layers into a stack; returns how many, 0 where shapes differ."""
    pairs = [
        (own, block.state_dict()) for own, block in zip(target.resblocks, blocks, strict=False)
    ]
    if any(w[n].shape != v.shape for own, w in pairs for n, v in own.state_dict().items()):
        return 0
    for own, weights in pairs:
        own.load_state_dict(weights)
    return len(pairs)


def copy_rows(target: nn.Embedding, rows: Tensor) -> None:
    """Copies as many leading rows of a table as both have; the widths must agree."""
    count = min(len(target.weight), len(rows))
    with torch.no_grad():
        target.weight[:count] = rows[:count]


def copy_text_layers(positions: nn.Embedding, layers: Transformer, clip: DualEncoder) -> str:
    """Copies CLIP's text positions and first text layers; returns what was copied, in a phrase."""
    copy_rows(positions, clip.text.positions)
    copied, total = copy_blocks(layers, clip.text.blocks), len(layers.resblocks)
    if not copied:
        return "CLIP's text positions, random layers: CLIP's have another MLP width"
    rest = f", {total - copied} more random" if copied < total else ""
    return f"CLIP's text positions and first {copied} text layers{rest}"


def check_layers(options: Any, *, fewest: int = 1, fewest_positions: int = 1) -> None:
    """Raises ConfigError where the options of a head's layers are out of range."""
    layers, positions = options.layers, options.positions
    ratio, dropout = getattr(options, "mlp_ratio", 4), getattr(options, "dropout", 0.0)
    least = f"{fewest} to 48" if fewest else "0 (none) to 48"
    check_option(fewest <= layers <= 48, "layers", layers, least)
    check_option(options.heads >= 0, "heads", options.heads, "a divisor of D, or 0 for D // 64")
    check_option(1 <= ratio <= 16, "mlp_ratio", ratio, "1 to 16")
    allowed = f"{fewest_positions} to 4096"
    check_option(fewest_positions <= positions <= 4096, "positions", positions, allowed)
    check_option(0 <= dropout < 1, "dropout", dropout, "0 to below 1")


def add_positions(tokens: Tensor, positions: nn.Embedding) -> Tensor:
    """Returns tokens (B, K, D) with the first K rows of a table added."""
    check_positions(tokens.shape[1], len(positions.weight))
    return tokens + positions.weight[: tokens.shape[1]]


def check_positions(num_frames: int, allowed: int) -> None:
    """Refuses more frames than the table of positions has rows."""
    if num_frames > allowed:
        raise ConfigError(
            f"{counted(num_frames, 'frame')} per video, but this head has positions for {allowed}; "
            f"use fewer frames, or give the head more with positions=N"
        )


@dataclass(frozen=True)
class LayerOptions:
    """The options of a head that may have seqTransf's layers in front."""

    layers: int = 0  # Of seqTransf in front; 0 for none
    heads: int = 0  # Attention heads of these; 0 means D // 64
    positions: int = NUM_POSITIONS  # Largest number of frames, where there are layers

    def __post_init__(self) -> None:
        check_layers(self, fewest=0)


class SequenceHead(Head):
    """A head whose frames may pass the layers of `seqTransf` first, under the same names.

    y = x + blocks(x + positions); without layers y = x, and there are no parameters.

    Attributes:
        rest: How weights begin that no layers of CLIP's are copied into, in a phrase.
    """

    rest = ""

    def __init__(self, dim: int, options: Any) -> None:
        super().__init__(dim, options)
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
        self.placed_dropout = RowDropout(getattr(options, "dropout", 0.0))

    @classmethod
    def info_with(cls, options: Any) -> HeadInfo:
        """Returns `info`; the order of frames counts where there are layers."""
        return replace(cls.info, needs_order=options.layers > 0)

    def draw_weights(self) -> None:
        """Draws all weights, see `initialise_weights`."""
        self.apply(initialise_weights)

    def contextual_frames(self, videos: VideoBatch) -> Tensor:
        """Returns y (V, K, D), zero in padded places."""
        frames = masked_frames(videos)
        if not self.num_layers:
            return frames
        placed = self.placed_dropout(add_positions(frames, self.frame_position_embeddings))
        mixed = frames + self.transformerClip(placed, videos.mask)
        return torch.where(videos.mask[..., None], mixed, 0.0)

    def start_from(self, clip: DualEncoder) -> str:
        """Copies CLIP's first text layers and its positions where there are layers."""
        if not self.num_layers:
            return self.rest
        copied = copy_text_layers(self.frame_position_embeddings, self.transformerClip, clip)
        return ", ".join(filter(None, [copied, self.rest]))


class ShareMlp(nn.Sequential):
    """D -> D -> ReLU -> 1: the logits of shares among tokens."""

    def __init__(self, dim: int) -> None:
        super().__init__(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, 1))


def zeroed(layer: nn.Module) -> nn.Module:
    """Returns a layer whose outputs are zero, until it is trained."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def identity(dim: int) -> nn.Linear:
    """Returns a layer that changes nothing, until it is trained."""
    layer = nn.Linear(dim, dim)
    nn.init.eye_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def pooled_cosines(shares: Tensor, products: Tensor, gram: Tensor) -> Tensor:
    """Returns <t, v> / |v| (...) of v = sum over k of shares_k y_k, which is never formed.

    From shares and <t, y_k> (..., K), and <y_j, y_k> (..., K, K).
    """
    squares = torch.einsum("...j,...jk,...k->...", shares, gram, shares)
    return (shares * products).sum(dim=-1) / root(squares)


def root(squares: Tensor) -> Tensor:
    """Returns norms from their squares; those of nearly nothing are not 0."""
    return squares.clamp_min(_SMALLEST_NORM**2).sqrt()


def decorrelation(one: Tensor, other: Tensor, shares: Tensor) -> Tensor:
    """Returns the sum over channels of (C_d - 1)^2, a scalar.

    C_d is the correlation of channel d of two (B, T, D) over all B T rows, weighted by shares
    (B, T) that sum to 1 over T.
    """
    weights = (shares / len(shares))[..., None]  # sum to 1 over the batch
    first, second = _standardised(one, weights), _standardised(other, weights)
    correlation = (weights * first * second).sum(dim=(0, 1))
    return (correlation - 1).square().sum()


def _standardised(vectors: Tensor, weights: Tensor) -> Tensor:
    centred = vectors - (weights * vectors).sum(dim=(0, 1))
    variance = (weights * centred.square()).sum(dim=(0, 1))
    return centred * (variance + _SMALLEST_VARIANCE).rsqrt()
