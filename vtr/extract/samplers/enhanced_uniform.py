"""Most frames evenly, the rest from both ends.

`int(0.8 K)` frames are `trunc(linspace(0, N - 1, ...))`. Of the s others, `min(s // 2, N // 10)`
are the first frames of the video and `s - s // 2` the last that are not chosen yet. Source:
sijiasiga/CLIP_video@91bcaf6, dataloaders, frame position 8.

Option: `uniform_share` (0.8).

Repaired: the even frames hold both ends already, so in the reference the frames meant for the ends
are lost: with K = 8 it is 6 even frames. Here the ends give their next frames, and where a short
video has fewer to give, the middle of the longest run without a frame is added.
"""

from __future__ import annotations

import numpy as np

from vtr.extract.samplers.base import Indices, Signals
from vtr.extract.samplers.common import check_range, fill_gaps, merge, portion, spaced

NEEDS: frozenset[str] = frozenset()
COST = "free: time stamps only"


def select(
    signals: Signals, num_frames: int, rng: np.random.Generator, *, uniform_share: float = 0.8
) -> Indices:
    """Returns the indices."""
    check_range("enhanced-uniform", "uniform_share", uniform_share)
    count = len(signals)
    even = spaced(0, count - 1, portion(num_frames, uniform_share))
    spare = num_frames - len(even)
    rest = np.setdiff1d(np.arange(count), even)
    head = rest[: min(spare // 2, count // 10)]
    tail = rest[len(rest) - (spare - spare // 2) :]
    return fill_gaps(merge(even, head, tail), count, num_frames)
