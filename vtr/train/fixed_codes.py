"""Codes that a training does not change, computed once: a step then takes rows of them.

A head without parameters makes the same codes of the same videos in every epoch, and on frozen text
of the same captions. Those of one vector each are kept: to the bit what a batch would have given.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from vtr.train.data import Index, Resident, ResidentVideos, chosen_rows
from vtr.train.heads.base import Code
from vtr.train.memory import fits
from vtr.train.model import RetrievalModel
from vtr.train.text_tower import FrozenText

Encode = Callable[[Index], Code]
_AT_ONCE = 1024


def fixed_texts(model: RetrievalModel, data: Resident) -> Code | None:
    """Returns the codes of all captions; None where they change, are not vectors or do not fit."""
    if not isinstance(model.text_tower, FrozenText):
        return None
    return _fixed(
        model, data, len(data.texts), lambda part: model.encode_texts(data.texts.batch(part))
    )


def fixed_videos(model: RetrievalModel, data: Resident) -> Code | None:
    """Returns the codes of all videos; None as for texts."""
    videos = data.videos
    if not isinstance(videos, ResidentVideos):
        return None
    return _fixed(model, data, len(videos), lambda part: model.encode_videos(videos.batch(part)))


def take(codes: Code, index: Index) -> Code:
    """Returns the codes of the chosen items, in the order of `index` (M,)."""
    return tuple(chosen_rows(part, index) for part in codes)


@torch.no_grad()
def _fixed(model: RetrievalModel, data: Resident, count: int, encode: Encode) -> Code | None:
    if next(model.head.parameters(), None) is not None:
        return None
    first = encode(np.arange(1))
    needed = sum(count * part[0].numel() * part.element_size() for part in first)
    if any(part.ndim != 2 for part in first) or not fits(needed, data.device):
        return None
    whole = tuple(part.new_empty(count, part.shape[1]) for part in first)
    for start in range(0, count, _AT_ONCE):
        places = np.arange(start, min(start + _AT_ONCE, count))
        for table, part in zip(whole, encode(places), strict=True):
            table[start : start + len(places)] = part
    return whole
