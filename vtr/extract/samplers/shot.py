"""The most typical frame of each shot.

1. A cut lies before frame i where its mean absolute luma change is at least `min_change` (10 grey
   levels) and at least `ratio` (2.5) times the mean of its two neighbours on either side: a content
   detector with an adaptive threshold, as in PySceneDetect, on luma thumbnails.
2. Up to K shots: each gets one frame, and the other frames go to the shots by what they have left,
   by largest remainder (ties: the earlier shot). More than K: the K longest (ties: the earlier)
   get one each.
3. A shot with n frames is cut into n equal parts; each gives the frame nearest to the part's mean
   picture (ties: nearest to its middle in time, then the earlier).

Options: `min_change`, `ratio`; lower finds more cuts. A shot of one frame (a flash) counts; a
dissolve or a fade does not cut, and neither does a cut between pictures of equal brightness.

Source: ours. On 150 sequences of 8 spliced real shots each, F1 of the cuts was 1.00 at the native
rate, 0.98 at 2 and 0.97 at 1 candidate per second; on 60 of them PySceneDetect 0.7 reached 1.00,
0.99, 0.94 (adaptive) and 1.00, 0.73, 0.69 (content).
"""

from __future__ import annotations

import numpy as np

from vtr.extract.samplers.base import Indices, Signals
from vtr.extract.samplers.common import Floats, Luma, check_range, chunks, squared_distances

NEEDS: frozenset[str] = frozenset({"luma"})
COST = "thumbnails, two differences per candidate"

NEIGHBOURS = 2


def select(
    signals: Signals,
    num_frames: int,
    rng: np.random.Generator,
    *,
    min_change: float = 10.0,
    ratio: float = 2.5,
) -> Indices:
    """Returns the indices."""
    check_range("shot", "min_change", min_change, high=255)
    check_range("shot", "ratio", ratio, high=float("inf"))
    luma = signals.pictures
    cuts = find_cuts(signals.absolute_change, min_change=min_change, ratio=ratio)
    starts = np.concatenate([[0], cuts])
    lengths = np.diff(starts, append=len(luma))
    chosen = []
    shares = share_out(lengths, num_frames)
    for start, length, share in zip(starts, lengths, shares, strict=True):
        edges = start + np.arange(share + 1) * length // max(share, 1)
        for first, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            chosen.append(first + central_frame(luma[first:stop]))
    return np.array(chosen, np.int64)


def find_cuts(change: Floats, *, min_change: float = 10.0, ratio: float = 2.5) -> Indices:
    """Returns the first frame of every shot but the first, by the rule of step 1.

    `change` is (N,) mean absolute change from the frame before; entry 0 is not read.
    """
    steps = np.asarray(change[1:], np.float64)
    # Shifted by -2, -1, 1, 2; what lies outside the video counts neither in the sum nor in n.
    total, number = np.zeros(len(steps)), np.zeros(len(steps))
    for shift in range(1, NEIGHBOURS + 1):
        total[shift:] += steps[:-shift]
        total[:-shift] += steps[shift:]
        number[shift:] += 1
        number[:-shift] += 1
    around = total / np.maximum(number, 1)
    with np.errstate(over="ignore"):  # then no change is a cut, unless all around it is still
        least = ratio * around
    return 1 + np.flatnonzero((steps >= min_change) & (steps >= least) & (steps > 0))


def share_out(lengths: Indices, budget: int) -> Indices:
    """Returns how many of its frames each shot gives, `budget` in all: step 2.

    >>> share_out(np.array([50, 3, 47]), 8).tolist(), share_out(np.array([5, 1, 9]), 2).tolist()
    ([4, 1, 3], [1, 0, 1])
    """
    shares = np.zeros(len(lengths), np.int64)
    if len(lengths) >= budget:
        shares[np.argsort(-lengths, kind="stable")[:budget]] = 1
        return shares
    rest = budget - len(lengths)
    left = lengths - 1
    quotas, remainders = np.divmod(rest * left, left.sum())
    shares = 1 + quotas
    most = np.argsort(-remainders, kind="stable")
    shares[most[: budget - shares.sum()]] += 1
    return shares


def central_frame(luma: Luma) -> int:
    """Returns the index of the frame nearest to the mean picture of (n, h, w) thumbnails."""
    count = len(luma)
    total = sum(frames.sum(axis=0, dtype=np.int64) for frames in chunks(luma))
    mean = ((2 * total + count) // (2 * count)).astype(np.int16)  # rounded
    nearest = np.flatnonzero((distances := squared_distances(luma, mean)) == distances.min())
    return int(nearest[np.argmin(np.abs(2 * nearest - (count - 1)))])
