import itertools
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vtr.clip.preprocess import windows
from vtr.errors import ConfigError
from vtr.extract.timeline import SLACK_SECONDS, candidate_indices, frame_seconds, window_spans


def oracle(pts, fps, start=0.0, end=math.inf, *, jitter=0.0):
    """The rule of the docstring word by word, one instant after the other."""
    pts = [float(t) - float(pts[0]) for t in pts]
    gaps = sorted(b - a for a, b in itertools.pairwise(pts))
    middle = len(gaps) // 2
    median = (gaps[middle] + gaps[-middle - 1]) / 2 if gaps else 0.0
    inside = [t < end - SLACK_SECONDS for t in pts]
    found = []
    k = 0
    while True:
        instant = start + (k + jitter * (k * (math.sqrt(5) - 1) / 2 % 1)) / fps
        reached = [
            i for i, t in enumerate(pts) if t + median / 2 + SLACK_SECONDS >= instant - 1e-12
        ]
        if not reached or instant >= end - SLACK_SECONDS:
            last = sum(inside) - 1
            stepped = (pts[last] - start + median / 2 + SLACK_SECONDS) * fps
            tail = {last} if jitter and k <= stepped + 1e-12 else set()
            return sorted({i for i in found if inside[i]} | tail)
        if reached[0] not in found:
            found.append(reached[0])
        k += 1


def uniform(num_frames, fps, first=0.0):
    return first + np.arange(num_frames) / fps


def test_2997_does_not_drift():
    pts = np.arange(30_000) * 1001 / 30_000
    chosen = candidate_indices(pts, fps=1)
    seconds = np.arange(len(chosen))
    assert len(chosen) == 1001
    assert np.abs(pts[chosen] - seconds).max() <= 1001 / 30_000 / 2 + 1e-6
    # int(fps) * i, the reference's way, is half a minute off by then.
    assert pts[chosen[1000]] - pts[29 * 1000] > 30


CLIP, LATE = uniform(100, 25), uniform(250, 25, first=8.33)
EXAMPLES = {
    "one per second": (CLIP, {"fps": 1}, [0, 25, 50, 75]),
    "the origin is the first frame, not 0": (LATE[:100], {"fps": 1}, [0, 25, 50, 75]),
    "nearly half a frame early": ([0.0, 0.1, 0.2, 0.96, 1.06], {"fps": 1}, [0, 3]),
    "more than half a frame early": ([0.0, 0.1, 0.2, 0.94, 1.06], {"fps": 1}, [0, 4]),
    "a frame that stands for seconds counts once": (
        [*uniform(50, 25), 12.0, 12.04, 13.0], {"fps": 1}, [0, 25, 50, 52],
    ),
    "above the native rate": (uniform(10, 5), {"fps": 1000}, [*range(10)]),
    "native": (CLIP, {"fps": None}, [*range(100)]),
    "native, a window": (
        CLIP, {"fps": None, "start_seconds": 1, "end_seconds": 2}, [*range(25, 50)],
    ),
    "the end is exclusive": (
        LATE, {"fps": 1, "start_seconds": 2, "end_seconds": 5}, [50, 75, 100],
    ),
    "between frames": (LATE, {"fps": 1, "start_seconds": 2.5, "end_seconds": 3.51}, [62, 87]),
    "a tiny window at the start": (CLIP, {"fps": 1, "end_seconds": 0.01}, [0]),
    "after the last frame": (CLIP, {"fps": 1, "start_seconds": 9}, []),
    "native, after the last frame": (CLIP, {"fps": None, "start_seconds": 9}, []),
    "no frames": ([], {"fps": 1}, []),
    "one frame, natively": ([7.5], {"fps": None}, [0]),
    "a huge gap costs nothing": ([0.0, 0.04, 0.08, 1e12], {"fps": 1000.0}, [0, 1, 2, 3]),
    "a huge gap, slower": ([0.0, 0.04, 0.08, 1e12], {"fps": 1.0}, [0, 3]),
    "of equal times the first": ([0.0, 0.0, 1.0, 1.0, 2.0], {"fps": 1}, [0, 2, 4]),
}  # fmt: skip


@pytest.mark.parametrize(("pts", "how", "expected"), EXAMPLES.values(), ids=EXAMPLES)
def test_examples(pts, how, expected):
    chosen = candidate_indices(np.array(pts), **how)
    assert chosen.tolist() == expected
    assert chosen.dtype == np.int64


@pytest.mark.parametrize("fps", [0, -1, math.nan, math.inf])
def test_bad_rate(fps):
    with pytest.raises(ConfigError, match=r"candidate rate is .*must be .* above 0, or 'native'"):
        candidate_indices(uniform(5, 5), fps=fps)


@pytest.mark.parametrize("start", [-0.5, math.nan, math.inf])
def test_bad_start(start):
    with pytest.raises(ConfigError, match="must be 0 s or later"):
        candidate_indices(uniform(5, 5), fps=1, start_seconds=start)


