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


def test_one_per_second_of_a_25_fps_clip():
    assert candidate_indices(uniform(100, 25), fps=1).tolist() == [0, 25, 50, 75]


def test_origin_is_the_first_frame_not_zero():
    shifted = candidate_indices(uniform(100, 25, first=8.333), fps=1)
    assert shifted.tolist() == [0, 25, 50, 75]


def test_2997_does_not_drift():
    pts = np.arange(30_000) * 1001 / 30_000
    chosen = candidate_indices(pts, fps=1)
    seconds = np.arange(len(chosen))
    assert len(chosen) == 1001
    assert np.abs(pts[chosen] - seconds).max() <= 1001 / 30_000 / 2 + 1e-6
    # int(fps) * i, the reference's way, is half a minute off by then.
    assert pts[chosen[1000]] - pts[29 * 1000] > 30


def test_half_a_frame_early_is_taken_and_more_is_not():
    pts = np.array([0.0, 0.1, 0.2, 0.96, 1.06])
    assert frame_seconds(pts) == pytest.approx(0.1)
    assert candidate_indices(pts, fps=1).tolist() == [0, 3]
    assert candidate_indices(np.array([0.0, 0.1, 0.2, 0.94, 1.06]), fps=1).tolist() == [0, 4]


def test_a_frame_that_stands_for_seconds_counts_once():
    pts = np.concatenate([uniform(50, 25), [12.0, 12.04, 13.0]])
    assert candidate_indices(pts, fps=1).tolist() == [0, 25, 50, 52]


def test_rate_above_the_native_one_gives_every_frame_once():
    assert candidate_indices(uniform(10, 5), fps=1000).tolist() == list(range(10))


def test_native_is_every_frame_of_the_window():
    pts = uniform(100, 25)
    assert candidate_indices(pts, fps=None).tolist() == list(range(100))
    window = candidate_indices(pts, fps=None, start_seconds=1, end_seconds=2)
    assert window.tolist() == list(range(25, 50))


def test_window_end_is_exclusive():
    pts = uniform(250, 25)
    assert candidate_indices(pts, fps=1, start_seconds=2, end_seconds=5).tolist() == [50, 75, 100]
    assert candidate_indices(pts, fps=1, start_seconds=2.5, end_seconds=3.51).tolist() == [62, 87]


def test_window_is_counted_from_the_first_frame():
    pts = uniform(250, 25, first=8.33)
    assert candidate_indices(pts, fps=1, start_seconds=2, end_seconds=4).tolist() == [50, 75]


def test_tiny_window_at_the_start_holds_the_first_frame():
    assert candidate_indices(uniform(50, 25), fps=1, end_seconds=0.01).tolist() == [0]


def test_window_after_the_last_frame_is_empty():
    assert candidate_indices(uniform(50, 25), fps=1, start_seconds=9).tolist() == []
    assert candidate_indices(uniform(50, 25), fps=None, start_seconds=9).tolist() == []


def test_no_frames_no_candidates():
    assert candidate_indices(np.empty(0), fps=1).tolist() == []


def test_one_frame():
    for fps in (0.1, 1, 1000, None):
        assert candidate_indices(np.array([7.5]), fps=fps).tolist() == [0]


def test_huge_gap_costs_nothing():
    pts = np.array([0.0, 0.04, 0.08, 1e12])
    assert candidate_indices(pts, fps=1000.0).tolist() == [0, 1, 2, 3]
    assert candidate_indices(pts, fps=1.0).tolist() == [0, 3]


def test_equal_times_keep_the_first():
    assert candidate_indices(np.array([0.0, 0.0, 1.0, 1.0, 2.0]), fps=1).tolist() == [0, 2, 4]


def test_result_is_int64():
    for fps in (1.0, None):
        assert candidate_indices(uniform(5, 5), fps=fps).dtype == np.int64


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
