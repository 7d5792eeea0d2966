"""Frames with their differences between them, plus centres that words and frames share.

Two similarities, mixed: score = w <t, v> + (1 - w) <g_t, g_v>, all four unit vectors.

Temporal Difference Block, over frames x_0 .. x_(L-1):

    d_i = x_(i+1) - x_i                        for the tokens x_0, d_0, x_1, d_1, ..., x_(L-1)
    none:       d_i as it is
    mlp:        d_i <- 2 sigmoid(LN(P d_i)) - 1
    attention:  d <- 2 sigmoid(LN(block(d + position of the right frame))) - 1
    token + position (of the left frame, for differences) + type

v is the normalised mean over frames of normalise(transformer(tokens) + x).

Temporal Alignment Block, the same for words (without the start token) and for frames (all of them,
and one block's view of every second one); centres c_k and offsets e_k are shared:

    a_tk = softmax over k of <y_t, c_k>,    r_k = sum over t of a_tk (y_t - e_k)
    g = normalise(mean over k of normalise(r_k))

**Videos shorter than the budget.** The reference pads videos to `max_frames` with what the tower
makes of a black picture, and lets the difference between the last frame and that padding count.
Whether a video has this last token hangs on the budget, never on the batch: with `pad_to=N` a video
of fewer than N frames has it, one of N frames has not, and more are refused (the reference with
--max_frames N; the presets set 12). With `pad_to=0`, the default, no video has it: a difference
counts where both of its frames do, and padding is never read.

18.96 M parameters at D = 512 as released (transformer 12.65, differences 3.15, alignment 3.16).
The reference mixes up the masks of a batch (its attention masks repeat in the wrong order); here
every video has its own, which is what the reference computes for one video at a time.
Source: CLIP2Video, CryhanFang/CLIP2Video@e941318.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from vtr.clip.encoders import DualEncoder
from vtr.errors import ConfigError
from vtr.train.heads.base import (
    Code,
    Head,
    HeadInfo,
    TextBatch,
    VideoBatch,
    check_option,
    masked_frames,
    masked_mean,
    normalise,
    valid_tokens,
)
from vtr.train.heads.blocks import (
    NUM_POSITIONS,
    Transformer,
    add_positions,
    check_layers,
    check_positions,
    choose_num_heads,
    copy_blocks,
    copy_rows,
    copy_text_layers,
    initialise_weights,
)

_CENTRE_STD = 0.125
_FRAME_TYPE, _DIFFERENCE_TYPE = 1, 0
_ALLOWED = {
    "sim": ("meanP", "seqTransf"),
    "temporal": ("off", "tdb"),
    "projection": ("none", "mlp", "attention"),
    "alignment": ("off", "plain", "tab", "tab-tdb"),
}


@dataclass(frozen=True)
class Options:
    """What users may set; the defaults are the released model's, but for `pad_to`."""

    # The global branch: `meanP` pools the frames as they are, `seqTransf` runs layers.
    sim: str = "seqTransf"
    temporal: str = "tdb"  # `tdb` puts differences between the frames of seqTransf; `off` does not
    projection: str = "attention"  # What happens to differences first: `none`, `mlp` or `attention`
    # The shared centres: `off`; `plain` over the frames alone; `tab` adds one block over every
    # second frame; `tab-tdb` the same with differences between those.
    alignment: str = "tab-tdb"
    centres: int = 5  # Number of centres
    weight: float = 0.5  # w, the global branch's part of the score, 0 to 1
    layers: int = 4  # Of the global branch's transformer
    heads: int = 0  # Attention heads; 0 means D // 64
    positions: int = NUM_POSITIONS  # Largest number of frames
    pad_to: int = 0  # The reference's --max_frames, for its treatment of shorter videos; 0 for none

    def __post_init__(self) -> None:
        for name, allowed in _ALLOWED.items():
            value = getattr(self, name)
            check_option(value in allowed, name, value, ", ".join(allowed))
        check_option(self.centres >= 1, "centres", self.centres, "1 or more")
        check_option(0 <= self.weight <= 1, "weight", self.weight, "0 to 1")
        check_layers(self)
        check_option(
            0 <= self.pad_to <= self.positions, "pad_to", self.pad_to, f"0 to {self.positions}"
        )

    @property
    def aligned(self) -> bool:
        """Whether there is an alignment block."""
        return self.alignment != "off"

    @property
    def attends(self) -> bool:
        """Whether the alignment block adds a view of every second frame."""
        return self.alignment in ("tab", "tab-tdb")

    @property
    def sequenced(self) -> bool:
        """Whether the global branch has layers."""
        return self.sim == "seqTransf"

    @property
    def differs(self) -> bool:
        """Whether differences are used at all."""
        return (self.sequenced and self.temporal == "tdb") or self.alignment == "tab-tdb"

    @property
    def parts(self) -> tuple[float, float]:
        """What the global branch and the alignment have in the score."""
        return self.weight, 1 - self.weight


