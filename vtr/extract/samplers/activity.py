"""Part spread evenly, part around the peaks of the change ("improved sparse+dense").

`a[k]` is the mean absolute difference of the frames k and k + 1.

1. `ns = 4 K // 10` frames (`6 K // 10` if N <= 3 K; at least 1) are
   `trunc(linspace(0, N - 1, ns))`; `nd = K - ns` are left. If `N <= 2 ns`, step 4 follows.
2. Peaks of `a` (local maxima, the middle of flat ones), none closer than `max(3, N // 20)` to a
   higher one, if N > 6; of those the 3 highest. No peak: nd frames evenly from the nd in the
   middle of the video. Else, per peak p, from the window `p - w .. p + w`, `w = max(2, N // 20)`,
   `nd // peaks` frames evenly, both ends included, or all where it has no more.
3. While these are fewer than nd: the frame after the largest change that has neither its frame
   before nor its frame after among them.
4. The union; while it is short of K, as step 3, then the middles of the longest runs without a
   frame.

Source: sijiasiga/CLIP_video@91bcaf6, dataloaders, frame position 7; the peaks are those of
`scipy.signal.find_peaks(a, distance=...)`, at equal heights the later (which SciPy leaves to its
sort).

Options: `sparse_share` (0.4), `short_sparse_share` (0.6, if N <= 3 K), `peaks` (3).

Repaired: the reference's loop of step 3 stops after one frame and step 4 is missing, so that it
returns 6 or 7 frames of 8. Change is measured on luma, not on the red channel. Kept: a peak is the
frame before the change, and a window's only frame is its first.
"""

from __future__ import annotations

import numpy as np

from vtr.extract.samplers.base import Indices, Signals
from vtr.extract.samplers.common import Floats, check_range, fill_gaps, merge, portion, spaced

NEEDS: frozenset[str] = frozenset({"luma"})
COST = "thumbnails, one difference per candidate"


def select(
    signals: Signals,
    num_frames: int,
    rng: np.random.Generator,
    *,
    sparse_share: float = 0.4,
    short_sparse_share: float = 0.6,
    peaks: int = 3,
) -> Indices:
    """Returns the indices."""
    check_range("activity", "sparse_share", sparse_share)
    check_range("activity", "short_sparse_share", short_sparse_share)
    check_range("activity", "peaks", peaks, low=1, high=float("inf"))
    short = len(signals) <= 3 * num_frames
    share = short_sparse_share if short else sparse_share
    steps, count = signals.absolute_change[1:], len(signals)
    sparse = spaced(0, count - 1, max(portion(num_frames, share), 1))
    dense = np.zeros(0, np.int64)
    if count > 2 * len(sparse):
        num_dense = num_frames - len(sparse)
        dense = _add_changes(_around_peaks(steps, num_dense, peaks), steps, num_dense)
    chosen = _add_changes(merge(sparse, dense), steps, num_frames)
    return fill_gaps(chosen, count, num_frames)


def _around_peaks(steps: Floats, num_dense: int, num_peaks: int) -> Indices:
    count = len(steps) + 1
    peaks = find_peaks(steps, max(3, count // 20)) if len(steps) > 5 else np.zeros(0, np.int64)
    if not len(peaks):
        first = max(0, count // 2 - num_dense // 2)
        return np.unique(spaced(first, min(count, first + num_dense) - 1, num_dense))
    highest = peaks[np.argsort(-steps[peaks], kind="stable")[:num_peaks]]
    width = max(2, count // 20)
    each = num_dense // len(highest)
    around: list[int] = []
    for peak in highest.tolist():
        first, last = max(0, peak - width), min(count - 1, peak + width)
        around += spaced(first, last, each if last - first > each else last - first + 1).tolist()
    return np.sort(np.array(list(dict.fromkeys(around))[:num_dense], np.int64))


def _add_changes(chosen: Indices, steps: Floats, target: int) -> Indices:
    """Adds the frames after the largest changes not seen yet, up to `target` frames in all."""
    taken = np.zeros(len(steps) + 1, np.bool_)
    taken[chosen] = True
    missing = target - len(chosen)
    for step in np.argsort(-steps, kind="stable").tolist():
        if missing <= 0 or steps[step] <= 0:
            break
        if not taken[step] and not taken[step + 1]:
            taken[step + 1] = True
            missing -= 1
    return np.flatnonzero(taken)


def find_peaks(values: Floats, distance: int) -> Indices:
    """Returns the local maxima, none closer than `distance` to a higher one, sorted.

    A flat maximum counts at its middle, rounded down; the ends of the array are none. Equal
    heights: the later stays.

    >>> find_peaks(np.array([0, 2, 2, 0, 3, 0, 1, 0]), 3).tolist()
    [1, 4]
    """
    starts = np.concatenate([[0], 1 + np.flatnonzero(np.diff(values))])
    heights = values[starts]
    inner = 1 + np.flatnonzero((heights[1:-1] > heights[:-2]) & (heights[1:-1] > heights[2:]))
    peaks = (starts[inner] + starts[np.minimum(inner + 1, len(starts) - 1)] - 1) // 2
    keep = np.ones(len(peaks), np.bool_)
    for index in np.argsort(values[peaks], kind="stable")[::-1].tolist():
        if keep[index]:
            near = [peaks[index] - distance + 1, peaks[index] + distance]
            keep[slice(*np.searchsorted(peaks, near))] = False
            keep[index] = True
    return np.asarray(peaks[keep], np.int64)