@pytest.mark.parametrize("end", [2.0, 1.0, math.nan])
def test_bad_end(end):
    with pytest.raises(ConfigError, match=r"window 2 s to .* is empty"):
        candidate_indices(uniform(5, 5), fps=1, start_seconds=2, end_seconds=end)


# Ticks of real clocks: milliseconds, 90 kHz, 1/30000.
timelines = st.builds(
    lambda first, steps, rate: (first + np.cumsum([0, *steps])) / rate,
    first=st.integers(-5000, 500_000),
    steps=st.lists(st.integers(0, 4000) | st.sampled_from([1001, 1000, 0]), max_size=60),
    rate=st.sampled_from([1000, 30_000, 90_000, 24_000]),
)
rates = st.sampled_from([0.1, 0.5, 1.0, 2.0, 3.0, 29.97, 7.3]) | st.floats(0.05, 60)


@settings(deadline=None, max_examples=300)
@given(timelines, rates)
@example(np.array([0.0]), 1.0)
@example(np.array([0.0, 0.0]), 1.0)
@example(np.array([0.0, 0.5, 1.0]), 4.0)
def test_agrees_with_the_oracle(pts, fps):
    if (pts[-1] - pts[0]) * fps > 500:
        fps = 500 / (pts[-1] - pts[0])
    assert candidate_indices(pts, fps=fps).tolist() == oracle(pts, fps)


@settings(deadline=None, max_examples=300)
@given(timelines, st.sampled_from([0.5, 1.0, 2.0, 5.0]), st.integers(0, 8), st.integers(1, 9))
def test_windows_agree_with_the_oracle(pts, fps, start, length):
    start, end = start / 4, (start + length) / 4
    got = candidate_indices(pts, fps=fps, start_seconds=start, end_seconds=end)
    assert got.tolist() == oracle(pts, fps, start, end)


@settings(deadline=None, max_examples=300)
@given(timelines, rates, st.sampled_from([0.25, 0.75, 1.0]))
@example(np.array([0.0, 0.5, 0.8]), 2.0, 1.0)
def test_jitter_agrees_with_the_oracle(pts, fps, jitter):
    if (pts[-1] - pts[0]) * fps > 500:
        fps = 500 / (pts[-1] - pts[0])
    got = candidate_indices(pts, fps=fps, jitter=jitter).tolist()
    assert got == oracle(pts, fps, jitter=jitter)


@pytest.mark.parametrize("length", range(1, 60))
def test_with_jitter_every_step_still_gives_a_frame(length):
    pts = uniform(length, 25)
    steps = np.floor((pts[candidate_indices(pts, fps=2, jitter=1.0)] + 0.02) * 2)
    assert steps.tolist() == list(range(math.ceil(length * 2 / 25)))


def test_with_jitter_what_goes_in_step_with_the_candidates_is_seen_from_all_sides():
    for period in (5, 10, 25):  # of 25 frames a second
        sides = [candidate_indices(uniform(500, 25), fps=2, jitter=j) % period for j in (0, 0.75)]
        assert len(set(sides[1])) > 0.7 * period
    assert len(set(candidate_indices(uniform(500, 20), fps=2) % 10)) == 1


@settings(deadline=None)
@given(timelines, rates, st.floats(0, 3), st.none() | st.floats(3.1, 9))
def test_contract(pts, fps, start, end):
    got = candidate_indices(pts, fps=fps, start_seconds=start, end_seconds=end)
    assert (np.diff(got) > 0).all()
    half = frame_seconds(pts) / 2 + SLACK_SECONDS
    assert (pts[got] - pts[0] >= start - half - 1e-9).all()
    assert end is None or (pts[got] - pts[0] < end).all()


@given(
    fps=st.floats(min_value=0, exclude_min=True, allow_infinity=False),
    end=st.none() | st.floats(0.01, 1e300),
)
@example(fps=1e308, end=None)
@example(fps=5e-324, end=1.0)
def test_any_rate_gives_frames_without_a_warning(fps, end):
    pts_seconds = np.arange(40) / 25
    chosen = candidate_indices(pts_seconds, fps=fps, end_seconds=end)
    assert chosen[0] == 0
    if fps >= 50:
        native = candidate_indices(pts_seconds, fps=None, end_seconds=end)
        assert chosen.tolist() == native.tolist()


@given(st.integers(1, 60), st.integers(1, 20))
def test_windows_cover_all_candidates_once_but_for_the_last(count: int, frames: int) -> None:
    groups = windows(count, frames)
    assert groups.shape[1] == frames
    assert set(groups.ravel().tolist()) == set(range(count))
    assert (np.diff(groups[:, 0]) > 0).all()
    assert len(groups) == max(1, -(-count // frames))
    spans = window_spans(np.arange(count) / 2, groups, end_seconds=count / 2)
    assert spans[0, 0] == 0
    assert spans[-1, 1] == count / 2
    assert (spans[:, 0] < spans[:, 1]).all()
    assert (spans[1:, 0] <= spans[:-1, 1]).all(), "no gap"


def test_windows_at_one_instant_still_last() -> None:
    spans = window_spans(np.zeros(4), windows(4, 2), end_seconds=0.0)
    assert (spans[:, 0] < spans[:, 1]).all()
