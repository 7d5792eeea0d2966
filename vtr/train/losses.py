"""Symmetric InfoNCE with several right answers per row and hard negatives.

For a matrix S (N texts x V videos, logits, float32) and the set P of right pairs, text i's loss is

    l(i) = mean over its right videos j of  log(1 + sum over its wrong videos k of e^(S_ik - S_ij))

and t2v is the mean of l over the texts, v2t the same on the transpose, the loss their mean. A right
answer never stands in the denominator of another one. Where each row has one right answer this is
the cross entropy of the diagonal, CLIP4Clip's loss (ArrowLuo/CLIP4Clip@508ffa3, until_module.py,
CrossEn). With hard negatives the sum runs over the k largest wrong entries of the row only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from vtr.train.presets import LossOptions

# Far below every logit (at most a few hundred), and its exponential is 0, but differences of two
# such numbers are not NaN, as they would be with -inf in a row that has no wrong answer.
_ABSENT = -1e9


@dataclass(frozen=True)
class Loss:
    """A loss and its halves, scalars."""

    total: Tensor  # Mean of the halves
    t2v: Tensor  # Texts looking for videos
    v2t: Tensor  # Videos looking for texts


def right_pairs(text_owner: Tensor, video_owner: Tensor, *, reference: bool = False) -> Tensor:
    """Returns (N, V) bool, True where the text describes the video; for `reference` the diagonal.

    `text_owner` (N,) and `video_owner` (V,) number the videos in any way.
    """
    if reference:
        return torch.eye(
            len(text_owner), len(video_owner), dtype=torch.bool, device=text_owner.device
        )
    return text_owner[:, None] == video_owner[None, :]


def contrastive_loss(logits: Tensor, right: Tensor, *, hard_negatives: int = 0) -> Loss:
    """Returns the symmetric loss of one matrix of logits (N, V), in float32; see the module.

    Each row and column of `right` (N, V) has a True; 0 hard negatives count all wrong answers.
    """
    scores = logits.float()
    texts, videos = right.nonzero(as_tuple=True)
    own = scores[texts, videos]
    wrong = scores.masked_fill(right, _ABSENT)
    t2v = _one_way(own, texts, wrong, hard_negatives)
    v2t = _one_way(own, videos, wrong.T, hard_negatives)
    return Loss((t2v + v2t) / 2, t2v, v2t)


def weighted_loss(
    terms: Sequence[tuple[float, Tensor]], right: Tensor, options: LossOptions
) -> Loss:
    """Returns the weighted sum of the losses of several matrices of the same pairs."""
    losses = [
        (weight, contrastive_loss(logits, right, hard_negatives=options.hard_negatives))
        for weight, logits in terms
    ]
    t2v = torch.stack([weight * loss.t2v for weight, loss in losses]).sum()
    v2t = torch.stack([weight * loss.v2t for weight, loss in losses]).sum()
    return Loss((t2v + v2t) / 2, t2v, v2t)


def _one_way(own: Tensor, rows: Tensor, wrong: Tensor, hard_negatives: int) -> Tensor:
    """Returns the mean over rows of the mean over each row's right answers `own` (P,)."""
    if 0 < hard_negatives < wrong.shape[1]:
        wrong = wrong.topk(hard_negatives, dim=1, sorted=False).values
    # log(1 + e^(c - s)) for every right answer s, c being all that speaks against it.
    each = functional.softplus(wrong.logsumexp(dim=1)[rows] - own)
    counts = torch.zeros(len(wrong), device=own.device).index_add(0, rows, torch.ones_like(own))
    return (each / counts[rows]).sum() / len(wrong)
