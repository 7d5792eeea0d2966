"""A quarter spread evenly, the rest drawn at random where the picture moves.

`e[i]` is the mean squared difference of the frames i and i - 1. `g = max(K // 4, 1)` frames are
`trunc(linspace(0, N - 1, g))`; the other K - g are drawn without replacement from 1..N-1 with
chances in proportion to `e / (max e + 0.00001) + 0.1`. Source: sijiasiga/CLIP_video@91bcaf6,
dataloaders, frame position 4.

Options: `global_share` (0.25) of the frames are spread evenly; `floor` (0.1) is the chance of a
still frame against 1.1 for the largest motion; `floor_total` (1) is the most that the floors of all
N frames have together: each is `min(floor, floor_total / N)`.

Repaired: with 0.1 per frame, stillness outweighs a brief event once the frames are many: of an
event of 3 frames in a still video, 8 frames caught 98 % at N = 20 (the reference's own rate, one
per second), but 23 % at N = 300 and 2 % at N = 3,000. Bounded, it is 97 % to 99 % at any length.
`motion:floor_total=1e9` lifts the bound: then the chances are the reference's.

Also repaired: a frame both spread and drawn counts twice in the reference, which then returns fewer
than K; here more are drawn, by the same chances, from what is left. The draws come from a generator
seeded by the run's seed and the video's id, not from the global one, so that evaluation repeats.
Motion is measured on luma, not on the red channel. The constant in the denominator keeps its
meaning: the reference's pictures are normalised to a spread of about 1, so ours are scaled alike.
"""

from __future__ import annotations

import numpy as np

from vtr.extract.samplers.base import Indices, Signals
from vtr.extract.samplers.common import Draws, check_range, draw, merge, portion, spaced

NEEDS: frozenset[str] = frozenset({"luma"})
COST = "thumbnails, one difference per candidate; random"

# Grey levels per unit of the reference's pictures: CLIP's standard deviation of red, 0.26862954.
LEVELS_PER_UNIT = 0.26862954 * 255
STILL = 1e-5


def select(
    signals: Signals,
    num_frames: int,
    rng: Draws,
    *,
    global_share: float = 0.25,
    floor: float = 0.1,
    floor_total: float = 1.0,
) -> Indices:
    """Returns the indices, random by `rng`."""
    check_range("motion", "global_share", global_share)
    check_range("motion", "floor", floor, high=float("inf"))
    check_range("motion", "floor_total", floor_total, high=float("inf"))
    count = len(signals)
    energy = signals.squared_change / LEVELS_PER_UNIT**2
    fixed = max(portion(num_frames, global_share), 1)
    weights = energy / (energy[1:].max() + STILL) + min(floor, floor_total / count)
    chosen = spaced(0, count - 1, fixed)
    drawn = draw(rng, np.arange(1, count), num_frames - fixed, weights[1:])
    chosen = merge(chosen, drawn)
    if len(chosen) < num_frames:
        rest = np.setdiff1d(np.arange(count), chosen)
        chosen = merge(chosen, draw(rng, rest, num_frames - len(chosen), weights[rest]))
    return chosen
