"""One random frame from each of K equal segments: jitter for training.

Segment k covers the candidates `k N // K` up to, not including, `(k + 1) N // K`; one of them at
equal chances, by the generator of (seed, video). Source: the training sampling of Temporal Segment
Networks, Wang et al., arXiv 1608.00859.
"""

from __future__ import annotations

import numpy as np

from vtr.extract.samplers.base import Indices, Signals

NEEDS: frozenset[str] = frozenset()
COST = "free: time stamps only; random"


def select(signals: Signals, num_frames: int, rng: np.random.Generator) -> Indices:
    """Returns one index per segment."""
    edges = np.arange(num_frames + 1) * len(signals) // num_frames
    return rng.integers(edges[:-1], edges[1:])
