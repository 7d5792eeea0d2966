"""The first K candidates.

Source: CLIP4Clip `slice_framepos 0` (ArrowLuo/CLIP4Clip@508ffa3, dataloaders).
"""

from __future__ import annotations

import numpy as np

from vtr.extract.samplers.base import Indices, Signals

NEEDS: frozenset[str] = frozenset()
COST = "free: time stamps only"


def select(signals: Signals, num_frames: int, rng: np.random.Generator) -> Indices:
    """Returns the first K indices."""
    return np.arange(num_frames)
