"""What a student learns from a stronger head: its ranking of the batch, its liking of frames.

    total = 0.2 * contrastive + 1.0 * relation + 2.0 * frames
    relation = 1 - Pearson correlation of softmaxes, student against teacher, mean over the rows and
               the columns of the score matrix
    frames   = cross-entropy of the student's frame weights against the teacher's, as softmaxes

All scores are logits: cosines come in times their logit scale, whatever that is for the head. The
teacher's are taken without gradients. Several teachers: add up their terms.

Source: TeachCLIP (ruc-aimc-lab/TeachCLIP), implemented from the formulas.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vtr.train.heads.base import Head, TextBatch, VideoBatch, check_option

_SMALLEST_VARIANCE = 1e-20


@dataclass(frozen=True)
class DistillWeights:
    """Weights of the terms in the loss, each 0 or more."""

    contrastive: float = 0.2  # Of the ordinary loss
    relation: float = 1.0  # Of `relation_term`
    frames: float = 2.0  # Of `frame_term`

    def __post_init__(self) -> None:
        for name in ("contrastive", "relation", "frames"):
            value = getattr(self, name)
            check_option(value >= 0, f"distill {name}", value, "0 or more")


def distillation_loss(
    contrastive: Tensor, relation: Tensor, frames: Tensor | None, weights: DistillWeights
) -> Tensor:
    """Returns the weighted sum of the terms, a scalar."""
    total = weights.contrastive * contrastive + weights.relation * relation
    return total if frames is None else total + weights.frames * frames


def relation_term(student: Tensor, teacher: Tensor) -> Tensor:
    """Returns how unlike two heads' (N, V) logits rank a batch, a scalar from 0 (alike) to 2."""
    teacher = teacher.detach()
    by_text = _correlation(student.softmax(dim=1), teacher.softmax(dim=1))
    by_video = _correlation(student.T.softmax(dim=1), teacher.T.softmax(dim=1))
    return 1 - (by_text.mean() + by_video.mean()) / 2


def frame_term(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Returns how unlike two heads' (V, K) logits weigh the frames of each video, a scalar.

    It is the cross-entropy, so its least value is the teacher's entropy and not 0. The student's
    logits come before any temperature; padded places may hold anything but NaN.
    """
    wanted = teacher.detach().masked_fill(~mask, -torch.inf).softmax(dim=1)
    given = student.masked_fill(~mask, -torch.inf).log_softmax(dim=1)
    # Masked logarithms are -inf, and 0 * -inf is NaN.
    return -(wanted * given.masked_fill(~mask, 0.0)).sum(dim=1).mean()


def matching_frame_scores(head: Head, texts: TextBatch, videos: VideoBatch) -> Tensor:
    """Returns (N, K) what a head makes of each frame alone for its video's own text.

    Each frame is scored as a video of one frame, which any head can do: without logit scale and
    without gradients, 0 in padded places.
    """
    mask = videos.mask
    rows = mask.nonzero()[:, 0]
    frames = videos.frames[mask][:, None]
    single = VideoBatch(frames, torch.ones_like(frames[..., 0], dtype=torch.bool), videos.pad)
    with torch.no_grad():
        scores = head.score_pairs(
            head.encode_texts(texts),
            head.encode_videos(single),
            rows,
            torch.arange(len(rows), device=rows.device),
        )
    filled = scores.new_zeros(mask.shape)
    filled[mask] = scores
    return filled


def _correlation(one: Tensor, other: Tensor) -> Tensor:
    """(R,) Pearson correlations of rows; 0 where a row is constant, which has no direction."""
    one = one - one.mean(dim=1, keepdim=True)
    other = other - other.mean(dim=1, keepdim=True)
    squares = one.square().sum(dim=1) * other.square().sum(dim=1)
    return (one * other).sum(dim=1) * squares.clamp_min(_SMALLEST_VARIANCE).rsqrt()
