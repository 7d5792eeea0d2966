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
    count = len(signals)
    budget = min(num_frames, count)
    return (2 * np.arange(budget) + 1) * count // (2 * budget)
