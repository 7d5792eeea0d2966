"""Pictures as different from each other as possible.

Greedy farthest point: from frame 0 on, add the frame whose smallest mean squared difference to the
chosen ones is largest (ties: the lowest index). Source: sijiasiga/CLIP_video@91bcaf6, dataloaders,
frame position 6; the method is Gonzalez, Clustering to minimize the maximum intercluster distance
(1985).

Option: `same` (0.25, squared grey levels): a frame this close to a chosen one shows nothing new.
When only such frames are left, the middles of the longest runs without a frame are added instead.

Repaired: compared on luma thumbnails, not on the red channel, which does not see green. A static
video gave its first K frames and a nearly static one the extremes of its noise; both now give
frames spread over time. `O(K N)`, where the reference takes `O(K^2 N)`.
"""

from __future__ import annotations

import numpy as np

from vtr.extract.samplers.base import Indices, Signals
from vtr.extract.samplers.common import check_range, fill_gaps, spread, squared_distances

NEEDS: frozenset[str] = frozenset({"luma"})
COST = "thumbnails, K differences per candidate"


def select(
    signals: Signals, num_frames: int, rng: np.random.Generator, *, same: float = 0.25
) -> Indices:
    """Returns the indices."""
    check_range("diversity", "same", same, high=float("inf"))
    luma = signals.pictures

    order, gains = spread(
        lambda index: squared_distances(luma, luma[index].astype(np.int16)), 0, num_frames
    )
    new = gains > same * luma[0].size
    return fill_gaps(np.sort(order[new]), len(luma), num_frames)
