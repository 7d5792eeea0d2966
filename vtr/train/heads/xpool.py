"""Each text attends to the frames and is compared with what it gathered.

    t' = LN1(t),  x' = LN1(x)
    a_f = softmax over valid f of <Wq t', Wk x'_f> / sqrt(D)
    o = LN2(Wo sum over f of a_f Wv x'_f)
    score = <normalise(t), normalise(LN3(o + dropout(W o)))>

All square matrices start as the identity and all biases as 0: untrained, the head is a mean over
the frames weighted by their likeness to the text. Bounds the reference lacks: a frame mask.

1.32 M parameters at D = 512. Each pair of text and video has a vector of its own, but scoring never
makes it: everything behind the softmax is affine in a but for the two norms, and those need only
inner products of a video's own frames (K x K). A pair costs 2 K D + O(K^2) multiplications instead
of 2 K D + D^2, and chunks bound the memory. Training with dropout computes the vectors.
Source: X-Pool (layer6ai-labs/xpool), implemented from the formula.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from vtr.train.heads.base import (
    Code,
    Head,
    HeadInfo,
    TextBatch,
    VideoBatch,
    check_option,
    masked_frames,
    normalise,
    score_in_chunks,
)
from vtr.train.heads.blocks import identity


@dataclass(frozen=True)
class Options:
    """What users may set."""

    # On the linear branch, in training; 0 to below 1. X-Pool: 0.3 for MSR-VTT 9k.
    dropout: float = 0.3

    def __post_init__(self) -> None:
        check_option(0 <= self.dropout < 1, "dropout", self.dropout, "0 to below 1")


class XPool(Head):
    """See the module.

    Codes: texts (query (N, D), unit text (N, D)); videos (keys (V, K, D), values (V, K, D) without
    their mean over D, mixed values (V, K, D), mask (V, K)).
    """

    info = HeadInfo(
        indexable=False,
        cost="attention over K frames: 2 K D + O(K^2)",
        source="X-Pool, layer6ai-labs/xpool (formula)",
    )

    def __init__(self, dim: int, options: Options) -> None:
        super().__init__(dim, options)
        names = ("q_proj", "k_proj", "v_proj", "out_proj")
        self.cross_attn = nn.ModuleDict({name: identity(dim) for name in names})
        self.layer_norm1 = nn.LayerNorm(dim)
        self.layer_norm2 = nn.LayerNorm(dim)
        self.layer_norm3 = nn.LayerNorm(dim)
        self.linear_proj = identity(dim)
        self.dropout = nn.Dropout(options.dropout)

    def encode_texts(self, texts: TextBatch) -> Code:
        """Returns queries and unit texts, (N, D) each."""
        query = self.cross_attn["q_proj"](self.layer_norm1(texts.pooled))
        return query / math.sqrt(query.shape[-1]), normalise(texts.pooled)

    def encode_videos(self, videos: VideoBatch) -> Code:
        """Returns keys, values, mixed values (V, K, D) each, and the mask (V, K)."""
        frames = self.layer_norm1(masked_frames(videos))
        values = _centred(self.cross_attn["out_proj"](self.cross_attn["v_proj"](frames)))
        scaled = values * self.layer_norm2.weight
        mixed = _centred(scaled + functional.linear(scaled, self.linear_proj.weight))
        keep = videos.mask[..., None]
        keys = self.cross_attn["k_proj"](frames)
        return *(torch.where(keep, part, 0.0) for part in (keys, values, mixed)), videos.mask

    def score(self, texts: Code, videos: Code) -> Tensor:
        """Returns (N, V) cosines, in chunks; no vector per pair is made unless dropout asks."""
        if self.training and self.dropout.p > 0:
            return self.score_by_vectors(texts, videos)
        held = 4 * (videos[0].shape[1] + 1)  # four arrays of one number per frame and pair
        return score_in_chunks(self._score_chunk, texts, videos, elements_per_pair=held)

    def score_by_vectors(self, texts: Code, videos: Code) -> Tensor:
        """Returns the same as `score` by the plain formula, with dropout; makes (N, V, D)."""
        (query, text), (keys, values, _, mask) = texts, videos
        pooled = torch.einsum("vkn,vkd->nvd", _attention(query, keys, mask), values)
        pooled = self.layer_norm2(pooled)
        pooled = self.layer_norm3(pooled + self.dropout(self.linear_proj(pooled)))
        return torch.einsum("nd,nvd->nv", text, normalise(pooled))

    def _score_chunk(self, texts: Code, videos: Code) -> Tensor:
        """The formula without vectors per pair; see the module.

        With r2, r3 the reciprocal deviations in LN2 and LN3, and b = r2 a beside a constant 1:
        LN3's input without its mean is b E, where E stacks a constant row and the mixed values.
        """
        (query, text), (keys, values, mixed, mask) = texts, videos
        dim = query.shape[-1]
        attention = _attention(query, keys, mask)  # (V, K, N)
        spread = _quadratic(values @ values.mT, attention) / dim
        shares = attention * (spread + self.layer_norm2.eps).rsqrt()[:, None]
        ones = torch.ones_like(shares[:, :1])
        shares = torch.cat([ones, shares], dim=1)  # (V, 1 + K, N)
        constant = self.linear_proj(self.layer_norm2.bias) + self.layer_norm2.bias
        rows = torch.cat([_centred(constant).expand(len(keys), 1, dim), mixed], dim=1)
        spread = _quadratic(rows @ rows.mT, shares) / dim
        shares = shares * (spread + self.layer_norm3.eps).rsqrt()[:, None]
        rows = rows * self.layer_norm3.weight
        # LN3's bias is one more row, with the share 1: the result is shares . rows + bias.
        bias = self.layer_norm3.bias
        products = (shares * (rows.flatten(0, 1) @ text.T).view_as(shares)).sum(1) + text @ bias
        squares = _quadratic(rows @ rows.mT, shares) + bias @ bias
        squares = squares + 2 * torch.einsum("vkn,vk->vn", shares, rows @ bias)
        return (products * squares.clamp_min(torch.finfo(squares.dtype).tiny).rsqrt()).T


def _centred(vectors: Tensor) -> Tensor:
    return vectors - vectors.mean(dim=-1, keepdim=True)


def _attention(query: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
    """(V, K, N) weights that sum to 1 over the valid frames."""
    logits = (keys.flatten(0, 1) @ query.T).view(*keys.shape[:2], len(query))
    return logits.masked_fill(~mask[..., None], -torch.inf).softmax(dim=1)


def _quadratic(gram: Tensor, shares: Tensor) -> Tensor:
    """(V, N) squared lengths of sums of rows: shares (V, K, N), Gram matrices (V, K, K)."""
    return ((gram @ shares) * shares).sum(dim=1)
