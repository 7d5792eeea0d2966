"""Symmetric losses with several right answers per row and hard negatives.

For a matrix S (N texts x V videos, logits, float32) and the set P of right pairs, text i's loss is

    l(i) = mean over its right videos j of  log(1 + sum over its wrong videos k of e^(S_ik - S_ij))

or, as `sigmoid`, where each pair is a question of its own,

    l(i) = mean over its right videos j of  log(1 + e^-S_ij)
           + sum over its wrong videos k of  log(1 + e^S_ik)

and t2v is the mean of l over the texts, v2t the same on the transpose, the loss their mean. A right
answer never stands in the denominator of another one. Where each row has one right answer this is
the cross entropy of the diagonal, CLIP4Clip's loss (ArrowLuo/CLIP4Clip@508ffa3, until_module.py,
CrossEn), and the sigmoid loss is SigLIP's (arXiv 2303.15343, section 3.2), which Video-ColBERT
(arXiv 2503.19009) takes for each of its two scores. With hard negatives the sum runs over the k
largest wrong entries of the row only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vtr.train.presets import LossOptions

# Far below every logit (at most a few hundred), and its exponential is 0, but differences of two
# such numbers are not NaN, as they would be with -inf in a row that has no wrong answer.
_ABSENT = -1e9
_HALVINGS = 40


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


def contrastive_loss(
    logits: Tensor, right: Tensor, *, hard_negatives: int = 0, sigmoid: bool = False
) -> Loss:
    """Returns the symmetric loss of one matrix of logits (N, V), in float32; see the module.

    Each row and column of `right` (N, V) has a True; 0 hard negatives count all wrong answers.
    """
    scores = logits.float()
    texts, videos = _places(right)
    own = scores[texts, videos]
    wrong = scores.masked_fill(right, _ABSENT)
    t2v = _one_way(own, texts, wrong, hard_negatives, sigmoid)
    v2t = _one_way(own, videos, wrong.T, hard_negatives, sigmoid)
    return Loss((t2v + v2t) / 2, t2v, v2t)


def _places(right: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the rows and columns of all Trues, row by row."""
    if right.device.type != "cpu":
        rows, columns = right.nonzero(as_tuple=True)
        return rows, columns
    # Looking for few Trues among many, numpy is eight times as fast.
    flat = torch.from_numpy(np.flatnonzero(right.numpy()))
    return flat // right.shape[1], flat % right.shape[1]


def weighted_loss(
    terms: Sequence[tuple[float, Tensor]], right: Tensor, options: LossOptions
) -> Loss:
    """Returns the weighted sum of the losses of several matrices of the same pairs."""
    how: Mapping[str, Any] = {"hard_negatives": options.hard_negatives, "sigmoid": options.sigmoid}
    losses = [(weight, contrastive_loss(logits, right, **how)) for weight, logits in terms]
    t2v = torch.stack([weight * loss.t2v for weight, loss in losses]).sum()
    v2t = torch.stack([weight * loss.v2t for weight, loss in losses]).sum()
    return Loss((t2v + v2t) / 2, t2v, v2t)


@torch.no_grad()
def best_bias(terms: Sequence[tuple[float, Tensor]], right: Tensor, options: LossOptions) -> Tensor:
    """Returns what to add to all logits so that the sigmoid loss is least, a scalar.

    The loss is convex in it and falls until as many pairs are expected to be right as are.
    """
    scores = torch.cat([logits.float().flatten() for _, logits in terms])
    low, high = -scores.max() - 50, -scores.min() + 50
    for _ in range(_HALVINGS):
        middle = ((low + high) / 2).requires_grad_()
        with torch.enable_grad():
            shifted = [(weight, logits.detach() + middle) for weight, logits in terms]
            weighted_loss(shifted, right, options).total.backward()  # type: ignore[no-untyped-call]
        assert middle.grad is not None
        low, high = (low, middle) if middle.grad > 0 else (middle, high)
        low, high = low.detach(), high.detach()
    return (low + high) / 2


def _one_way(
    own: Tensor, rows: Tensor, wrong: Tensor, hard_negatives: int, sigmoid: bool
) -> Tensor:
    """Returns the mean over rows of the mean over each row's right answers `own` (P,)."""
    if 0 < hard_negatives < wrong.shape[1]:
        wrong = wrong.topk(hard_negatives, dim=1, sorted=False).values
    if sigmoid:
        each = functional.softplus(-own) + functional.softplus(wrong).sum(dim=1)[rows]
    else:  # log(1 + e^(c - s)) for every right answer s, c being all that speaks against it
        against: Tensor = _LogSum.apply(wrong)  # type: ignore[no-untyped-call]
        each = functional.softplus(against[rows] - own)
    counts = torch.zeros(len(wrong), device=own.device).index_add(0, rows, torch.ones_like(own))
    return (each / counts[rows]).sum() / len(wrong)


class _LogSum(torch.autograd.Function):
    """To the bit torch's `logsumexp(dim=1)`, with a backward pass in one matrix, not three."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        sums = rows.logsumexp(dim=1)
        ctx.save_for_backward(rows, sums)
        return sums

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        rows, sums = ctx.saved_tensors
        shares: Tensor = rows - sums[:, None]
        return shares.exp_().mul_(gradient[:, None])
