"""Every word looks for its best frame, once among frames and once among frames in their context.

    MMS(h, z) = mean over valid w of max over valid f of <h_w / |h_w|, z_f / |z_f|>
    score = (MMS(h, x) + MMS(h, y)) / 2

x are the frames, y what seqTransf's layers make of them with their neighbours, h the token
embeddings, start and end token included. Training pulls on both parts. The paper adds the two
instead of taking their mean, which the logit scale makes the same.

12,648,960 parameters at D = 512 with four layers; with `layers=0` none, and y is x.
Source: Video-ColBERT, arXiv 2503.19009 (MeanMaxSim on frames and on temporally encoded frames);
implemented from the formula, without its learned extra tokens. Its loss on both parts is
`--loss sigmoid`, with one scale and bias for the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vtr.train.heads.base import (
    Code,
    HeadInfo,
    TextBatch,
    VideoBatch,
    normalise,
    score_in_chunks,
    valid_tokens,
)
from vtr.train.heads.blocks import LayerOptions, SequenceHead


@dataclass(frozen=True)
class Options(LayerOptions):
    """What users may set."""

    layers: int = 4  # Of seqTransf; 0 compares with the frames alone


class MeanMaxSim(SequenceHead):
    """See the module.

    Codes: unit tokens (N, W, D) and mask (N, W); unit frames (V, K, D), unit frames in context
    (V, K, D) and mask (V, K).
    """

    info = HeadInfo(
        needs_tokens=True,
        indexable=False,
        cost="2 W K inner products (W words, K frames)",
        source="Video-ColBERT (MeanMaxSim), arXiv 2503.19009 (formula)",
    )

    def encode_texts(self, texts: TextBatch) -> Code:
        """Returns unit tokens (N, W, D), zero in padded places, and their mask (N, W)."""
        tokens, mask = valid_tokens(texts)
        return normalise(tokens), mask

    def encode_videos(self, videos: VideoBatch) -> Code:
        """Returns unit frames, the same in context, (V, K, D) each, and the mask (V, K)."""
        mask = videos.mask
        frames = torch.where(mask[..., None], videos.frames, 0.0)
        context = self.contextual_frames(videos) if self.num_layers else frames
        return normalise(frames), normalise(context), mask

    def score(self, texts: Code, videos: Code) -> Tensor:
        """Returns (N, V) scores, in chunks of at most some ten million word-frame cosines."""
        cosines = 2 * texts[0].shape[1] * videos[0].shape[1]
        return score_in_chunks(_both, texts, videos, elements_per_pair=cosines)

    def training_terms(self, texts: Code, videos: Code) -> Sequence[tuple[float, Tensor]]:
        """Returns the two parts, each with half the weight; one where both are the same."""
        if not self.num_layers:
            return [(1.0, self.score(texts, videos))]
        frames, context, mask = videos
        return [(0.5, mean_max_sim(texts, (part, mask))) for part in (frames, context)]


def mean_max_sim(texts: Code, videos: Code) -> Tensor:
    """(N, V) mean over valid words of the largest cosine with a valid frame."""
    (tokens, word_mask), (frames, frame_mask) = texts, videos
    cosines = torch.einsum("nwd,vkd->nvwk", tokens, frames)
    best = cosines.masked_fill(~frame_mask[None, :, None], -torch.inf).amax(dim=3)
    shares = word_mask / word_mask.sum(dim=1, keepdim=True)
    return torch.einsum("nvw,nw->nv", best, shares.to(best.dtype))


def _both(texts: Code, videos: Code) -> Tensor:
    frames, context, mask = videos
    return (mean_max_sim(texts, (frames, mask)) + mean_max_sim(texts, (context, mask))) / 2
