"""Even frames, frames drawn where the picture changes, and frames drawn around the busiest time.

`d[i]` is the mean absolute difference of frame i to its neighbours, summed (one at the ends).

1. `ns = K // 2`. `us = int(0.7 ns)` frames are `trunc(linspace(0, N - 1, us))`.
2. `ws = ns - us` frames are drawn with chances in proportion to d (equal ones in a video without
   any change) from those more than 3 away from all even frames; if these are fewer than ws, or none
   of them changes while others do: `trunc(linspace(0, N - 1, ws))`.
3. `c` is where the mean of d over `[i - w // 2, i + w // 2]`, `w = max(5, N // 20)`, is largest
   (all zero: `N // 2`), `r = int(N max(0.3, min(0.6, 30 / N)) / 2)`. `nd = K - ns` frames are drawn
   from `[c - r, c + r)` with chances in proportion to `exp(-5 |i - c| / length)`; all of it and
   random others, if it has fewer than nd.

Source: sijiasiga/CLIP_video@91bcaf6, dataloaders, frame position 9.

Options: `sparse_share` (0.5) of K for 1 and 2, `uniform_share` (0.7) of these for 1, `focus` (5):
how sharply the draw in 3 prefers the centre.

Repaired: frames chosen twice leave the reference with fewer than K (typically 7 of 8); here the
missing ones are drawn as in 3, or, if the region has too few left, taken from the middles of the
longest runs without a frame. The reference raises ValueError when fewer than ws of the allowed
frames have any change (one cut in a frozen video); here those are taken and the rest of the ws is
drawn from the other allowed frames. The draws come from a generator seeded by the run's seed and
the video's id. Change is measured on luma, not on the red channel.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vtr.extract.samplers.base import Indices, Signals
from vtr.extract.samplers.common import (
    Draws,
    check_range,
    draw,
    fill_gaps,
    merge,
    portion,
    spaced,
)

NEEDS: frozenset[str] = frozenset({"luma"})
COST = "thumbnails, one difference per candidate; random"

KEEP_AWAY = 3


def select(
    signals: Signals,
    num_frames: int,
    rng: Draws,
    *,
    sparse_share: float = 0.5,
    uniform_share: float = 0.7,
    focus: float = 5.0,
) -> Indices:
    """Returns the indices, drawn by `rng` for step 2 and then for step 3."""
    check_range("hybrid", "sparse_share", sparse_share)
    check_range("hybrid", "uniform_share", uniform_share)
    check_range("hybrid", "focus", focus, high=100)
    count, steps = len(signals), signals.absolute_change[1:]
    around = np.concatenate([steps, [0.0]]) + np.concatenate([[0.0], steps])
    sparse = portion(num_frames, sparse_share)
    even = spaced(0, count - 1, portion(sparse, uniform_share))
    changing = _draw_changing(around, even, sparse - len(even), rng)
    region, weights = _busiest(around, focus)
    dense = draw(rng, region, min(num_frames - sparse, len(region)), weights)
    chosen = merge(even, changing, dense)
    left = ~np.isin(region, chosen)
    again = min(num_frames - len(chosen), int(left.sum()))
    chosen = merge(chosen, draw(rng, region[left], again, weights[left]))
    return fill_gaps(chosen, count, num_frames)


def _draw_changing(around: NDArray[np.float64], even: Indices, size: int, rng: Draws) -> Indices:
    count = len(around)
    allowed = np.ones(count, np.bool_)
    for index in even.tolist():
        allowed[max(0, index - KEEP_AWAY) : index + KEEP_AWAY + 1] = False
    candidates = np.flatnonzero(allowed)
    weights = around[candidates] if around.any() else np.ones(len(candidates))
    if not size or len(candidates) < size or not weights.any():
        return spaced(0, count - 1, size)
    return draw(rng, candidates, size, weights)


def _busiest(around: NDArray[np.float64], focus: float) -> tuple[Indices, NDArray[np.float64]]:
    """Returns the indices around the centre of the change, and the chance of each."""
    count = len(around)
    half = max(5, count // 20) // 2
    total = np.concatenate([[0.0], np.cumsum(around)])
    first = np.maximum(np.arange(count) - half, 0)
    stop = np.minimum(np.arange(count) + half + 1, count)
    means = (total[stop] - total[first]) / (stop - first)
    # Sums taken as differences of running sums tie only up to rounding; the first of equals wins.
    centre = int(np.argmax(means >= means.max() * (1 - 1e-9))) if around.any() else count // 2
    radius = int(count * max(0.3, min(0.6, 30 / count)) / 2)
    region = np.arange(max(0, centre - radius), min(count, centre + radius))
    return region, np.exp(-focus * np.abs(region - centre) / max(len(region), 1))
