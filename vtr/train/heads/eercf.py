"""The mean of the frames finds, and their sum weighted by likeness to the text decides.

    w_f = softmax over valid f of (<t^, x^_f> / tau)
    score = <t^, v / |v|>,   v = sum over f of w_f y^_f
    recall = <t^, m / |m|>,  m = mean over f of y^_f

x are the frames, y what seqTransf's layers make of them with their neighbours, ^ is a unit vector.
The gate has no parameters. `--rerank N` orders everything by the recall and the first N by the
score; without it the score decides everywhere. Training pulls on both, and `pearson` adds a term
that decorrelates channels: sum over d of (C_d - 1)^2, C_d the correlation of channel d between t^
and the video's vector over the batch, for both vectors.

12,648,960 parameters at D = 512 with four layers; with `layers=0` none, and y is x.
Source: EERCF, Tian et al., AAAI 2024, arXiv 2401.00701, frame level only. Recall, gate, sum and
`pearson` are those of the authors' code (adxcreative/EERCF@cf9bc23,
modeling_fineclip_patches_cdcl.py); as there no gradient flows through the gate's weights. Ours:
training gates each pair as when it is scored, where theirs gates a video by its own text alone;
both terms weigh the same (theirs: 0.8 and 0.2, the first with a sum of the frames' own cosines);
the correlation is divided by N, not N - 1; the first N are ordered by the score alone, where theirs
adds the recall and that sum. Its patches and its two learned matrices are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vtr.train.heads.base import (
    Code,
    HeadInfo,
    VideoBatch,
    check_option,
    masked_mean,
    normalise,
    score_in_chunks,
)
from vtr.train.heads.blocks import (
    LayerOptions,
    SequenceHead,
    decorrelation,
    pooled_cosines,
)


@dataclass(frozen=True)
class Options(LayerOptions):
    """What users may set."""

    layers: int = 4  # Of seqTransf; 0 for the frames as they are
    tau: float = 0.1  # Temperature of the gate, of cosines
    pearson: float = 1.4e-4  # Weight of the decorrelation term in the loss; 0 leaves it out

    def __post_init__(self) -> None:
        super().__post_init__()
        check_option(0.0001 <= self.tau <= 10000, "tau", self.tau, "0.0001 to 10000")
        check_option(0 <= self.pearson < torch.inf, "pearson", self.pearson, "0 (off) or more")


class TextGated(SequenceHead):
    """See the module.

    Codes of videos: their means (V, D), unit frames (V, K, D), unit frames in context (V, K, D),
    the inner products of these (V, K, K), and the mask (V, K).
    """

    info = HeadInfo(
        indexable=False,
        recalls=True,
        cost="2 K inner products; one to be found",
        source="EERCF, arXiv 2401.00701; adxcreative/EERCF@cf9bc23",
    )

    def encode_videos(self, videos: VideoBatch) -> Code:
        """Returns the five parts of the code."""
        mask = videos.mask
        frames = normalise(torch.where(mask[..., None], videos.frames, 0.0))
        context = normalise(self.contextual_frames(videos)) if self.num_layers else frames
        mean = normalise(masked_mean(context, mask))
        return mean, frames, context, context @ context.mT, mask

    def score(self, texts: Code, videos: Code) -> Tensor:
        """Returns (N, V) cosines, in chunks."""
        held = 4 * (videos[1].shape[1] + 1)
        return score_in_chunks(self._score, texts, videos, elements_per_pair=held)

    def training_terms(self, texts: Code, videos: Code) -> Sequence[tuple[float, Tensor]]:
        """Returns recall and score, each with half the weight."""
        return [(0.5, texts[0] @ videos[0].T), (0.5, self.score(texts, videos))]

    def regulariser(self, texts: Code, videos: Code) -> Tensor | None:
        """Returns the decorrelation term of matching rows, weight included, or None if off."""
        if not self.options.pearson:
            return None
        (text,), (mean, frames, context, _, mask) = texts, videos
        shares = self._gate(torch.einsum("bd,bkd->bk", text, frames), mask)
        gated = normalise(torch.einsum("bk,bkd->bd", shares, context))
        one = torch.ones_like(text[:, :1])
        terms = [decorrelation(text[:, None], part[:, None], one) for part in (mean, gated)]
        weight: float = self.options.pearson
        return weight * (terms[0] + terms[1])

    def _gate(self, cosines: Tensor, mask: Tensor) -> Tensor:
        tau: float = self.options.tau
        return (cosines.detach() / tau).masked_fill(~mask, -torch.inf).softmax(dim=-1)

    def _score(self, texts: Code, videos: Code) -> Tensor:
        (text,), (_, frames, context, gram, mask) = texts, videos
        shares = self._gate(torch.einsum("nd,vkd->nvk", text, frames), mask)
        return pooled_cosines(shares, torch.einsum("nd,vkd->nvk", text, context), gram)
