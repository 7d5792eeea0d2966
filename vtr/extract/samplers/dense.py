"""Every candidate: embed once, choose any sampler later.

Ignores the frame budget. A store made with it lets `--sampler NAME` be applied afterwards
without the videos.
"""

from __future__ import annotations

import numpy as np

from vtr.extract.samplers.base import Indices, Signals

NEEDS: frozenset[str] = frozenset()
COST = "free to choose; embeds every candidate"


def select(signals: Signals, num_frames: int, rng: np.random.Generator) -> Indices:
    """Returns all indices."""
    return np.arange(len(signals))
