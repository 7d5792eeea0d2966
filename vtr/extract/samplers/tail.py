"""The last K candidates.

Source: CLIP4Clip `slice_framepos 1` (ArrowLuo/CLIP4Clip@508ffa3, dataloaders).
"""

from __future__ import annotations

import numpy as np

from vtr.extract.samplers.base import Indices, Signals

NEEDS: frozenset[str] = frozenset()
COST = "free: time stamps only"


def select(signals: Signals, num_frames: int, rng: np.random.Generator) -> Indices:
    """Returns the last K indices."""
    return np.arange(len(signals) - num_frames, len(signals))
