"""Half over the whole video, half close together around its middle.

M // 2 frames evenly from the first to the last, and the other `d = M - M // 2` evenly over the
`2 d` candidates around the middle: `trunc(linspace(mid - d, mid + d - 1, d))`, `mid = N // 2`.
Source: sijiasiga/CLIP_video@91bcaf6, dataloaders, frame position 3.

Repaired: the reference returns the two halves one after the other, unsorted, and keeps frames that
both chose. Here the union is sorted, and each frame that was in both is replaced by the middle of
the longest run without a frame.
"""

from __future__ import annotations

import numpy as np

from vtr.extract.samplers.base import Indices, Signals
from vtr.extract.samplers.common import check_range, fill_gaps, merge, portion, spaced

NEEDS: frozenset[str] = frozenset()
COST = "free: time stamps only"


def select(
    signals: Signals, num_frames: int, rng: np.random.Generator, *, sparse_share: float = 0.5
) -> Indices:
    """Returns the indices; `sparse_share` of the frames go over the whole video."""
    check_range("sparse-dense", "sparse_share", sparse_share)
    count = len(signals)
    sparse = portion(num_frames, sparse_share)
    dense = num_frames - sparse
    middle = count // 2
    first, last = max(0, middle - dense), min(count - 1, middle + dense - 1)
    chosen = merge(spaced(0, count - 1, sparse), spaced(first, last, dense))
    return fill_gaps(chosen, count, num_frames)
