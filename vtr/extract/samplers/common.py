"""What several samplers share: change between frames, even spacing, top-up, draws, spreading.

All of it is exact or deterministic: changes are integer sums, ties go to the lowest index, and no
result depends on how a BLAS orders its additions.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from vtr.errors import ConfigError

Indices = NDArray[np.int64]
Floats = NDArray[np.floating]
Luma = NDArray[np.uint8]
Draws = np.random.Generator | np.random.RandomState

# Frames compared at once: a megabyte of thumbnails, so that the work stays in the cache.
CHUNK_FRAMES = 512


def absolute_change(luma: Luma) -> NDArray[np.float64]:
    """Returns (N,) mean absolute changes of (N, h, w) thumbnails from the frame before.

    In grey levels, 0 to 255; entry 0 is 0.
    """

    def sums(frames: Luma) -> NDArray[np.int64]:
        # Stays in uint8, where a signed difference would not fit.
        gaps = np.maximum(frames[1:], frames[:-1]) - np.minimum(frames[1:], frames[:-1])
        return np.asarray(gaps.sum(axis=1, dtype=np.int64))

    return _per_pair(luma, sums)


def squared_change(luma: Luma) -> NDArray[np.float64]:
    """Likewise of squares, in squared grey levels, 0 to 65025."""

    def sums(frames: Luma) -> NDArray[np.int64]:
        wide = frames.astype(np.int16)
        return _row_energies(wide[1:] - wide[:-1])

    return _per_pair(luma, sums)


def _per_pair(luma: Luma, sums: Callable[[Luma], NDArray[np.int64]]) -> NDArray[np.float64]:
    pixels = luma.reshape(len(luma), -1)
    change = np.zeros(len(luma))
    for start in range(0, len(luma) - 1, CHUNK_FRAMES):
        frames = pixels[start : start + CHUNK_FRAMES + 1]
        change[start + 1 : start + len(frames)] = sums(frames) / pixels.shape[1]
    return change


def _row_energies(rows: NDArray[np.int16]) -> NDArray[np.int64]:
    # 2^15 squared differences of 16 bits fit into 31 bits; int32 is twice as fast.
    total = np.int32 if rows.shape[1] <= 1 << 15 else np.int64
    return np.asarray(np.einsum("ij,ij->i", rows, rows, dtype=total), np.int64)


def squared_distances(luma: Luma, picture: NDArray[np.int16]) -> NDArray[np.float64]:
    """Returns the exact summed squares of (N, h, w) thumbnails less one (h, w) picture."""
    rows = (_row_energies(frames - picture.reshape(-1)) for frames in chunks(luma))
    return np.concatenate([*rows]).astype(np.float64)


def chunks(luma: Luma) -> Iterator[Luma]:
    """Yields the rows of pixels of (N, h, w) thumbnails, a bounded number of frames at a time."""
    for start in range(0, len(luma), CHUNK_FRAMES):
        yield luma[start : start + CHUNK_FRAMES].reshape(-1, luma[0].size)


def spaced(first: int, last: int, count: int) -> Indices:
    """Returns `count` evenly spaced integers, both ends included, cut to whole numbers.

    >>> spaced(0, 39, 4).tolist()
    [0, 13, 26, 39]
    """
    return np.linspace(first, last, count).astype(np.int64)


def portion(total: int, share: float) -> int:
    """Returns the whole part of `share * total`, unharmed by binary fractions.

    >>> portion(90, 0.7), portion(8, 0.25)
    (63, 2)
    """
    return int(total * share + 1e-9)


def check_range(
    sampler: str, option: str, value: float, *, low: float = 0.0, high: float = 1.0
) -> None:
    """Raises ConfigError unless low <= value <= high and value is finite."""
    # Compared, not converted: a whole number may be larger than any float.
    if not (low <= value <= high and value != float("inf")):
        allowed = f"from {low:g} to {high:g}" if np.isfinite(high) else f"at least {low:g}, finite"
        shown = f"{value:g}" if isinstance(value, float) else f"{value}"
        raise ConfigError(f"sampler {sampler!r}: {option} is {shown}; allowed is {allowed}")


def merge(*parts: NDArray[np.integer]) -> Indices:
    """Returns the sorted union."""
    return np.unique(np.concatenate(parts)).astype(np.int64)


def fill_gaps(chosen: Indices, num_candidates: int, budget: int) -> Indices:
    """Adds frames until there are `budget`: each in the middle of the longest run without one.

    Equal runs: the earliest. An even run: the earlier of its two middles. `chosen` are sorted
    unique indices below `num_candidates`.

    >>> fill_gaps(np.array([0, 1, 9]), 10, 5).tolist()
    [0, 1, 3, 5, 9]
    """
    bounds = np.concatenate([[-1], chosen, [num_candidates]])
    runs = [
        (-(stop - start - 1), start + 1)
        for start, stop in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)
        if stop - start > 1
    ]
    heapq.heapify(runs)
    added = []
    for _ in range(budget - len(chosen)):
        negative, start = heapq.heappop(runs)
        middle = start + (-negative - 1) // 2
        added.append(middle)
        for first, last in ((start, middle - 1), (middle + 1, start - negative - 1)):
            if last >= first:
                heapq.heappush(runs, (first - last - 1, first))
    return merge(chosen, np.array(added, np.int64))


def draw(rng: Draws, candidates: Indices, size: int, weights: Floats) -> Indices:
    """Draws `size` different candidates with chances in proportion to their weights.

    Where fewer than `size` have a weight, all of those and the rest at equal chances.

    Args:
        rng: NumPy's generator, or its legacy one (to repeat the reference's draws).
        candidates: (n,) indices, n >= size.
        size: How many to draw.
        weights: (n,) not negative, finite.
    """
    if size == 0:
        return np.zeros(0, np.int64)
    with np.errstate(over="ignore"):
        mass = weights.sum(dtype=np.float64)
    if np.isinf(mass):
        weights = weights / weights.max()
        mass = weights.sum(dtype=np.float64)
    shares = weights / mass if mass > 0 else np.zeros(len(candidates))
    weighted = np.flatnonzero(shares)
    if len(weighted) >= size:
        return rng.choice(candidates, size=size, replace=False, p=shares).astype(np.int64)
    others = np.delete(candidates, weighted)
    rest = rng.choice(others, size=size - len(weighted), replace=False)
    return np.concatenate([candidates[weighted], rest]).astype(np.int64)


def spread(
    distances_to: Callable[[int], Floats], start: int, num_frames: int, *, tie: float = 0.0
) -> tuple[Indices, NDArray[np.float64]]:
    """Chooses frames far from each other: repeatedly the one farthest from all chosen.

    `distances_to` gives the (N,) distances of all frames to the one of an index; those closer than
    `tie` to the largest count as equal, and the lowest index wins.

    Returns:
        The indices (num_frames,) in order of choice, and how far each was from those before it
        (the first: infinite).
    """
    order, gains = [start], [np.inf]
    nearest = distances_to(start).copy()
    nearest[start] = -1  # below every distance: never chosen again
    while len(order) < num_frames:
        following = int(np.argmax(nearest >= nearest.max() - tie)) if tie else int(nearest.argmax())
        order.append(following)
        gains.append(float(nearest[following]))
        np.minimum(nearest, distances_to(following), out=nearest)
        nearest[following] = -1
    return np.array(order, np.int64), np.array(gains)
