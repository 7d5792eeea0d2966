"""The middle of each of K equal segments.

Segment k covers `[k N / K, (k + 1) N / K)`; chosen is `(2 k + 1) N // (2 K)`. Unlike `uniform`,
neither the first nor the last candidate (often black, or a title) is forced in. Source: the test
sampling of Temporal Segment Networks, Wang et al., arXiv 1608.00859.
"""

from __future__ import annotations

import numpy as np

from vtr.extract.samplers.base import Indices, Signals

NEEDS: frozenset[str] = frozenset()
COST = "free: time stamps only"


def select(signals: Signals, num_frames: int, rng: np.random.Generator) -> Indices:
    """Returns the K middles."""
    return middles(len(signals), num_frames)


def middles(count: int, wanted: int) -> Indices:
    """Returns the middles of `wanted` equal parts of `count` places; all where these are fewer.

    >>> middles(12, 4).tolist(), middles(2, 4).tolist()
    ([1, 4, 7, 10], [0, 1])
    """
    kept = min(count, wanted)
    return (2 * np.arange(kept) + 1) * count // (2 * kept)
