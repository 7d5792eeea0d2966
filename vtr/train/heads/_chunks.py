"""Scoring texts against videos a block at a time, so that memory stays bounded."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vtr.train.heads.base import Code

_ELEMENTS_AT_ONCE = 1 << 23
"""How many numbers a block may hold: 32 MiB of float32, a few times over while it is computed."""


def score_in_chunks(
    score: Callable[[Code, Code], Tensor], texts: Code, videos: Code, *, elements_per_pair: int
) -> Tensor:
    """Returns (N, V) scores, computed in blocks of texts x videos."""
    num_texts, num_videos = len(texts[0]), len(videos[0])
    if not num_texts or not num_videos:
        return texts[0].new_zeros(num_texts, num_videos)
    pairs = max(_ELEMENTS_AT_ONCE // elements_per_pair, 1)
    if num_texts * num_videos <= pairs:
        return score(texts, videos)
    # Wide blocks: what is prepared per text or per video is then prepared seldom.
    columns = min(num_videos, max(round(pairs**0.5), pairs // num_texts))
    rows = max(pairs // columns, 1)
    video_blocks = _blocks(videos, columns)
    return torch.cat(
        [
            torch.cat([score(block, others) for others in video_blocks], dim=1)
            for block in _blocks(texts, rows)
        ]
    )


def _blocks(code: Code, size: int) -> list[Code]:
    return list(zip(*(torch.split(part, size) for part in code), strict=True))