PRESETS: Mapping[str, Options] = {
    "msrvtt-9k": Options(pad_to=12),
    "msrvtt-full": Options(pad_to=12),
    "msvd": Options(pad_to=12),
    "vatex": Options(pad_to=12, centres=7),
}
"""The settings of the released scripts."""


class Clip2Video(Head):
    """See the module; parameters are named as in the reference."""

    @classmethod
    def info_with(cls, options: Options) -> HeadInfo:
        """Returns what a head of these options needs and offers."""
        return HeadInfo(
            needs_tokens=options.aligned,
            needs_order=options.sequenced or options.attends,
            needs_pad=options.differs and options.pad_to > 0,
            cost="one inner product (2 D)" if options.aligned else "one inner product",
            source="CLIP2Video, CryhanFang/CLIP2Video@e941318",
        )

    def __init__(self, dim: int, options: Options) -> None:
        super().__init__(dim, options)
        heads = choose_num_heads(dim, options.heads)
        self.trans_layernorm = nn.LayerNorm(dim)  # eps 1e-5; the reference always has it
        if options.sequenced or options.attends:
            self.frame_position_embeddings = nn.Embedding(options.positions, dim)
        if options.sequenced:
            self.transformerClip = Transformer(dim, num_layers=options.layers, num_heads=heads)
        if options.differs:
            self.type_position_embeddings = nn.Embedding(2, dim)
        if options.differs and options.projection == "attention":
            self.frame2t_attention = Transformer(dim, num_layers=1, num_heads=heads)
        if options.differs and options.projection == "mlp":
            self.frame2t_projection = nn.Parameter(torch.randn(dim, dim) * dim**-0.5)
        if options.aligned:
            self.weight_center = nn.Parameter(torch.randn(options.centres, dim) * _CENTRE_STD)
            self.emb_center = nn.Parameter(torch.randn(options.centres, dim) * _CENTRE_STD)
        if options.attends:
            self.actionClip = Transformer(dim, num_layers=1, num_heads=heads)

    def draw_weights(self) -> None:
        """Draws all weights, see `initialise_weights`."""
        self.apply(initialise_weights)

    def start_from(self, clip: DualEncoder) -> str:
        """Copies what the reference copies from CLIP, with `sim=seqTransf` alone."""
        options = self.options
        if not options.sequenced:
            return "random weights: the reference takes CLIP's text layers for sim=seqTransf alone"
        copied = copy_text_layers(self.frame_position_embeddings, self.transformerClip, clip)
        if options.differs:
            copy_rows(self.type_position_embeddings, clip.text.positions)
        if options.differs and options.projection == "attention":
            copy_blocks(self.frame2t_attention, clip.text.blocks)
        if options.differs and options.projection == "mlp":
            # The leading D rows of the tower's projection, where there are as many.
            rows = clip.visual.get_parameter("projection.weight").T[: len(self.frame2t_projection)]
            if rows.shape == self.frame2t_projection.shape:
                self.frame2t_projection.data.copy_(rows)
        if options.attends:
            copy_blocks(self.actionClip, clip.text.blocks)
        return copied

    def encode_texts(self, texts: TextBatch) -> Code:
        """Returns one unit vector per text: (N, 2 D) with alignment, (N, D) without."""
        pooled = normalise(texts.pooled)
        if not self.options.aligned:
            return (pooled,)
        tokens, mask = valid_tokens(texts)
        # The start token is the same in every text: the reference leaves it out.
        words = torch.cat([torch.zeros_like(mask[:, :1]), mask[:, 1:]], dim=1)
        return (self._join(pooled, self.aggregate(tokens, words)),)

    def encode_videos(self, videos: VideoBatch) -> Code:
        """Returns one unit vector per video: (V, 2 D) with alignment, (V, D) without."""
        frames, mask = self._fill(videos)
        pooled = self._pool(frames, mask)
        if not self.options.aligned:
            return (pooled,)
        tokens, token_mask = self.alignment_tokens(frames, mask)
        return (self._join(pooled, self.aggregate(tokens, token_mask)),)

    def training_terms(self, texts: Code, videos: Code) -> Sequence[tuple[float, Tensor]]:
        """Returns (w, global scores) and (1 - w, alignment scores): their losses are mixed."""
        if not self.options.aligned:
            return super().training_terms(texts, videos)
        (text,), (video,) = texts, videos
        halves = zip(text.chunk(2, dim=-1), video.chunk(2, dim=-1), strict=True)
        return [
            (part, rows @ columns.T / part)
            for part, (rows, columns) in zip(self.options.parts, halves, strict=True)
            if part > 0
        ]

    def alignment_tokens(self, frames: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Returns what the centres gather of a video: tokens (V, T, D), their mask (V, T)."""
        if not self.options.attends:
            return frames, mask
        half, half_mask = frames[:, ::2], mask[:, ::2]
        count = half.shape[1]
        if self.options.alignment == "tab":
            seen = self.actionClip(add_positions(half, self.frame_position_embeddings), half_mask)
        else:
            tokens, token_mask = self.difference_tokens(half, half_mask)
            seen = self.actionClip(tokens, token_mask, num_outputs=count)
        return torch.cat([frames, seen + half], dim=1), torch.cat([mask, half_mask], dim=1)

    def aggregate(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Returns one aligned unit vector (B, D) per sequence of tokens (B, T, D)."""
        shares = (tokens @ self.weight_center.T).softmax(dim=-1) * mask[..., None]
        gathered = torch.einsum("btk,btd->bkd", shares, tokens)
        residuals = gathered - shares.sum(dim=1)[..., None] * self.emb_center
        return normalise(normalise(residuals).mean(dim=1))

    def difference_tokens(self, frames: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Returns all L frames, then all differences, with position and type added, and their mask.

        That is (V, 2L - 1, D) and (V, 2L - 1) bool. With `pad_to` padded frames hold the tower's
        output for padding: then the difference between the last frame and padding counts as well.
        """
        count = frames.shape[1]
        positions = self.frame_position_embeddings.weight[:count]
        types = self.type_position_embeddings.weight
        tokens = frames + positions + types[_FRAME_TYPE]
        if count == 1:
            return tokens, mask
        differences = self._project(frames[:, 1:] - frames[:, :-1], mask[:, 1:])
        differences = differences + positions[:-1] + types[_DIFFERENCE_TYPE]
        difference_mask = mask[:, :-1] if self.info.needs_pad else mask[:, 1:]
        # Positions are added already, so their order does not matter to attention; frames first
        # lets the last layer skip the differences.
        return torch.cat([tokens, differences], 1), torch.cat([mask, difference_mask], 1)

    def _project(self, differences: Tensor, right_mask: Tensor) -> Tensor:
        if self.options.projection == "none":
            return differences
        if self.options.projection == "mlp":
            mixed = differences @ self.frame2t_projection
        else:
            positions = self.frame_position_embeddings.weight[1 : differences.shape[1] + 1]
            mixed = self.frame2t_attention(differences + positions, right_mask)
        return torch.tanh(self.trans_layernorm(mixed) / 2)  # = 2 sigmoid(z) - 1

    def _pool(self, frames: Tensor, mask: Tensor) -> Tensor:
        mixed = frames
        if self.options.sequenced and self.options.temporal == "tdb":
            tokens, token_mask = self.difference_tokens(frames, mask)
            mixed = frames + self.transformerClip(tokens, token_mask, num_outputs=frames.shape[1])
        elif self.options.sequenced:
            placed = add_positions(frames, self.frame_position_embeddings)
            mixed = frames + self.transformerClip(placed, mask)
        return normalise(masked_mean(normalise(mixed), mask))

    def _fill(self, videos: VideoBatch) -> tuple[Tensor, Tensor]:
        """(V, K', D) frames, finite everywhere, and their mask."""
        if self.info.needs_order:
            check_positions(videos.mask.shape[1], len(self.frame_position_embeddings.weight))
        if not self.info.needs_pad:
            return masked_frames(videos), videos.mask
        budget = self.options.pad_to
        if videos.pad is None:
            raise ConfigError(
                f"pad_to={budget} reads what the backbone makes of padding, but these features "
                "come without it (pad_embedding of a store). Set pad_to=0, or extract again"
            )
        if videos.mask[:, budget:].any():
            raise ConfigError(
                f"a video has {int(videos.mask.sum(1).max())} frames, but this head pads to "
                f"pad_to={budget}; take --frames {budget} or fewer, or set pad_to to the budget"
            )
        # Up to the budget exactly: the differences of a video of one frame attend to padding
        # alone, so the amount of it matters.
        missing = max(budget - videos.mask.shape[1], 0)
        mask = functional.pad(videos.mask[:, :budget], (0, missing))
        frames = functional.pad(videos.frames[:, :budget], (0, 0, 0, missing))
        return torch.where(mask[..., None], frames, videos.pad), mask

    def _join(self, pooled: Tensor, aligned: Tensor) -> Tensor:
        """Both branches as one unit vector, whose inner products are the mixed similarities."""
        of_global, of_aligned = map(math.sqrt, self.options.parts)
        return torch.cat([of_global * pooled, of_aligned * aligned], dim=-1)
