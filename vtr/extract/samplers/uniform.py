"""Evenly spaced from the first candidate to the last.

Indices `trunc(linspace(0, N - 1, K))`, both ends included; with K = 1 the first. Source:
CLIP4Clip `slice_framepos 2` (ArrowLuo/CLIP4Clip@508ffa3, dataloaders).
"""

from __future__ import annotations

import numpy as np

from vtr.extract.samplers.base import Indices, Signals
from vtr.extract.samplers.common import spaced

NEEDS: frozenset[str] = frozenset()
COST = "free: time stamps only"


def select(signals: Signals, num_frames: int, rng: np.random.Generator) -> Indices:
    """Returns K evenly spaced indices."""
    return spaced(0, len(signals) - 1, num_frames)
