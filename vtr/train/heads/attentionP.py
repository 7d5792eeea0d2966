"""Mean of the frames weighted by their similarity to the text.

    a_k = softmax over valid k of (<t^, f^_k> / tau),  v = sum a_k f_k,  score = <t^, v / |v|>

No parameters. Known as query scoring (Bain et al., arXiv 2205.08508). tau towards 0 is the best
frame, a large tau the mean of the raw frames. It works without training as well as in the training
loss. v itself is never formed: <t^, v> and |v|^2 follow from the inner products of the frames, so a
pair costs K inner products.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vtr.train.heads.base import (
    Code,
    Head,
    HeadInfo,
    VideoBatch,
    check_option,
    masked_frames,
    split_pairs,
)
from vtr.train.heads.blocks import pooled_cosines, root

_PAIRS_AT_ONCE = 1 << 13


@dataclass(frozen=True)
class Options:
    """What users may set."""

    tau: float = 0.1  # Temperature of the softmax over frames, of cosines

    def __post_init__(self) -> None:
        check_option(0.0001 <= self.tau <= 10000, "tau", self.tau, "0.0001 to 10000")


class AttentionPooling(Head):
    """See the module."""

    info = HeadInfo(
        indexable=False,
        cost="K inner products",
        source="query scoring, Bain et al., A CLIP-Hitchhiker's Guide, arXiv 2205.08508",
    )

    def encode_videos(self, videos: VideoBatch) -> Code:
        """Returns frames (V, K, D), their inner products (V, K, K) and the mask (V, K) bool."""
        frames = masked_frames(videos)
        return frames, frames @ frames.mT, videos.mask

    def score(self, texts: Code, videos: Code) -> Tensor:
        """Returns (N, V) cosines."""
        frames, gram, mask = videos
        products = torch.einsum("nd,vkd->nvk", texts[0], frames)
        return self._pool(products, gram, mask)

    def score_pairs(
        self, texts: Code, videos: Code, text_index: Tensor, video_index: Tensor
    ) -> Tensor:
        """Returns (P,) cosines of chosen pairs, see `Head.score_pairs`."""
        frames, gram, mask = videos
        scores = [texts[0].new_zeros(0)]
        for rows, columns in split_pairs(text_index, video_index, _PAIRS_AT_ONCE):
            products = torch.einsum("pd,pkd->pk", texts[0][rows], frames[columns])
            scores.append(self._pool(products, gram[columns], mask[columns]))
        return torch.cat(scores)

    def _pool(self, products: Tensor, gram: Tensor, mask: Tensor) -> Tensor:
        """From <t^, f_k> (..., K), <f_j, f_k> and the mask to the score (...)."""
        norms = root(gram.diagonal(dim1=-2, dim2=-1))
        logits = (products / (norms * self.options.tau)).masked_fill(~mask, -torch.inf)
        return pooled_cosines(logits.softmax(dim=-1), products, gram)
