"""The first frame after each large change, filled up evenly.

`a[i]` is the mean absolute difference of the frames i and i - 1. Chosen are frame 0 and every i
with `a[i] > mean(a) + 1.5 std(a)` (population). Fewer than K: the inner points of
`trunc(linspace(0, N - 1, missing + 2))` are added. More than K: frame 0 and the K - 1 largest
changes stay (ties: the earlier). Source: sijiasiga/CLIP_video@91bcaf6, dataloaders, frame
position 5.

Option: `threshold` (1.5), in standard deviations.

Repaired: an added frame that was chosen already leaves the reference one short; here the middle of
the longest run without a frame takes its place. With too many changes the reference ranks frame 0
by the change into the last frame (index -1) and may drop it against its own comment; here it stays.
Change is measured on luma, not on the red channel.
"""

from __future__ import annotations

import numpy as np

from vtr.extract.samplers.base import Indices, Signals
from vtr.extract.samplers.common import check_range, fill_gaps, merge, spaced

NEEDS: frozenset[str] = frozenset({"luma"})
COST = "thumbnails, one difference per candidate"


def select(
    signals: Signals, num_frames: int, rng: np.random.Generator, *, threshold: float = 1.5
) -> Indices:
    """Returns the indices."""
    check_range("scene", "threshold", threshold, high=float("inf"))
    change, count = signals.absolute_change, len(signals)
    steps = change[1:]
    with np.errstate(over="ignore"):  # then no change is a cut
        cuts = 1 + np.flatnonzero(steps > steps.mean() + threshold * steps.std())
    if len(cuts) >= num_frames:
        largest = np.argsort(-change[cuts], kind="stable")[: num_frames - 1]
        cuts = cuts[largest]
    chosen = merge(np.zeros(1, np.int64), cuts)
    missing = num_frames - len(chosen)
    chosen = merge(chosen, spaced(0, count - 1, missing + 2)[1:-1])
    return fill_gaps(chosen, count, num_frames)
