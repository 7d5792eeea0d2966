"""Every word finds its best frame and every frame its best word, weighted by learned shares.

    A_wf = <h_w, x_f> of unit vectors
    p = softmax over valid w of MLP_t(h),  q = softmax over valid f of MLP_v(x)
    score = (sum over w of p_w max over f of A_wf + sum over f of q_f max over w of A_wf) / 2

MLP = linear, ReLU, linear to 1, fed vectors that are not normalised. The last layers start at zero:
p and q are then uniform, which is the untrained form (token interaction, TI). x are the frames,
after seqTransf's layers with `layers=4`; h the token embeddings, start and end token included.
Padding takes no part in any sum or maximum.

The reference multiplies A by the masks, so that a padded 0 wins a maximum where all real cosines
are negative; `masking=zero` does that too, and then a score depends on how far the batch is padded.

`cdcr` adds to the loss a term that decorrelates channels: for each word of a matching pair and its
best frame, C_d is the correlation of channel d between the two, over all words of the batch, each
weighted by p; the term is cdcr * cdcr_alpha * sum over d of (C_d - 1)^2, averaged with the same for
each frame and its best word, weighted by q.

0.53 M parameters at D = 512, 13.18 M with four layers.
Source: DRL (foolwood/DRL), Apache-2.0; implemented from the formula.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vtr.train.heads.base import (
    Code,
    HeadInfo,
    TextBatch,
    VideoBatch,
    check_option,
    normalise,
    score_in_chunks,
    select_code,
    valid_tokens,
)
from vtr.train.heads.blocks import (
    LayerOptions,
    SequenceHead,
    ShareMlp,
    decorrelation,
)

_MASKINGS = ("inf", "zero")


@dataclass(frozen=True)
class Options(LayerOptions):
    """What users may set."""

    masking: str = "inf"  # `inf` keeps padding out of every maximum, `zero` is the reference's
    cdcr: float = 1e-3  # Weight of the decorrelation term in the loss; 0 leaves it out
    # Weight of the diagonal within it; the reference has 0.11 to 0.14 by dataset.
    cdcr_alpha: float = 0.11

    def __post_init__(self) -> None:
        super().__post_init__()
        check_option(self.masking in _MASKINGS, "masking", self.masking, ", ".join(_MASKINGS))
        check_option(self.cdcr >= 0, "cdcr", self.cdcr, "0 (off) or more")
        check_option(self.cdcr_alpha >= 0, "cdcr_alpha", self.cdcr_alpha, "0 (off) or more")


PRESETS: Mapping[str, Options] = {"drl": Options(layers=4)}


class WeightedTokenInteraction(SequenceHead):
    """See the module.

    Codes: unit tokens (N, W, D), zero in padded places, their shares (N, W) and mask (N, W); the
    same of the frames.
    """

    info = HeadInfo(
        needs_tokens=True,
        indexable=False,
        cost="W K inner products (W words, K frames)",
        source="DRL (WTI), foolwood/DRL, Apache-2.0 (formula)",
    )
    rest = "uniform weights"

    def __init__(self, dim: int, options: Options) -> None:
        super().__init__(dim, options)
        self.text_weight_fc = ShareMlp(dim)
        self.video_weight_fc = ShareMlp(dim)

    def encode_texts(self, texts: TextBatch) -> Code:
        """Returns tokens (N, W, D), shares (N, W) and mask (N, W)."""
        tokens, mask = valid_tokens(texts)
        return normalise(tokens), _shares(self.text_weight_fc, tokens, mask), mask

    def encode_videos(self, videos: VideoBatch) -> Code:
        """Returns frames (V, K, D), shares (V, K) and mask (V, K)."""
        frames, mask = self.contextual_frames(videos), videos.mask
        return normalise(frames), _shares(self.video_weight_fc, frames, mask), mask

    def score(self, texts: Code, videos: Code) -> Tensor:
        """Returns (N, V) scores, in chunks of at most some ten million word-frame cosines."""
        cosines = texts[0].shape[1] * videos[0].shape[1]
        if self.options.masking == "zero":
            return score_in_chunks(_score, texts, videos, elements_per_pair=cosines)
        texts, videos = _without_gaps(texts), _without_gaps(videos)
        if torch.is_grad_enabled():
            return score_in_chunks(_score, texts, videos, elements_per_pair=cosines)

        def trimmed(texts: Code, videos: Code) -> Tensor:
            width = int(texts[2].sum(dim=1).max())
            return _score(tuple(part[:, :width] for part in texts), videos)

        # Texts of like length share a chunk, which then needs no more columns than the longest.
        order = texts[2].sum(dim=1).argsort()
        sorted_texts = select_code(texts, order)
        scores = score_in_chunks(trimmed, sorted_texts, videos, elements_per_pair=cosines)
        return scores[order.argsort()]

    def regulariser(self, texts: Code, videos: Code) -> Tensor | None:
        """Returns the decorrelation term of matching rows, weights included, or None if off."""
        weight: float = self.options.cdcr * self.options.cdcr_alpha
        if not weight:
            return None
        (tokens, word_shares, word_mask), (frames, frame_shares, frame_mask) = texts, videos
        cosines = tokens @ frames.mT
        best_frame = cosines.masked_fill(~frame_mask[:, None], -torch.inf).argmax(dim=2)
        best_word = cosines.masked_fill(~word_mask[..., None], -torch.inf).argmax(dim=1)
        of_words = decorrelation(tokens, _pick(frames, best_frame), word_shares)
        of_frames = decorrelation(frames, _pick(tokens, best_word), frame_shares)
        return weight * (of_words + of_frames) / 2


def _shares(mlp: nn.Sequential, vectors: Tensor, mask: Tensor) -> Tensor:
    logits: Tensor = mlp(vectors)[..., 0]
    return logits.masked_fill(~mask, -torch.inf).softmax(dim=-1)


def _without_gaps(code: Code) -> Code:
    """Puts copies of the first vector into padded places: no maximum can tell."""
    vectors, shares, mask = code
    return torch.where(mask[..., None], vectors, vectors[:, :1]), shares, mask


def _score(texts: Code, videos: Code) -> Tensor:
    """(N, V) scores of one chunk."""
    (tokens, word_shares, _), (frames, frame_shares, _) = texts, videos
    cosines = (tokens.flatten(0, 1) @ frames.flatten(0, 1).T).view(
        *word_shares.shape, *frame_shares.shape
    )
    of_words = torch.einsum("nwv,nw->nv", cosines.amax(dim=3), word_shares)
    of_frames = torch.einsum("nvk,vk->nv", cosines.amax(dim=1), frame_shares)
    return (of_words + of_frames) / 2


def _pick(vectors: Tensor, index: Tensor) -> Tensor:
    """Row b, place i: vectors[b, index[b, i]]."""
    return vectors.gather(1, index[..., None].expand(-1, -1, vectors.shape[-1]))
