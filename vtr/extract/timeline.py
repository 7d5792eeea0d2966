"""Which frames of a video are candidates, told from their presentation times alone."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from vtr.errors import ConfigError

Seconds = NDArray[np.float64]
Indices = NDArray[np.int64]

# Times are ticks of a container's clock turned into float64; sums of them are compared with
# this slack so that rounding never moves a frame across a limit it lies on.
SLACK_SECONDS = 1e-6
# Every instant that any clock can tell; faster rates would not fit into float64.
_FASTEST_FPS = 1e9
_GOLDEN_RATIO = (math.sqrt(5) - 1) / 2


def candidate_indices(
    pts_seconds: Seconds,
    *,
    fps: float | None,
    jitter: float = 0.0,
    start_seconds: float | None = None,
    end_seconds: float | None = None,
) -> Indices:
    """Returns the frames that stand at a steady rate, by presentation time.

    The candidate for instant t_k = origin + start + k / fps, k = 0, 1, ..., is the first frame
    with pts >= t_k - half a frame, where the origin is the first frame's pts and a frame lasts
    the median interval of the timeline. A frame that is first for several instants (one that
    stands for seconds, or fps above the video's own rate) counts once. Only instants before
    origin + end count, and only frames presented before it.

    At even steps a video that repeats itself in step with them shows but one of its sides. With
    `jitter` each instant comes later by another share of the steps, in an order that leaves no
    part of them out for long (multiples of the golden ratio), the same each time; the last step
    that holds frames gives its last one where the instant comes behind it.

    Args:
        pts_seconds: (F,) float64, presentation times of all frames of the file, ascending.
        fps: Candidates per second, above 0; None is the native rate: every frame of the window.
        jitter: By which share of a step an instant comes later at most, 0 to 1.
        start_seconds: Start of the window after the first frame; None is 0.
        end_seconds: End of the window after the first frame, exclusive; None is no end.

    Returns:
        (N,) int64, ascending indices into `pts_seconds`; empty where the window holds no frame.

    Raises:
        ConfigError: A rate or window that cannot be.
    """
    check_rate(fps)
    start, end = check_window(start_seconds, end_seconds)
    if not len(pts_seconds):
        return np.empty(0, np.int64)
    times = np.asarray(pts_seconds, np.float64) - (pts_seconds[0] + start)
    since_start = times + frame_seconds(pts_seconds) / 2 + SLACK_SECONDS
    before_end = times < end - start - SLACK_SECONDS
    if fps is None:
        return np.flatnonzero((since_start >= 0) & before_end)
    # The last instant that each frame reaches, and the first that it is the first to reach.
    fps = min(fps, _FASTEST_FPS)
    step = np.floor(since_start * fps)
    is_early = since_start * fps - step < jitter * (step * _GOLDEN_RATIO % 1)
    last_instant = np.maximum(step - is_early, -1)
    first_instant = np.concatenate(([-1.0], last_instant[:-1])) + 1
    is_first = last_instant >= first_instant
    end_frame = np.count_nonzero(before_end) - 1
    is_first[end_frame] |= step[end_frame] > last_instant[end_frame]
    with np.errstate(over="ignore"):  # an instant that never comes
        in_window = before_end & (first_instant / fps < end - start - SLACK_SECONDS)
    return np.flatnonzero(is_first & in_window)


def frame_seconds(pts_seconds: Seconds) -> float:
    """Returns how long a frame lasts: the median interval, 0.0 for fewer than two frames.

    >>> frame_seconds(np.array([0.0, 0.04, 0.08, 5.0]))
    0.04
    """
    return float(np.median(np.diff(pts_seconds))) if len(pts_seconds) > 1 else 0.0


def duration_seconds(pts_seconds: Seconds, *, rate: float | None = None) -> float:
    """Returns the time from the start of the first frame to the end of the last one.

    The length of a single frame is taken from the header's `rate`, in frames per second.

    >>> duration_seconds(np.array([2.0, 2.5, 3.0])), duration_seconds(np.array([2.0]), rate=25)
    (1.5, 0.04)
    """
    if not len(pts_seconds):
        return 0.0
    last = frame_seconds(pts_seconds) or (1 / float(rate) if rate else 0.0)
    return float(pts_seconds[-1] - pts_seconds[0]) + last


def window_spans(pts_seconds: Seconds, groups: Indices, *, end_seconds: float) -> Seconds:
    """Returns (W, 2) start and end of windows: each ends where the candidate behind it begins.

    `groups` (W, k) are windows of the (N,) ascending candidates; the last ends at `end_seconds`.
    """
    starts = pts_seconds[groups[:, 0]]
    ends = np.append(pts_seconds, end_seconds)[groups[:, -1] + 1]
    return np.stack([starts, np.maximum(ends, np.nextafter(starts, np.inf))], axis=1)


def check_rate(fps: float | None) -> None:
    """Raises ConfigError unless `fps` is None (native) or a finite rate above 0."""
    if fps is not None and not (math.isfinite(fps) and fps > 0):
        raise ConfigError(
            f"the candidate rate is {fps}; it must be a number of frames per second above 0, "
            "or 'native' for every frame"
        )


def check_window(start_seconds: float | None, end_seconds: float | None) -> tuple[float, float]:
    """Returns the window as numbers (0 and infinity where open).

    Raises:
        ConfigError: It is no window.
    """
    start = 0.0 if start_seconds is None else float(start_seconds)
    end = math.inf if end_seconds is None else float(end_seconds)
    if not (math.isfinite(start) and start >= 0):
        raise ConfigError(f"the window starts at {start} s; it must be 0 s or later")
    if not end > start:
        raise ConfigError(f"the window {start:g} s to {end:g} s is empty; the end comes after")
    return start, end
